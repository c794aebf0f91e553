/**
 * Random tables of every geometry against the reference: RAM is filled with descriptors that point into RAM, at
 * themselves, past its end, or are noise, so most walks end in some fault and all of them end. After each
 * context the whole RAM must be what the reference made of its own copy: hardware updates, and nothing else.
 */
import test from 'ava';
import { KernelBench, RAM_PA } from '../../kit/kernel-bench.js';
import { Random, SEED } from '../../kit/random.js';
import {
  type Memory,
  type Outcome,
  requestReference,
  type StageConfig,
  translateReference,
} from '../../kit/vmsa-reference.js';

const RAM_BYTES = 2 << 20;
/** 4 KiB frames of descriptors; the stage-2 identity map follows. */
const FRAMES = 96;
const IDENTITY = RAM_PA + 0x10_0000n;
const CLASS = { CD: 0, TTD: 1, IN: 2 };
const KIND = { s1: 2, s2: 3, nested: 4, el2: 5 };
type Kind = keyof typeof KIND;
const [WRITE, INSTRUCTION, PRIVILEGED, ATS] = [1, 2, 4, 16];
/** StreamContext.flags, as unit-layout.ts numbers them. */
const FLAG = {
  s1AfFault: 0,
  s2AfFault: 1,
  s1Ha: 6,
  s1Hd: 7,
  s2Ha: 8,
  s2Hd: 9,
  s1chk: 13,
  wxn: 14,
  pan: 16,
  had: 17,
  e0pd: 18,
  e2h: 19,
  ptw: 20,
  oas52: 21,
};
const PRIVCFG = 24;
const INSTCFG = 26;

function descriptor(random: Random): bigint {
  const roll = random.below(100);
  if (roll < 2) return (1n << 64n) - 1n;
  if (roll < 4) return random.big(64);
  if (roll < 8) return random.big(64) & ~1n;
  const frame = RAM_PA + BigInt(random.below(FRAMES)) * 4096n;
  const address = roll < 12 ? random.big(48) & ~0xfffn : roll < 14 ? RAM_PA + BigInt(RAM_BYTES) : frame;
  const type = random.chance(0.8) ? 3n : 1n;
  const af = random.chance(0.85) ? 1n << 10n : 0n;
  // Two in three grant everything to either stage: AP 01 and S2AP 11 disagree on bit 7.
  const ap = BigInt(random.pick([1, 3, 3, 1, random.below(4)])) << 6n;
  const ng = random.chance(0.8) ? 1n << 11n : 0n;
  const memAttr = random.chance(0.9) ? 0xfn << 2n : random.big(4) << 2n;
  const upper = random.chance(0.4) ? random.big(4) << 51n : 0n;
  const table = random.chance(0.1) ? random.big(4) << 59n : 0n;
  return address | type | af | ap | ng | memAttr | upper | table;
}

const shiftOf = (granuleLg2: number, level: number): number => granuleLg2 + (granuleLg2 - 3) * (3 - level);

function stageConfig(random: Random, stage: 1 | 2, httu: boolean, oas52: boolean): StageConfig {
  const granuleLg2 = random.pick([12, 14, 16] as const);
  const startLevel = random.below(stage === 2 ? 4 : 3) || (granuleLg2 === 16 ? 1 : 0);
  const low = shiftOf(granuleLg2, startLevel);
  // Concatenation: up to 16 tables at stage 2.
  const top = Math.min(low + granuleLg2 - 3 + (stage === 2 ? 4 : 0), granuleLg2 === 16 && oas52 ? 52 : 48);
  return {
    stage,
    granuleLg2,
    startLevel,
    oas52,
    inputBits: Math.max(25, low + 1 + random.below(top - low)),
    outputBits: random.pick([32, 36, 40, 48, 48, oas52 ? 52 : 48]),
    root: RAM_PA + BigInt(random.below(FRAMES) * 4096) + BigInt(random.below(2) * 64),
    afFault: random.chance(0.7),
    ha: httu && random.chance(0.8),
    hd: httu && random.chance(0.8),
    wxn: random.chance(0.2),
    pan: random.chance(0.2),
    had: random.chance(0.2),
    e0pd: random.chance(0.03),
    ptw: random.chance(0.3),
  };
}

const flag = (on: boolean | undefined, n: number): number => (on === true ? 1 << n : 0);

/** The kernel's bench, and a copy of its RAM for the reference. */
class Twin implements Memory {
  readonly bench = new KernelBench({ ramBytes: RAM_BYTES, entries: 4 });
  readonly #ram: Buffer;
  readonly #copy = Buffer.alloc(RAM_BYTES);

