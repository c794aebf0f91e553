/**
 * A slow, independent model of AArch64 translation ([DDI0487] D8.2 to D8.5; [IHI0070] 3.4, 3.9, 7.3), for comparison:
 * recursive, BigInt, one rule a line, sharing nothing with the compiled walker. All granules, both stages,
 * hardware updates (which it makes in the memory it is given), all permissions, Translation Requests.
 */

export interface StageConfig {
  readonly stage: 1 | 2;
  readonly root: bigint;
  readonly inputBits: number;
  readonly outputBits: number;
  readonly startLevel: number;
  readonly afFault: boolean;
  /** 12 unless said; whatever else is not said is off. */
  readonly granuleLg2?: 12 | 14 | 16;
  /** The SMMU has 52-bit addresses. */
  readonly oas52?: boolean;
  readonly ha?: boolean;
  readonly hd?: boolean;
  /** Stage 1 of EL2 without E2H. */
  readonly onePrivilege?: boolean;
  readonly wxn?: boolean;
  readonly pan?: boolean;
  readonly had?: boolean;
  readonly e0pd?: boolean;
  /** Stage 2. */
  readonly ptw?: boolean;
}

export interface Access {
  readonly kind: 'read' | 'write' | 'execute';
  readonly privileged: boolean;
  /** A fetch of a stage-1 descriptor, or its update. */
  readonly table?: boolean;
}

export interface Outcome {
  readonly status: number;
  readonly pa: bigint;
  readonly ipa: bigint;
  readonly sizeLg2: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly executable: boolean;
  readonly global: boolean;
  /** On a fault. */
  readonly stage2: boolean;
  readonly klass: 'CD' | 'TTD' | 'IN';
  readonly level: number;
  readonly tableWrite: boolean;
}

export interface Memory {
  /** undefined outside RAM */
  read(pa: bigint): bigint | undefined;
  write(pa: bigint, value: bigint): void;
}

/** Reaches a stage's descriptors: at PAs, or at IPAs through stage 2. */
interface Tables {
  read(address: bigint): bigint | undefined | Outcome;
  update(address: bigint, value: bigint): Outcome | undefined;
}

const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;
const bits = (value: bigint, high: number, low: number): bigint =>
  (value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);

/** Entries of a contiguous group, by granule and level. */
const GROUP: Record<number, Record<number, number>> = {
  12: { 1: 16, 2: 16, 3: 16 },
  14: { 2: 32, 3: 128 },
  16: { 2: 32, 3: 32 },
};
const BLOCK_LEVELS: Record<number, number[]> = { 12: [1, 2], 14: [2], 16: [2] };

function fault(status: number, level: number, stage: 1 | 2, ipa: bigint, pa = 0n, klass?: 'TTD'): Outcome {
  return {
    status,
    pa,
    ipa,
    sizeLg2: 0,
    readable: false,
    writable: false,
    executable: false,
    global: false,
    stage2: stage === 2,
    klass: klass ?? 'IN',
    level,
    tableWrite: false,
  };
}

interface Hierarchy {
  readonly user: boolean;
  readonly write: boolean;
  readonly userExecute: boolean;
  readonly privilegedExecute: boolean;
}

interface Grants {
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
}

function stage1Grants(config: StageConfig, leaf: bigint, above: Hierarchy, privileged: boolean): Grants {
  const write = !bit(leaf, 7) && above.write;
  let grants: Grants;
  if (config.onePrivilege) {
    grants = { read: true, write, execute: !bit(leaf, 54) && above.userExecute };
  } else {
    const user = bit(leaf, 6) && above.user;
    const userGrants = { read: user, write: user && write, execute: !bit(leaf, 54) && above.userExecute };
    const denied = config.pan === true && user;
    const privilegedGrants = {
      read: !denied,
      write: write && !denied,
      execute: !bit(leaf, 53) && above.privilegedExecute && !userGrants.write,
    };
    grants = privileged ? privilegedGrants : userGrants;
  }
  return config.wxn && grants.write ? { ...grants, execute: false } : grants;
}

