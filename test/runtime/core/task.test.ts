import test from 'ava';
import { FailNth } from '../../../runtime/core/fail-nth.js';
import { OwnTask } from '../../../runtime/core/task.js';
import { CoreBench } from '../../kit/core-bench.js';

test('nth failure: the nth question fails, once, and what is left counts down', (t) => {
  const plan = new FailNth();
  t.false(plan.shouldFail('unarmed'));
  plan.arm(3);
  t.deepEqual(
    ['a', 'b'].map((site) => plan.shouldFail(site)),
    [false, false],
  );
  t.is(plan.left, 1);
  t.true(plan.shouldFail('c'));
  t.is(plan.failedAt, 'c');
  t.is(plan.left, 0);
  t.false(plan.shouldFail('d'));
  t.is(plan.asked, 4);
  plan.arm(0);
  t.is(plan.failedAt, null);
});

test('task: a map takes the memory of the process that asks, and the turn ends with the call', (t) => {
  const { core, user, fd } = new CoreBench();
  const other = new OwnTask(EMPTY, core.own.files);
  const { ioasId } = fd.ioasAlloc();
  t.throws(
    () =>
      core.as(other, () => {
        t.is(core.current, other);
        throw new Error('inside');
      }),
    { message: 'inside' },
  );
  t.is(core.current, core.own);
  const allowed = user.alloc(4096);
  const call = () => fd.ioctl(0x3b82, allow(ioasId, allowed));
  t.is(core.as(other, call), -14, 'EFAULT: the address is nothing in the other process');
  t.is(call(), -22, 'EINVAL: the zeroes there are an empty range');
});

const EMPTY = {
  account: { pinnedVm: 0, lockedVm: 0 },
  alive: true,
  copyIn: () => -14,
  copyOut: () => -14,
  runAt: () => -14,
  pin: () => undefined,
  unpin: () => undefined,
  pinsOf: () => 0,
};

/** struct iommu_ioas_allow_iovas with one range at `va`. */
function allow(ioasId: number, va: bigint): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 24, true);
  view.setUint32(4, ioasId, true);
  view.setUint32(8, 1, true);
  view.setBigUint64(16, va, true);
  return bytes;
}
