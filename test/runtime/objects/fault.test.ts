/** FAULT queues: what a program reads and writes, whom a fault goes to, and who answers when nobody does. */
import test from 'ava';
import type { HostDevice, PageFault } from '../../../runtime/drivers/contract.js';
import type { Fault } from '../../../runtime/objects/fault.js';
import { HwptPageResponse, HwptPgfault } from '../../../uapi/iommufd/fault.js';
import { CoreBench, type CoreBenchOptions, errnoOf } from '../../kit/core-bench.js';

const [ENOENT, EFAULT, EBUSY, EINVAL, ESPIPE, EOPNOTSUPP] = [2, 14, 16, 22, 29, 95];
const ENOMEM = 12;
const [SUCCESS, INVALID] = [0, 1];
const [NEST_PARENT, FAULT_ID_VALID, ALLOC_PASID] = [1, 4, 8];
const [PASID_VALID, LAST_PAGE] = [1, 2];
const [PERM_READ, PERM_WRITE] = [1, 2];
const RECORD = 40;
const STE = Uint8Array.from([1, ...new Array(15).fill(0)]);
const OBJ_FAULT = 10;

function scene(options: CoreBenchOptions = {}) {
  const bench = new CoreBench({ iommus: [{ maxPasids: 1 << 20 }], ...options });
  const { fd } = bench;
  const queue = fd.faultQueueAlloc();
  const { ioasId } = fd.ioasAlloc();
  const { vfio, devId } = bench.bind();
  const faulting = (flags = 0, faultId = queue.faultId) =>
    fd.hwptAlloc({ devId, ptId: ioasId, flags: FAULT_ID_VALID | flags, faultId }).hwptId;
  return { bench, fd, queue, ioasId, vfio, devId, faulting };
}

type Scene = ReturnType<typeof scene>;

/** What a driver does with a fault; `answers` collects what the device is told. */
function raise({ bench }: Pick<Scene, 'bench'>, fault: Partial<PageFault> = {}, device?: HostDevice) {
  const answers: number[] = [];
  const whole: PageFault = {
    pasid: -1,
    grpid: 7,
    perm: PERM_WRITE,
    addr: 0x5000n,
    last: true,
    respond: (code) => answers.push(code),
    ...fault,
  };
  const status = bench.iommus[0]!.faults!.report(device ?? bench.devices[0]!, whole);
  return { status, answers };
}

test('a fault is read as one record and answered by its cookie', (t) => {
  const s = scene();
  const { queue, vfio, devId } = s;
  vfio.attach(s.faulting());
  t.false(queue.poll());
  t.is(queue.read(RECORD).byteLength, 0, 'nothing to read, and no waiting');
  const { status, answers } = raise(s);
  t.is(status, 0);
  t.true(queue.poll());
  const bytes = queue.read(RECORD);
  t.deepEqual(HwptPgfault.decode(bytes), {
    flags: LAST_PAGE,
    devId,
    pasid: 0,
    grpid: 7,
    perm: PERM_WRITE,
    reserved: 0,
    addr: 0x5000n,
    length: 0,
    cookie: 1,
  });
  t.false(queue.poll());
  t.deepEqual(answers, []);
  queue.respond(1, 'success');
  t.deepEqual(answers, [SUCCESS]);
  t.is(
    errnoOf(() => queue.respond(1, 'success')),
    EINVAL,
    'a cookie is good for one answer',
  );
  t.deepEqual(answers, [SUCCESS]);
});

