/** Reset of a unit whose machine goes on running. [IHI0070] 3.11, 6.3 */
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { ResetLine } from '../../../hw/smmuv3/reset.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { waitUntil } from '../../../hw/sync/wait.js';
import { OK, SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const SECOND = 1e9;
const GBPA_ABORT = 0xff;
const STALLED = 0xfe;
const VERDICT_ABORT = 2;
const at = Smmuv3Layout.at;

/** Streams 3 and 4 behind stage 2: VA 0x1000 at PA. */
function translating(
  pa = 0x8080_0000n,
  f = new SmmuFixture({ sids: [3, 4] }),
): { f: SmmuFixture; line: ResetLine } {
  const root = f.alloc(4096);
  f.map(root, 1, 0x1000n, pa, 3, S.S2_PAGE);
  for (const sid of [3, 4]) f.setSte(sid, S.steS2({ root, vmid: 1 }));
  f.enable();
  return { f, line: new ResetLine(f.env, f.regions) };
}

const word = (f: SmmuFixture, offset: number): number => f.memory.words.load(f.regions.smmu + offset);
const registers = (f: SmmuFixture): number[] =>
  [0, 0x10000].flatMap((page) => Array.from({ length: 0x40 }, (_, i) => f.mmio.read32(page + i * 4)));

test('reset: every register has its reset value again, whatever it was', (t) => {
  const fresh = registers(new SmmuFixture({ sids: [3, 4] }));
  const { f, line } = translating();
  f.mmio.write32(0x44, 0x8010_0000);
  f.mmio.write32(0x50, 0b101);
  f.run();
  for (const offset of [0x68, 0xb0, 0xd0]) f.mmio.write64(offset, 0x8000_1000n);
  f.mmio.write32(0x50, 0);
  f.run();
  for (let offset = 0x60; offset < 0xe0; offset += 4) f.mmio.write32(offset, 0x5a5a_5a5a);
  f.command([0n, 0n]);
  f.dma(0x9000n);
  t.notDeepEqual(registers(f), fresh);
  const events = word(f, at.eventsRecorded);
  const ticket = line.request();
  t.false(line.done(ticket));
  t.true(f.model.hasWork());
  f.run();
  t.true(line.done(ticket));
  t.false(f.model.hasWork());
  t.deepEqual(registers(f), fresh);
  t.is(word(f, at.eventsRecorded), events, 'counters for display go on');
});

test('reset: traffic bypasses, and nothing cached survives', (t) => {
  const { f, line } = translating();
  t.is(f.dma(0x1000n).pa, 0x8080_0000n);
  line.request();
  f.run();
  t.like(f.dma(0x1000n), { status: OK, pa: 0x1000n });
  translating(0x8090_0000n, f);
  t.is(f.dma(0x1000n).pa, 0x8090_0000n, 'neither the stream nor its translation');
});

test('reset: GBPA.ABORT is forgotten', (t) => {
  const f = new SmmuFixture();
  f.mmio.write32(0x44, 0x8010_0000);
  f.run();
  t.is(f.dma(0x1000n).status, GBPA_ABORT);
  new ResetLine(f.env, f.regions).request();
  f.run();
  t.is(f.dma(0x1000n).status, OK);
});

test('reset: is over when the DMA before it is', (t) => {
  const { f, line } = translating();
  f.begin(0, 0x1000n);
  t.is(f.finish(0).pa, 0x8080_0000n);
  const ticket = line.request();
  f.run();
  t.false(line.done(ticket));
  t.is(f.mmio.read32(0x24), 0, 'but the unit is off at once');
  t.is(f.dma(0x1000n, 0, 1).pa, 0x1000n);
  // Another thread takes over the model meanwhile.
  f.model = f.newModel();
  f.leave(0);
  f.run();
  t.true(line.done(ticket));
  t.is(f.memory.words.load(f.regions.unit + UnitLayout.at.syncWaiting), 0);
});

test('reset: a SYNC under way is dropped without its message', (t) => {
  const { f, line } = translating();
  const message = f.alloc(64);
  f.begin(0, 0x1000n);
  f.finish(0);
  f.command(S.sync(1, message, 0x1234));
  const before = word(f, at.syncSeq);
  line.request();
  f.leave(0);
  f.run();
  t.is(word(f, at.syncSeq), before);
  t.is(f.read64(message), 0n);
  t.is(f.mmio.read32(0x9c), 0);
  f.enable();
  f.command(S.sync(1, message, 0x1234));
  t.is(f.read64(message), 0x1234n);
  t.is(f.mmio.read32(0x9c), 1);
});

test('reset: so is an update of SMMUEN or GBPA', (t) => {
  const { f, line } = translating();
  f.begin(0, 0x1000n);
  f.finish(0);
  f.mmio.write32(0x20, 0b1100);
  f.run();
  f.mmio.write32(0x44, 0x8010_0000);
  const ticket = line.request();
  f.run();
  f.leave(0);
  f.run();
  t.true(line.done(ticket));
  t.is(f.mmio.read32(0x24), 0);
  t.is(f.mmio.read32(0x44), 0);
  t.is(f.dma(0x1000n).status, OK);
});

test('reset: stalled transactions are terminated, and the next stalls begin anew', (t) => {
  const f = new SmmuFixture({ sids: [3, 4], config: { stalls: 'optional' } });
  const ste = S.steS2({ root: f.alloc(4096), vmid: 1 });
  ste[2]! |= 1n << 57n;
  for (const sid of [3, 4]) f.setSte(sid, ste);
  f.enable();
  const stalled = [0, 1].map((index) => f.dma(0x1000n, 0, index));
  t.deepEqual(
    stalled.map(({ status }) => status),
    [STALLED, STALLED],
  );
  t.is(word(f, at.stallsHeld), 2);
  new ResetLine(f.env, f.regions).request();
  f.run();
  t.is(word(f, at.stallsHeld), 0);
  t.deepEqual(
    stalled.map(({ level }, index) => f.dmaPort(index).verdict(level)),
    [VERDICT_ABORT, VERDICT_ABORT],
  );
  f.enable();
  t.is(f.dma(0x1000n).status, STALLED);
});

test('reset: a device that does not complete an ATC invalidation is not waited for', (t) => {
  const f = new SmmuFixture({ sids: [3], ats: true, config: { ats: true } });
  f.setSte(3, S.STE_BYPASS);
  f.enable();
  f.memory.words.store(f.ports[0]! + PortLayout.at.atcHung, 1);
  f.command([0x40n | (3n << 32n), 52n], S.sync());
  t.is(f.mmio.read32(0x9c), 1, 'the SYNC waits');
  const line = new ResetLine(f.env, f.regions);
  const ticket = line.request();
  f.run();
  t.true(line.done(ticket));
  f.enable();
  f.command(S.sync());
  t.is(f.mmio.read32(0x9c), 1);
  t.is(f.mmio.read32(0x60), 0);
});

test('reset: a Command queue that stopped at an error runs again', (t) => {
  const { f, line } = translating();
  f.command([0n, 0n]);
  t.is(f.mmio.read32(0x60) & 1, 1);
  line.request();
  f.run();
  t.is(f.mmio.read32(0x60), 0);
  f.enable();
  f.command(S.sync());
  t.is(f.mmio.read32(0x9c), 1);
});

test('reset: asked for twice, and again while one waits', (t) => {
  const { f, line } = translating();
  const other = new ResetLine(f.env, f.regions);
  f.begin(0, 0x1000n);
  f.finish(0);
  const first = line.request();
  const second = other.request();
  f.run();
  const third = line.request();
  f.run();
  t.deepEqual(
    [first, second, third].map((ticket) => line.done(ticket)),
    [false, false, false],
  );
  f.leave(0);
  f.run();
  t.deepEqual(
    [first, second, third].map((ticket) => other.done(ticket)),
    [true, true, true],
  );
});

test('reset: tickets go round 2^32', (t) => {
  const f = new SmmuFixture();
  for (const offset of [at.resetAsked, at.resetBegun, at.resetDone])
    f.memory.words.store(f.regions.smmu + offset, 0x7fff_ffff);
  const line = new ResetLine(f.env, f.regions);
  const ticket = line.request();
  t.false(line.done(ticket));
  f.run();
  t.true(line.done(ticket));
});

test('reset: wait steps an inline model, and gives up at its deadline', (t) => {
  const { f, line } = translating();
  t.is(line.wait(line.request(), f.env.clock.nowNs() + 10 * SECOND), 0);
  f.begin(0, 0x1000n);
  t.is(line.wait(line.request(), f.env.clock.nowNs() + 1e6), -110);
  f.leave(0);
});

test('reset: of a unit on another thread, between batches of DMA', async (t) => {
  const f = new SmmuFixture({ sids: [3, 4] });
  const root = f.alloc(4096);
  for (const sid of f.sids) f.setSte(sid, S.steS2({ root, vmid: 1 }));
  const worker = new Worker(new URL('./host-worker.js', import.meta.url), {
    workerData: { handle: f.memory.handle(), config: f.config },
  });
  const exited = new Promise<number>((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  f.model = { step: () => false } as unknown as typeof f.model;
  const env = { ...f.env, canPark: true, relax: undefined };
  const line = new ResetLine(env, f.regions);
  const deadline = (): number => env.clock.nowNs() + 10 * SECOND;
  const until = (ready: () => boolean): void => {
    const result = waitUntil(env, f.regions.smmu + at.cr0ack, ready, deadline(), undefined, undefined, 1);
    if (result !== 0) throw new Error(`no progress: ${result}`);
  };
  const dma = (index: number): bigint => {
    f.begin(index, 0x1000n);
    until(() => f.kernel.dmaPoll(f.ports[index]!) === 0);
    return f.finish(index).pa;
  };
  for (let round = 0; round < 100; round++) {
    const pa = 0x8080_0000n + BigInt(round) * 0x1000n;
    f.map(root, 1, 0x1000n, pa, 3, S.S2_PAGE);
    f.enable();
    until(() => f.mmio.read32(0x24) === 0b1101);
    t.is(dma(0), pa);
    const ticket = line.request();
    if (round % 2 === 0) {
      until(() => f.mmio.read32(0x24) === 0);
      t.is(dma(1), 0x1000n);
      f.leave(1);
      t.false(line.done(ticket), 'port 0 is still inside');
    }
    f.leave(0);
    t.is(line.wait(ticket, deadline()), 0);
  }
  f.memory.words.store(f.regions.unit + UnitLayout.at.portCount, -1);
  f.mmio.write32(0x50, 0);
  t.is(await exited, 0);
});
