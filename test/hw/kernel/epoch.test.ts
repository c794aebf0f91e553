/**
 * R1 of the race catalogue on real threads: a device translates while the pIOMMU (this thread) unmaps,
 * invalidates and completes a SYNC by the epoch protocol. A frame is marked dead only after SYNC, so a device
 * that still reaches it used a translation past its invalidation. The same run with a SYNC that does not wait
 * for the device must be seen to fail.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { KernelBench, RAM_PA } from '../../kit/kernel-bench.js';

const PAGES = 32;
const FRAME_TAGS = 64;
const SID = 3;

interface Totals {
  translations: number;
  faults: number;
  stale: number;
  invalidations: number;
  waits: number;
}

/** @param sync  which parts of an unmap are done: the invalidation, and the wait for the device */
async function duel(sync: { invalidate: boolean; wait: boolean }, untilMs: number): Promise<Totals> {
  const bench = new KernelBench({ entries: 256 });
  const { kernel, memory, unit, iotlb, port, scratch } = bench;
  const { words } = memory;
  const control = bench.tables;
  bench.set32(port + PortLayout.at.sid, SID);
  bench.setRam(RAM_PA, (RAM_PA + 0x1000n) | 3n);
  bench.setRam(RAM_PA + 0x1000n, (RAM_PA + 0x2000n) | 3n);
  const context = bench.context(SID, { kind: 3, tag: 4, s2Root: RAM_PA, s2InputBits: 39, s2StartLevel: 1 });
  const leaf = (page: number): number => memory.ram.linear + 0x2000 + page * 8;
  const frameOf = Array.from({ length: PAGES }, (_, i) => i);
  const map = (page: number): void => words.store64(leaf(page), (BigInt(frameOf[page]!) << 12n) | 0x4c3n);
  for (let page = 0; page < PAGES; page++) map(page);

  const worker = new Worker(new URL('./epoch-device.js', import.meta.url), {
    workerData: { handle: memory.handle(), port, unit, control, pages: PAGES },
  });
  await once(worker, 'message');
  const serve = (): void => {
    const n = kernel.takeRequests(port, scratch, 128);
    if (n === 0) return;
    kernel.translateBatch(unit, context, iotlb, scratch, n);
    kernel.answer(port, scratch, n);
  };
  let invalidations = 0;
  let waits = 0;
  const end = performance.now() + untilMs;
  let next = PAGES;
  while (performance.now() < end) {
    for (let i = 0; i < 200; i++) serve();
    const page = invalidations % PAGES;
    const old = frameOf[page]!;
    words.store64(leaf(page), 0n);
    if (sync.invalidate) kernel.iotlbInvalidateIpa(unit, iotlb, 4, page, 1);
    const gen = words.add(unit + UnitLayout.at.gen, 1) + 1;
    words.store(unit + UnitLayout.at.syncWaiting, 1);
    const left = (): boolean => {
      const ack = words.load(port + PortLayout.at.ack);
      return ack === 0 || ack >= gen;
    };
    while (sync.wait && !left()) {
      waits++;
      serve();
    }
    words.store(unit + UnitLayout.at.syncWaiting, 0);
    words.store(control + 64 + old * 4, 1);
    // Dead for a while, then the page is mapped to another frame, and a long-dead one lives again.
    for (let i = 0; i < 50; i++) serve();
    frameOf[page] = next;
    words.store(control + 64 + next * 4, 0);
    next = (next + 1) % FRAME_TAGS;
    while (frameOf.includes(next)) next = (next + 1) % FRAME_TAGS;
    map(page);
    invalidations++;
  }
  words.store(control, 1);
  const [totals] = (await once(worker, 'message')) as [Totals];
  await worker.terminate();
  return { ...totals, invalidations, waits };
}

test.serial('epoch: no device reaches a frame after the SYNC of its invalidation', async (t) => {
  const totals = await duel({ invalidate: true, wait: true }, 1500);
  t.log(JSON.stringify(totals));
  t.is(totals.stale, 0);
  t.true(totals.translations > 1000);
  t.true(totals.invalidations > 20);
});

test.serial('epoch: a SYNC without its invalidation is caught', async (t) => {
  const totals = await duel({ invalidate: false, wait: true }, 500);
  t.log(JSON.stringify(totals));
  t.true(totals.stale > 0);
});

test.serial('epoch: a SYNC that does not wait for the device is caught', async (t) => {
  let totals = await duel({ invalidate: true, wait: false }, 500);
  for (let tries = 0; totals.stale === 0 && tries < 8; tries++)
    totals = await duel({ invalidate: true, wait: false }, 1000);
  t.log(JSON.stringify(totals));
  t.true(totals.stale > 0);
});
