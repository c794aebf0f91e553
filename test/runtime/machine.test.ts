import test from 'ava';
import { createMachine } from '../../runtime/machine.js';
import { ConfigError } from '../../runtime/machine-config.js';
import { IommufdError } from '../../uapi/abi/iommufd-error.js';

const F_TRANSLATION = 0x10;

function twoSmmus(over = {}) {
  return createMachine({
    memory: '64MiB',
    iommus: [
      { name: 'smmu0', model: 'smmuv3' },
      { name: 'smmu1', model: 'smmuv3' },
    ],
    devices: [
      { bdf: '0000:01:00.0', iommu: 'smmu0' },
      { bdf: '0001:01:00.0', iommu: 'smmu1' },
    ],
    debugLocks: true,
    ...over,
  });
}

test('machine: bind, map, attach, DMA, unmap, on one thread', (t) => {
  const machine = twoSmmus();
  const before = machine.frames.freePages();
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const userVa = machine.user.alloc(2 ** 20);
  fd.ioasMap({ ioasId, userVa, length: '1MiB', iova: 0x1000_0000n });
  for (const bdf of ['0000:01:00.0', '0001:01:00.0']) {
    const vfio = machine.openVfio(bdf);
    vfio.bindIommufd(fd);
    vfio.attach(ioasId);
  }
  const sent = Uint8Array.from({ length: 10_000 }, (_, i) => i);
  t.is(machine.dmaPort('0000:01:00.0').write(0x1000_0ffdn, sent), 0);
  const seen = new Uint8Array(10_000);
  t.is(machine.dmaPort('0001:01:00.0').read(0x1000_0ffdn, seen), 0);
  t.deepEqual(seen, sent);
  machine.user.copyIn(userVa + 0xffdn, seen);
  t.deepEqual(seen, sent);
  fd.ioasUnmap({ ioasId, iova: 0x1000_0000n, length: '1MiB' });
  t.is(machine.dmaPort('0001:01:00.0').read(0x1000_0ffdn, seen), F_TRANSLATION);
  machine.close();
  machine.user.free(userVa, 2 ** 20);
  // What the SMMUs and their streams hold for good: stream tables and CD tables.
  t.true(machine.frames.freePages() > before - 64);
});

test('machine: memory that is freed while mapped stays until it is unmapped', (t) => {
  const machine = twoSmmus();
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const vfio = machine.openVfio('0000:01:00.0');
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  const userVa = machine.user.alloc(16 * 4096);
  fd.ioasMap({ ioasId, userVa, length: 16 * 4096, iova: 0x10_0000n });
  const free = machine.frames.freePages();
  t.is(machine.user.free(userVa, 16 * 4096), 0);
  t.is(machine.frames.freePages(), free);
  t.is(machine.dmaPort('0000:01:00.0').write(0x10_0000n, new Uint8Array(4096)), 0);
  fd.ioasUnmap({ ioasId, iova: 0x10_0000n, length: 16 * 4096 });
  t.is(machine.frames.freePages(), free + 16);
  machine.close();
});

test('machine: terabytes past the RAM are translated and checked, without data', (t) => {
  const machine = twoSmmus();
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const vfio = machine.openVfio('0000:01:00.0');
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  const userVa = machine.user.alloc(2 ** 41, { phantom: true });
  fd.ioasMap({ ioasId, userVa, length: '2TiB', iova: 0x100_0000_0000n });
  const dma = machine.dmaPort('0000:01:00.0');
  t.is(dma.write(0x100_0000_0000n + 0x1ff_ffff_f000n, new Uint8Array(4096).fill(1)), 0);
  const seen = new Uint8Array(16).fill(9);
  t.is(dma.read(0x100_0000_0000n, seen), 0);
  t.deepEqual(seen, new Uint8Array(16));
  t.is(dma.read(0x300_0000_0000n, seen), F_TRANSLATION);
  machine.close();
});

