import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { InterruptLines } from '../../../hw/smmuv3/interrupt-lines.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const EBUSY = -16;
const EOPNOTSUPP = -95;
const OVFLG = 0x8000_0000;
/** CR0: SMMUEN, PRIQEN, EVENTQEN, CMDQEN. */
const ALL_ON = 0b1111;

function device(options: ConstructorParameters<typeof SmmuFixture>[0] = {}, cr0 = ALL_ON): SmmuFixture {
  const f = new SmmuFixture({ config: { ats: true, pri: true, ssidBits: 20 }, pri: true, ...options });
  f.setSte(3, S.STE_BYPASS);
  f.enable(cr0);
  return f;
}

const at = PortLayout.at;
/** A group's slot in the port: the PASID bit of its answer. */
const pasidOfAnswer = (f: SmmuFixture): number => (f.memory.words.load(f.ports[0]! + at.groups) >>> 16) & 1;

test('pri: every bit of a record', (t) => {
  const f = device();
  const dma = f.dmaPort();
  t.is(dma.pageRequest({ group: 0x1a5, iova: 0xffff_8000_1234_5678n, last: false }), 0);
  t.is(dma.pageRequest({ group: 0x1a5, iova: 0x9000n, read: false, write: true, pasid: 0xabcde }), 0);
  dma.pageRequest({ group: 0x1a5, iova: 0xa000n, execute: true, privileged: true, pasid: 1, last: false });
  f.run();
  t.deepEqual(f.pageRecords(), [
    [3n | (1n << 60n), 0xffff_8000_1234_5000n | 0x1a5n],
    [3n | (0xabcden << 32n) | (1n << 61n) | (1n << 62n) | (1n << 63n), 0x9000n | 0x1a5n],
    [3n | (1n << 32n) | (1n << 58n) | (1n << 59n) | (1n << 60n) | (1n << 63n), 0xa000n | 0x1a5n],
  ]);
});

test('pri: X and Priv need a PASID', (t) => {
  const f = device();
  f.dmaPort().pageRequest({ group: 0, iova: 0x9000n, execute: true, privileged: true });
  f.run();
  t.deepEqual(f.pageRecords(), [[3n | (1n << 60n) | (1n << 62n), 0x9000n]]);
});

test('pri: a group is answered once, with what software said', (t) => {
  const f = device();
  const dma = f.dmaPort();
  [0, 1, 2].forEach((group) => {
    dma.pageRequest({ group, iova: 0x9000n });
  });
  f.run();
  t.is(dma.pageResponse(1), 'waiting');
  t.is(dma.pageResponse(7), 'none');
  f.command(S.priResp(3, 0, 0), S.priResp(3, 1, 1), S.priResp(3, 2, 2, 5));
  t.deepEqual(
    [0, 1, 2].map((group) => dma.pageResponse(group)),
    ['failure', 'invalid', 'success'],
  );
  t.is(dma.pageResponse(0), 'none');
  f.command(S.priResp(3, 0, 2));
  t.is(dma.pageResponse(0), 'none', 'nobody waits');
});

test('pri: an answer goes to the stream it names, with its PASID', (t) => {
  const f = device({ sids: [3, 4] });
  for (const i of [0, 1]) f.dmaPort(i).pageRequest({ group: 9, iova: 0x9000n, pasid: 5 });
  f.run();
  f.command(S.priResp(3, 9, 2, 5));
  t.is(pasidOfAnswer(f), 1);
  t.is(f.dmaPort(0).pageResponse(9), 'success');
  t.is(f.dmaPort(1).pageResponse(9), 'waiting');
});

test('pri: while the queue is disabled, whatever disables it, everything is answered with a failure', (t) => {
  for (const cr0 of [0b1101, 0b1110]) {
    const f = device({}, cr0);
    const dma = f.dmaPort();
    dma.pageRequest({ group: 1, iova: 0x9000n, last: false });
    dma.pageRequest({ group: 2, iova: 0x9000n, pasid: 5 });
    dma.stopPageRequests(5);
    f.run();
    t.is(dma.pageResponse(1), 'failure');
    t.is(pasidOfAnswer(f) | (f.memory.words.load(f.ports[0]! + at.groups + 4) >>> 16), 0, 'without PASID');
    t.is(dma.pageResponse(2), 'failure');
    t.is(f.mmio.read32(0x100c8), 0);
  }
});

