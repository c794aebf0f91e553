/** The driver over the SMMU model, end to end, by what devices see and what commands the SMMU consumed. */
import test from 'ava';
import type { Smmuv3Config } from '../../../../hw/smmuv3/config.js';
import { DriverFixture, newGather } from '../../../kit/smmu-driver-fixture.js';

const ENOMEM = 12;
const EBUSY = 16;
const EEXIST = 17;
const EINVAL = 22;
const EOPNOTSUPP = 95;
const ETIMEDOUT = 110;

const RW = 3;
const NEST_PARENT = 1;
const DIRTY_TRACKING = 2;
const FAULT_ID_VALID = 4;
const PASID = 8;
const F_TRANSLATION = 0x10;
const F_PERMISSION = 0x13;
const ABORTED = 0xff;

const TLBI_NH_ASID = 0x11;
const TLBI_NH_VA = 0x12;
const TLBI_S12_VMALL = 0x28;
const TLBI_S2_IPA = 0x2a;
const CMD_SYNC = 0x46;

test('probe: translates nothing before an attach, and answers GET_HW_INFO from the registers', (t) => {
  const f = new DriverFixture();
  t.is(f.write(0, 0x1000n), 0x02, 'C_BAD_STREAMID: no leaf of the stream table covers it yet');
  t.is(f.smmus[0]!.attach(f.devices[0]!, null), 0);
  t.is(f.write(0, 0x1000n), ABORTED);
  const info = f.smmus[0]!.hwInfo(f.devices[0]!);
  t.is(info.type, 2);
  t.is(info.data.byteLength, 40);
  const view = new DataView(info.data.buffer);
  // IDR0 at 8: S2P, S1P, AArch64 tables, COHACC.
  t.is(view.getUint32(8, true) & 0x1f, 0b11011);
  // Dirty tracking, and no ATS.
  t.is(info.capabilities, 9n);
  t.deepEqual(f.smmus[0]!.reservedRegions(f.devices[0]!), [{ firstPage: 0x8000, lastPage: 0x80ff }]);
});

for (const stages of ['both', 's2'] as const)
  for (const msiPolling of [false, true])
    test(`map, DMA, unmap, fault: stages ${stages}, SYNC by ${msiPolling ? 'MSI' : 'CMDQ_CONS'}`, (t) => {
      const f = new DriverFixture({ hardware: { stages }, driver: { msiPolling } });
      const domain = f.paging();
      t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
      const pfn = f.pages(2);
      t.is(domain.map(0x1234, pfn, 2, RW), 0);
      t.is(f.write(0, 0x1234_010n, 0x5a), 0);
      t.is(f.byteAt(pfn, 0x10), 0x5a);
      t.is(domain.lookup(0x1235), pfn + 1);
      const { notes } = f.unmap(domain, 0x1234, 2);
      t.is(f.write(0, 0x1234_000n), F_TRANSLATION);
      t.is(domain.lookup(0x1234), -1);
      t.is(notes.length, 1);
      t.is(notes[0]!.command, stages === 's2' ? 'CMD_TLBI_S2_IPA' : 'CMD_TLBI_NH_VA');
      t.deepEqual([notes[0]!.firstPage, notes[0]!.pages], [0x1234, 2]);
      t.true(notes[0]!.tickIssued < notes[0]!.tickDone);
      t.true(f.smmus[0]!.poll());
      t.false(f.smmus[0]!.poll());
      t.like(f.hostEvents, [{ kind: 'event', name: 'F_TRANSLATION' }]);
    });

test('permissions: a read-only page refuses writes', (t) => {
  const f = new DriverFixture();
  const domain = f.paging();
  f.smmus[0]!.attach(f.devices[0]!, domain);
  t.is(domain.map(0x40, f.pages(1), 1, 1), 0);
  t.is(f.write(0, 0x4_0000n), F_PERMISSION);
  t.is(f.ports[0]!.read(0x4_0000n, new Uint8Array(4)), 0);
});

