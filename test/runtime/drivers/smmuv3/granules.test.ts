/** Domains whose tables have larger granules than the host's pages, by what devices see and what the SMMU is told. */
import test from 'ava';
import { createMachine } from '../../../../runtime/machine.js';
import { DriverFixture, newGather } from '../../../kit/smmu-driver-fixture.js';

const EINVAL = 22;
const RW = 3;
const NEST_PARENT = 1;
const F_TRANSLATION = 0x10;
const TLBI_NH_VA = 0x12;
const TLBI_S2_IPA = 0x2a;

for (const [granuleLg2, oasBits, sizes, tg] of [
  [14, 48, [14, 25], 2],
  [16, 48, [16, 29], 3],
  [16, 52, [16, 29, 42], 3],
] as const)
  for (const stage of [1, 2] as const)
    test(`domain of granule 2^${granuleLg2}, ${oasBits} bits, stage ${stage}: map, DMA, unmap, fault`, (t) => {
      const f = new DriverFixture({ hardware: { granules: [granuleLg2], oasBits } });
      const domain = f.paging(0, stage === 2 ? NEST_PARENT : 0);
      t.deepEqual(domain.pageSizesLg2, [...sizes]);
      t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
      const free = f.frames.freePages();
      const g = 2 ** (granuleLg2 - 12);
      const pfn = f.frames.alloc(granuleLg2);
      // The last granules of the range, where the highest level has its last entry.
      const page = domain.aperture.lastUnit + 1 - 8 * g;
      t.is(domain.map(page, pfn, g, RW), 0);
      t.is(domain.lookup(page + g - 1), pfn + g - 1);
      t.is(f.write(0, BigInt(page + g - 1) * 4096n + 7n, 0x5a), 0);
      t.is(f.byteAt(pfn + g - 1, 7), 0x5a);
      const from = f.commandCount(0);
      f.unmap(domain, page, g);
      const command = f
        .commands(0, from)
        .find(({ opcode }) => opcode === TLBI_NH_VA || opcode === TLBI_S2_IPA)!;
      t.is(command.opcode, stage === 1 ? TLBI_NH_VA : TLBI_S2_IPA);
      // TG in bits 75:74, TTL in 73:72: one leaf of the last level.
      t.is((command.words[2] >>> 8) & 15, (tg << 2) | 3);
      t.is(f.write(0, BigInt(page) * 4096n), F_TRANSLATION);
      t.is(domain.map(page + 1, pfn, g, RW), -EINVAL);
      t.is(domain.map(page, pfn + 1, g, RW), -EINVAL);
      t.is(domain.unmap(page, g - 1, newGather()), -EINVAL);
      f.frames.free(pfn, g);
      f.smmus[0]!.attach(f.devices[0]!, null);
      domain.free();
      t.true(f.frames.freePages() > free);
    });

test('domain: the smallest granule is used where there are several, as by a host with 4 KiB pages', (t) => {
  const f = new DriverFixture({ hardware: { granules: [12, 14, 16], oasBits: 52 } });
  t.deepEqual(f.paging().pageSizesLg2, [12, 21, 30]);
  t.is(f.paging(0, NEST_PARENT).aperture.lastUnit, 2 ** 36 - 1);
  const larger = new DriverFixture({ hardware: { granules: [14, 16] } });
  t.deepEqual(larger.paging().pageSizesLg2, [14, 25]);
});

test('domain: blocks of every granule, and what tables they took comes back', (t) => {
  for (const granuleLg2 of [12, 14, 16] as const) {
    const f = new DriverFixture({ hardware: { granules: [granuleLg2] } });
    const domain = f.paging();
    t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
    const free = f.frames.freePages();
    const block = 2 ** (domain.pageSizesLg2[1]! - 12);
    const g = 2 ** (granuleLg2 - 12);
    // A page, a block, a page: neighbours on both sides of one that a single entry maps.
    t.is(domain.map(8 * block - g, 16 * block - g, block + 2 * g, RW), 0);
    t.is(domain.lookup(9 * block), 17 * block);
    t.is(domain.unmap(8 * block, g, newGather()), -EINVAL);
    const gather = newGather();
    t.is(domain.unmap(0, 32 * block, gather), block + 2 * g);
    t.is(domain.sync(gather), 0);
    t.is(domain.lookup(9 * block), -1);
    // One table a level may have stayed in the pool, or above the range.
    t.true(free - f.frames.freePages() <= 6 * g);
    f.smmus[0]!.attach(f.devices[0]!, null);
    domain.free();
    t.true(f.frames.freePages() >= free);
  }
});

test('attach: an SMMU without 4 KiB pages is EINVAL for an IOAS, whose pages are the CPU’s', (t) => {
  const machine = createMachine({
    memory: '16MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3', granules: ['16KiB', '64KiB'] }],
    devices: [{ bdf: '0000:00:00.0', iommu: 'smmu0' }],
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const vfio = machine.openVfio('0000:00:00.0');
  vfio.bindIommufd(fd);
  t.throws(() => vfio.attach(ioasId), { message: /EINVAL/ });
  machine.close();
});
