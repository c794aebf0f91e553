import test from 'ava';
import { errnoOf } from '../../kit/core-bench.js';
import { TestBench } from '../../kit/test-ioctl.js';

const [ENOENT, ENOMEM, EBUSY, EINVAL] = [2, 12, 16, 22];
const [ATTACH, PASID_REPLACE] = [18, 19] as const;
const [DETACH, CHECK] = [20, 21];
const [PASID_FLAG, ALLOC_PASID, NEST_PARENT] = [4, 8, 1];
const SELFTEST = { dataType: 0xdead, data: Uint8Array.of(1, 0, 0, 0) };

/** A device with PASIDs, on an automatic page table. */
function withPasids() {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const { stdevId, idevId } = bench.mockDomain(ioasId, PASID_FLAG);
  const table = (flags = ALLOC_PASID) => bench.fd.hwptAlloc({ devId: idevId, ptId: ioasId, flags }).hwptId;
  const onPasids = table();
  bench.run(10, stdevId, [[0, 4, onPasids]]);
  const check = (pasid: number, hwptId: number) =>
    bench.run(CHECK, stdevId, [
      [0, 4, pasid],
      [4, 4, hwptId],
    ]).status;
  const detach = (pasid: number) => bench.run(DETACH, stdevId, [[0, 4, pasid]]).status;
  return { bench, ioasId, stdevId, idevId, table, check, detach };
}

test('a PASID is attached, moved and detached', (t) => {
  const { bench, ioasId, stdevId, table, check, detach } = withPasids();
  const [a, b] = [table(), table()];
  t.is(check(100, 0), 0);
  t.is(check(100, a), -EINVAL);
  t.is(bench.pasid(PASID_REPLACE, stdevId, 100, a), -EINVAL, 'not attached yet');
  t.is(bench.pasid(ATTACH, stdevId, 100, a), a);
  t.is(check(100, a), 0);
  t.is(check(100, b), -EINVAL);
  t.is(check(100, 0), -EINVAL);
  t.is(check(100, ioasId), -EINVAL);
  t.is(check(100, 99), -ENOENT);
  t.is(bench.pasid(ATTACH, stdevId, 100, b), -EBUSY);
  t.is(bench.pasid(PASID_REPLACE, stdevId, 100, b), b);
  t.is(check(100, b), 0);
  t.is(detach(100), 0);
  t.is(check(100, 0), 0);
  t.is(detach(100), 0, 'twice');
});

test('a PASID wants a page table for PASIDs, and a device that has them', (t) => {
  const { bench, ioasId, stdevId, table } = withPasids();
  t.is(bench.pasid(ATTACH, stdevId, 100, table(0)), -EINVAL);
  t.is(bench.pasid(ATTACH, stdevId, 100, ioasId), -EINVAL, 'an automatic one is not for PASIDs');
  t.is(bench.pasid(ATTACH, stdevId, 2 ** 20, table()), -EINVAL, 'past its 20 bits');
  const plain = bench.mockDomain(ioasId);
  const own = bench.fd.hwptAlloc({ devId: plain.idevId, ptId: ioasId, flags: ALLOC_PASID }).hwptId;
  bench.run(10, plain.stdevId, [[0, 4, own]]);
  t.is(bench.pasid(ATTACH, plain.stdevId, 100, own), -EINVAL);
});

test('a nested page table can be a PASID’s', (t) => {
  const { bench, stdevId, idevId, table, check, detach } = withPasids();
  const parent = table(NEST_PARENT);
  const nested = bench.fd.hwptAlloc({ devId: idevId, ptId: parent, flags: ALLOC_PASID, ...SELFTEST }).hwptId;
  t.is(bench.pasid(ATTACH, stdevId, 100, nested), nested);
  t.is(check(100, nested), 0);
  t.is(detach(100), 0);
});

test('PASID 1024 fails at its second attach in a row, and stays where it was', (t) => {
  const { bench, stdevId, table, check, detach } = withPasids();
  const [a, b] = [table(), table()];
  t.is(bench.pasid(ATTACH, stdevId, 1024, a), a);
  t.is(bench.pasid(PASID_REPLACE, stdevId, 1024, b), -ENOMEM);
  t.is(check(1024, a), 0);
  t.is(bench.pasid(PASID_REPLACE, stdevId, 1024, b), b, 'the third works');
  t.is(detach(1024), 0);
  t.is(bench.pasid(ATTACH, stdevId, 1024, a), a, 'a detach begins anew');
});

test('a page fault reaches the queue of the page table that the device, or its PASID, is on', (t) => {
  const { bench, stdevId, idevId, table } = withPasids();
  const { fd } = bench;
  const queue = fd.faultQueueAlloc();
  const parent = table(NEST_PARENT);
  const fault = (pasid: number) =>
    bench.run(15, 0, [
      [0, 4, idevId],
      [4, 4, pasid],
      [8, 4, 7],
      [12, 4, 3],
      [16, 8, 0xdead_b000n],
    ]).status;
  t.is(fault(0), 0, 'nobody handles it');
  const faulting = fd.hwptAlloc({
    devId: idevId,
    ptId: parent,
    flags: 4 | ALLOC_PASID,
    faultId: queue.faultId,
    ...SELFTEST,
  }).hwptId;
  t.is(bench.run(10, stdevId, [[0, 4, faulting]]).status, 0);
  t.is(fault(0), 0);
  t.is(fault(5), 0);
  const [first, second] = queue.faults();
  t.like(first, { flags: 2, devId: idevId, pasid: 0, grpid: 7, perm: 3, addr: 0xdead_b000n });
  t.like(second, { flags: 3, pasid: 5 });
  queue.respond(first!.cookie, 'success');
  t.is(
    errnoOf(() => queue.respond(first!.cookie, 'success')),
    EINVAL,
  );
  queue.respond(second!.cookie, 'invalid');
  t.is(fault(0), 0);
  t.is(bench.run(10, stdevId, [[0, 4, table()]]).status, 0);
  t.false(queue.poll(), 'the detach has answered what nobody read');
  t.is(fault(0), 0);
  t.false(queue.poll());
});

test('faults stay on while any attachment of the device handles them', (t) => {
  const { bench, stdevId, idevId, table, detach } = withPasids();
  const { fd } = bench;
  const queue = fd.faultQueueAlloc();
  const handling = () =>
    fd.hwptAlloc({
      devId: idevId,
      ptId: table(NEST_PARENT),
      flags: 4 | ALLOC_PASID,
      faultId: queue.faultId,
      ...SELFTEST,
    }).hwptId;
  const [a, b] = [handling(), handling()];
  t.is(bench.pasid(ATTACH, stdevId, 5, a), a);
  t.is(bench.pasid(ATTACH, stdevId, 6, b), b);
  const fault = (pasid: number) =>
    bench.run(15, 0, [
      [0, 4, idevId],
      [4, 4, pasid],
    ]);
  t.is(detach(5), 0);
  fault(6);
  t.is(queue.faults().length, 1);
  t.is(detach(6), 0);
  fault(6);
  t.is(queue.faults().length, 0);
});