const stage2Grants = (leaf: bigint): Grants => ({
  read: bit(leaf, 6),
  write: bit(leaf, 7),
  execute: bit(leaf, 6) && !bit(leaf, 54),
});

/**
 * One stage.
 * @param how    a boolean: unprivileged data, true to write
 * @param where  a function: reads a descriptor, and nothing is updated
 */
export function walkStage(
  config: StageConfig,
  input: bigint,
  how: Access | boolean,
  where: Tables | Tables['read'],
): Outcome {
  const { stage, inputBits, outputBits, granuleLg2 = 12 } = config;
  const access: Access = typeof how === 'object' ? how : { kind: how ? 'write' : 'read', privileged: false };
  const tables = typeof where === 'object' ? where : { read: where, update: () => undefined };
  const ipa = stage === 2 ? input : 0n;
  if (input >> BigInt(inputBits) !== 0n) return fault(0x10, config.startLevel, stage, ipa);
  const stride = granuleLg2 - 3;
  const lowOf = (level: number): number => granuleLg2 + (3 - level) * stride;
  const rootSize = BigInt(2 ** Math.max(inputBits - lowOf(config.startLevel) + 3, 4));
  const long = granuleLg2 === 16 && config.oas52 === true;
  const addressIn = (descriptor: bigint, low: number): bigint => {
    const address = bits(descriptor, 47, low) << BigInt(low);
    return long ? (bits(descriptor, 15, 12) << 48n) | (bits(address, 47, 16) << 16n) : address;
  };
  const hardware = (descriptor: bigint): boolean =>
    config.ha === true && config.hd === true && bit(descriptor, 51);
  const lookUp = (table: bigint, level: number, above: Hierarchy): Outcome => {
    const low = lowOf(level);
    const high = level === config.startLevel ? inputBits - 1 : low + stride - 1;
    const address = table + 8n * bits(input, high, low);
    const got = tables.read(address);
    if (typeof got === 'object') return got;
    if (got === undefined) return fault(0x0b, level, stage, ipa, address, stage === 1 ? 'TTD' : undefined);
    const kind = Number(got & 3n);
    if (kind === 0 || kind === 2) return fault(0x10, level, stage, ipa);
    if (kind === 3 && level < 3) {
      const next = addressIn(got, granuleLg2);
      if (next >> BigInt(outputBits) !== 0n) return fault(0x11, level, stage, ipa);
      return lookUp(next, level + 1, {
        user: above.user && (config.had || !bit(got, 61)),
        write: above.write && (config.had || !bit(got, 62)),
        userExecute: above.userExecute && (config.had || !bit(got, 60)),
        privilegedExecute: above.privilegedExecute && (config.had || !bit(got, 59)),
      });
    }
    const blocks = long ? [1, 2] : BLOCK_LEVELS[granuleLg2]!;
    if (kind === 1 && !blocks.includes(level)) return fault(0x10, level, stage, ipa);
    const base = addressIn(got, low);
    if (base >> BigInt(outputBits) !== 0n) return fault(0x11, level, stage, ipa);
    if (!bit(got, 10) && !config.ha && config.afFault) return fault(0x12, level, stage, ipa);
    const grantsOf = (leaf: bigint): Grants =>
      stage === 1 ? stage1Grants(config, leaf, above, access.privileged) : stage2Grants(leaf);
    const dirtied = stage === 1 ? got & ~(1n << 7n) : got | (1n << 7n);
    const potential = grantsOf(hardware(got) ? dirtied : got);
    // What can be made writable is executable or not as if it were; stage 2 knows no such rule.
    if (!potential[access.kind === 'write' ? 'write' : access.kind]) return fault(0x13, level, stage, ipa);
    if (access.table && config.ptw && bits(got, 5, 4) === 0n) return fault(0x13, level, stage, ipa);
    let final = hardware(got) && access.kind === 'write' ? dirtied : got;
    if (config.ha) final |= 1n << 10n;
    if (final !== got) {
      const failed = tables.update(address, final);
      if (failed !== undefined) return failed;
    }
    let sizeLg2 = low;
    const group = GROUP[granuleLg2]![level];
    if (bit(got, 52) && group !== undefined && !hardware(got)) {
      const groupLg2 = low + Math.log2(group);
      const aligned = bits(base, groupLg2 - 1, low) === bits(input, groupLg2 - 1, low);
      if (aligned && groupLg2 <= inputBits && groupLg2 <= outputBits) sizeLg2 = groupLg2;
    }
    return {
      ...fault(0, level, stage, 0n),
      pa: base + bits(input, low - 1, 0),
      sizeLg2,
      readable: potential.read,
      writable: potential.write && grantsOf(final).write,
      executable: potential.execute,
      global: stage === 1 && !bit(got, 11) && config.onePrivilege !== true,
    };
  };
  return lookUp(config.root - (config.root % rootSize), config.startLevel, {
    user: true,
    write: true,
    userExecute: true,
    privilegedExecute: true,
  });
}