test('map: what is mapped already is -EEXIST, and nothing of the range stays', (t) => {
  const f = new DriverFixture();
  const domain = f.paging();
  f.smmus[0]!.attach(f.devices[0]!, domain);
  const pfn = f.pages(4);
  t.is(domain.map(0x102, pfn, 1, RW), 0);
  t.is(domain.map(0x100, pfn, 4, RW), -EEXIST);
  t.is(domain.lookup(0x100), -1);
  t.is(domain.lookup(0x102), pfn);
  t.is(f.write(0, 0x10_0000n), F_TRANSLATION);
});

test('unlinked tables are given back only by sync, and domain free gives everything back', (t) => {
  const f = new DriverFixture();
  f.smmus[0]!.attach(f.devices[0]!, f.paging());
  f.smmus[0]!.attach(f.devices[0]!, null);
  const before = f.frames.freePages();
  const domain = f.paging();
  f.smmus[0]!.attach(f.devices[0]!, domain);
  const pfn = f.pages(1);
  t.is(domain.map(0x5_0000, pfn, 1, RW), 0);
  const gather = newGather();
  t.is(domain.unmap(0x5_0000 - (0x5_0000 % 0x40000), 0x40000 * 2, gather), 1);
  t.true(gather.freedTables.length > 0);
  const held = f.frames.freePages();
  const tables = gather.freedTables.length;
  t.is(domain.sync(gather), 0);
  t.is(f.frames.freePages(), held + tables);
  t.is(gather.freedTables.length, 0);
  f.smmus[0]!.attach(f.devices[0]!, null);
  domain.free();
  f.frames.free(pfn, 1);
  t.is(f.frames.freePages(), before);
});

test('a large range: one SYNC, few commands; more than 8 TiB: the whole ASID', (t) => {
  const f = new DriverFixture();
  const domain = f.paging();
  f.smmus[0]!.attach(f.devices[0]!, domain);
  const phantom = f.frames.allocPhantom(0x12345, 512);
  t.is(domain.map(0, phantom, 0x12345, RW), 0);
  let from = f.commandCount(0);
  f.unmap(domain, 0, 0x12345);
  let opcodes = f.commands(0, from).map((c) => c.opcode);
  t.true(opcodes.length <= 6);
  t.deepEqual(
    opcodes.filter((op) => op !== TLBI_NH_VA),
    [CMD_SYNC],
  );
  const gather = newGather();
  domain.map(0, phantom, 1, RW);
  domain.map(2 ** 31, phantom, 1, RW);
  domain.unmap(0, 1, gather);
  domain.unmap(2 ** 31, 1, gather);
  from = f.commandCount(0);
  t.is(domain.sync(gather), 0);
  opcodes = f.commands(0, from).map((c) => c.opcode);
  t.deepEqual(opcodes, [TLBI_NH_ASID, CMD_SYNC]);
});

test('allocPaging: what the flags ask for, where the SMMU has it; anything else is -EOPNOTSUPP', (t) => {
  const f = new DriverFixture();
  const [device] = f.devices;
  for (const flags of [0, PASID, DIRTY_TRACKING, DIRTY_TRACKING | PASID])
    t.is((f.paging(0, flags) as { stage?: number }).stage, 1);
  t.not(f.paging(0, DIRTY_TRACKING).dirty, undefined);
  t.is(f.paging(0, PASID).dirty, undefined);
  t.like(f.paging(0, NEST_PARENT), { nestParent: true, stage: 2 });
  for (const flags of [FAULT_ID_VALID, NEST_PARENT | DIRTY_TRACKING, NEST_PARENT | PASID, 16])
    t.is(f.smmus[0]!.allocPaging(device!, flags), -EOPNOTSUPP);
  const refused = (hardware: Partial<Smmuv3Config>, flags: number) => {
    const other = new DriverFixture({ hardware });
    t.is(other.smmus[0]!.allocPaging(other.devices[0]!, flags), -EOPNOTSUPP);
  };
  refused({ stages: 's1' }, NEST_PARENT);
  for (const flags of [PASID, DIRTY_TRACKING]) refused({ stages: 's2' }, flags);
  for (const httu of ['none', 'access'] as const) refused({ httu }, DIRTY_TRACKING);
});

