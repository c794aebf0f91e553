import test from 'ava';
import { PortDeadError } from '../../../hw/pci/dma-port.js';
import { createMachine } from '../../../runtime/machine.js';
import { watchAccesses } from '../../kit/schedule-hook.js';

const PAGE = 4096;
const F_TRANSLATION = 0x10;
const F_PERMISSION = 0x13;
const BASE = 0x1_0000_0000n;

/** One device with `pages` mapped at BASE, then nothing; the page before is readable only. */
function device(pages: number) {
  const machine = createMachine({
    memory: '32MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0' }],
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const userVa = machine.user.alloc(pages * PAGE, { chunkLg2: 12 });
  fd.ioasMap({ ioasId, userVa, length: pages * PAGE, iova: BASE });
  const readOnly = machine.user.alloc(PAGE);
  fd.ioasMap({ ioasId, userVa: readOnly, length: PAGE, iova: BASE - BigInt(PAGE), writeable: false });
  const vfio = machine.openVfio('0000:01:00.0');
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  return { machine, dma: machine.dmaPort('0000:01:00.0'), userVa };
}

const pattern = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => (i * 31 + 7) & 0xff);

test('DMA: a transfer of several batches, beginning and ending inside pages, arrives whole', (t) => {
  const { machine, dma, userVa } = device(200);
  const sent = pattern(150 * PAGE + 1234);
  t.is(dma.write(BASE + 777n, sent), 0);
  const seen = new Uint8Array(sent.length);
  t.is(dma.read(BASE + 777n, seen), 0);
  t.deepEqual(seen, sent);
  machine.user.copyIn(userVa + 777n, seen);
  t.deepEqual(seen, sent);
  machine.close();
});

test('DMA: at the first page that faults it stops; pages before it were written, none after', (t) => {
  const { machine, dma, userVa } = device(4);
  t.is(dma.write(BASE + BigInt(2 * PAGE), new Uint8Array(4 * PAGE).fill(9)), F_TRANSLATION);
  const seen = new Uint8Array(4 * PAGE);
  machine.user.copyIn(userVa, seen);
  t.true(seen.subarray(0, 2 * PAGE).every((byte) => byte === 0));
  t.true(seen.subarray(2 * PAGE).every((byte) => byte === 9));
  machine.close();
});

test('DMA: a read-only page can be read, and a write to it is F_PERMISSION', (t) => {
  const { machine, dma } = device(1);
  t.is(dma.read(BASE - BigInt(PAGE), new Uint8Array(16)), 0);
  t.is(dma.write(BASE - BigInt(PAGE), new Uint8Array(16)), F_PERMISSION);
  machine.close();
});

test('DMA: nothing to move is no transaction', (t) => {
  const { machine, dma } = device(1);
  t.is(dma.write(0xdead_0000n, new Uint8Array(0)), 0);
  machine.close();
});

test('DMA: an address that wraps past 2^64 comes round to 0, and faults there', (t) => {
  const { machine, dma } = device(1);
  t.not(dma.read(2n ** 64n - 8n, new Uint8Array(16)), 0);
  machine.close();
});

test('DMA: when the SMMU never answers, the wait ends in an error, outside the epoch', (t) => {
  const { machine, dma } = device(2);
  machine.hostInline(false);
  // Nobody steps the SMMU, and its host is known to be dead: what a supervisor does when a worker dies.
  machine.env.threads.markDead(machine.env.threadId);
  const error = t.throws(() => dma.write(BASE, new Uint8Array(8)), { instanceOf: PortDeadError });
  t.is(error.errno, 130);
  t.regex(error.message, /0000:01:00\.0/);
  const port = machine.handle().memory.regions['port:0']!.base;
  t.is(machine.memory.i32[port / 4], 0);
});

test('DMA: after a batch that was given up, its late answers do not disturb the next', (t) => {
  const { machine, dma, userVa } = device(100);
  // Sent and abandoned: nobody steps the SMMU meanwhile.
  machine.hostInline(false);
  const port = machine.handle().memory.regions['port:0']!.base;
  for (let round = 0; round < 2; round++) {
    for (let slot = 0; slot < 64; slot++) dma.prepare(slot, slot * PAGE, 1, 0, 0x100, 0xffff_ffff);
    t.is(machine.kernel.dmaBegin(port, 64), 64);
    dma.end();
  }
  // The ring is full of what was given up.
  t.is(machine.kernel.dmaBegin(port, 64), -16);
  machine.hostInline(true);
  const sent = pattern(70 * PAGE);
  t.is(dma.write(BASE, sent), 0);
  const seen = new Uint8Array(sent.length);
  machine.user.copyIn(userVa, seen);
  t.deepEqual(seen, sent);
  machine.close();
});

test('DMA: what is no bytes, or no address, is a TypeError and no transfer; a Buffer is bytes', (t) => {
  const { machine, dma } = device(1);
  const bytes = { instanceOf: TypeError, message: /^(bytes|into) must be a Uint8Array/ };
  for (const wrong of ['hello', Uint16Array.of(0x1234), [1, 2], new ArrayBuffer(8), undefined]) {
    t.throws(() => dma.write(BASE, wrong as never), bytes);
    t.throws(() => dma.read(BASE, wrong as never), bytes);
  }
  const address = { instanceOf: TypeError, message: 'iova must be a bigint, as in 4096n' };
  t.throws(() => dma.write(4096 as never, new Uint8Array(1)), address);
  t.throws(() => dma.read('4096' as never, new Uint8Array(1)), address);
  t.is(dma.write(BASE, Buffer.from('hello')), 0);
  const seen = Buffer.alloc(5);
  t.is(dma.read(BASE, seen), 0);
  t.is(seen.toString(), 'hello');
  machine.close();
});

test('DMA: what is moved is a schedule point for each page, before it is moved', (t) => {
  const { machine, dma } = device(3);
  const { linear, bytes } = machine.memory.ram;
  const sent = pattern(2 * PAGE);
  // Once, so that nothing has to be fetched but the data.
  t.is(dma.write(BASE + 777n, sent), 0);
  for (const [op, move, data] of [
    ['store', () => dma.write(BASE + 777n, sent.fill(0xaa)), 0xaa],
    ['load', () => dma.read(BASE + 777n, sent), 0xaa],
  ] as const) {
    const places: number[] = [];
    const bytesBefore: number[] = [];
    watchAccesses((seen, offset) => {
      if (seen !== op || offset < linear || offset >= linear + bytes) return;
      places.push(offset % PAGE);
      bytesBefore.push(machine.memory.u8[offset]!);
    });
    t.is(move(), 0);
    watchAccesses(null);
    t.deepEqual(places, [777, 0, 0]);
    t.is(
      bytesBefore.every((byte) => byte === data),
      op === 'load',
    );
  }
  machine.close();
});
