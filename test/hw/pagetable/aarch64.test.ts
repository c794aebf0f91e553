import test, { type ExecutionContext } from 'ava';
import { PageTable, type TableFrames } from '../../../hw/pagetable/aarch64.js';
import { PAGE_TABLE_BYTES } from '../../../hw/pagetable/page-table-layout.js';
import { KernelBench } from '../../kit/kernel-bench.js';
import { Random, SEED } from '../../kit/random.js';
import { type StageConfig, walkStage } from '../../kit/vmsa-reference.js';

const RAM_PFN = 0x80000;
const ENOMEM = 12;
const EFAULT = 14;
const EEXIST = 17;
const EINVAL = 22;
const ERANGE = 34;
const GIB = 2 ** 18;
const MIB2 = 512;

/** Frames out of RAM from frame 16 on; dirty on purpose, as an allocator's frames are. */
class Frames implements TableFrames {
  readonly #idle: number[] = [];
  readonly #bench: KernelBench;
  used = 0;
  constructor(bench: KernelBench, count: number) {
    this.#bench = bench;
    for (let i = 0; i < count; i++) this.#idle.push(RAM_PFN + 16 + i);
  }
  alloc(): number {
    const pfn = this.#idle.pop();
    if (pfn === undefined) return -ENOMEM;
    this.used++;
    const linear = this.#bench.memory.ram.linear + (pfn - RAM_PFN) * 4096;
    this.#bench.memory.u8.fill(0xff, linear, linear + 4096);
    return pfn;
  }
  free(pfn: number): void {
    if (this.#idle.includes(pfn)) throw new Error(`frame ${pfn} freed twice`);
    this.#idle.push(pfn);
    this.used--;
  }
}

interface Setup {
  bench: KernelBench;
  table: PageTable;
  frames: Frames;
  config: StageConfig;
}

function setup(stage: 1 | 2, inputBits: number, startLevel: number, count = 300): Setup {
  const bench = new KernelBench({ ramBytes: 2 << 20 });
  const frames = new Frames(bench, count);
  const root = RAM_PFN * 4096;
  const config = { stage, inputBits, outputBits: 48, startLevel, root: BigInt(root), afFault: true };
  const table = new PageTable({
    memory: bench.memory,
    kernel: bench.kernel,
    descriptor: bench.tables,
    stage,
    inputBits,
    outputBits: 48,
    startLevel,
    root,
    frames,
  });
  return { bench, table, frames, config };
}

/** What hardware makes of a page: pfn and size, by the reference walk of real memory. */
function walk(
  { bench, config }: Setup,
  page: number,
  write = false,
): { pfn: number; sizeLg2: number } | number {
  const got = walkStage(config, BigInt(page) << 12n, write, (pa) => bench.ram(pa));
  return got.status === 0 ? { pfn: Number(got.pa >> 12n), sizeLg2: got.sizeLg2 } : got.status;
}

test('map: the largest leaf that fits is used, and hardware finds every page', (t) => {
  const s = setup(2, 48, 0);
  t.is(s.table.map(GIB - MIB2 - 1, 0x10_0000 + GIB - MIB2 - 1, 1 + MIB2 + GIB + MIB2 + 1, 3), 0);
  t.deepEqual(walk(s, GIB - MIB2 - 1), { pfn: 0x10_0000 + GIB - MIB2 - 1, sizeLg2: 12 });
  t.deepEqual(walk(s, GIB - MIB2 + 7), { pfn: 0x10_0000 + GIB - MIB2 + 7, sizeLg2: 21 });
  t.deepEqual(walk(s, GIB + 5), { pfn: 0x10_0000 + GIB + 5, sizeLg2: 30 });
  t.deepEqual(walk(s, 2 * GIB + 511), { pfn: 0x10_0000 + 2 * GIB + 511, sizeLg2: 21 });
  t.deepEqual(walk(s, 2 * GIB + 512), { pfn: 0x10_0000 + 2 * GIB + 512, sizeLg2: 12 });
  t.is(walk(s, 2 * GIB + 513), 0x10);
  t.is(s.table.lookup(GIB + 5), 0x10_0000 + GIB + 5);
  t.is(s.table.foundLg2, 30);
});

test('map: an address that is not aligned like the frame gets 4 KiB leaves only', (t) => {
  const s = setup(1, 48, 0);
  t.is(s.table.map(MIB2, MIB2 + 1, MIB2 * 2, 3), 0);
  t.deepEqual(walk(s, MIB2 + 9), { pfn: MIB2 + 10, sizeLg2: 12 });
});

for (const stage of [1, 2] as const) {
  test(`map: protections of stage ${stage} are what hardware enforces`, (t) => {
    const s = setup(stage, 48, 0);
    t.is(s.table.map(10, 100, 1, 1), 0);
    t.is(s.table.map(11, 101, 1, 2), 0);
    t.is(s.table.map(12, 102, 1, 3), 0);
    t.deepEqual(walk(s, 10), { pfn: 100, sizeLg2: 12 });
    t.is(walk(s, 10, true), 0x13);
    t.deepEqual(walk(s, 11, true), { pfn: 101, sizeLg2: 12 });
    // Stage 1 has no write-only.
    t.deepEqual(walk(s, 11), stage === 2 ? 0x13 : { pfn: 101, sizeLg2: 12 });
    t.deepEqual(walk(s, 12, true), { pfn: 102, sizeLg2: 12 });
    s.table.lookup(10);
    t.is(s.table.foundProt, 1);
    s.table.lookup(12);
    t.is(s.table.foundProt, 3);
  });
}

test('map: attributes are write-back, inner shareable, accessed (and not global in stage 1)', (t) => {
  for (const [stage, attributes] of [
    [1, 0xf43n],
    [2, 0x7ffn],
  ] as const) {
    const s = setup(stage, 30, 2, 1);
    t.is(s.table.map(5, 0x321, 1, 3), 0);
    const leafTable = s.bench.ram(s.config.root)! & ~0xfffn;
    t.is(s.bench.ram(leafTable + 40n), (0x321n << 12n) | attributes);
  }
});

test('map: a page that is mapped is EEXIST, and nothing changes', (t) => {
  const s = setup(2, 48, 0);
  t.is(s.table.map(700, 1, 1, 3), 0);
  t.is(s.table.map(400, 1000, 600, 3), -EEXIST);
  t.is(s.table.lookup(700), 1);
  for (const page of [400, 511, 512, 699, 701]) t.is(s.table.lookup(page), -1);
  t.is(s.table.map(GIB, GIB, GIB, 3), 0);
  t.is(s.table.map(GIB + 3, 1, 1, 3), -EEXIST);
  t.is(s.table.map(0, 0, GIB, 3), -EEXIST);
});

test('map: no frames is ENOMEM, what was mapped is taken back, and the pool is no leak', (t) => {
  for (let have = 0; have < 9; have++) {
    const s = setup(2, 48, 0, have);
    // Needs three tables for the first 4 KiB leaves, and one more for each further 2 MiB.
    const status = s.table.map(1, 2, 512 * 5, 3);
    t.is(status, have < 8 ? -ENOMEM : 0, `${have} frames`);
    if (status !== 0) for (let page = 0; page < 512 * 6; page += 97) t.is(s.table.lookup(page), -1);
    s.table.destroy();
    t.is(s.frames.used, 0);
  }
});

test('map, unmap: out of the input or output range is ERANGE', (t) => {
  const s = setup(2, 40, 1);
  t.is(s.table.map(2 ** 28, 0, 1, 3), -ERANGE);
  t.is(s.table.map(2 ** 28 - 1, 0, 2, 3), -ERANGE);
  t.is(s.table.map(0, 2 ** 36, 1, 3), -ERANGE);
  t.is(s.table.map(0, 0, 0, 3), -ERANGE);
  t.is(s.table.unmap(2 ** 28 - 1, 2), -ERANGE);
  t.is(s.table.lookup(2 ** 28), -1);
  t.is(s.table.map(2 ** 28 - 1, 7, 1, 3), 0);
  t.is(s.table.lookup(2 ** 28 - 1), 7);
});

test('unmap: a range that cuts a block is EINVAL, and nothing changes', (t) => {
  const s = setup(2, 48, 0);
  t.is(s.table.map(0, 0, 2 * MIB2, 3), 0);
  t.is(s.table.unmap(1, MIB2), -EINVAL);
  t.is(s.table.unmap(0, MIB2 + 1), -EINVAL);
  t.is(s.table.lookup(MIB2 - 1), MIB2 - 1);
  t.is(s.table.unmap(MIB2, MIB2), MIB2);
  t.is(s.table.lookup(MIB2), -1);
  t.is(s.table.lookup(0), 0);
});

test('unmap: tables wholly in the range are unlinked and kept until released', (t) => {
  const s = setup(2, 48, 0);
  t.is(s.table.map(0, 1, 3 * MIB2, 3), 0);
  const before = s.frames.used;
  t.is(s.table.unmap(1, 3 * MIB2 - 1), 3 * MIB2 - 1);
  t.is(s.table.freedTables, 2);
  t.is(s.frames.used, before);
  s.table.releaseFreed();
  t.is(s.frames.used, before - 2);
  t.is(s.table.lookup(0), 1);
  t.is(s.table.lookup(1), -1);
  t.is(s.table.unmap(0, 3 * MIB2), 1);
});

test('unmap: more tables than the freed list holds are all unlinked', (t) => {
  const s = setup(2, 48, 0, 480);
  for (let i = 0; i < 200; i++) t.is(s.table.map(i * MIB2, 1, 1, 3), 0);
  for (let i = 0; i < 130; i++) t.is(s.table.map(GIB + i * MIB2, 1, 1, 3), 0);
  t.is(s.table.unmap(0, 2 * GIB), 330);
  // 330 last-level tables, and the two above them; the one at level 1 spans more than the range.
  t.is(s.table.freedTables, 332);
  s.table.destroy();
  t.is(s.frames.used, 0);
});

for (const [bits, level] of [
  [40, 1],
  [43, 1],
  [34, 2],
  [48, 0],
  [32, 1],
] as const)
  test(`map: stage 2 of ${bits} bits starting at level ${level} concatenates its roots`, (t) => {
    const s = setup(2, bits, level);
    const last = 2 ** (bits - 12) - 1;
    t.is(s.table.map(last, 77, 1, 3), 0);
    t.deepEqual(walk(s, last), { pfn: 77, sizeLg2: 12 });
    t.is(s.table.unmap(0, last + 1), 1);
    t.is(walk(s, last), 0x10);
  });

test('map: a guest edits tables in its own RAM by intermediate address', (t) => {
  const bench = new KernelBench({ ramBytes: 2 << 20 });
  // Guest RAM: IPA 0x4000_0000 lies 1 MiB into the machine's RAM.
  const linear = bench.memory.ram.linear + (1 << 20);
  const ipaFrames = [0x40010, 0x40011];
  const at = (frames: number[]): PageTable =>
    new PageTable({
      memory: bench.memory,
      kernel: bench.kernel,
      descriptor: bench.tables + PAGE_TABLE_BYTES,
      stage: 1,
      inputBits: 39,
      outputBits: 40,
      startLevel: 1,
      root: 0x4000_0000,
      window: { base: 0x4000_0000, linear, bytes: 1 << 20 },
      frames: { alloc: () => frames.pop() ?? -ENOMEM, free: () => undefined },
    });
  const table = at(ipaFrames);
  t.is(table.map(5, 0x123, 1, 3), 0);
  t.is(table.lookup(5), 0x123);
  const config = {
    stage: 1,
    root: 0x4000_0000n,
    inputBits: 39,
    outputBits: 40,
    startLevel: 1,
    afFault: true,
  } as const;
  const read = (ipa: bigint): bigint | undefined => bench.ram(ipa - 0x4000_0000n + 0x8010_0000n);
  t.is(walkStage(config, 5n << 12n, true, read).pa, 0x123n << 12n);
  // The guest scribbles: its table now points out of its RAM, and the editor must not follow.
  bench.setRam(0x8010_0000n, 0x9000_0003n);
  t.is(table.lookup(5), -1);
  t.is(table.map(6, 1, 1, 3), -EFAULT);
  t.is(table.unmap(5, 1), -EFAULT);
  bench.setRam(0x8010_0000n, 0n);
  t.is(at([0x90000]).map(6, 1, 1, 3), -EFAULT);
});

test('unmap: a table that points to itself ends', (t) => {
  const s = setup(2, 48, 0);
  for (let i = 0n; i < 512n; i++) s.bench.setRam(s.config.root + i * 8n, s.config.root | 3n);
  t.true(s.table.unmap(0, 2 ** 36) >= 0);
  t.is(s.bench.ram(s.config.root), 0n);
  t.is(s.bench.ram(s.config.root + 4088n), 0n);
});

test('map, unmap and lookup: random operations agree with a map of pages, and with hardware', (t) => {
  t.log(`SEED=${SEED}`);
  for (const stage of [1, 2] as const) {
    const random = new Random(SEED + stage);
    const s = setup(stage, 39, 1, 400);
    const pages = new Map<number, { pfn: number; prot: number; block: number }>();
    const space = 8 * MIB2;
    for (let step = 0; step < 700; step++) {
      const big = random.chance(0.3);
      const first = big ? random.below(8) * MIB2 : random.below(space);
      const count = Math.min(
        space - first,
        big ? random.below(3) * MIB2 + MIB2 : random.below(random.pick([4, 1200])) + 1,
      );
      if (random.chance(0.5)) mapOne(t, s, pages, random, first, count);
      else unmapOne(t, s, pages, first, count);
      for (let i = 0; i < 12; i++) check(t, s, pages, random.below(space), stage);
      if (random.chance(0.1)) s.table.releaseFreed();
    }
    for (let page = 0; page < space; page++) check(t, s, pages, page, stage);
    s.table.destroy();
    t.is(s.frames.used, 0);
  }
});

type Pages = Map<number, { pfn: number; prot: number; block: number }>;

function mapOne(
  t: ExecutionContext,
  s: Setup,
  pages: Pages,
  random: Random,
  first: number,
  count: number,
): void {
  const pfn = random.chance(0.5) ? first + MIB2 * random.below(100) : random.below(2 ** 27);
  const prot = random.pick([1, 3]);
  let taken = false;
  for (let i = 0; i < count; i++) taken ||= pages.has(first + i);
  t.is(s.table.map(first, pfn, count, prot), taken ? -EEXIST : 0);
  if (taken) return;
  for (let i = 0; i < count; i++) {
    const size = s.table.lookup(first + i) >= 0 ? 2 ** (s.table.foundLg2 - 12) : 0;
    pages.set(first + i, { pfn: pfn + i, prot, block: size });
  }
}

function unmapOne(t: ExecutionContext, s: Setup, pages: Pages, first: number, count: number): void {
  const cutAt = (page: number, edge: number): boolean => {
    const found = pages.get(page);
    return found !== undefined && edge % found.block !== 0;
  };
  const got = s.table.unmap(first, count);
  if (cutAt(first, first) || cutAt(first + count - 1, first + count)) {
    t.is(got, -EINVAL);
    return;
  }
  let mapped = 0;
  for (let i = 0; i < count; i++) if (pages.delete(first + i)) mapped++;
  t.is(got, mapped);
}

function check(t: ExecutionContext, s: Setup, pages: Pages, page: number, stage: number): void {
  const want = pages.get(page);
  const found = s.table.lookup(page);
  const hardware = walk(s, page);
  if (want === undefined) {
    if (found !== -1 || hardware !== 0x10)
      t.fail(`stage ${stage} page ${page}: ${found}, hardware ${JSON.stringify(hardware)}`);
    return;
  }
  if (
    found !== want.pfn ||
    s.table.foundProt !== want.prot ||
    typeof hardware === 'number' ||
    hardware.pfn !== want.pfn
  )
    t.fail(
      `stage ${stage} page ${page}: ${found}, hardware ${JSON.stringify(hardware)}, want ${JSON.stringify(want)}`,
    );
}