test('replace: the device goes from one domain to the next, whose table it sees at once', (t) => {
  const f = new DriverFixture();
  const [first, second] = [f.paging(), f.paging()];
  const [a, b] = [f.pages(1), f.pages(1)];
  first.map(0x10, a, 1, RW);
  second.map(0x10, b, 1, RW);
  f.smmus[0]!.attach(f.devices[0]!, first);
  t.is(f.write(0, 0x1_0000n, 1), 0);
  f.smmus[0]!.attach(f.devices[0]!, second);
  t.is(f.write(0, 0x1_0000n, 2), 0);
  t.deepEqual([f.byteAt(a), f.byteAt(b)], [1, 2]);
  f.smmus[0]!.attach(f.devices[0]!, null);
  t.is(f.write(0, 0x1_0000n), ABORTED);
});

test('stage 1 to stage 2 and back', (t) => {
  const f = new DriverFixture();
  const [s1, s2] = [f.paging(), f.paging(0, NEST_PARENT)];
  const [a, b] = [f.pages(1), f.pages(1)];
  s1.map(0x10, a, 1, RW);
  s2.map(0x10, b, 1, RW);
  for (const [domain, pfn, byte] of [
    [s1, a, 1],
    [s2, b, 2],
    [s1, a, 3],
  ] as const) {
    t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
    t.is(f.write(0, 0x1_0000n, byte), 0);
    t.is(f.byteAt(pfn), byte);
  }
});

test('re-attach to the same domain keeps its tag and its translations valid', (t) => {
  const f = new DriverFixture();
  const domain = f.paging();
  domain.map(0x10, f.pages(1), 1, RW);
  f.smmus[0]!.attach(f.devices[0]!, domain);
  const from = f.commandCount(0);
  t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
  t.is(f.write(0, 0x1_0000n), 0);
  t.is(f.allocated.length, 1);
  t.false(f.commands(0, from).some((c) => c.opcode === TLBI_NH_ASID));
});

test('a tag goes back only when no entry carries it: whoever gets it next finds the IOTLB clean', (t) => {
  const f = new DriverFixture({ hardware: { vmidBits: 8, asidBits: 8 } });
  for (let round = 0; round < 300; round++) {
    const domain = f.paging(0, round % 2 === 0 ? 0 : NEST_PARENT);
    domain.map(0x10, f.pages(1), 1, RW);
    t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
    t.is(f.write(0, 0x1_0000n), 0);
    f.smmus[0]!.attach(f.devices[0]!, null);
    domain.free();
  }
  t.is(f.allocated.length, 300);
  t.true(f.allocated.every(({ cached }) => cached === 0));
  t.true(
    f.allocated.every(({ id }) => id === 1),
    'the lowest ID is free again each time',
  );
});

test('two devices on one domain: the tag is shared and is flushed with the last one', (t) => {
  const f = new DriverFixture({
    devices: [
      [0, 0x100],
      [0, 0x2ff],
    ],
  });
  const domain = f.paging();
  domain.map(0x10, f.pages(1), 1, RW);
  for (const device of f.devices) t.is(f.smmus[0]!.attach(device, domain), 0);
  t.is(f.write(0, 0x1_0000n), 0);
  t.is(f.write(1, 0x1_0000n), 0);
  let from = f.commandCount(0);
  f.smmus[0]!.attach(f.devices[0]!, null);
  t.false(f.commands(0, from).some((c) => c.opcode === TLBI_NH_ASID));
  t.is(f.write(1, 0x1_0000n), 0);
  from = f.commandCount(0);
  f.smmus[0]!.attach(f.devices[1]!, null);
  t.true(f.commands(0, from).some((c) => c.opcode === TLBI_NH_ASID));
  t.is(f.cachedUnder(0, 'asid', 1), 0);
});

test('one stage-1 domain over two SMMUs: an unmap reaches both, and both work at the same time', (t) => {
  const f = new DriverFixture({ smmus: 2 });
  const domain = f.paging();
  for (const i of [0, 1]) t.is(f.smmus[i]!.attach(f.devices[i]!, domain), 0);
  const pfn = f.pages(1);
  domain.map(0x10, pfn, 1, RW);
  for (const i of [0, 1]) t.is(f.write(i, 0x1_0000n), 0);
  const { notes } = f.unmap(domain, 0x10, 1);
  t.deepEqual(
    notes.map(({ iommu, command }) => [iommu, command]),
    [
      [0, 'CMD_TLBI_NH_VA'],
      [1, 'CMD_TLBI_NH_VA'],
    ],
  );
  // Both were issued before either was waited for.
  t.true(Math.max(...notes.map((n) => n.tickIssued)) < Math.min(...notes.map((n) => n.tickDone)));
  for (const i of [0, 1]) t.is(f.write(i, 0x1_0000n), F_TRANSLATION);
});

