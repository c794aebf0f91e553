/** What an embedder on one thread is answered when devices wait for software, and when it calls things wrongly. */
import test from 'ava';
import { createMachine } from '../../runtime/machine.js';

const DEVICE = '0000:01:00.0';
const STALLED = 0xfe;
const VERDICT_NONE = 0;
const VERDICT_ABORT = 2;
const EBUSY = 16;

function attached(device: { ats?: boolean; pri?: boolean; stall?: boolean }) {
  const machine = createMachine({
    memory: '32MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [{ bdf: DEVICE, iommu: 'smmu0', ...device }],
  });
  const fd = machine.openIommufd();
  const vfio = machine.openVfio(DEVICE);
  vfio.bindIommufd(fd);
  vfio.attach(fd.ioasAlloc().ioasId);
  return { machine, port: machine.dmaPort(DEVICE) };
}

test('poll: a stall is answered when it returns', (t) => {
  const { machine, port } = attached({ stall: true });
  t.is(port.write(0x9000_0000n, new Uint8Array(4)), STALLED);
  const [stag] = port.stalled;
  t.is(port.verdict(stag!), VERDICT_NONE);
  machine.poll();
  t.is(port.verdict(stag!), VERDICT_ABORT);
  machine.close();
});

test('poll: a group of page requests is answered when it returns', (t) => {
  const { machine, port } = attached({ ats: true, pri: true });
  t.is(port.pageRequest({ group: 7, iova: 0x1000n }), 0);
  machine.poll();
  t.is(port.pageResponse(7), 'failure');
  machine.close();
});

test('awaitPageResponse: the thread that polls does not wait for itself', (t) => {
  const { machine, port } = attached({ ats: true, pri: true });
  t.is(port.pageRequest({ group: 7, iova: 0x1000n }), 0);
  t.is(port.awaitPageResponse(7), 'waiting');
  machine.poll();
  t.is(port.awaitPageResponse(7), 'failure');
  t.is(port.awaitPageResponse(7), 'none');
  machine.close();
});

test('pageRequest: one that is refused leaves no group waiting', (t) => {
  const { machine, port } = attached({ ats: true, pri: true });
  // More than there are groups that may wait.
  for (let i = 0; i < 64; i++) {
    t.throws(() => port.pageRequest({ group: i, iova: 0n, pasid: 2 ** 20 }), { instanceOf: RangeError });
    t.throws(() => port.pageRequest({ group: i, iova: 4096 as unknown as bigint }), {
      instanceOf: TypeError,
      message: /iova must be a bigint/,
    });
    t.is(port.pageResponse(i), 'none');
  }
  t.not(port.pageRequest({ group: 0, iova: 0n }), -EBUSY);
  machine.close();
});

test('stopPageRequests: without a PASID it would be a request, so it is refused', (t) => {
  const { machine, port } = attached({ ats: true, pri: true });
  t.throws(() => port.stopPageRequests(undefined as unknown as number), {
    instanceOf: RangeError,
    message: /pasid is undefined/,
  });
  machine.close();
});

test('prepare: a slot that a batch does not have is refused, and nothing else is written', (t) => {
  const { machine, port } = attached({});
  const before = machine.memory.u8.slice(0, machine.memory.ram.linear);
  for (const slot of [-1, 64, 65, 1e6, Number.NaN])
    t.throws(() => port.prepare(slot, -1, -1, 0, port.streamId, 0), { instanceOf: RangeError }, `${slot}`);
  t.true(Buffer.from(machine.memory.u8.buffer, 0, before.length).equals(before));
  machine.close();
});

test('onInterrupt: what is no function is refused at once', (t) => {
  const { machine } = attached({});
  t.throws(() => machine.onInterrupt('x' as unknown as () => void), {
    instanceOf: TypeError,
    message: /listener must be a function/,
  });
  machine.poll();
  machine.close();
});