test('pri: overflow answers the last of a group with success, drops the others, and shuts the queue', (t) => {
  const f = device({ priqLog2: 1 });
  const dma = f.dmaPort();
  dma.pageRequest({ group: 1, iova: 0x1000n });
  dma.pageRequest({ group: 2, iova: 0x2000n });
  dma.pageRequest({ group: 3, iova: 0x3000n, last: false });
  dma.pageRequest({ group: 3, iova: 0x4000n, pasid: 7 });
  dma.stopPageRequests(7);
  f.run();
  t.is(f.mmio.read32(0x100c8), (OVFLG | 2) >>> 0);
  t.is((f.memory.words.load(f.ports[0]! + at.groups + 8) >>> 16) & 1, 1, 'with the PASID of its request');
  t.is(dma.pageResponse(3), 'success');
  t.is(dma.pageResponse(1), 'waiting');
  // Room alone does not open it.
  t.is(f.pageRecords().length, 2);
  dma.pageRequest({ group: 4, iova: 0x5000n });
  f.run();
  t.is(dma.pageResponse(4), 'success');
  t.is(f.mmio.read32(0x100c8), (OVFLG | 2) >>> 0, 'flagged once');
  f.mmio.write32(0x100cc, (OVFLG | 2) >>> 0);
  dma.pageRequest({ group: 5, iova: 0x6000n });
  f.run();
  t.is(f.pageRecords().length, 1);
  t.is(dma.pageResponse(5), 'waiting');
});

test.serial(
  'pri: an overflow that software can have missed, as it emptied the queue meanwhile, is an interrupt',
  (t) => {
    for (const emptied of [true, false]) {
      const f = device({ priqLog2: 1 });
      f.mmio.write32(0x50, 1 << 1);
      f.run();
      const smmu = f.regions.smmu;
      const dma = f.dmaPort();
      for (const group of [1, 2]) dma.pageRequest({ group, iova: 0x1000n });
      f.run();
      const lines = new InterruptLines(f.env, f.regions);
      dma.pageRequest({ group: 3, iova: 0x2000n });
      // Software reads the last record after the SMMU has found the queue full, and before the overflow shows.
      watchAccesses((op, offset) => {
        if (emptied && op === 'store' && offset === smmu + Smmuv3Layout.at.priqProd)
          f.memory.i32[(smmu + Smmuv3Layout.at.priqCons) >>> 2] = 2;
      });
      try {
        f.run();
      } finally {
        watchAccesses(null);
      }
      t.is(f.mmio.read32(0x100c8), (OVFLG | 2) >>> 0);
      t.deepEqual(lines.take(), emptied ? ['priq'] : []);
    }
  },
);

test('pri: a queue outside RAM is PRIQ_ABT_ERR, failures, and silence until acknowledged', (t) => {
  const f = device({}, 0b1101);
  f.mmio.write64(0xc0, 0x4000_0000n | 4n);
  f.mmio.write32(0x20, ALL_ON);
  f.run();
  const dma = f.dmaPort();
  for (const group of [1, 2]) dma.pageRequest({ group, iova: 0x9000n });
  f.run();
  t.is(f.mmio.read32(0x60), 1 << 3);
  t.deepEqual([dma.pageResponse(1), dma.pageResponse(2)], ['failure', 'failure']);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  f.mmio.write64(0xc0, BigInt(f.priq) | 4n);
  f.mmio.write32(0x20, ALL_ON);
  f.run();
  dma.pageRequest({ group: 3, iova: 0x9000n });
  f.run();
  t.is(dma.pageResponse(3), 'failure');
  f.mmio.write32(0x64, 1 << 3);
  dma.pageRequest({ group: 4, iova: 0x9000n });
  f.run();
  t.is(f.pageRecords().length, 1);
});