test('a group is its faults in order, with one cookie, and only the last is answered', (t) => {
  const s = scene();
  s.vfio.attach(s.faulting());
  const first = raise(s, { last: false, addr: 0x1000n });
  raise(s, { last: false, grpid: 8, addr: 0x9000n });
  raise(s, { last: false, addr: 0x2000n, perm: PERM_READ });
  t.false(s.queue.poll(), 'a group is told of when it is complete');
  const last = raise(s, { addr: 0x3000n });
  t.deepEqual(
    s.queue.faults().map(({ addr, flags, cookie, perm }) => [addr, flags, cookie, perm]),
    [
      [0x1000n, 0, 1, PERM_WRITE],
      [0x2000n, 0, 1, PERM_READ],
      [0x3000n, LAST_PAGE, 1, PERM_WRITE],
    ],
  );
  s.queue.respond(1, 'invalid');
  t.deepEqual([first.answers, last.answers], [[], [INVALID]]);
  const other = raise(s, { grpid: 8 });
  t.is(s.queue.faults().length, 2, 'the other group had one waiting');
  s.queue.respond(1, 'success');
  t.deepEqual(other.answers, [SUCCESS]);
});

test('read takes whole groups: one that does not fit stays, EINVAL when it is the first', (t) => {
  for (const compat of ['fixed', '7.0'] as const) {
    const s = scene({ compat });
    const { queue } = s;
    s.vfio.attach(s.faulting());
    raise(s, { grpid: 1 });
    raise(s, { grpid: 2, last: false });
    raise(s, { grpid: 2 });
    t.is(queue.read(2 * RECORD).byteLength, RECORD);
    if (compat === '7.0') t.is(queue.read(RECORD).byteLength, 0, '7.0 says that there is nothing');
    else
      t.is(
        errnoOf(() => queue.read(RECORD)),
        EINVAL,
      );
    t.is(queue.read(0).byteLength, 0);
    t.is(queue.read(2 * RECORD).byteLength, 2 * RECORD);
    for (const count of [1, RECORD - 1, RECORD + 1])
      t.is(
        errnoOf(() => queue.read(count)),
        ESPIPE,
      );
  }
});

test('read into memory that ends: nothing is lost', (t) => {
  for (const compat of ['fixed', '7.0'] as const) {
    const s = scene({ compat });
    s.vfio.attach(s.faulting());
    raise(s, { grpid: 1 });
    raise(s, { grpid: 2, last: false });
    raise(s, { grpid: 2 });
    const fault = s.fd.ctx.get<Fault>(s.queue.faultId, OBJ_FAULT)!;
    const upTo = (end: number) => (offset: number) => (offset + RECORD <= end ? 0 : -EFAULT);
    t.is(fault.readTo(3 * RECORD, upTo(0)), -EFAULT);
    const part = fault.readTo(3 * RECORD, upTo(2 * RECORD));
    // 7.0 tells half of the second group, and takes its cookie back.
    t.is(part, compat === '7.0' ? 2 * RECORD : RECORD);
    const rest = s.queue.faults();
    t.deepEqual(
      rest.map(({ grpid, cookie }) => [grpid, cookie]),
      [
        [2, 2],
        [2, 2],
      ],
    );
    s.fd.ctx.put(fault);
  }
});

test('write: whole answers, until one is wrong', (t) => {
  const s = scene();
  const { queue } = s;
  s.vfio.attach(s.faulting());
  const [a, b, c] = [1, 2, 3].map((grpid) => raise(s, { grpid }));
  queue.faults();
  t.is(
    errnoOf(() => queue.write(new Uint8Array(7))),
    ESPIPE,
  );
  t.is(queue.write(new Uint8Array(0)), 0);
  const answer = (...pairs: [number, number][]) => {
    const bytes = new Uint8Array(8 * pairs.length);
    for (const [i, [cookie, code]] of pairs.entries())
      bytes.set(HwptPageResponse.toBytes({ cookie, code }), i * 8);
    return bytes;
  };
  t.is(
    errnoOf(() => queue.write(answer([1, 2]))),
    EINVAL,
    'no such code',
  );
  t.deepEqual(a!.answers, [], 'and the cookie stays good');
  t.is(queue.write(answer([2, INVALID], [1, SUCCESS], [9, SUCCESS], [3, SUCCESS])), 16);
  t.deepEqual([a!.answers, b!.answers, c!.answers], [[SUCCESS], [INVALID], []]);
  // The lowest free cookie is the next.
  raise(s);
  t.deepEqual(
    queue.faults().map(({ cookie }) => cookie),
    [1],
  );
});

