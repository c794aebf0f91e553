import test from 'ava';
import { Shadow } from '../../../perf/stress/checker/shadow.js';
import { eventCounters } from '../../../perf/stress/events.js';
import { DmaBatch, EXPECT_EITHER, EXPECT_OK } from '../../../perf/stress/programs/dma-batch.js';
import { Hostile } from '../../../perf/stress/programs/hostile.js';
import { Random } from '../../../perf/stress/random.js';
import { DeviceStats, StressLayout } from '../../../perf/stress/stress-layout.js';
import { createMachine } from '../../../runtime/machine.js';

const IOVA_PAGE = 0x12_3456;
const F_TRANSLATION = 0x10;
const F_PERMISSION = 0x13;
const F_BAD_ATS_TREQ = 0x05;
const F_TRANSL_FORBIDDEN = 0x07;
const C_BAD_SUBSTREAMID = 0x08;
const TRANSLATED = 1 << 3;
const TRANSLATION_REQUEST = 1 << 4;
/** Kinds, as shadow-layout.ts numbers them. */
const DEAD_FRAME = 1;
const WRONG_OWNER = 2;
const GUEST_STALE = 3;
const READ_CANARY = 4;
const WRONG_FAULT = 5;
const NO_FAULT = 6;

/** A device with one mapped page, whose shadow a test then falsifies: the translation itself is right. */
function judged(vm = -1, ats = false) {
  let shadow: Shadow | undefined;
  const machine = createMachine(
    {
      memory: '32MiB',
      iommus: [{ name: 'smmu0', model: 'smmuv3' }],
      devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0', ats, pri: ats }],
      trace: true,
    },
    {
      instrument: (memory) => {
        Shadow.allocRegions(memory);
        memory.allocRegion(StressLayout, 'stress');
        shadow = new Shadow(memory);
        return {};
      },
    },
  );
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const userVa = machine.user.alloc(4096);
  const run = { pfn: 0, pages: 0 };
  machine.user.runAt(Number(userVa >> 12n), run);
  fd.ioasMap({ ioasId, userVa, length: 4096, iova: BigInt(IOVA_PAGE) << 12n });
  const readOnly = machine.user.alloc(4096);
  fd.ioasMap({
    ioasId,
    userVa: readOnly,
    length: 4096,
    iova: BigInt(IOVA_PAGE + 2) << 12n,
    writeable: false,
  });
  const vfio = machine.openVfio('0000:01:00.0');
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  const { memory } = machine;
  const stats = memory.region(StressLayout, 'stress').base + StressLayout.at.devices;
  const who = { device: 0, owner: ioasId, vm };
  const port = machine.dmaPort('0000:01:00.0');
  const batch = new DmaBatch(machine.env, memory, port, shadow!, new Random(1), who, stats);
  shadow!.setLive(run.pfn, ioasId, vm < 0 ? IOVA_PAGE : 0);
  const kinds = () =>
    Array.from({ length: shadow!.violationCount() }, (_, n) => memory.i32[shadow!.violation(n) + 1]);
  const stat = (at: number) => memory.u32[(stats + at) >> 2];
  return { machine, shadow: shadow!, port, stats, batch, pfn: run.pfn, ioasId, kinds, stat };
}

test('judge: a right DMA, read or write, is counted and not accused', (t) => {
  const { batch, kinds, stat } = judged();
  batch.add(IOVA_PAGE, true, EXPECT_OK);
  batch.add(IOVA_PAGE, false, EXPECT_EITHER);
  t.is(batch.run(), 2);
  t.deepEqual(kinds(), []);
  t.is(stat(DeviceStats.at.checks), 2);
});

test('judge: a frame that is dead, or somebody else’s, or at another page', (t) => {
  const { batch, shadow, pfn, ioasId, kinds } = judged();
  shadow.setDead(pfn, 1);
  batch.add(IOVA_PAGE, true, EXPECT_OK);
  batch.run();
  shadow.setLive(pfn, ioasId + 1, IOVA_PAGE);
  batch.add(IOVA_PAGE, true, EXPECT_OK);
  batch.run();
  shadow.setLive(pfn, ioasId, IOVA_PAGE + 1);
  batch.add(IOVA_PAGE, true, EXPECT_OK);
  batch.run();
  t.deepEqual(kinds(), [DEAD_FRAME, WRONG_OWNER, WRONG_OWNER]);
});

test('judge: reading the canary of a dead frame', (t) => {
  const { batch, shadow, pfn, kinds } = judged();
  shadow.plantCanary(pfn);
  batch.add(IOVA_PAGE, false, EXPECT_OK);
  batch.run();
  t.deepEqual(kinds(), [READ_CANARY]);
});

