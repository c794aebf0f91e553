import test from 'ava';
import { ok, VmmFixture } from '../../kit/vmm-fixture.js';

const READ_WRITE = 3;
const PAGE = 4096;

test('start: a linear and a two-level stream table abort everything until a stream is set up', (t) => {
  for (const twoLevel of [false, true]) {
    const fixture = new VmmFixture({ deviceSmmus: [0, 0] });
    fixture.vm.attachDevice(0, 5);
    fixture.vm.attachDevice(1, 0x1234);
    const free = fixture.ram.frames.free;
    const driver = fixture.driver(0, { twoLevel, sidBits: twoLevel ? 16 : 13 });
    t.is(fixture.fake.tableOf(0)!.data[0], 1n);
    const space = ok(driver.createSpace());
    t.is(driver.setupStream(5, space), 0);
    t.is(driver.setupStream(0x1234, space), 0);
    t.is(driver.setupStream(5, space), -17);
    t.is(driver.setupStream(2 ** 16, space), -22);
    for (const device of [0, 1]) t.is(fixture.fake.tableOf(device)!.data[0]! & 0xfn, 0b1011n);
    t.is(driver.clearStream(5), 0);
    t.is(fixture.fake.tableOf(0)!.data[0], 1n);
    t.is(driver.bypassStream(5), 0);
    t.is(fixture.fake.tableOf(0)!.data[0], 0b1001n);
    driver.stop();
    t.is(fixture.ram.frames.free, free);
  }
});

test('map and unmap: entries in guest RAM, one TLBI per page and a SYNC, frames accounted for', (t) => {
  const fixture = new VmmFixture({ deviceSmmus: [0] });
  fixture.vm.attachDevice(0, 5);
  const driver = fixture.driver(0, { rangeInvalidate: false });
  const space = ok(driver.createSpace());
  driver.setupStream(5, space);
  const viommu = fixture.vm.viommus[0]!.id;
  fixture.takeOpcodes(viommu);
  const free = fixture.ram.frames.free;
  t.is(driver.map(space, 0x10, 0x40100, 3, READ_WRITE), 0);
  t.is(space.table.lookup(0x12), 0x40102);
  t.is(driver.map(space, 0x12, 0x40100, 1, READ_WRITE), -17);
  t.is(driver.unmap(space, 0x10, 3), 3);
  t.is(space.table.lookup(0x10), -1);
  t.deepEqual(fixture.takeOpcodes(viommu), [0x12, 0x12, 0x12]);
  const { table } = space;
  driver.stop();
  t.is(table.freedTables, 0);
  t.true(fixture.ram.frames.free > free, 'tables came back, and the queues');
});

test('unmap: TLBI_NH_VA carries ASID, address and Leaf; a freed table makes it non-leaf', (t) => {
  const fixture = new VmmFixture({ deviceSmmus: [0] });
  fixture.vm.attachDevice(0, 5);
  const driver = fixture.driver(0, { rangeInvalidate: false });
  const space = ok(driver.createSpace());
  driver.setupStream(5, space);
  driver.map(space, 0x200, 0x40100, 2, READ_WRITE);
  fixture.fake.issued.length = 0;
  driver.unmap(space, 0x201, 1);
  const asid = BigInt(space.asid) << 48n;
  t.deepEqual(fixture.fake.issued[0]!.command, [0x12n | asid, 0x20_1001n]);
  driver.map(space, 0x201, 0x40100, 1, READ_WRITE);
  fixture.fake.issued.length = 0;
  driver.unmap(space, 0x200, 512);
  t.deepEqual(fixture.fake.issued[0]!.command, [0x12n | asid, 0x20_0000n]);
  t.is(fixture.fake.issued.length, 512);
});