test('FAULT_ID_VALID: ENOENT, EOPNOTSUPP with NEST_PARENT, and both kinds of page table take it', (t) => {
  const s = scene();
  const { fd, queue, devId, ioasId, vfio } = s;
  const objects = fd.ctx.objectCount;
  for (const faultId of [99, devId, 0])
    t.is(
      errnoOf(() => s.faulting(0, faultId)),
      ENOENT,
    );
  t.is(
    errnoOf(() => s.faulting(NEST_PARENT)),
    EOPNOTSUPP,
  );
  t.is(fd.ctx.objectCount, objects);
  const parent = fd.hwptAlloc({ devId, ptId: ioasId, flags: NEST_PARENT }).hwptId;
  const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: 1 });
  fd.vdeviceAlloc({ viommuId, devId, virtId: 3 });
  const nested = fd.hwptAlloc({
    devId,
    ptId: viommuId,
    dataType: 2,
    data: STE,
    flags: FAULT_ID_VALID,
    faultId: queue.faultId,
  }).hwptId;
  vfio.attach(nested);
  t.is(
    errnoOf(() => fd.destroy(queue.faultId)),
    EBUSY,
  );
  const { answers } = raise(s);
  t.is(queue.faults().length, 1);
  vfio.detach();
  t.deepEqual(answers, [INVALID]);
});

test('FAULT_QUEUE_ALLOC: flags are EOPNOTSUPP; the object outlives neither its file nor its page tables', (t) => {
  const s = scene();
  const { fd, queue } = s;
  const struct = new Uint8Array(16);
  const view = new DataView(struct.buffer);
  view.setUint32(0, 16, true);
  view.setUint32(4, 1, true);
  t.is(fd.ioctl(0x3b8e, struct), -EOPNOTSUPP);
  const hwpt = s.faulting();
  t.is(
    errnoOf(() => fd.destroy(queue.faultId)),
    EBUSY,
  );
  queue.close();
  t.is(
    errnoOf(() => fd.destroy(queue.faultId)),
    EBUSY,
  );
  fd.destroy(hwpt);
  fd.destroy(queue.faultId);
});

test('poll: always writable; whoever waits is told when a fault comes', (t) => {
  const s = scene();
  s.vfio.attach(s.faulting());
  const file = s.bench.core.own.files.get(s.queue.fd)!;
  let woken = 0;
  file.onReadable = () => woken++;
  t.is(file.poll!(), 4);
  raise(s);
  raise(s, { grpid: 8 });
  t.is(file.poll!(), 5);
  t.is(woken, 1, 'once while it stays readable');
});

test('without a handler the fault is answered at once', (t) => {
  const s = scene();
  t.deepEqual(raise(s), { status: -EINVAL, answers: [INVALID] }, 'blocked');
  s.vfio.attach(s.ioasId);
  t.deepEqual(raise(s), { status: -EINVAL, answers: [INVALID] }, 'no queue');
  s.vfio.close();
  t.deepEqual(raise(s), { status: -EINVAL, answers: [INVALID] }, 'not bound');
});

test('detach answers what waits, read or not, and its cookie is no more', (t) => {
  const s = scene();
  s.vfio.attach(s.faulting());
  const read = raise(s, { grpid: 1 });
  t.is(s.queue.faults().length, 1);
  const later = raise(s, { grpid: 2 });
  s.vfio.detach();
  t.deepEqual([read.answers, later.answers], [[INVALID], [INVALID]]);
  t.false(s.queue.poll());
  t.is(
    errnoOf(() => s.queue.respond(1, 'success')),
    EINVAL,
  );
});

