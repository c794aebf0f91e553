/** What the explore variant says before its shared accesses: the kind, the place, the order. */
import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { contextIndex, UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { KERNEL_BUGS } from '../../../hw/kernel/variants.js';
import { PageTable, PROT_READ } from '../../../hw/pagetable/aarch64.js';
import { scheduleHook, setScheduleHook } from '../../../hw/sync/words.js';
import { KernelBench, RAM_PA } from '../../kit/kernel-bench.js';
import { type OpName, watchAccesses } from '../../kit/schedule-hook.js';

const PORT = PortLayout.at;
const UNIT = UnitLayout.at;
const S2 = 3;
const ENTRIES = 64;
const HA_HD_S2 = (1 << 8) | (1 << 9);

type Seen = readonly [OpName, number];

/** A bench of the explore variant; the hook looks on until the test ends it. */
function explored(t: { teardown(done: () => void): void }): KernelBench {
  watchAccesses(() => undefined);
  t.teardown(() => watchAccesses(null));
  return new KernelBench({ entries: 4 });
}

function seen(work: () => void, also: (op: OpName, offset: number) => void = () => undefined): Seen[] {
  const found: Seen[] = [];
  watchAccesses((op, offset) => {
    found.push([op, offset]);
    also(op, offset);
  });
  work();
  watchAccesses(() => undefined);
  return found;
}

const ram = (bench: KernelBench, offset: number): number => bench.memory.linearOf(Number(RAM_PA) + offset, 8);

/** Stage 2 of three levels from RAM_PA on: IPA n to frame n + 0x1000. */
function mapped(bench: KernelBench, flags = 0): number {
  bench.setRam(RAM_PA, (RAM_PA + 0x1000n) | 3n);
  bench.setRam(RAM_PA + 0x1000n, (RAM_PA + 0x2000n) | 3n);
  for (let i = 0n; i < 8n; i++) bench.setRam(RAM_PA + 0x2000n + i * 8n, ((i + 0x1000n) << 12n) | 0x4c3n);
  return bench.context(9, { kind: S2, tag: 4, flags, s2Root: RAM_PA, s2InputBits: 39, s2StartLevel: 1 });
}

test('points: numbers of accesses and of bugs are those that TypeScript uses', (t) => {
  const { exports } = explored(t).kernel;
  const value = (name: string): number => (exports[name] as { value: number }).value;
  t.deepEqual(['OP_LOAD', 'OP_STORE', 'OP_RMW', 'OP_NOTIFY'].map(value), [0, 1, 2, 4]);
  t.deepEqual(
    {
      'table-linked-before-filled': value('BUG_LINKED_FIRST'),
      'dirty-cleared-without-cas': value('BUG_DIRTY_NO_CAS'),
      'micro-tlb-survives-epoch': value('BUG_MICRO_SURVIVES'),
      'iotlb-fill-unguarded': value('BUG_IOTLB_UNGUARDED'),
      'epoch-entered-unchecked': value('BUG_EPOCH_UNCHECKED'),
      'atc-fill-unguarded': value('BUG_ATC_UNGUARDED'),
    },
    KERNEL_BUGS,
  );
});

test('points: a walk reads its descriptors in order, then fills an entry under its sequence', (t) => {
  const bench = explored(t);
  const context = mapped(bench);
  t.deepEqual(
    seen(() => bench.translate(context, 3n << 12n)),
    [
      ['load', bench.unit + UNIT.leafSizes],
      ['load', ram(bench, 0)],
      ['load', ram(bench, 0x1000)],
      ['load', ram(bench, 0x2000 + 3 * 8)],
      ['store', bench.unit + UNIT.leafSizes],
      ['rmw', bench.iotlb + ENTRIES + 3 * 32],
      ['store', bench.iotlb + ENTRIES + 3 * 32 + 8],
      ['store', bench.iotlb + ENTRIES + 3 * 32 + 16],
      ['store', bench.iotlb + ENTRIES + 3 * 32],
    ],
  );
});

test('points: a hardware update is a read-modify-write of the leaf, after its read', (t) => {
  const bench = explored(t);
  const context = mapped(bench, HA_HD_S2);
  // Clean, with DBM: read-only until a write comes.
  bench.setRam(RAM_PA + 0x2000n, (0x1000n << 12n) | 0x443n | (1n << 51n));
  const leaf = ram(bench, 0x2000);
  const atLeaf = seen(() => bench.translate(context, 0n, true)).filter(([, offset]) => offset === leaf);
  t.deepEqual(
    atLeaf.map(([op]) => op),
    // The short walk, that of stage 2 once more, the full one.
    ['load', 'load', 'load', 'rmw'],
  );
  t.is((bench.ram(RAM_PA + 0x2000n)! >> 7n) & 1n, 1n);
});

test('points: a probe looks at the sizes, the set, and the entry between two readings of its sequence', (t) => {
  const bench = explored(t);
  const { kernel, unit, iotlb } = bench;
  kernel.iotlbFill(unit, iotlb, 4, 3, 0x1003, 12, 2 | 32);
  const first = iotlb + ENTRIES;
  let index = -1;
  const points = seen(() => {
    index = kernel.iotlbProbe(unit, iotlb, 4, 32, 3);
  });
  const entry = first + index * 32;
  t.deepEqual(points, [
    ['load', unit + UNIT.leafSizes],
    ['load', first],
    ['load', entry],
    ['load', entry + 8],
    ['load', entry + 16],
    ['load', entry],
  ]);
});

test('points: a map writes the table before its pointer, and each leaf of a table in use by itself', (t) => {
  const bench = explored(t);
  const at = 0x4_0000;
  let next = Number(RAM_PA) / 4096 + at / 4096 + 1;
  const table = new PageTable({
    memory: bench.memory,
    kernel: bench.kernel,
    descriptor: bench.tables,
    stage: 2,
    inputBits: 30,
    outputBits: 40,
    startLevel: 2,
    root: Number(RAM_PA) + at,
    frames: { alloc: () => next++, free: () => undefined },
  });
  const root = ram(bench, at);
  const filled: bigint[] = [];
  const points = seen(
    () => t.is(table.map(0, 0x5000, 2, PROT_READ), 0),
    // Of the frames given, the last is taken first.
    (op, offset) => {
      if (op === 'store' && offset === root)
        for (let i = 1; i <= 4; i++) filled.push(bench.get64(ram(bench, at + i * 4096)));
    },
  );
  const inRam = points.filter(([, offset]) => offset >= root && offset < root + 0x1_0000);
  t.deepEqual(inRam.at(-1), ['store', root]);
  t.is(filled.filter((word) => (word & 3n) === 3n).length, 1);

  const level3 = bench.memory.linearOf(Number(bench.get64(root) & 0xffff_ffff_f000n), 8);
  const more = seen(() => t.is(table.map(2, 0x5002, 2, PROT_READ), 0));
  t.deepEqual(
    more.filter(([, offset]) => offset >= root && offset < root + 0x1_0000),
    [
      ['load', root],
      ['load', level3 + 16],
      ['store', level3 + 16],
      ['store', level3 + 24],
    ],
  );
});

test('points: a device enters the epoch by a store between two readings of the generation', (t) => {
  const bench = explored(t);
  mapped(bench);
  bench.set32(bench.port + PORT.sid, 9);
  bench.ask(bench.slot(0), 0n, 0, 9);
  const { unit, port } = bench;
  const context = bench.contexts + contextIndex(9, 0xffff_ffff) * 128;
  t.deepEqual(
    seen(() => t.is(bench.kernel.dmaBegin(port, 1), 1)),
    [
      ['load', port + PORT.respProd],
      ['load', unit + UNIT.gen],
      ['store', port + PORT.ack],
      ['load', unit + UNIT.gen],
      ['load', context],
      ['load', context + 4],
      ['load', context],
      ['load', bench.iotlb + ENTRIES],
      ['load', unit + UNIT.leafSizes],
      ['store', port + PORT.req],
      ['store', port + PORT.reqProd],
    ],
  );
  t.deepEqual(
    seen(() => bench.kernel.dmaEnd(port)),
    [
      ['store', port + PORT.ack],
      ['load', unit + UNIT.syncWaiting],
    ],
  );
});

test('points: an answer wakes a parked device through the hook', (t) => {
  const bench = explored(t);
  const { port } = bench;
  bench.set32(port + PORT.parked, 1);
  const points = seen(() => t.is(bench.kernel.answer(port, bench.scratch, 1), 1));
  t.deepEqual(points, [
    ['load', port + PORT.respCons],
    ['store', port + PORT.resp],
    ['store', port + PORT.respProd],
    ['rmw', port + PORT.answered],
    ['load', port + PORT.parked],
    ['notify', port + PORT.answered],
  ]);
  t.is(bench.get32(port + PORT.answered), 1);
});

test('points: an invalidation says each entry that it removes, and one look for the rest', (t) => {
  const bench = explored(t);
  const { kernel, unit, iotlb } = bench;
  kernel.iotlbFill(unit, iotlb, 4, 3, 0x1003, 12, 2 | 32);
  const index = kernel.iotlbProbe(unit, iotlb, 4, 32, 3);
  const points = seen(() => t.is(kernel.iotlbInvalidateVmid(iotlb, 4, false), 1));
  t.deepEqual(points, [['store', iotlb + ENTRIES + index * 32 + 8]]);
});

test('points: what an instance says goes to the hook that the thread has then', (t) => {
  const bench = explored(t);
  const context = mapped(bench);
  t.true(seen(() => bench.translate(context, 0n)).length > 0);
  watchAccesses(null);
  t.is(bench.translate(context, 0n).status, 0);
});

test('points: an instance that is used again begins as a new one', (t) => {
  const bench = explored(t);
  const { unit, iotlb, port } = bench;
  mapped(bench);
  bench.set32(bench.port + PORT.sid, 9);
  // A hit of 2 MiB is what the next batch would look for first.
  bench.kernel.iotlbFill(unit, iotlb, 4, 512, 0x1200, 21, 2 | 32);
  bench.kernel.iotlbFill(unit, iotlb, 4, 3, 0x1003, 12, 2 | 32);
  const batch = (iova: bigint): Seen[] => {
    bench.ask(bench.slot(0), iova, 0, 9);
    return seen(() => t.is(bench.kernel.dmaBegin(port, 1), 0));
  };
  const small = batch(3n << 12n);
  batch(600n << 12n);
  bench.set32(unit + UNIT.gen, 2);
  t.notDeepEqual(batch(3n << 12n), small);
  batch(600n << 12n);
  bench.set32(unit + UNIT.gen, 3);
  Kernel.load(bench.memory);
  t.deepEqual(batch(3n << 12n), small);
});

test('points: a walk sees what its own thread stored, although the store is kept back', (t) => {
  const bench = explored(t);
  const context = mapped(bench);
  const leaf = RAM_PA + 0x2000n + 3n * 8n;
  const at = ram(bench, 0x2000 + 3 * 8);
  const other = bench.translate(context, 4n << 12n).status;
  const looking = scheduleHook()!;
  let kept = true;
  setScheduleHook({
    ...looking,
    forward32: (offset) => (kept && offset === at ? 0 : undefined),
    dmaWmb: () => {
      if (kept) bench.setRam(leaf, 0n);
      kept = false;
    },
  });
  t.not(bench.translate(context, 3n << 12n).status, other, 'the entry is invalid');
  t.false(kept);
});