const physical = (memory: Memory): Tables => ({
  read: (address) => memory.read(address),
  update: (address, value) => {
    memory.write(address, value);
    return undefined;
  },
});

/** Both stages as configured; a missing stage passes addresses through. `split`: stage 1 of two alone. */
export function translateReference(
  s1: StageConfig | null,
  s2: StageConfig | null,
  input: bigint,
  access: Access,
  memory: Memory,
  split = false,
): Outcome {
  if (s1 === null) return { ...walkStage(s2!, input, access, physical(memory)), ipa: input };
  if (s1.e0pd && !access.privileged && !s1.onePrivilege) return fault(0x10, 0, 1, 0n);
  // The level at which stage 1 stood when its fetch was aborted: counted by the fetches so far.
  let fetches = -1;
  const through: Tables = {
    read: (address) => {
      fetches++;
      if (s2 === null) return memory.read(address);
      const fetch: Access = { kind: 'read', privileged: false, table: true };
      const inner = walkStage(s2, address, fetch, physical(memory));
      if (inner.status !== 0) return { ...inner, klass: 'TTD' };
      return memory.read(inner.pa) ?? fault(0x0b, s1.startLevel + fetches, 1, 0n, inner.pa, 'TTD');
    },
    update: (address, value) => {
      if (s2 === null) {
        memory.write(address, value);
        return undefined;
      }
      const store: Access = { kind: 'write', privileged: false, table: true };
      const inner = walkStage(s2, address, store, physical(memory));
      if (inner.status !== 0) return { ...inner, klass: 'TTD', tableWrite: true };
      memory.write(inner.pa, value);
      return undefined;
    },
  };
  const first = walkStage(s1, input, access, through);
  if (first.status !== 0 || s2 === null) return first;
  if (split) return { ...first, ipa: first.pa };
  const second = walkStage(s2, first.pa, access, physical(memory));
  if (second.status !== 0) return second;
  return {
    ...second,
    ipa: first.pa,
    sizeLg2: Math.min(first.sizeLg2, second.sizeLg2),
    readable: first.readable && second.readable,
    writable: first.writable && second.writable,
    executable: first.executable && second.executable,
    global: first.global,
  };
}

/** A Translation Request: for writing if that was asked and is permitted, else for reading. */
export function requestReference(
  s1: StageConfig | null,
  s2: StageConfig | null,
  input: bigint,
  write: boolean,
  privileged: boolean,
  memory: Memory,
  split: boolean,
): Outcome {
  if (write) {
    const both = translateReference(s1, s2, input, { kind: 'write', privileged }, memory, split);
    if (both.status !== 0x13) return both;
  }
  return translateReference(s1, s2, input, { kind: 'read', privileged }, memory, split);
}