  constructor() {
    const { memory } = this.bench;
    this.#ram = Buffer.from(memory.u32.buffer, memory.linearOf(Number(RAM_PA), 8), RAM_BYTES);
  }

  copy(): void {
    this.#ram.copy(this.#copy);
  }

  read(pa: bigint): bigint | undefined {
    const offset = pa - RAM_PA;
    return offset >= 0n && offset <= BigInt(RAM_BYTES - 8)
      ? this.#copy.readBigUInt64LE(Number(offset))
      : undefined;
  }

  write(pa: bigint, value: bigint): void {
    this.#copy.writeBigUInt64LE(value, Number(pa - RAM_PA));
  }

  differs(): boolean {
    return this.#ram.compare(this.#copy) !== 0;
  }
}

interface Plan {
  readonly kind: Kind;
  readonly s1: StageConfig | null;
  readonly s2: StageConfig | null;
  readonly privCfg: number;
  readonly instCfg: number;
  readonly split: boolean;
}

function plan(random: Random, kind: Kind, httu: boolean): Plan {
  const oas52 = random.chance(0.5);
  const onePrivilege = kind === 'el2' && random.chance(0.5);
  const s1 = kind === 's2' ? null : { ...stageConfig(random, 1, httu, oas52), onePrivilege };
  let s2 = kind === 's2' || kind === 'nested' ? stageConfig(random, 2, httu, oas52) : null;
  // Nested walks reach anything only when stage 2 maps the tables' IPAs: most of them get an identity map.
  if (s1 !== null && s2 !== null && random.chance(0.8))
    s2 = { ...s2, granuleLg2: 12, inputBits: 32, startLevel: 1, outputBits: 48, root: IDENTITY };
  return {
    kind,
    s1,
    s2,
    privCfg: random.chance(0.7) ? 0 : random.below(4),
    instCfg: random.chance(0.7) ? 0 : random.below(4),
    split: random.chance(0.3),
  };
}

function writeContext(bench: KernelBench, { kind, s1, s2, privCfg, instCfg, split }: Plan): number {
  const flags =
    (s1 === null
      ? 0
      : flag(s1.afFault, FLAG.s1AfFault) |
        flag(s1.ha, FLAG.s1Ha) |
        flag(s1.hd, FLAG.s1Hd) |
        flag(s1.wxn, FLAG.wxn) |
        flag(s1.pan, FLAG.pan) |
        flag(s1.had, FLAG.had) |
        flag(s1.e0pd, FLAG.e0pd) |
        flag(kind === 'el2' && !s1.onePrivilege, FLAG.e2h)) |
    (s2 === null
      ? 0
      : flag(s2.afFault, FLAG.s2AfFault) |
        flag(s2.ha, FLAG.s2Ha) |
        flag(s2.hd, FLAG.s2Hd) |
        flag(s2.ptw, FLAG.ptw)) |
    flag((s1 ?? s2!).oas52, FLAG.oas52) |
    flag(split, FLAG.s1chk) |
    (privCfg << PRIVCFG) |
    (instCfg << INSTCFG);
  return bench.context(5, {
    kind: KIND[kind],
    tag: kind === 'el2' ? 0x7_0000 : 1,
    flags,
    ...(s1 && {
      s1Root: s1.root,
      s1InputBits: s1.inputBits,
      s1OutputBits: s1.outputBits,
      s1StartLevel: s1.startLevel,
      s1GranuleLg2: s1.granuleLg2,
    }),
    ...(s2 && {
      s2Root: s2.root,
      s2InputBits: s2.inputBits,
      s2OutputBits: s2.outputBits,
      s2StartLevel: s2.startLevel,
      s2GranuleLg2: s2.granuleLg2,
    }),
  });
}

function expected(p: Plan, iova: bigint, flags: number, memory: Memory): Outcome {
  const privileged = p.privCfg >= 2 ? p.privCfg === 3 : (flags & PRIVILEGED) !== 0;
  const instruction = p.instCfg >= 2 ? p.instCfg === 3 : (flags & INSTRUCTION) !== 0;
  const write = (flags & WRITE) !== 0;
  const { s1, s2 } = p;
  if ((flags & ATS) !== 0)
    return requestReference(s1, s2, iova, write, privileged, memory, p.split && p.kind === 'nested');
  const kind = write ? 'write' : instruction ? 'execute' : 'read';
  return translateReference(s1, s2, iova, { kind, privileged }, memory);
}

/** What a successful Translation Request says in `fault`. */
function granted(p: Plan, flags: number, want: Outcome): number {
  const instruction = p.instCfg >= 2 ? p.instCfg === 3 : (flags & INSTRUCTION) !== 0;
  return (
    (want.readable ? 2 : 0) |
    (want.writable ? 4 : 0) |
    (want.global ? 8 : 0) |
    (want.executable && instruction ? 16 : 0)
  );
}

