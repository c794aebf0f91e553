/** Machines kept in a file and opened again. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { IMAGE_VERSION, ImageError } from '../../../runtime/image/image-file.js';
import { openImage } from '../../../runtime/image/opened-machine.js';
import { createMachine } from '../../../runtime/machine.js';
import { Random, SEED } from '../../kit/random.js';
import { ok } from '../../kit/vmm-fixture.js';
import { MachineFixture, pattern } from '../../kit/vmm-machine.js';

const F_TRANSLATION = 0x10;
const CR0 = 0x20;
const STRTAB_BASE = 0x80;
const CMDQ_PROD = 0x98;
const CMDQ_CONS = 0x9c;
const EVENTQ_PROD = 0x100a8;
const EVENTQ_CONS = 0x100ac;
const HEADER_AT = 48;
const DEVICE = '0000:01:00.0';
const IOVA = 0x1000_0000n;

function attached() {
  const machine = createMachine({
    memory: '32MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [{ bdf: DEVICE, iommu: 'smmu0' }],
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const userVa = machine.user.alloc(2 ** 16);
  fd.ioasMap({ ioasId, userVa, length: '64KiB', iova: IOVA });
  const vfio = machine.openVfio(DEVICE);
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  return { machine, fd, ioasId };
}

test('image: DMA translates as before, RAM and registers are what they were', (t) => {
  const { machine } = attached();
  const sent = pattern(20_000, 3);
  t.is(machine.dmaPort(DEVICE).write(IOVA + 0x123n, sent), 0);
  t.is(machine.dmaPort(DEVICE).write(IOVA - 8n, new Uint8Array(8)), F_TRANSLATION);
  const opened = openImage(machine.saveImage());
  const [before, after] = [machine.iommu('smmu0').mmio, opened.iommu('smmu0').mmio];
  for (const offset of [CR0, STRTAB_BASE, STRTAB_BASE + 4, CMDQ_PROD, CMDQ_CONS, EVENTQ_PROD, EVENTQ_CONS])
    t.is(after.read32(offset), before.read32(offset), offset.toString(16));
  t.is(after.read32(EVENTQ_PROD), 1, 'the event that nobody has read is on its queue');
  const seen = new Uint8Array(sent.length);
  t.is(opened.dmaPort(DEVICE).read(IOVA + 0x123n, seen), 0);
  t.deepEqual(seen, sent);
  t.is(opened.dmaPort(DEVICE).read(IOVA + 0x1_0000n, new Uint8Array(1)), F_TRANSLATION);
  t.is(after.read32(EVENTQ_PROD), 2);
  // They have nothing in common any more.
  t.is(opened.dmaPort(DEVICE).write(IOVA, new Uint8Array(64)), 0);
  machine.dmaPort(DEVICE).read(IOVA + 0x123n, seen);
  t.deepEqual(seen, sent);
  t.is(before.read32(EVENTQ_PROD), 1);
  machine.close();
});

test('image: without caches the first DMA walks, and finds the same', (t) => {
  const { machine } = attached();
  t.is(machine.dmaPort(DEVICE).write(IOVA, pattern(64, 1)), 0);
  const unitOf = ({ memory }: { memory: typeof machine.memory }) => {
    const { base } = memory.region(UnitLayout, 'unit:0');
    return memory.words.load(base + UnitLayout.at.fillSeq);
  };
  for (const [caches, walks] of [
    [true, 0],
    [false, 1],
  ] as const) {
    const opened = openImage(machine.saveImage({ caches }));
    const filled = unitOf(opened);
    const seen = new Uint8Array(64);
    t.is(opened.dmaPort(DEVICE).read(IOVA, seen), 0);
    t.deepEqual(seen, pattern(64, 1));
    t.is(unitOf(opened) - filled, walks, `caches ${caches}`);
  }
  machine.close();
});

test('image: a guest’s stage 1 over the host’s stage 2 is there too', (t) => {
  const fixture = new MachineFixture([0]);
  const host = fixture.vm();
  t.is(host.vm.attachDevice(0, 5), 0);
  const driver = fixture.driver(host);
  const space = ok(driver.createSpace());
  const pfn = host.ram.allocZeroed();
  t.is(driver.map(space, 0x70_0003, pfn, 1, 3), 0);
  t.is(driver.setupStream(5, space), 0);
  t.is(fixture.write(0, 0x7_0000_3010n, 100, 7), 0);
  const opened = openImage(fixture.machine.saveImage());
  const seen = new Uint8Array(100);
  t.is(opened.dmaPort(fixture.label(0)).read(0x7_0000_3010n, seen), 0);
  t.deepEqual(seen, pattern(100, 7));
  host.end();
});

test('image: a command that was not consumed is consumed there', (t) => {
  const { machine } = attached();
  t.is(machine.dmaPort(DEVICE).write(IOVA, pattern(64, 1)), 0);
  const { mmio } = machine.iommu('smmu0');
  const prod = mmio.read32(CMDQ_PROD);
  const base = Number(mmio.read64(0x90) & 0xf_ffff_ffff_ffe0n);
  const linear = machine.memory.linearOf(base + (prod & 0x3ff) * 16, 16);
  machine.memory.words.store64(linear, 0x30n);
  machine.memory.words.store64(linear + 8, 0n);
  mmio.write32(CMDQ_PROD, prod + 1);
  const opened = openImage(machine.saveImage());
  t.is(opened.iommu('smmu0').mmio.read32(CMDQ_CONS), prod);
  t.true(opened.settle());
  t.is(opened.iommu('smmu0').mmio.read32(CMDQ_CONS), prod + 1);
});

test('image: only what is in use is written, and an opened machine can be saved again', (t) => {
  const { machine } = attached();
  const garbage = machine.frames.allocRun(512);
  const from = machine.memory.linearOf(garbage * 4096, 4096);
  machine.memory.u8.fill(0xa5, from, from + 512 * 4096);
  machine.frames.free(garbage, 512);
  const image = machine.saveImage();
  t.true(image.byteLength < 2 ** 20, `${image.byteLength} bytes`);
  const opened = openImage(image);
  t.is(opened.memory.u8[opened.memory.linearOf(garbage * 4096, 4096)], 0);
  const again = openImage(opened.saveImage());
  const { linear } = opened.memory.ram;
  const ram = (from: typeof opened): Uint8Array => from.memory.u8.slice(linear, linear + 2 ** 22);
  t.deepEqual(ram(again), ram(opened));
});

test('image: a file, and what is not in it', (t) => {
  const { machine } = attached();
  const dir = mkdtempSync(join(tmpdir(), 'iommufd-image-'));
  try {
    machine.saveToFile(join(dir, 'state.img'));
    const opened = openImage(join(dir, 'state.img'));
    for (const open of [() => opened.openIommufd(), () => opened.openVfio(DEVICE)])
      t.throws(open, { instanceOf: ImageError, message: /opened from an image: hardware only/ });
    t.throws(() => opened.dmaPort('x'), { instanceOf: RangeError });
    t.throws(() => opened.iommu('x'), { instanceOf: RangeError });
    t.throws(() => openImage(join(dir, 'none.img')), { code: 'ENOENT' });
  } finally {
    rmSync(dir, { recursive: true });
  }
});

/** With its checksum made right again. */
function resealed(image: Uint8Array, change: (copy: Buffer) => Buffer): Uint8Array {
  const copy = change(Buffer.from(image));
  createHash('sha256').update(copy.subarray(HEADER_AT)).digest().copy(copy, 16);
  return copy;
}