test('judge: a guest page that its guest has invalidated, or given to another device', (t) => {
  const { batch, shadow, pfn, kinds } = judged(0);
  shadow.setGuestLive(pfn, 0, IOVA_PAGE);
  batch.add(IOVA_PAGE, true, EXPECT_OK);
  batch.run();
  t.deepEqual(kinds(), []);
  shadow.setGuestDead(pfn, shadow.logGuestInvalidation(0, 0, IOVA_PAGE, 1, 5, 6));
  batch.add(IOVA_PAGE, true, EXPECT_OK);
  batch.run();
  shadow.setGuestLive(pfn, 3, IOVA_PAGE);
  batch.add(IOVA_PAGE, true, EXPECT_OK);
  batch.run();
  t.deepEqual(kinds(), [GUEST_STALE, GUEST_STALE]);
});

test('judge: a fault where there had to be none, another fault than the right one, none where there had to be', (t) => {
  const { batch, kinds, stat } = judged();
  batch.add(IOVA_PAGE + 1, true, EXPECT_OK);
  batch.add(IOVA_PAGE + 1, true, F_PERMISSION);
  batch.add(IOVA_PAGE, true, F_TRANSLATION);
  batch.add(IOVA_PAGE + 1, true, F_TRANSLATION);
  batch.add(IOVA_PAGE + 1, true, EXPECT_EITHER);
  batch.run();
  t.deepEqual(kinds().toSorted(), [WRONG_FAULT, WRONG_FAULT, NO_FAULT]);
  t.is(stat(DeviceStats.at.translationFaults), 4);
});

test('judge: more violations than there are records are still counted', (t) => {
  const { batch, shadow, pfn } = judged();
  shadow.setDead(pfn, 1);
  for (let i = 0; i < 10; i++) {
    while (!batch.full) batch.add(IOVA_PAGE, true, EXPECT_OK);
    batch.run();
  }
  t.is(shadow.violationCount(), 640);
});

test('judge: requests of a device that may not use ATS, and a PASID on a stream without substreams', (t) => {
  const { machine, batch, kinds, stat } = judged();
  batch.add(IOVA_PAGE, true, F_TRANSL_FORBIDDEN, { kind: TRANSLATED });
  batch.add(IOVA_PAGE, false, F_BAD_ATS_TREQ, { kind: TRANSLATION_REQUEST });
  batch.add(IOVA_PAGE, true, C_BAD_SUBSTREAMID, { ssid: 5 });
  t.is(batch.run(), 0);
  t.deepEqual(kinds(), []);
  const { forbiddenTranslated, forbiddenRequests, badSubstreams, faultChecks, notGranted } = DeviceStats.at;
  t.deepEqual([forbiddenTranslated, forbiddenRequests, badSubstreams].map(stat), [1, 1, 1]);
  t.deepEqual([faultChecks, notGranted].map(stat), [3, 0]);
  machine.poll();
});

test('judge: a device with an ATC is told by the answer to its request, and nobody records an event', (t) => {
  const { machine, batch, kinds, stat } = judged(-1, true);
  batch.add(IOVA_PAGE + 1, true, F_TRANSLATION);
  batch.add(IOVA_PAGE + 1, true, EXPECT_EITHER);
  batch.add(IOVA_PAGE, true, C_BAD_SUBSTREAMID, { ssid: 5 });
  batch.add(IOVA_PAGE, true, EXPECT_OK);
  t.is(batch.run(), 1);
  batch.add(IOVA_PAGE, true, EXPECT_OK);
  t.is(batch.run(), 1);
  t.deepEqual(kinds(), []);
  const { notGranted, translationFaults, badSubstreams, atcChecks, checks } = DeviceStats.at;
  t.deepEqual([notGranted, translationFaults, badSubstreams].map(stat), [3, 0, 0]);
  t.deepEqual([checks, atcChecks].map(stat), [1, 1]);
  t.is(eventCounters(machine.memory, 0).recorded, 0);
});

test('hostile: each kind gets its answer; a page request is refused', (t) => {
  for (const ats of [false, true]) {
    const { machine, shadow, port, stats, batch, kinds, stat } = judged(-1, ats);
    const args = { device: 0, readOnlyPage: IOVA_PAGE + 2, holePage: IOVA_PAGE + 1, badSid: 0x7fff_0001 };
    const hostile = new Hostile(machine.memory, port, shadow, new Random(3), args, stats);
    machine.poll();
    for (let i = 0; i < 400; i++) {
      hostile.add(batch);
      if (!batch.full) continue;
      batch.run();
      machine.poll();
    }
    batch.run();
    machine.poll();
    machine.poll();
    t.deepEqual(kinds(), []);
    const { pageRequests, forbiddenTranslated, forbiddenRequests } = DeviceStats.at;
    t.is(stat(pageRequests)! > 0, ats);
    t.is(stat(forbiddenTranslated)! > 0, !ats);
    t.is(stat(forbiddenRequests)! > 0, !ats);
  }
});