for (const kind of ['s1', 's2', 'nested', 'el2'] as const) {
  test(`walk: random and hostile tables translate as the reference says (${kind})`, (t) => {
    t.log(`SEED=${SEED}`);
    const random = new Random(SEED ^ KIND[kind]);
    const twin = new Twin();
    const { bench } = twin;
    const seen = new Map<string, number>();
    const count = (what: string): void => {
      seen.set(what, (seen.get(what) ?? 0) + 1);
    };
    for (let round = 0; round < 20; round++) {
      // Some frames dense with tables, some sparse.
      for (let i = 0; i < FRAMES * 512; i++)
        bench.setRam(RAM_PA + BigInt(i) * 8n, random.chance(0.97) ? descriptor(random) : 0n);
      for (let c = 0; c < 16; c++) {
        // The identity map: sometimes read-only, not yet accessed, or clean.
        const leaf = 0x4fdn & ~(random.chance(0.2) ? 1n << 10n : 0n) & ~(random.chance(0.3) ? 1n << 7n : 0n);
        const dbm = random.chance(0.5) ? 1n << 51n : 0n;
        for (let g = 0n; g < 4n; g++) bench.setRam(IDENTITY + g * 8n, (g << 30n) | leaf | dbm);
        const httu = c % 2 === 1;
        const p = plan(random, kind, httu);
        const context = writeContext(bench, p);
        twin.copy();
        const inputs: [bigint, number][] = [];
        for (let i = 0; i < 64; i++) {
          const width = (p.s1 ?? p.s2!).inputBits + (random.chance(0.03) ? 3 : 0);
          const rare = random.chance(0.3)
            ? random.pick([INSTRUCTION, PRIVILEGED, 6, ATS, ATS | 2, ATS | 4])
            : 0;
          inputs.push([random.big(width), rare | (random.chance(0.5) ? WRITE : 0)]);
        }
        const asked = (i: number): number => bench.scratch + i * 64;
        inputs.forEach(([iova, flags], i) => {
          bench.ask(asked(i), iova, flags);
        });
        const { kernel, unit, iotlb } = bench;
        kernel.iotlbInvalidateAll(unit, iotlb);
        // As one batch: the walk cache must not change any answer. Updates are compared one walk at a time.
        let faults = httu ? 0 : kernel.translateBatch(unit, context, iotlb, bench.scratch, inputs.length);
        const walked: [bigint, bigint, number][] = [];
        for (const [i, [iova, flags]] of inputs.entries()) {
          if (httu) {
            kernel.iotlbInvalidateAll(unit, iotlb);
            if (kernel.translate(unit, context, iotlb, asked(i)) !== 0) faults++;
          }
          const want = expected(p, iova, flags, twin);
          const got = bench.result(asked(i));
          count(`0x${want.status.toString(16)}`);
          if (want.status === 0) count(`2^${want.sizeLg2}`);
          if (want.tableWrite) count('table write refused');
          const where = (): string =>
            `${iova.toString(16)} flags ${flags} ${show(p)} got ${show(got)} want ${show(want)}`;
          if (got.source === 2) {
            // A second visit to a page, or to a contiguous group whose members need not agree.
            t.true(
              walked.some(
                ([from, to, sizeLg2]) =>
                  sizeLg2 === got.sizeLg2 &&
                  (from ^ iova) >> BigInt(sizeLg2) === 0n &&
                  got.pa - to === iova - from,
              ),
              where(),
            );
            continue;
          }
          if (got.status !== 0) faults--;
          else walked.push([iova, got.pa, got.sizeLg2]);
          let fault = 0;
          if (want.status !== 0)
            fault = (want.stage2 ? 1 : 0) | (CLASS[want.klass] << 1) | (want.tableWrite ? 8 : 0);
          else if ((flags & ATS) !== 0) fault = granted(p, flags, want);
          if (
            got.status !== want.status ||
            got.pa !== want.pa ||
            got.ipa !== want.ipa ||
            got.sizeLg2 !== want.sizeLg2 ||
            got.fault !== fault ||
            (want.status !== 0 && got.level !== want.level)
          ) {
            t.fail(where());
            return;
          }
        }
        t.is(faults, 0, 'the number of faults');
        if (twin.differs()) {
          t.fail(`RAM differs after ${show(p)}`);
          return;
        }
      }
    }
    t.log(
      [...seen]
        .toSorted()
        .map(([what, n]) => `${what}: ${n}`)
        .join(', '),
    );
    for (const status of ['0x0', '0xb', '0x10', '0x11', '0x12', '0x13'])
      t.true((seen.get(status) ?? 0) > 20, `status ${status}`);
    if (kind === 'nested') t.true((seen.get('table write refused') ?? 0) > 20);
  });
}