function withHeader(image: Uint8Array, edit: (header: never) => void): Uint8Array {
  return resealed(image, (copy) => {
    const bytes = copy.readUInt32LE(12);
    const header = JSON.parse(copy.toString('utf8', HEADER_AT, HEADER_AT + bytes)) as never;
    edit(header);
    const json = Buffer.from(JSON.stringify(header));
    copy.writeUInt32LE(json.byteLength, 12);
    return Buffer.concat([copy.subarray(0, HEADER_AT), json, copy.subarray(HEADER_AT + bytes)]);
  });
}

test('image: a source that is neither bytes nor a path is refused as such', (t) => {
  for (const source of [null, undefined, 3, {}, new ArrayBuffer(64), new Uint16Array(64)])
    t.throws(() => openImage(source as unknown as Uint8Array), { instanceOf: TypeError, message: /source/ });
});

test('image: whatever is wrong with a file is told by the name of its field', (t) => {
  const { machine } = attached();
  const image = machine.saveImage();
  const field = (bytes: Uint8Array): string =>
    t.throws(() => openImage(bytes), { instanceOf: ImageError }).field;
  type Loose = Record<string, never>;
  const edited = (edit: (header: Record<string, Record<string, unknown>>) => void): string =>
    field(withHeader(image, edit as (header: never) => void));
  t.is(field(new Uint8Array(0)), 'magic');
  t.is(field(new TextEncoder().encode('#!/bin/sh\n'.repeat(20))), 'magic');
  const version = Buffer.from(image);
  version.writeUInt32LE(IMAGE_VERSION + 1, 8);
  t.is(field(version), 'version');
  const long = Buffer.from(image);
  long.writeUInt32LE(0xffff_ffff, 12);
  t.is(field(long), 'header');
  t.is(field(image.subarray(0, image.byteLength - 1)), 'checksum');
  t.is(field(resealed(image, (copy) => copy.subarray(0, copy.byteLength - 5))).split(' ')[0], 'chunk');
  t.is(field(resealed(image, (copy) => Buffer.concat([copy, Buffer.from([1])]))), 'chunks');
  t.is(
    edited((header) => delete header.ram),
    'ram',
  );
  t.is(
    edited(({ ram }) => Object.assign(ram!, { bytes: 3 })),
    'ram.bytes',
  );
  t.is(
    edited(({ ram }) => Object.assign(ram!, { linear: 2 ** 40 })),
    'ram.linear',
  );
  t.is(
    edited(({ ram }) => Object.assign(ram!, { bytes: 2 ** 22 })),
    'config.memory',
  );
  t.is(
    edited(({ ram }) => Object.assign(ram!, { basePa: 4096 })),
    'ram.basePa',
  );
  t.is(
    edited(({ regions }) => Object.assign(regions!['smmuv3:0'] as Loose, { base: 64 })),
    'regions.smmuv3:0',
  );
  t.is(
    edited(({ regions }) => Object.assign(regions!['smmuv3:0'] as Loose, { size: 2 ** 40 })),
    'regions.smmuv3:0',
  );
  t.is(
    edited(({ regions }) => delete regions!['smmuv3:0']),
    'regions',
  );
  t.is(
    edited(({ regions }) => {
      regions!['smmuv3:0'] = regions!['unit:0'];
    }),
    'regions',
  );
  t.is(
    edited(({ config }) => Object.assign(config!, { memory: 2 ** 26 })),
    'config.memory',
  );
  t.is(
    edited(({ config }) => Object.assign(config!, { devices: [{ iommu: 'x', name: 'y' }] })),
    'config.devices[0].iommu',
  );
  t.is(
    edited((header) => Object.assign(header, { chunks: 10_000 })),
    'chunks',
  );
});

test('image: no change of a single byte goes unnoticed, and none is worse than an ImageError', (t) => {
  const { machine } = attached();
  const image = machine.saveImage();
  const random = new Random(SEED);
  t.log(`SEED=${SEED}`);
  for (let i = 0; i < 60; i++) {
    const copy = Uint8Array.from(image);
    const at = random.chance(0.3) ? random.below(HEADER_AT) : random.below(copy.length);
    copy[at]! ^= 1 << random.below(8);
    t.throws(() => openImage(copy), { instanceOf: ImageError }, `byte ${at}`);
  }
  // Past the checksum: a payload of nonsense under a good seal.
  for (let i = 0; i < 20; i++) {
    const bytes = resealed(image, (copy) => {
      const start = HEADER_AT + copy.readUInt32LE(12);
      for (let n = 0; n < 4; n++) copy[start + random.below(copy.length - start)] = random.below(256);
      return copy;
    });
    try {
      openImage(bytes);
    } catch (error) {
      t.true(error instanceof ImageError, String(error));
    }
  }
});
