/** Stalls end to end: from a device's DMA to a program's fault queue, and its answer back to the device. */
import test from 'ava';
import { createMachine } from '../../../../runtime/machine.js';

const DEVICE = '0000:01:00.0';
const STALLED = 0xfe;
const [VERDICT_NONE, VERDICT_RETRY, VERDICT_ABORT] = [0, 1, 2];
const [FAULT_ID_VALID, NEST_PARENT, ALLOC_PASID] = [4, 1, 8];
const [PASID_VALID, LAST_PAGE] = [1, 2];
const [READ, WRITE, EXEC, PRIV] = [1, 2, 4, 8];
const IOVA = 0x40_0000n;
const F_TRANSLATION = 0x10;

function scene(device: { stall?: boolean; pasidBits?: number } = { stall: true, pasidBits: 8 }) {
  const machine = createMachine({
    memory: '32MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [{ bdf: DEVICE, iommu: 'smmu0', ...device }],
  });
  const fd = machine.openIommufd();
  const vfio = machine.openVfio(DEVICE);
  const { devId } = vfio.bindIommufd(fd);
  const { ioasId } = fd.ioasAlloc();
  const queue = fd.faultQueueAlloc();
  const hwpt = (flags = ALLOC_PASID, { faultId } = queue) =>
    fd.hwptAlloc({ devId, ptId: ioasId, flags, faultId }).hwptId;
  const port = machine.dmaPort(DEVICE);
  const userVa = machine.user.alloc(0x1000);
  const map = (length = 0x1000) => fd.ioasMap({ ioasId, userVa, length, iova: IOVA });
  /** Writes, and lets the SMMU and its driver see to what comes of it. */
  const stall = (options = {}) => {
    const status = port.write(IOVA, Uint8Array.of(7), options);
    const [stag] = port.stalled;
    machine.poll();
    return { status, stag: stag ?? -1 };
  };
  return { machine, fd, vfio, devId, ioasId, queue, hwpt, port, map, stall };
}

test('a stall is read from the fault queue, the page is mapped, and the device goes on', (t) => {
  const s = scene();
  s.vfio.attach(s.hwpt());
  const { status, stag } = s.stall();
  t.is(status, STALLED);
  t.is(s.port.verdict(stag), VERDICT_NONE, 'it waits');
  const [fault] = s.queue.faults();
  t.like(fault, {
    flags: LAST_PAGE,
    devId: s.devId,
    pasid: 0,
    grpid: stag,
    perm: WRITE,
    addr: IOVA,
    length: 0,
  });
  s.map();
  s.queue.respond(fault!.cookie, 'success');
  s.machine.poll();
  t.is(s.port.verdict(stag), VERDICT_RETRY);
  t.is(s.port.write(IOVA, Uint8Array.of(9)), 0);
  const seen = new Uint8Array(1);
  t.is(s.port.read(IOVA, seen), 0);
  t.is(seen[0], 9);
  s.machine.close();
});

test('an answer of INVALID ends the transaction; SUCCESS without a page makes another fault', (t) => {
  const s = scene();
  s.vfio.attach(s.hwpt());
  const first = s.stall();
  s.queue.respond(s.queue.faults()[0]!.cookie, 'invalid');
  s.machine.poll();
  t.is(s.port.verdict(first.stag), VERDICT_ABORT);
  const second = s.stall();
  s.queue.respond(s.queue.faults()[0]!.cookie, 'success');
  s.machine.poll();
  t.is(s.port.verdict(second.stag), VERDICT_RETRY);
  const third = s.stall();
  t.is(third.status, STALLED);
  t.is(s.queue.faults().length, 1);
  s.machine.close();
});

test('what the record says of the access', (t) => {
  const s = scene();
  s.vfio.attach(s.hwpt());
  s.vfio.attach(s.hwpt(), { pasid: 5 });
  const into = new Uint8Array(1);
  s.port.read(IOVA + 0x123n, into);
  s.port.read(IOVA, into, { instruction: true });
  s.port.write(IOVA, into, { privileged: true });
  s.port.read(IOVA, into, { pasid: 5 });
  s.machine.poll();
  t.deepEqual(
    s.queue.faults().map(({ flags, perm, pasid, addr }) => [flags, perm, pasid, addr]),
    [
      [LAST_PAGE, READ, 0, IOVA + 0x123n],
      [LAST_PAGE, READ | EXEC, 0, IOVA],
      [LAST_PAGE, WRITE | PRIV, 0, IOVA],
      [LAST_PAGE | PASID_VALID, READ, 5, IOVA],
    ],
  );
  s.machine.close();
});

test('each PASID has the queue of its own page table', (t) => {
  const s = scene();
  const second = s.fd.faultQueueAlloc();
  s.vfio.attach(s.hwpt());
  s.vfio.attach(s.hwpt(ALLOC_PASID, second), { pasid: 5 });
  const { stag } = s.stall({ pasid: 5 });
  t.false(s.queue.poll());
  t.is(second.faults()[0]!.grpid, stag);
  second.respond(1, 'success');
  s.machine.poll();
  t.is(s.port.verdict(stag), VERDICT_RETRY);
  s.machine.close();
});

