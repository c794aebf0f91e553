/**
 * The zoo's bugs of compiled code, one thread against another: what the other does is done at each of the first one's
 * schedule points in turn. With the bug some point goes wrong; without it none does.
 */
import test, { type ExecutionContext } from 'ava';
import { type BugName, bugSwitches } from '../../../hw/bugs/bug-switches.js';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { PROT_DBM, PROT_READ, PROT_WRITE } from '../../../hw/pagetable/aarch64.js';
import { KernelBench, RAM_PA } from '../../kit/kernel-bench.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { TableFixture } from '../pagetable/table-fixture.js';

const PORT = PortLayout.at;
const SID = 9;
const CONTEXT_S2 = 3;
const TAG = 4;
const S2_READ = 2 | 32;
const NO_SSID = 0xffff_ffff;
const FLAG_ATS = 1 << 12;
const [FROM_MICRO, FROM_IOTLB] = [1, 2];
const ADDRESS = 0xffff_ffff_f000n;
const BLOCK_PAGES = 512;
const geometry = { stage: 2, granuleLg2: 12, inputBits: 30, outputBits: 40, startLevel: 2 } as const;

interface Duel {
  /** What the thread with the bug does, point by point. */
  first(): void;
  /** What another does meanwhile, all at once. */
  second(): void;
  /** Whether it came out wrong. */
  wrong(): boolean;
}

/** @returns points of `first` at which `second` led to something wrong, and how many points there are */
function duel(make: () => Duel): { wrong: number[]; points: number } {
  const wrong: number[] = [];
  for (let at = 0; ; at++) {
    watchAccesses(() => undefined);
    const { first, second, wrong: isWrong } = make();
    let point = 0;
    watchAccesses(() => {
      if (point++ !== at) return;
      watchAccesses(null);
      second();
      watchAccesses(() => undefined);
    });
    first();
    watchAccesses(null);
    if (point <= at && at > 0) return { wrong, points: at };
    if (isWrong()) wrong.push(at);
    if (at > 10_000) throw new Error('no end');
  }
}

function only(t: ExecutionContext, bug: BugName, make: (bugs: ReturnType<typeof bugSwitches>) => Duel): void {
  const sound = duel(() => make(bugSwitches([])));
  t.deepEqual(sound.wrong, [], 'without the bug');
  t.true(sound.points > 1);
  const broken = duel(() => make(bugSwitches([bug])));
  t.true(broken.wrong.length > 0, 'with it');
  t.true(broken.wrong.length < broken.points, 'but not whenever the other runs');
}

/** A bench with a device and a pIOMMU, which is `other`: stage 2 maps IPA n to frame n + 0x1000. */
function wired(bugs: ReturnType<typeof bugSwitches>, flags = 0) {
  const bench = new KernelBench({ entries: 4, bugs });
  bench.set32(bench.port + PORT.sid, SID);
  bench.setRam(RAM_PA, (RAM_PA + 0x1000n) | 3n);
  bench.setRam(RAM_PA + 0x1000n, (RAM_PA + 0x2000n) | 3n);
  for (let i = 0n; i < 64n; i++) bench.setRam(RAM_PA + 0x2000n + i * 8n, ((i + 0x1000n) << 12n) | 0x4c3n);
  const context = bench.context(SID, {
    kind: CONTEXT_S2,
    tag: TAG,
    flags,
    s2Root: RAM_PA,
    s2InputBits: 39,
    s2StartLevel: 1,
  });
  // Loaded without a hook, as another thread's: it says nothing.
  watchAccesses(null);
  const other = Kernel.load(bench.memory);
  watchAccesses(() => undefined);
  const serve = (): void => {
    const n = other.takeRequests(bench.port, bench.scratch, 128);
    other.translateBatch(bench.unit, context, bench.iotlb, bench.scratch, n);
    other.answer(bench.port, bench.scratch, n);
  };
  return { bench, other, serve };
}

test.serial(
  'bug table-linked-before-filled: a walk of a block that is split finds what the table held before',
  (t) => {
    only(t, 'table-linked-before-filled', (bugs) => {
      const f = new TableFixture(geometry, { bugs, count: 16 });
      const base = 0x4_0000;
      t.is(f.table.map(0, base, BLOCK_PAGES, PROT_READ), 0);
      let leaf = BigInt(base) << 12n;
      return {
        first: () => void f.table.replace('split', 0, 2, true),
        second: () => {
          leaf = f.bench.ram(f.plain.root)!;
          if ((leaf & 3n) === 3n) leaf = f.bench.ram(leaf & ADDRESS)!;
        },
        wrong: () => (leaf & ADDRESS) !== BigInt(base) << 12n,
      };
    });
  },
);

test.serial('bug table-linked-before-filled: a walk reads what a new table held before', (t) => {
  only(t, 'table-linked-before-filled', (bugs) => {
    const f = new TableFixture(geometry, { bugs, count: 16 });
    let leaf = 0n;
    return {
      first: () => void f.table.map(7, 0x4_0007, 1, PROT_READ),
      second: () => {
        const pointer = f.bench.ram(f.plain.root)!;
        if ((pointer & 1n) !== 0n) leaf = f.bench.ram((pointer & ADDRESS) + 7n * 8n)!;
      },
      wrong: () => (leaf & 1n) !== 0n && (leaf & ADDRESS) !== 0x4_0007n << 12n,
    };
  });
});