test('per-psmmu: a domain of another SMMU is -EINVAL', (t) => {
  const f = new DriverFixture({ smmus: 2, driver: { sharing: 'per-psmmu' } });
  const domain = f.paging(0);
  t.is(f.smmus[1]!.attach(f.devices[1]!, domain), -EINVAL);
  t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
});

test('shared: another output address size is -EINVAL', (t) => {
  const f = new DriverFixture({ smmus: 1 });
  const g = new DriverFixture({ smmus: 1, hardware: { oasBits: 44 } });
  t.is(g.smmus[0]!.attach(g.devices[0]!, f.paging()), -EINVAL);
});

for (const oasBits of [32, 36, 40, 42, 44, 48])
  test(`stage 2 with ${oasBits} address bits: first and last page of the aperture translate`, (t) => {
    const f = new DriverFixture({ hardware: { oasBits } });
    const domain = f.paging(0, NEST_PARENT);
    t.is(domain.aperture.lastUnit, 2 ** (oasBits - 12) - 1);
    t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
    const pfn = f.pages(2);
    t.is(domain.map(0, pfn, 1, RW), 0);
    t.is(domain.map(domain.aperture.lastUnit, pfn + 1, 1, RW), 0);
    t.is(f.write(0, 0n, 1), 0);
    t.is(f.write(0, BigInt(domain.aperture.lastUnit) << 12n, 2), 0);
    t.deepEqual([f.byteAt(pfn), f.byteAt(pfn + 1)], [1, 2]);
    f.unmap(domain, domain.aperture.lastUnit, 1);
    t.is(f.write(0, BigInt(domain.aperture.lastUnit) << 12n), F_TRANSLATION);
  });

test('no ASID left is -EBUSY, and the device keeps what it had', (t) => {
  const f = new DriverFixture({ hardware: { asidBits: 8 } });
  const domain = f.paging();
  domain.map(0x10, f.pages(1), 1, RW);
  f.smmus[0]!.attach(f.devices[0]!, domain);
  const { asids } = f.smmus[0]!.smmu;
  while (asids.count < 255) asids.allocate();
  t.is(f.smmus[0]!.attach(f.devices[0]!, f.paging()), -EBUSY);
  t.is(f.write(0, 0x1_0000n), 0);
});

test('out of memory anywhere: -ENOMEM, and nothing is lost', (t) => {
  const f = new DriverFixture();
  const free = f.frames.freePages();
  const taken: number[] = [];
  for (let pfn = f.frames.alloc(12); pfn >= 0; pfn = f.frames.alloc(12)) taken.push(pfn);
  t.is(f.smmus[0]!.allocPaging(f.devices[0]!, 0), -ENOMEM);
  t.is(f.smmus[0]!.attach(f.devices[0]!, null), -ENOMEM);
  for (const pfn of taken.splice(0, 1)) f.frames.free(pfn, 1);
  const domain = f.paging();
  t.is(domain.map(0x10, taken[0]!, 1, RW), -ENOMEM);
  t.is(f.smmus[0]!.attach(f.devices[0]!, domain), -ENOMEM);
  for (const pfn of taken) f.frames.free(pfn, 1);
  domain.free();
  t.is(f.frames.freePages(), free);
  t.is(f.smmus[0]!.smmu.asids.count, 0);
});

test('a StreamID out of range is refused', (t) => {
  const f = new DriverFixture({ hardware: { sidBits: 8 }, devices: [[0, 0x100]] });
  t.is(f.smmus[0]!.attach(f.devices[0]!, null), -34);
});