test('pri: the interrupt, when the queue becomes non-empty or, with LO, at the last of a group; MSI and its abort', (t) => {
  for (const lo of [0, 0x8000_0000]) {
    const f = device();
    const msi = f.alloc(4096);
    f.mmio.write64(0xd0, BigInt(msi));
    f.mmio.write32(0xd8, 0x77);
    f.mmio.write32(0xdc, lo);
    f.mmio.write32(0x50, 0b010);
    f.run();
    const lines = new InterruptLines(f.env, f.regions);
    const dma = f.dmaPort();
    const fired = (last: boolean): number => {
      dma.pageRequest({ group: 1, iova: 0x9000n, last });
      f.run();
      return lines.take().length;
    };
    t.deepEqual(
      [fired(false), fired(false), fired(true), fired(true)],
      lo === 0 ? [1, 0, 0, 0] : [0, 0, 1, 1],
    );
    t.is(f.read64(msi), 0x77n);
  }
  const f = device();
  f.mmio.write64(0xd0, 0x1000n);
  f.mmio.write32(0x50, 0b010);
  f.run();
  f.dmaPort().pageRequest({ group: 1, iova: 0x9000n });
  f.run();
  t.is(f.mmio.read32(0x60), 1 << 6);
});

test('pri: requests on their way, and groups that wait, are bounded; a device without PRI makes none', (t) => {
  const f = device({ priqLog2: 6 });
  const dma = f.dmaPort();
  for (let group = 0; group < 32; group++) t.is(dma.pageRequest({ group, iova: 0x9000n }), 0);
  t.is(dma.pageRequest({ group: 0, iova: 0x9000n }), EBUSY, 'the ring');
  f.run();
  t.is(dma.pageRequest({ group: 32, iova: 0x9000n }), EBUSY, 'the groups');
  t.is(dma.pageRequest({ group: 31, iova: 0xa000n }), 0, 'one more of a group that waits');
  f.command(S.priResp(3, 31, 2));
  t.is(dma.pageRequest({ group: 31, iova: 0xa000n }), EBUSY, 'its answer was not taken');
  t.is(dma.pageResponse(31), 'success');
  t.is(dma.pageRequest({ group: 32, iova: 0x9000n }), 0);
  dma.forgetPageRequests(0);
  f.command(S.priResp(3, 0, 2));
  t.is(dma.pageResponse(0), 'none');
  t.throws(() => dma.pageRequest({ group: 512, iova: 0n }), { instanceOf: RangeError });
  t.throws(() => dma.pageRequest({ group: 1, iova: 0n, pasid: 2 ** 20 }), { instanceOf: RangeError });
  t.is(device({ pri: false }).dmaPort().pageRequest({ group: 1, iova: 0n }), EOPNOTSUPP);
});

test('pri: waiting for an answer ends with it, or with the time', (t) => {
  const f = device();
  const dma = f.dmaPort();
  dma.pageRequest({ group: 1, iova: 0x9000n });
  f.run();
  t.is(dma.awaitPageResponse(1, 0), 'waiting');
  f.push(S.priResp(3, 1, 2));
  t.is(dma.awaitPageResponse(1, 1e9), 'success');
});

test('pri: rings and groups of garbage lead nowhere outside the port', (t) => {
  const f = device({ sids: [3, 4] });
  const { words, u8 } = f.memory;
  const port = f.ports[0]!;
  const end = port + PortLayout.size;
  let seed = 12345;
  const random = (): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12345) | 0;
    return seed;
  };
  const after = u8.slice(end, end + 4096);
  for (let round = 0; round < 300; round++) {
    for (const offset of [at.pprProd, at.pprCons]) words.store(port + offset, random() >> (round % 29));
    for (let i = 0; i < 32; i++) words.store(port + at.groups + i * 4, random());
    for (let i = 0; i < 256; i++) words.store(port + at.ppr + i * 4, random());
    f.command(S.priResp(3, round & 511, round % 3, round));
    if (round % 7 === 0) f.pageRecords();
  }
  t.deepEqual(u8.subarray(end, end + 4096), after);
  words.store(port + at.pprProd, 0);
  words.store(port + at.pprCons, 0);
  for (let i = 0; i < 32; i++) words.store(port + at.groups + i * 4, 0);
  f.pageRecords();
  const overflow = f.mmio.read32(0x100c8) & OVFLG;
  f.mmio.write32(0x100cc, ((f.mmio.read32(0x100cc) & ~OVFLG) | overflow) >>> 0);
  f.dmaPort().pageRequest({ group: 5, iova: 0x9000n });
  f.run();
  t.is(f.pageRecords().length, 1);
});