const BATCH = 200;

/** Requests of which many are for a page, or a table, that others of the batch are for as well. */
function neighbours(random: Random, p: Plan): [bigint, number][] {
  const width = (p.s1 ?? p.s2!).inputBits;
  const bases = Array.from({ length: 12 }, () => random.big(width));
  return Array.from({ length: 1 + random.below(BATCH) }, () => {
    const rare = random.chance(0.15) ? random.pick([INSTRUCTION, PRIVILEGED, ATS, ATS | 2]) : 0;
    const iova =
      random.pick(bases) ^ random.big(random.pick([3, 14, 18, 22, random.chance(0.1) ? width : 24]));
    return [iova, rare | (random.chance(0.4) ? WRITE : 0)];
  });
}

for (const kind of ['s1', 's2', 'nested', 'el2'] as const) {
  test(`walk: a batch gives the answers and the updates of its requests one by one (${kind})`, (t) => {
    t.log(`SEED=${SEED}`);
    const random = new Random(SEED ^ (KIND[kind] << 8));
    // With IOTLBs so small that a batch pushes its own entries out, and large enough for all of it.
    for (const entries of [4, 1024]) {
      const batch = new KernelBench({ ramBytes: RAM_BYTES, entries });
      const single = new KernelBench({ ramBytes: RAM_BYTES, entries });
      const ram = [batch, single].map(({ memory }) =>
        Buffer.from(memory.u32.buffer, memory.linearOf(Number(RAM_PA), 8), RAM_BYTES),
      );
      let answered = 0;
      let updated = 0;
      for (let c = 0; c < 120; c++) {
        if (c % 20 === 0) {
          const rate = random.pick([0.97, 0.999]);
          for (let i = 0; i < FRAMES * 512; i++)
            batch.setRam(RAM_PA + BigInt(i) * 8n, random.chance(rate) ? descriptor(random) : 0n);
        }
        const dirty = random.chance(0.5) ? 1n << 51n : 0n;
        for (let g = 0n; g < 4n; g++) batch.setRam(IDENTITY + g * 8n, (g << 30n) | 0x47dn | dirty);
        const p = plan(random, kind, c % 2 === 1);
        // A word that is a leaf of either stage, and updated by one, may be read by another walk before or after.
        if (kind === 'nested' && c % 2 === 1 && p.s2!.root !== IDENTITY) continue;
        ram[0]!.copy(ram[1]!);
        const before = Buffer.from(ram[0]!);
        const inputs = neighbours(random, p);
        const [context, singleContext] = [writeContext(batch, p), writeContext(single, p)];
        for (const { kernel, unit, iotlb } of [batch, single]) kernel.iotlbInvalidateAll(unit, iotlb);
        for (const [i, [iova, flags]] of inputs.entries()) batch.ask(batch.scratch + i * 64, iova, flags);
        const faults = batch.kernel.translateBatch(
          batch.unit,
          context,
          batch.iotlb,
          batch.scratch,
          inputs.length,
        );
        let want = 0;
        for (const [i, [iova, flags]] of inputs.entries()) {
          single.ask(single.scratch, iova, flags);
          if (single.kernel.translate(single.unit, singleContext, single.iotlb, single.scratch) !== 0) want++;
          else answered++;
          // Whether it was the IOTLB that knew is left open where permissions changed within the batch, and where entries
          // push each other out: walks in lockstep fill it in another order than one after the other.
          const told = (bench: KernelBench, xlat: number): string => {
            const { fillSeq, source, ...answer } = bench.result(xlat);
            return show(c % 2 === 1 || entries === 4 ? answer : { ...answer, source });
          };
          const [got, alone] = [told(batch, batch.scratch + i * 64), told(single, single.scratch)];
          if (got !== alone) {
            t.fail(`${i}: ${iova.toString(16)} flags ${flags} ${show(p)} got ${got}, alone ${alone}`);
            return;
          }
        }
        t.is(faults, want, 'the number of faults');
        t.true(ram[0]!.equals(ram[1]!), 'the updates');
        if (!ram[0]!.equals(before)) updated++;
      }
      t.log(`${answered} answered, updates in ${updated} batches`);
      t.true(answered > 200);
      t.true(updated > 0);
    }
  });
}

const show = (value: object): string =>
  JSON.stringify(value, (_key, v: unknown) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v));