test('machine: as many iommufds as it is told, and none more; a closed one makes room', (t) => {
  for (const maxFds of [1, 300]) {
    const machine = createMachine({ iommus: [{ name: 'smmu0', model: 'smmuv3' }], devices: [], maxFds });
    const fds = Array.from({ length: maxFds }, () => machine.openIommufd());
    t.throws(() => machine.openIommufd(), { code: 'EMFILE' });
    fds[0]!.close();
    t.notThrows(() => machine.openIommufd());
    machine.close();
  }
});

test('machine: a device that is attached to nothing is blocked', (t) => {
  const machine = twoSmmus();
  t.not(machine.dmaPort('0000:01:00.0').write(0x1000n, new Uint8Array(8)), 0);
  machine.close();
});

test('machine: two machines in one process have nothing in common', (t) => {
  const machines = [twoSmmus(), twoSmmus()];
  const views = machines.map((machine, i) => {
    const fd = machine.openIommufd();
    const { ioasId } = fd.ioasAlloc();
    const vfio = machine.openVfio('0000:01:00.0');
    vfio.bindIommufd(fd);
    vfio.attach(ioasId);
    const userVa = machine.user.alloc(4096);
    fd.ioasMap({ ioasId, userVa, length: 4096, iova: 0x5000n });
    machine.dmaPort('0000:01:00.0').write(0x5000n, new Uint8Array(8).fill(i + 1));
    const seen = new Uint8Array(8);
    machine.user.copyIn(userVa, seen);
    return seen[0];
  });
  t.deepEqual(views, [1, 2]);
  for (const machine of machines) machine.close();
});

test('machine: unknown names are refused, and closed files stay closed', (t) => {
  const machine = twoSmmus();
  t.throws(() => machine.openVfio('01:00.0'), {
    instanceOf: RangeError,
    message: "there is no device '01:00.0' (0000:01:00.0, 0001:01:00.0)",
  });
  t.throws(() => machine.dmaPort('x'), { instanceOf: RangeError });
  t.throws(() => machine.iommu('smmu7'), { instanceOf: RangeError, message: /smmu7/ });
  const fd = machine.openIommufd();
  fd.close();
  fd.close();
  const error = t.throws(() => fd.ioasAlloc(), { instanceOf: IommufdError });
  t.is(error.code, 'EBADF');
  machine.close();
  machine.close();
});

test('machine: memory that is too much for one address space, or too little for the tables, names its key', (t) => {
  for (const memory of ['4GiB', '4000MiB', '2MiB']) {
    const error = t.throws(() => twoSmmus({ memory }), { instanceOf: ConfigError });
    t.is(error.key, 'memory');
    t.regex(error.message, /^memory: \d+ bytes/);
  }
});

test('machine: the register file is there for a driver of one’s own', (t) => {
  const { mmio } = twoSmmus().iommu('smmu1');
  const IDR0 = 0x0;
  const CR0ACK = 0x24;
  t.is(mmio.read32(IDR0) & 0b11, 0b11);
  t.is(mmio.read32(CR0ACK) & 1, 1);
});

test('machine: interrupts are told by poll, once for each line, to whoever still listens', (t) => {
  const machine = twoSmmus();
  const heard: string[] = [];
  const stop = machine.onInterrupt((iommu, source) => heard.push(`${iommu} ${source}`));
  const also: string[] = [];
  machine.onInterrupt((iommu) => also.push(iommu));
  machine.dmaPort('0001:01:00.0').write(0x1000n, new Uint8Array(8));
  machine.dmaPort('0001:01:00.0').write(0x2000n, new Uint8Array(8));
  t.deepEqual(heard, []);
  machine.poll();
  t.deepEqual(heard, ['smmu1 eventq']);
  machine.poll();
  t.is(heard.length, 1);
  stop();
  machine.dmaPort('0000:01:00.0').write(0x1000n, new Uint8Array(8));
  machine.poll();
  t.is(heard.length, 1);
  t.deepEqual(also, ['smmu1', 'smmu0']);
  machine.close();
});
