/** Guests whose stage-1 tables have another granule than the host's stage 2. */
import test from 'ava';
import { ok } from '../../kit/vmm-fixture.js';
import { MachineFixture, pattern } from '../../kit/vmm-machine.js';

const RW = 3;
const EINVAL = 22;
const ENODEV = 19;
const F_TRANSLATION = 0x10;

const machine = (granules: ('4KiB' | '16KiB' | '64KiB')[]): MachineFixture =>
  new MachineFixture([0], { iommus: [{ name: 'smmu0', model: 'smmuv3', granules }] });

for (const [granuleLg2, inputBits] of [
  [14, 48],
  [14, 39],
  [16, 48],
  [16, 39],
] as const)
  for (const rangeInvalidate of [false, true])
    test(`a guest with granules of 2^${granuleLg2} and ${inputBits} bits maps, does DMA and unmaps, ranges ${rangeInvalidate}`, (t) => {
      const f = machine(['4KiB', '16KiB', '64KiB']);
      const host = f.vm();
      t.is(host.vm.attachDevice(0, 5), 0);
      const driver = f.driver(host, 0, { granuleLg2, inputBits, rangeInvalidate });
      const space = ok(driver.createSpace());
      t.is(driver.setupStream(5, space), 0);
      const g = 2 ** (granuleLg2 - 12);
      const pages = 3 * g;
      const ipa = host.ram.allocZeroed(pages, g);
      const page = 2 ** (inputBits - 12) - 64 * g;
      const iova = BigInt(page) * 4096n;
      t.is(driver.map(space, page, ipa, pages, RW), 0);
      t.is(f.write(0, iova, pages * 4096, 3), 0);
      t.deepEqual(host.ram.view(ipa * 4096, pages * 4096)!.slice(), pattern(pages * 4096, 3));
      t.is(driver.map(space, page + 32 * g, ipa + 1, g, RW), -EINVAL);
      t.is(driver.unmap(space, page, g - 1), -EINVAL);
      t.is(driver.unmap(space, page, 2 * g), 2 * g);
      for (let i = 0; i < 3; i++)
        t.is(f.write(0, iova + BigInt(i * g) * 4096n, 8, i), i < 2 ? F_TRANSLATION : 0);
      t.is(host.end(), 0);
    });

test('a guest that asks for a granule which its SMMU does not have is told at the start', (t) => {
  const f = machine(['4KiB']);
  const host = f.vm();
  t.throws(() => f.driver(host, 0, { granuleLg2: 16 }), { message: new RegExp(`-${ENODEV}`) });
  t.is(host.end(), 0);
});
