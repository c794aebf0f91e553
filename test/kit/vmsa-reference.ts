/**
 * A slow, independent model of AArch64 translation with the 4 KiB granule ([DDI0487] D8.2, D8.3), for
 * comparison: recursive, BigInt, one rule a line, sharing nothing with the compiled walker.
 */

export interface StageConfig {
  readonly stage: 1 | 2;
  readonly root: bigint;
  readonly inputBits: number;
  readonly outputBits: number;
  readonly startLevel: number;
  readonly afFault: boolean;
}

export interface Outcome {
  readonly status: number;
  readonly pa: bigint;
  readonly ipa: bigint;
  readonly sizeLg2: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly global: boolean;
  /** On a fault. */
  readonly stage2: boolean;
  readonly klass: 'CD' | 'TTD' | 'IN';
  readonly level: number;
}

type Read = (address: bigint) => bigint | undefined | Outcome;

const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;
const bits = (value: bigint, high: number, low: number): bigint =>
  (value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);

function fault(status: number, level: number, stage: 1 | 2, ipa: bigint, pa = 0n, klass?: 'TTD'): Outcome {
  return {
    status,
    pa,
    ipa,
    sizeLg2: 0,
    readable: false,
    writable: false,
    global: false,
    stage2: stage === 2,
    klass: klass ?? 'IN',
    level,
  };
}

/** One stage; `read` fetches a descriptor, or tells how that failed. */
export function walkStage(config: StageConfig, input: bigint, write: boolean, read: Read): Outcome {
  const { stage, inputBits, outputBits } = config;
  const ipa = stage === 2 ? input : 0n;
  if (input >> BigInt(inputBits) !== 0n) return fault(0x10, config.startLevel, stage, ipa);
  const rootSize = BigInt(2 ** Math.max(inputBits - (39 - 9 * config.startLevel) + 3, 4));
  const lookUp = (table: bigint, level: number, userTable: boolean, writeTable: boolean): Outcome => {
    const low = 39 - 9 * level;
    const high = level === config.startLevel ? inputBits - 1 : low + 8;
    const address = table + 8n * bits(input, high, low);
    const got = read(address);
    if (typeof got === 'object') return got;
    if (got === undefined) return fault(0x0b, level, stage, ipa, address, stage === 1 ? 'TTD' : undefined);
    const kind = Number(got & 3n);
    if (kind === 0 || kind === 2) return fault(0x10, level, stage, ipa);
    if (kind === 3 && level < 3) {
      const next = bits(got, 47, 12) << 12n;
      if (next >> BigInt(outputBits) !== 0n) return fault(0x11, level, stage, ipa);
      return lookUp(next, level + 1, userTable && !bit(got, 61), writeTable && !bit(got, 62));
    }
    if (kind === 1 && (level === 0 || level === 3)) return fault(0x10, level, stage, ipa);
    const base = bits(got, 47, low) << BigInt(low);
    if (base >> BigInt(outputBits) !== 0n) return fault(0x11, level, stage, ipa);
    if (!bit(got, 10) && config.afFault) return fault(0x12, level, stage, ipa);
    const readable = stage === 2 ? bit(got, 6) : bit(got, 6) && userTable;
    const writable = stage === 2 ? bit(got, 7) : readable && !bit(got, 7) && writeTable;
    if (write ? !writable : !readable) return fault(0x13, level, stage, ipa);
    return {
      ...fault(0, level, stage, 0n),
      pa: base + bits(input, low - 1, 0),
      sizeLg2: low,
      readable,
      writable,
      global: stage === 1 && !bit(got, 11),
    };
  };
  return lookUp(config.root - (config.root % rootSize), config.startLevel, true, true);
}

/** Both stages as configured; a missing stage passes addresses through. */
export function translateReference(
  s1: StageConfig | null,
  s2: StageConfig | null,
  input: bigint,
  write: boolean,
  ram: (pa: bigint) => bigint | undefined,
): Outcome {
  if (s1 === null) return { ...walkStage(s2!, input, write, ram), ipa: input };
  const through: Read = (address) => {
    if (s2 === null) return ram(address);
    const inner = walkStage(s2, address, false, ram);
    if (inner.status !== 0) return { ...inner, klass: 'TTD' };
    const word = ram(inner.pa);
    return word ?? fault(0x0b, levelOf(), 1, 0n, inner.pa, 'TTD');
  };
  // The level at which stage 1 stood when its fetch was aborted: counted by the fetches so far.
  let fetches = -1;
  const levelOf = (): number => s1.startLevel + fetches;
  const first = walkStage(s1, input, write, (address) => {
    fetches++;
    return through(address);
  });
  if (first.status !== 0 || s2 === null) return first;
  const second = walkStage(s2, first.pa, write, ram);
  if (second.status !== 0) return second;
  return {
    ...second,
    ipa: first.pa,
    sizeLg2: Math.min(first.sizeLg2, second.sizeLg2),
    readable: first.readable && second.readable,
    writable: first.writable && second.writable,
    global: first.global,
  };
}