test.serial('bug dirty-cleared-without-cas: a write is in no bitmap', (t) => {
  only(t, 'dirty-cleared-without-cas', (bugs) => {
    const f = new TableFixture(geometry, { bugs, count: 16 });
    t.is(f.table.map(0, 0x4_0000, 4, PROT_READ | PROT_WRITE | PROT_DBM), 0);
    const bitmaps = [new Uint8Array(8), new Uint8Array(8)] as const;
    let written = false;
    return {
      first: () => void f.table.readAndClearDirty(0, 4, bitmaps[0]),
      second: () => {
        written = f.write(2);
      },
      wrong: () => {
        f.table.readAndClearDirty(0, 4, bitmaps[1]);
        return written && ((bitmaps[0][0]! | bitmaps[1][0]!) & 4) === 0;
      },
    };
  });
});

test.serial('bug micro-tlb-survives-epoch: a batch after a SYNC hits what was forgotten', (t) => {
  const after = (bugs: ReturnType<typeof bugSwitches>): number => {
    watchAccesses(() => undefined);
    const { bench, serve } = wired(bugs);
    const { kernel, port } = bench;
    for (let n = 0; n < 2; n++) {
      bench.ask(bench.slot(0), 3n << 12n, 0, SID);
      if (kernel.dmaBegin(port, 1) > 0) serve();
      kernel.dmaPoll(port);
      kernel.dmaEnd(port);
      bench.set32(bench.unit + UnitLayout.at.gen, 2 + n);
    }
    watchAccesses(null);
    return bench.result(bench.slot(0)).source;
  };
  t.is(after(bugSwitches([])), FROM_IOTLB);
  t.is(after(bugSwitches(['micro-tlb-survives-epoch'])), FROM_MICRO);
});

test.serial('bug iotlb-fill-unguarded: a DMA takes the frame of another page', (t) => {
  only(t, 'iotlb-fill-unguarded', (bugs) => {
    const { bench, other } = wired(bugs);
    const { unit, iotlb, port } = bench;
    other.iotlbFill(unit, iotlb, TAG, 3, 0x1003, 12, S2_READ);
    bench.ask(bench.slot(0), 3n << 12n, 0, SID);
    return {
      first: () => void bench.kernel.dmaBegin(port, 1),
      second: () => {
        for (let page = 20; page < 28; page++)
          other.iotlbFill(unit, iotlb, TAG, page, 0x1000 + page, 12, S2_READ);
      },
      wrong: () => {
        const { status, pa } = bench.result(bench.slot(0));
        return status === 0 && pa !== 0x1003n << 12n;
      },
    };
  });
});

test.serial('bug iotlb-fill-unguarded: what is read of one entry is half of another', (t) => {
  only(t, 'iotlb-fill-unguarded', (bugs) => {
    const { bench, other } = wired(bugs);
    const { unit, iotlb } = bench;
    other.iotlbFill(unit, iotlb, TAG, 3, 0x1003, 12, S2_READ);
    const index = other.iotlbProbe(unit, iotlb, TAG, 32, 3);
    let view: ReturnType<Kernel['iotlbReadEntry']> = null;
    return {
      first: () => {
        view = bench.kernel.iotlbReadEntry(iotlb, index);
      },
      second: () => {
        for (let page = 20; page < 28; page++)
          other.iotlbFill(unit, iotlb, TAG, page, 0x1000 + page, 12, S2_READ);
      },
      wrong: () => view !== null && view.pfn !== view.page + 0x1000,
    };
  });
});

test.serial(
  'bug epoch-entered-unchecked: a SYNC completes beside a device that still has the old generation',
  (t) => {
    only(t, 'epoch-entered-unchecked', (bugs) => {
      const { bench } = wired(bugs);
      const { unit, port } = bench;
      bench.ask(bench.slot(0), 3n << 12n, 0, SID);
      const ack = port + PORT.ack;
      let completed = false;
      return {
        first: () => void bench.kernel.dmaBegin(port, 1),
        second: () => {
          bench.set32(unit + UnitLayout.at.gen, 2);
          completed = bench.get32(ack) === 0 || bench.get32(ack) >= 2;
        },
        wrong: () => completed && bench.get32(ack) === 1,
      };
    });
  },
);

test.serial('bug atc-fill-unguarded: what was invalidated is in the ATC', (t) => {
  only(t, 'atc-fill-unguarded', (bugs) => {
    const { bench, other, serve } = wired(bugs, FLAG_ATS);
    const { port } = bench;
    bench.set32(port + PORT.ats, 1);
    bench.set32(port + PORT.atsControl, 1);
    bench.ask(bench.slot(0), 3n << 12n, 0, SID);
    bench.kernel.dmaBegin(port, 1);
    serve();
    let invalidated = false;
    return {
      first: () => void bench.kernel.dmaPoll(port),
      second: () => {
        other.atcInvalidate(port, NO_SSID, 0, 64);
        invalidated = true;
      },
      wrong: () => invalidated && other.atcFindPa(port, 0x1000, 64) !== null,
    };
  });
});