test('replace: faults of the old page table are answered, those of the new one are its own', (t) => {
  for (const compat of ['fixed', '7.0'] as const)
    for (const shared of [true, false]) {
      const s = scene({ compat });
      const second = shared ? s.queue : s.fd.faultQueueAlloc();
      s.vfio.attach(s.faulting());
      const before = raise(s, { grpid: 1 });
      s.vfio.attach(s.faulting(0, second.faultId));
      const after = raise(s, { grpid: 2 });
      // 7.0 looks for them on the queue of the new page table.
      const forgotten = compat === '7.0' && !shared;
      t.deepEqual(before.answers, forgotten ? [] : [INVALID]);
      t.deepEqual(
        second.faults().map(({ grpid }) => grpid),
        [2],
      );
      second.respond(1, 'success');
      t.deepEqual(after.answers, [SUCCESS]);
      if (forgotten) {
        t.is(s.queue.faults().length, 1);
        s.queue.respond(1, 'success');
        t.deepEqual(before.answers, [SUCCESS]);
      }
      s.vfio.attach(s.ioasId);
      t.deepEqual(raise(s), { status: -EINVAL, answers: [INVALID] });
    }
});

test('replace by a page table without a queue answers what waits', (t) => {
  const s = scene();
  s.vfio.attach(s.faulting());
  const { answers } = raise(s);
  s.vfio.attach(s.ioasId);
  t.deepEqual(answers, [INVALID]);
  t.false(s.queue.poll());
});

test('a fault that arrives while the device is moved belongs to where it goes', (t) => {
  const s = scene();
  const second = s.fd.faultQueueAlloc();
  s.vfio.attach(s.faulting());
  const late = () => raise(s, { grpid: 3 });
  const iommu = s.bench.iommus[0]!;
  const attach = iommu.attach.bind(iommu);
  let raised = { answers: [] as number[] };
  iommu.attach = (device, domain) => {
    const status = attach(device, domain);
    raised = late();
    return status;
  };
  s.vfio.attach(s.faulting(0, second.faultId));
  t.deepEqual(
    second.faults().map(({ grpid }) => grpid),
    [3],
  );
  s.vfio.detach();
  t.deepEqual(raised.answers, [INVALID]);
  t.false(second.poll());
});

test('a PASID: its own page table’s queue, and the PASID is told', (t) => {
  const s = scene();
  const second = s.fd.faultQueueAlloc();
  s.vfio.attach(s.faulting(ALLOC_PASID));
  s.vfio.attach(s.faulting(ALLOC_PASID, second.faultId), { pasid: 5 });
  const { answers } = raise(s, { pasid: 5 });
  t.deepEqual(
    second.faults().map(({ flags, pasid }) => [flags, pasid]),
    [[PASID_VALID | LAST_PAGE, 5]],
  );
  t.deepEqual(raise(s, { pasid: 6 }), { status: -EINVAL, answers: [INVALID] }, 'not attached');
  s.vfio.detach({ pasid: 5 });
  t.deepEqual(answers, [INVALID]);
  raise(s);
  t.is(s.queue.faults().length, 1, 'the device itself still has its own');
});

test('a PASID without a page table of its own: that of the guest, where the guest owns the table of PASIDs', (t) => {
  for (const userPasidTable of [false, true]) {
    const s = scene({ iommus: [{ userPasidTable }] });
    const { fd, devId, queue } = s;
    const parent = fd.hwptAlloc({ devId, ptId: s.ioasId, flags: NEST_PARENT }).hwptId;
    const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: 1 });
    fd.vdeviceAlloc({ viommuId, devId, virtId: 3 });
    const data = { dataType: 2, data: STE, flags: FAULT_ID_VALID, faultId: queue.faultId };
    s.vfio.attach(fd.hwptAlloc({ devId, ptId: viommuId, ...data }).hwptId);
    const { answers } = raise(s, { pasid: 9 });
    t.deepEqual(answers, userPasidTable ? [] : [INVALID]);
    t.is(queue.faults().length, userPasidTable ? 1 : 0);
    s.vfio.attach(s.faulting());
    t.deepEqual(raise(s, { pasid: 9 }).answers, [INVALID], 'the RID has a page table of the host’s');
  }
});