test('a linear stream table serves small SMMUs', (t) => {
  const f = new DriverFixture({ hardware: { sidBits: 6 }, devices: [[0, 63]] });
  const domain = f.paging();
  domain.map(0x10, f.pages(1), 1, RW);
  t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
  t.is(f.write(0, 0x1_0000n), 0);
});

test('a dead pIOMMU: sync is -ETIMEDOUT, tables stay out of use, attach reports it', (t) => {
  const f = new DriverFixture({ smmus: 2, driver: { queue: { deadlineNs: 2e6 } } });
  const domain = f.paging();
  for (const i of [0, 1]) f.smmus[i]!.attach(f.devices[i]!, domain);
  domain.map(0x10, f.pages(1), 1, RW);
  t.is(f.write(1, 0x1_0000n), 0);
  f.alive.delete(0);
  const gather = newGather();
  domain.unmap(0, 0x200, gather);
  t.is(domain.sync(gather), -ETIMEDOUT);
  t.true(gather.freedTables.length > 0);
  t.is(f.write(1, 0x1_0000n), F_TRANSLATION, 'the live one was invalidated all the same');
  t.is(f.smmus[0]!.attach(f.devices[0]!, null), 0);
  t.true(f.hostEvents.some((event) => event.kind === 'timeout'));
  t.true(f.smmus[0]!.smmu.asids.has(1), 'its ASID is not used again');
});

test('deliberate defect wrongVmid: only on the SMMU it is meant for', (t) => {
  const f = new DriverFixture({ smmus: 2, driver: { bugs: { wrongVmid: true }, bugOnIommu: 1 } });
  const domain = f.paging(0, NEST_PARENT);
  for (const i of [0, 1]) f.smmus[i]!.attach(f.devices[i]!, domain);
  domain.map(0x10, f.pages(1), 1, RW);
  for (const i of [0, 1]) t.is(f.write(i, 0x1_0000n), 0);
  const from = [0, 1].map((i) => f.commandCount(i));
  f.unmap(domain, 0x10, 1);
  const vmids = [0, 1].map(
    (i) => f.commands(i, from[i]!).find((c) => c.opcode === TLBI_S2_IPA)!.words[1] & 0xffff,
  );
  t.deepEqual(vmids, [1, 0]);
  t.is(f.write(0, 0x1_0000n), F_TRANSLATION);
  t.is(f.write(1, 0x1_0000n), 0, 'stale, as the defect makes it');
});

test('a refused command does not stop the driver: replaced, acknowledged, reported', (t) => {
  const f = new DriverFixture();
  const { queue } = f.smmus[0]!.smmu;
  const RESERVED = 0xff;
  t.is(queue.issue(Uint32Array.of(RESERVED, 0x100, 0, 0), 1, false), 0);
  f.run();
  t.true(f.smmus[0]!.poll());
  t.like(f.hostEvents, [{ kind: 'gerror', bits: 1, commandSkipped: true }]);
  t.is(queue.issue(Uint32Array.of(RESERVED, 0x100, 0, 0), 1, true), 0);
});

test('event queue overflow: reported, acknowledged, and events arrive again', (t) => {
  const f = new DriverFixture({ driver: { evtqLg2: 3 } });
  f.smmus[0]!.attach(f.devices[0]!, f.paging());
  for (let i = 0; i < 20; i++) f.write(0, BigInt(i) << 12n);
  while (f.smmus[0]!.poll());
  t.is(f.hostEvents.filter((event) => event.kind === 'event').length, 8);
  t.is(f.hostEvents.filter((event) => event.kind === 'overflow').length, 1);
  f.write(0, 0x7000n);
  f.smmus[0]!.poll();
  t.is(f.hostEvents.filter((event) => event.kind === 'event').length, 9);
  t.is(f.hostEvents.filter((event) => event.kind === 'overflow').length, 1);
});

test('stage-2 tags of a domain are flushed by VMID', (t) => {
  const f = new DriverFixture();
  const domain = f.paging(0, NEST_PARENT);
  f.smmus[0]!.attach(f.devices[0]!, domain);
  const from = f.commandCount(0);
  f.smmus[0]!.attach(f.devices[0]!, null);
  t.true(f.commands(0, from).some((c) => c.opcode === TLBI_S12_VMALL));
});