test('a page table without a queue: the stall is aborted, as is one of a PASID without', (t) => {
  const s = scene();
  const plain = () => s.fd.hwptAlloc({ devId: s.devId, ptId: s.ioasId, flags: ALLOC_PASID }).hwptId;
  s.vfio.attach(plain());
  t.is(s.port.verdict(s.stall().stag), VERDICT_ABORT);
  s.vfio.attach(s.hwpt());
  s.vfio.attach(plain(), { pasid: 5 });
  t.is(s.port.verdict(s.stall({ pasid: 5 }).stag), VERDICT_ABORT);
  t.is(s.port.verdict(s.stall().stag), VERDICT_NONE);
  t.is(s.queue.faults().length, 1);
  s.machine.close();
});

test('a device that may not wait faults as ever, queue or not', (t) => {
  const s = scene({});
  s.vfio.attach(s.hwpt());
  t.is(s.stall().status, F_TRANSLATION);
  t.false(s.queue.poll());
  s.machine.close();
});

for (const [how, leave] of [
  ['detach', (s: ReturnType<typeof scene>) => s.vfio.detach()],
  ['replace by a table without a queue', (s) => void s.vfio.attach(s.ioasId)],
  ['replace by another with one', (s) => void s.vfio.attach(s.hwpt(ALLOC_PASID, s.fd.faultQueueAlloc()))],
  ['close', (s) => s.vfio.close()],
] as readonly (readonly [string, (s: ReturnType<typeof scene>) => void])[])
  test(`${how}: every stall that waits is answered, read or not, whether the driver has seen it or not`, (t) => {
    const s = scene();
    s.vfio.attach(s.hwpt());
    const read = s.stall();
    const [fault] = s.queue.faults();
    const unread = s.stall();
    t.is(s.port.write(IOVA, Uint8Array.of(1)), STALLED);
    const [unseen] = s.port.stalled;
    leave(s);
    s.machine.settle();
    t.is(s.port.verdict(read.stag), VERDICT_ABORT);
    t.is(s.port.verdict(unread.stag), VERDICT_ABORT);
    // One that the driver meets only afterwards belongs to what the device is attached to by then.
    const moved = how === 'replace by another with one';
    t.is(s.port.verdict(unseen!), moved ? VERDICT_NONE : VERDICT_ABORT);
    t.false(s.queue.poll());
    t.throws(() => s.queue.respond(fault!.cookie, 'success'), { code: 'EINVAL' });
    s.vfio.close();
    s.machine.settle();
    t.is(s.port.verdict(unseen!), VERDICT_ABORT);
    s.machine.close();
  });

test('a PASID that is detached: its stalls are answered, the device’s own wait on', (t) => {
  const s = scene();
  s.vfio.attach(s.hwpt());
  s.vfio.attach(s.hwpt(), { pasid: 5 });
  const own = s.stall();
  const pasid = s.stall({ pasid: 5 });
  s.vfio.detach({ pasid: 5 });
  s.machine.settle();
  t.is(s.port.verdict(pasid.stag), VERDICT_ABORT);
  t.is(s.port.verdict(own.stag), VERDICT_NONE);
  t.deepEqual(
    s.queue.faults().map(({ grpid }) => grpid),
    [own.stag],
  );
  s.machine.close();
});

test('a guest’s page table: stalls of its stage 1 and of every substream are its program’s', (t) => {
  const s = scene();
  const { fd, devId, ioasId, machine } = s;
  const parent = fd.hwptAlloc({ devId, ptId: ioasId, flags: NEST_PARENT }).hwptId;
  const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: 1 });
  fd.vdeviceAlloc({ viommuId, devId, virtId: 3 });
  // The guest's RAM at IPA 0: a CD table of one valid CD, whose stage-1 table is empty.
  const userVa = machine.user.alloc(0x4000);
  fd.ioasMap({ ioasId, userVa, length: 0x4000, iova: 0n });
  const cd = new Uint8Array(64);
  const view = new DataView(cd.buffer);
  const [EPD1, V, AA64, S, R, A, ASET] = [30n, 31n, 41n, 44n, 45n, 46n, 47n].map((bit) => 1n << bit);
  view.setBigUint64(0, 25n | EPD1! | V! | (5n << 32n) | AA64! | S! | R! | A! | ASET! | (1n << 48n), true);
  view.setBigUint64(8, 0x2000n, true);
  for (const at of [0n, 64n]) machine.user.copyOut(userVa + 0x1000n + at, cd);
  const ste = new Uint8Array(16);
  // S1 translate, a table of two CDs at 0x1000, substream 0 for what comes without.
  new DataView(ste.buffer).setBigUint64(0, 1n | (5n << 1n) | 0x1000n | (1n << 59n), true);
  new DataView(ste.buffer).setBigUint64(8, 2n, true);
  const nested = fd.hwptAlloc({
    devId,
    ptId: viommuId,
    dataType: 2,
    data: ste,
    flags: FAULT_ID_VALID,
    faultId: s.queue.faultId,
  }).hwptId;
  s.vfio.attach(nested);
  const [own, sub] = [s.stall(), s.stall({ pasid: 1 })];
  t.deepEqual([own.status, sub.status], [STALLED, STALLED]);
  const faults = s.queue.faults();
  t.deepEqual(
    faults.map(({ flags, pasid, grpid }) => [flags, pasid, grpid]),
    [
      [LAST_PAGE, 0, own.stag],
      [LAST_PAGE | PASID_VALID, 1, sub.stag],
    ],
  );
  s.queue.respond(faults[1]!.cookie, 'success');
  s.machine.poll();
  t.is(s.port.verdict(sub.stag), VERDICT_RETRY);
  s.vfio.detach();
  s.machine.settle();
  t.is(s.port.verdict(own.stag), VERDICT_ABORT);
  machine.close();
});
