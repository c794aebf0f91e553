/** The two variants of the compiled kernel: which one a thread gets, and that both do the same. */
import test from 'ava';
import { bugSwitches } from '../../../hw/bugs/bug-switches.js';
import { contextIndex } from '../../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { PROT_DBM, PROT_DIRTY, PROT_READ, PROT_WRITE } from '../../../hw/pagetable/aarch64.js';
import { KernelBench, RAM_PA } from '../../kit/kernel-bench.js';
import { Random, SEED } from '../../kit/random.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { TableFixture } from '../pagetable/table-fixture.js';

const PAGES = 512n;
const ROUNDS = 1500;

/** Runs under a hook that only looks. */
function explored<T>(work: () => T): T {
  watchAccesses(() => undefined);
  try {
    return work();
  } finally {
    watchAccesses(null);
  }
}

const smallMemory = (): MachineMemory => MachineMemory.create({ ramBytes: 2 << 20, controlBytes: 1 << 20 });

test('variants: only the one that a thread with a hook gets has bugs to set', (t) => {
  t.false('setBugs' in Kernel.load(smallMemory()).exports);
  t.true(explored(() => 'setBugs' in Kernel.load(smallMemory()).exports));
});

test('variants: a bug of compiled code is refused where the normal one would be loaded', (t) => {
  const bugs = bugSwitches(['micro-tlb-survives-epoch']);
  t.throws(() => Kernel.load(smallMemory(), bugs), { message: /micro-tlb-survives-epoch.*explore variant/ });
  t.notThrows(() => explored(() => Kernel.load(smallMemory(), bugs)));
  t.notThrows(() => Kernel.load(smallMemory(), bugSwitches(['ste-torn'])));
});

/** A bench with a nested stream, its tables made from the seed: half of the leaves are good, others are noise. */
function furnish(bench: KernelBench, random: Random): number {
  const at = (offset: number): bigint => RAM_PA + BigInt(offset);
  // Stage 1 at 0, stage 2 at 0x1_0000: three levels each, from level 1 on.
  for (const root of [0, 0x1_0000]) {
    bench.setRam(at(root), at(root + 0x1000) | 3n);
    bench.setRam(at(root) + 16n, at(root + 0x1000) | 3n);
    for (let i = 0n; i < PAGES; i++) bench.setRam(at(root + 0x1000) + i * 8n, at(root + 0x2000) | 3n);
    for (let i = 0n; i < PAGES; i++) {
      const good = (RAM_PA & ~0xfffn) | (i << 12n) | 0x4c3n | 0x3cn;
      const state = random.chance(0.3) ? 1n << 51n : 0n;
      const leaf = good ^ (random.chance(0.2) ? 0x400n : 0n) ^ (random.chance(0.3) ? 0x80n : 0n);
      bench.setRam(at(root + 0x2000) + i * 8n, random.chance(0.05) ? random.big(64) : leaf | state);
    }
  }
  return bench.context(9, {
    kind: 4,
    tag: 4 | (7 << 16),
    flags: 3 | (15 << 6),
    s1Root: RAM_PA,
    s1InputBits: 39,
    s1StartLevel: 1,
    s2Root: RAM_PA + 0x1_0000n,
    s2InputBits: 39,
    s2StartLevel: 1,
  });
}

