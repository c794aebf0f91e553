import test from 'ava';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { OK, SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const S12_VMALL = 0x28;

function translating(options: ConstructorParameters<typeof SmmuFixture>[0] = {}): {
  f: SmmuFixture;
  root: number;
} {
  const f = new SmmuFixture({ sids: [3, 4], ...options });
  const root = f.alloc(4096);
  f.map(root, 1, 0x1000n, 0x8080_0000n, 3, S.S2_PAGE);
  f.map(root, 1, 0x2000n, 0x8081_0000n, 3, S.S2_PAGE);
  for (const sid of [3, 4]) f.setSte(sid, S.steS2({ root, vmid: 1 }));
  f.enable();
  return { f, root };
}

const cons = (f: SmmuFixture): number => f.mmio.read32(0x9c);
const word = (f: SmmuFixture, at: number): number => f.memory.words.load(f.regions.smmu + at);

test('sync: completes at once when nobody is inside an epoch', (t) => {
  const { f } = translating();
  f.command(S.tlbi(S12_VMALL, 1), S.sync(), S.sync());
  t.is(cons(f), 3);
  t.is(word(f, Smmuv3Layout.at.syncSeq), 2);
});

test('sync: waits for the DMA that began before it, and serves requests meanwhile', (t) => {
  const { f } = translating();
  f.begin(0, 0x1000n);
  t.is(f.finish(0).status, OK);
  f.command(S.tlbi(S12_VMALL, 1), S.sync(), S.cfgiSte(3));
  t.is(cons(f), 1, 'stands at the SYNC');
  t.false(f.model.hasWork(), 'and rests');
  const waiting = (): number => f.memory.words.load(f.regions.unit + UnitLayout.at.syncWaiting);
  t.is(waiting(), 1, 'so that a device which leaves rings');
  // A second device comes and goes; a third request of the same device is answered.
  t.is(f.dma(0x2000n, 0, 1).status, OK);
  t.is(cons(f), 1);
  f.leave(0);
  t.true(f.model.hasWork());
  f.run();
  t.is(cons(f), 3);
  t.is(waiting(), 0);
});

test('sync: a device that waits for its translation inside the epoch is not deadlocked', (t) => {
  const { f } = translating();
  f.begin(0, 0x1000n);
  f.push(S.sync());
  t.is(f.finish(0).status, OK);
  t.is(cons(f), 0);
  f.leave(0);
  f.run();
  t.is(cons(f), 1);
});

test('sync: DMA that begins after it does not hold it up', (t) => {
  const { f } = translating();
  f.begin(0, 0x1000n);
  f.command(S.sync());
  f.begin(1, 0x1000n);
  f.finish(0);
  f.leave(0);
  f.run();
  t.is(cons(f), 1);
  f.finish(1);
  f.leave(1);
});

test('sync: an unmap is seen by every DMA after completion', (t) => {
  const { f, root } = translating();
  t.is(f.dma(0x1000n).status, OK);
  f.map(root, 1, 0x1000n, 0n, 3, 0n);
  t.is(f.dma(0x1000n).status, OK, 'still cached');
  f.command(S.tlbi(S12_VMALL, 1), S.sync());
  t.is(f.dma(0x1000n).status, 0x10);
});

test('sync: earlySync, the deliberate fault, does not wait', (t) => {
  const { f } = translating({ config: { bugs: { earlySync: true } } });
  f.begin(0, 0x1000n);
  f.finish(0);
  f.command(S.sync());
  t.is(cons(f), 1);
  f.leave(0);
});

test('sync: CS = IRQ writes MSIData at MSIAddress after consumption, and raises the wired interrupt', (t) => {
  const { f } = translating();
  const at = f.alloc(4096);
  f.begin(0, 0x1000n);
  f.finish(0);
  f.command(S.sync(1, at + 4, 0xdead_beef));
  t.is(f.read64(at), 0n);
  f.leave(0);
  f.run();
  t.is(f.read64(at), 0xdead_beef_0000_0000n);
  t.is(word(f, Smmuv3Layout.at.irqPending) & 4, 4);
  t.is(word(f, Smmuv3Layout.at.irqCmdSync), 1);
  f.command(S.sync(0, at + 8, 7), S.sync(2, at + 8, 7));
  t.is(f.read64(at + 8), 0n, 'CS none and SEV write nothing');
  t.is(word(f, Smmuv3Layout.at.irqCmdSync), 1);
});

test('sync: an MSI outside RAM activates MSI_CMDQ_ABT_ERR and the queue goes on', (t) => {
  const { f } = translating();
  f.command(S.sync(1, 0x1000, 1), S.sync());
  t.is(cons(f), 2);
  t.is(f.mmio.read32(0x60), 1 << 4);
});

test('sync: a model built on another thread finishes a pending one', (t) => {
  const { f } = translating();
  const at = f.alloc(4096);
  f.begin(0, 0x1000n);
  f.finish(0);
  f.command(S.sync(1, at, 5));
  f.model = f.newModel();
  f.run();
  t.is(cons(f), 0);
  f.leave(0);
  f.run();
  t.is(cons(f), 1);
  t.is(f.read64(at), 5n);
});

test('cmdqen: clearing it is acknowledged only when the SYNC in progress is consumed', (t) => {
  const { f } = translating();
  f.begin(0, 0x1000n);
  f.finish(0);
  f.command(S.sync(), S.sync());
  f.mmio.write32(0x20, 0b0101);
  f.run();
  t.is(f.mmio.read32(0x24), 0b1101);
  f.leave(0);
  f.run();
  t.is(f.mmio.read32(0x24), 0b0101);
  t.is(cons(f), 1, 'the next command is not begun');
});

test('trace: walks, commands and completions carry ticks in the order they happened', (t) => {
  const { f } = translating({ trace: true });
  const answer = f.dma(0x1234n);
  f.command(S.tlbi(S12_VMALL, 1), S.sync());
  const again = f.dma(0x1234n);
  const { trace } = f.model;
  const walk = trace.findWalk(answer.fillSeq)!;
  t.like(walk, { sid: 3, iovaPage: 1, ipaPage: 1, paPage: 0x8080_0 });
  const tlbi = trace.findCommand(1)!;
  t.is(tlbi.words[0], 0x28);
  const done = trace.findSync(1)!;
  t.is(done.index, 1);
  const second = trace.findWalk(again.fillSeq)!;
  t.true(walk.tick < tlbi.tick && tlbi.tick < done.tick && done.tick < second.tick);
  t.is(trace.findWalk(again.fillSeq + 1), null);
  t.is(trace.findCommand(99), null);
  t.is(trace.findSync(2), null);
});

test('sync: of a SYNC and an update of GBPA that both wait, the first to end leaves the other its doorbell', (t) => {
  const GBPA = 0x44;
  const UPDATE = 0x8000_0000;
  const ABORT = 1 << 20;
  for (const first of ['update', 'sync'] as const) {
    const { f } = translating();
    const start = cons(f);
    const waiting = (): number => f.memory.words.load(f.regions.unit + UnitLayout.at.syncWaiting);
    const updating = (): boolean => (f.mmio.read32(GBPA) & UPDATE) !== 0;
    const begin = (what: 'update' | 'sync'): void => {
      if (what === 'update') f.mmio.write32(GBPA, (UPDATE | ABORT) >>> 0);
      else f.push(S.sync());
      f.run();
    };
    // Device 0 is older than both; device 1 comes in between, and is older than the second only.
    f.begin(0, 0x1000n);
    f.finish(0);
    begin(first);
    f.begin(1, 0x2000n);
    f.finish(1);
    begin(first === 'update' ? 'sync' : 'update');
    t.true(updating());
    t.is(cons(f), start);
    f.leave(0);
    f.run();
    t.is(updating(), first === 'sync', first);
    t.is(cons(f), first === 'sync' ? start + 1 : start, first);
    t.is(waiting(), 1, `after the ${first}, device 1 still has to ring`);
    f.leave(1);
    f.run();
    t.false(updating());
    t.is(cons(f), start + 1);
    t.is(waiting(), 0);
  }
});