test('unmap: range invalidations cover every page once', (t) => {
  const fixture = new VmmFixture({ deviceSmmus: [0] });
  fixture.vm.attachDevice(0, 5);
  const driver = fixture.driver();
  const space = ok(driver.createSpace());
  driver.setupStream(5, space);
  for (const pages of [1, 2, 3, 31, 32, 33, 63, 64, 100, 511, 777]) {
    t.is(driver.map(space, 0x1001, 0x40000, pages, READ_WRITE), 0);
    fixture.fake.issued.length = 0;
    t.is(driver.unmap(space, 0x1001, pages), pages);
    let next = 0x1001;
    for (const { command } of fixture.fake.issued) {
      const [low, high] = command;
      t.is(Number(high >> 12n), next);
      const ranged = ((high >> 10n) & 3n) !== 0n;
      const size = ranged ? (Number((low >> 12n) & 31n) + 1) * 2 ** Number((low >> 20n) & 31n) : 1;
      // NUM, SCALE and TTL all zero with a granule is reserved.
      t.false(ranged && size === 1);
      next += size;
    }
    t.is(next, 0x1001 + pages);
    t.true(fixture.fake.issued.length <= 3);
  }
});

test('unmap: when the SYNC does not complete, no table frame is reused', (t) => {
  const fixture = new VmmFixture({ deviceSmmus: [0] });
  fixture.vm.attachDevice(0, 5);
  const driver = fixture.driver();
  const space = ok(driver.createSpace());
  driver.setupStream(5, space);
  driver.map(space, 0, 0x40000, 1024, READ_WRITE);
  driver.map(space, 0x8_0000, 0x40000, 3, READ_WRITE);
  const { free } = fixture.ram.frames;
  fixture.fake.failInvalidate = { after: 0, errno: 110 };
  t.is(driver.unmap(space, 0x8_0000, 0x4_0000), -5);
  t.is(fixture.ram.frames.free, free);
});

test('switchTable: the CD in guest RAM names the other space, and CFGI_CD is issued', (t) => {
  const fixture = new VmmFixture({ deviceSmmus: [0] });
  fixture.vm.attachDevice(0, 5);
  const driver = fixture.driver();
  const one = ok(driver.createSpace());
  const two = ok(driver.createSpace());
  t.not(one.asid, two.asid);
  driver.setupStream(5, one);
  const cd = Number(fixture.fake.tableOf(0)!.data[0]! & 0xf_ffff_ffff_ffc0n);
  t.is(fixture.ram.load64(cd)! >> 48n, BigInt(one.asid));
  fixture.fake.issued.length = 0;
  t.is(driver.switchTable(5, two), 0);
  t.is(fixture.ram.load64(cd)! >> 48n, BigInt(two.asid));
  t.is(fixture.ram.load64(cd + 8), BigInt(two.table.root));
  t.is(fixture.fake.issued[0]!.command[0], 0x05n | (5n << 32n));
  t.is(driver.destroySpace(two), -22);
  t.is(driver.destroySpace(one), 0);
  t.is(driver.switchTable(6, two), -2);
});

test('address spaces: no more than descriptors, ASIDs and descriptors come back', (t) => {
  const fixture = new VmmFixture({ deviceSmmus: [0] });
  fixture.vm.attachDevice(0, 5);
  const driver = fixture.driver();
  const spaces = Array.from({ length: 16 }, () => ok(driver.createSpace()));
  t.is(new Set(spaces.map(({ asid }) => asid)).size, 16);
  t.is(driver.createSpace(), -28);
  t.is(driver.destroySpace(spaces[3]!), 0);
  t.is(typeof driver.createSpace(), 'object');
});

test('map: without a frame left it is ENOMEM and nothing is mapped', (t) => {
  const fixture = new VmmFixture({ deviceSmmus: [0] });
  fixture.vm.attachDevice(0, 5);
  const driver = fixture.driver();
  const space = ok(driver.createSpace());
  const { frames } = fixture.ram;
  while (frames.alloc() >= 0) t.true(frames.free * PAGE >= 0);
  t.is(driver.map(space, 0x10, 0x40000, 1, READ_WRITE), -12);
  t.is(space.table.lookup(0x10), -1);
});