/** One random operation. @returns what it said */
function operate(bench: KernelBench, context: number, random: Random): unknown {
  const { kernel, unit, iotlb, port, scratch } = bench;
  const page = random.below(Number(PAGES));
  const iova = BigInt(page) * 4096n;
  switch (random.below(9)) {
    case 0:
      return bench.translate(context, iova, random.chance(0.5));
    case 1: {
      const n = 1 + random.below(60);
      for (let i = 0; i < n; i++)
        bench.ask(scratch + i * 64, BigInt(random.below(Number(PAGES))) << 12n, random.below(2), 9);
      return kernel.translateBatch(unit, context, iotlb, scratch, n);
    }
    case 2:
      return kernel.iotlbInvalidateVa(unit, iotlb, 4, random.chance(0.5) ? 7 : -1, page, random.below(40));
    case 3:
      return kernel.iotlbInvalidateVmid(iotlb, 4, random.chance(0.5));
    case 4:
      return kernel.iotlbProbe(unit, iotlb, 4 | (7 << 16), 48, page);
    case 5:
      return [kernel.iotlbFindPa(iotlb, page, 8), kernel.iotlbCountVmid(iotlb, 4)];
    case 6: {
      const n = 1 + random.below(20);
      for (let i = 0; i < n; i++)
        bench.ask(bench.slot(i), BigInt(random.below(Number(PAGES))) << 12n, random.below(2), 9);
      const missed = kernel.dmaBegin(port, n);
      const taken = kernel.takeRequests(port, scratch, 128);
      const faults = kernel.translateBatch(unit, context, iotlb, scratch, taken);
      const answered = kernel.answer(port, scratch, taken);
      const left = kernel.dmaPoll(port);
      kernel.dmaEnd(port);
      return [missed, taken, faults, answered, left];
    }
    case 7:
      bench.set32(unit, bench.get32(unit) + 1);
      return kernel.iotlbReadEntry(iotlb, random.below(64));
    default:
      return [kernel.atcInvalidate(port, 0xffff_ffff, page, 4), kernel.atcFindPa(port, page, 4)];
  }
}

test(`variants: both give the same answers and leave the same memory; SEED=${SEED}`, (t) => {
  const benches = [new KernelBench(), explored(() => new KernelBench())] as const;
  const contexts = benches.map((bench) => {
    bench.set32(bench.port + 140, 9);
    return furnish(bench, new Random(SEED));
  });
  const randoms = benches.map(() => new Random(SEED + 1));
  t.is(contexts[0], contexts[1]);
  t.is(contexts[0], benches[0].contexts + contextIndex(9, 0xffff_ffff) * 128);
  for (let round = 0; round < ROUNDS; round++) {
    const normal = operate(benches[0], contexts[0]!, randoms[0]!);
    t.deepEqual(
      explored(() => operate(benches[1], contexts[1]!, randoms[1]!)),
      normal,
      `operation ${round}`,
    );
  }
  t.is(Buffer.compare(benches[1].memory.u8, benches[0].memory.u8), 0);
});

/** One random edit of a page table. @returns what it said */
function edit({ table }: TableFixture, random: Random): unknown {
  const page = random.below(4) === 0 ? random.below(3) * 512 : random.below(2000);
  const pages = random.chance(0.3) ? 512 : 1 + random.below(40);
  switch (random.below(7)) {
    case 0:
      return table.unmap(page, pages);
    case 1: {
      const bitmap = new Uint8Array(512);
      return [table.readAndClearDirty(page, pages, bitmap, { noClear: random.chance(0.3) }), ...bitmap];
    }
    case 2: {
      const kind = random.pick(['split', 'collapse', 'group', 'ungroup'] as const);
      const change = table.replace(kind, page, random.pick([2, 3]), random.chance(0.5));
      return typeof change === 'number' ? change : change.finish();
    }
    case 3:
      return [table.lookup(page), table.foundLevel, table.foundProt];
    default: {
      const dirty = random.chance(0.5) ? PROT_DBM | PROT_DIRTY : PROT_DBM;
      return table.map(
        page,
        0x4_0000 + page,
        pages,
        PROT_READ | (random.chance(0.7) ? PROT_WRITE | dirty : 0),
      );
    }
  }
}

test(`variants: both edit page tables alike; SEED=${SEED}`, (t) => {
  const geometry = { stage: 2, granuleLg2: 12, inputBits: 39, outputBits: 40, startLevel: 1 } as const;
  const make = (): TableFixture => new TableFixture(geometry, { contiguous: true });
  const fixtures = [make(), explored(make)] as const;
  const randoms = fixtures.map(() => new Random(SEED + 2));
  const outcomes = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    const normal = edit(fixtures[0], randoms[0]!);
    t.deepEqual(
      explored(() => edit(fixtures[1], randoms[1]!)),
      normal,
      `edit ${round}`,
    );
    const outcome = typeof normal === 'number' && normal < 0 ? `${normal}` : 'done';
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  t.true(outcomes.get('done')! > ROUNDS / 4);
  t.is(Buffer.compare(fixtures[1].bench.memory.u8, fixtures[0].bench.memory.u8), 0);
});