test('nth failure: a queue that cannot be made leaves nothing, a fault that cannot be kept is answered', (t) => {
  const s = scene();
  const { fd, bench } = s;
  const { failNth } = bench.core.own;
  const objects = fd.ctx.objectCount;
  let failures = 0;
  for (let nth = 1; ; nth++) {
    failNth.arm(nth);
    const errno = errnoOf(() => fd.faultQueueAlloc());
    if (failNth.failedAt === null) break;
    failures++;
    t.is(errno, ENOMEM);
    t.is(fd.ctx.objectCount, objects);
  }
  failNth.arm(0);
  t.true(failures >= 3);
  s.vfio.attach(s.faulting());
  failNth.arm(1);
  t.deepEqual(raise(s), { status: 0, answers: [2] });
  failNth.arm(1);
  t.is(raise(s, { last: false }).status, -ENOMEM);
  raise(s);
  failNth.arm(1);
  t.is(
    errnoOf(() => s.queue.read(RECORD)),
    ENOMEM,
  );
  t.is(s.queue.faults().length, 1);
});

test('nth failure: wherever a life with faults fails, every fault is answered once and nothing is left', (t) => {
  let failures = 0;
  for (let nth = 1; ; nth++) {
    const bench = new CoreBench({ iommus: [{ maxPasids: 16 }] });
    const { fd } = bench;
    const refs = bench.frameRefs();
    const vfio = bench.core.openVfio(bench.devices[0]!);
    const { failNth } = bench.core.own;
    const raised: number[][] = [];
    const life = () => {
      const { devId } = vfio.bindIommufd(fd);
      const { ioasId } = fd.ioasAlloc();
      const queues = [fd.faultQueueAlloc(), fd.faultQueueAlloc()];
      const [first, second] = queues.map(
        ({ faultId }) => fd.hwptAlloc({ devId, ptId: ioasId, flags: ALLOC_PASID, faultId }).hwptId,
      );
      const fault = (pasid = -1) => {
        const { answers } = raise({ bench }, { pasid });
        raised.push(answers);
      };
      vfio.attach(first!);
      fault();
      for (const { cookie } of queues[0]!.faults()) queues[0]!.respond(cookie, 'success');
      fault();
      vfio.attach(second!);
      vfio.attach(first!, { pasid: 5 });
      fault(5);
      queues[0]!.read(RECORD);
      vfio.attach(second!, { pasid: 5 });
      fault(5);
      vfio.detach();
    };
    failNth.arm(nth);
    const errno = errnoOf(life);
    const fired = failNth.failedAt !== null;
    failNth.arm(0);
    t.true((fired ? [ENOMEM, ENOENT, EINVAL, 0] : [0]).includes(errno), `${nth}: ${errno}`);
    failures += fired ? 1 : 0;
    vfio.close();
    fd.close();
    for (const file of [4, 5]) bench.core.own.files.close(file);
    for (const answers of raised) t.is(answers.length, 1, `${nth}: ${failNth.failedAt}`);
    bench.assertNothingLeft(t, refs);
    if (!fired) break;
  }
  t.true(failures > 25, `${failures} places to fail`);
});

test('closing everything with faults unanswered answers them and leaves nothing', (t) => {
  const s = scene();
  const refs = s.bench.frameRefs();
  s.vfio.attach(s.faulting());
  const [first, second] = [raise(s, { grpid: 1 }), raise(s, { grpid: 2 })];
  s.queue.read(RECORD);
  s.fd.close();
  s.queue.close();
  t.deepEqual([first.answers, second.answers], [[], []], 'the device is bound still');
  s.vfio.close();
  t.deepEqual([first.answers, second.answers], [[INVALID], [INVALID]]);
  s.bench.assertNothingLeft(t, refs);
});
