/** PASIDs of the host's own: CDs, the STE that leads to them, invalidation, and what excludes what. */
import test from 'ava';
import type { DriverViommu } from '../../../../runtime/drivers/contract.js';
import { DriverFixture, type DriverFixtureOptions } from '../../../kit/smmu-driver-fixture.js';
import { dataOf } from '../../../kit/user-data.js';

const [EBUSY, EINVAL] = [16, 22];
const RW = 3;
const [NEST_PARENT, ALLOC_PASID] = [1, 8];
const ABORTED = 0xff;
const F_TRANSLATION = 0x10;
const F_STREAM_DISABLED = 0x06;
const C_BAD_SUBSTREAMID = 0x08;
const C_BAD_CD = 0x0a;

const CFGI_STE = 0x03;
const CFGI_CD = 0x05;
const TLBI_NH_VA = 0x12;
const TLBI_NH_ASID = 0x11;
const ATC_INV = 0x40;
const CMD_SYNC = 0x46;

const withPasids = (bits = 8, over: DriverFixtureOptions = {}): DriverFixture =>
  new DriverFixture({
    ...over,
    traits: { pasidBits: bits, ...over.traits },
    hardware: { ssidBits: 20, ...over.hardware },
  });

/** A domain with one page at 0x10000, in a frame of its own. */
function domain(f: DriverFixture, flags = ALLOC_PASID) {
  const made = f.paging(0, flags);
  const pfn = f.pages(1);
  made.map(0x10, pfn, 1, RW);
  return { made, pfn };
}

const opcodes = (f: DriverFixture, from: number): number[] => f.commands(0, from).map((c) => c.opcode);

test('each PASID translates by its own domain, and the device itself by another', (t) => {
  for (const bits of [1, 8, 10, 11, 20]) {
    const f = withPasids(bits);
    const smmu = f.smmus[0]!;
    t.is(smmu.maxPasids(f.devices[0]!), 2 ** bits);
    const last = 2 ** bits - 1;
    const [rid, one, two] = [domain(f), domain(f), domain(f)];
    t.is(smmu.attach(f.devices[0]!, rid.made), 0);
    t.is(smmu.attachPasid(f.devices[0]!, 1, one.made), 0);
    if (last > 1) t.is(smmu.attachPasid(f.devices[0]!, last, two.made), 0);
    t.is(f.write(0, 0x1_0000n, 1), 0);
    t.is(f.write(0, 0x1_0000n, 2, 1), 0);
    if (last > 1) t.is(f.write(0, 0x1_0000n, 3, last), 0);
    t.deepEqual(
      [rid.pfn, one.pfn].map((pfn) => f.byteAt(pfn)),
      [1, 2],
      `${bits} bits`,
    );
    if (last > 1) t.is(f.byteAt(two.pfn), 3);
    t.is(f.write(0, 0x2_0000n, 0, 1), F_TRANSLATION);
    if (bits > 1) t.is(f.write(0, 0x1_0000n, 0, 2), C_BAD_CD, 'no such PASID');
    if (bits > 11) t.is(f.write(0, 0x1_0000n, 0, 5000), C_BAD_SUBSTREAMID, 'no CDs there at all');
    if (bits < 20) t.is(f.write(0, 0x1_0000n, 0, 2 ** bits), C_BAD_SUBSTREAMID, 'beyond the table');
    smmu.attachPasid(f.devices[0]!, 1, null);
    t.is(f.write(0, 0x1_0000n, 9, 1), C_BAD_CD);
    t.is(f.write(0, 0x1_0000n, 4), 0);
    t.is(f.byteAt(one.pfn), 2);
  }
});

test('PASIDs without the device itself: what comes without a PASID is refused', (t) => {
  const f = withPasids();
  const smmu = f.smmus[0]!;
  const device = f.devices[0]!;
  const [one, two, rid] = [domain(f), domain(f), domain(f)];
  t.is(smmu.attach(device, null), 0);
  t.is(smmu.attachPasid(device, 5, one.made), 0);
  t.is(f.write(0, 0x1_0000n, 1), F_STREAM_DISABLED);
  t.is(f.write(0, 0x1_0000n, 1, 5), 0);
  const from = f.commandCount(0);
  t.is(smmu.attachPasid(device, 6, two.made), 0);
  t.false(opcodes(f, from).includes(CFGI_STE), 'the STE leads to the table already');
  t.is(smmu.attach(device, rid.made), 0);
  t.is(f.write(0, 0x1_0000n, 3), 0);
  t.is(smmu.attach(device, null), 0);
  t.is(f.write(0, 0x1_0000n, 1), F_STREAM_DISABLED);
  t.is(f.write(0, 0x1_0000n, 4, 6), 0, 'PASIDs stay');
  smmu.attachPasid(device, 5, null);
  t.is(f.write(0, 0x1_0000n, 5, 6), 0);
  smmu.attachPasid(device, 6, null);
  t.is(f.write(0, 0x1_0000n, 6, 6), ABORTED, 'the last one takes the table out of the STE');
  t.is(f.write(0, 0x1_0000n, 6), ABORTED);
});

test('a PASID is moved, and its old ASID forgotten', (t) => {
  const f = withPasids();
  const smmu = f.smmus[0]!;
  const device = f.devices[0]!;
  const [one, two] = [domain(f), domain(f)];
  smmu.attach(device, null);
  smmu.attachPasid(device, 5, one.made);
  t.is(f.write(0, 0x1_0000n, 1, 5), 0);
  const from = f.commandCount(0);
  smmu.attachPasid(device, 5, two.made);
  const seen = opcodes(f, from);
  t.true(seen.indexOf(CFGI_CD) >= 0 && seen.lastIndexOf(CFGI_CD) < seen.indexOf(TLBI_NH_ASID));
  const cfgi = f.commands(0, from).find((c) => c.opcode === CFGI_CD)!;
  t.is(cfgi.words[0] >>> 12, 5, 'the substream');
  t.is(f.write(0, 0x1_0000n, 2, 5), 0);
  t.deepEqual([f.byteAt(one.pfn), f.byteAt(two.pfn)], [1, 2]);
});

test('an unmap reaches every PASID of the domain by its one ASID', (t) => {
  const f = withPasids();
  const smmu = f.smmus[0]!;
  const { made } = domain(f);
  smmu.attach(f.devices[0]!, made);
  for (const pasid of [5, 6]) smmu.attachPasid(f.devices[0]!, pasid, made);
  for (const pasid of [undefined, 5, 6]) t.is(f.write(0, 0x1_0000n, 1, pasid), 0);
  const from = f.commandCount(0);
  f.unmap(made, 0x10, 1);
  t.deepEqual(opcodes(f, from), [TLBI_NH_VA, CMD_SYNC]);
  for (const pasid of [undefined, 5, 6]) t.is(f.write(0, 0x1_0000n, 1, pasid), F_TRANSLATION);
});

test('ATS: what an ATC holds of a PASID is invalidated by its number', (t) => {
  const f = withPasids(8, { traits: { ats: true }, hardware: { ats: true } });
  const smmu = f.smmus[0]!;
  const device = f.devices[0]!;
  const [rid, one] = [domain(f), domain(f)];
  smmu.attach(device, null);
  t.false(f.ports[0]!.ats.enabled);
  smmu.attachPasid(device, 5, one.made);
  t.true(f.ports[0]!.ats.enabled, 'a PASID turns it on');
  smmu.attach(device, rid.made);
  t.is(f.write(0, 0x1_0000n, 1), 0);
  t.is(f.write(0, 0x1_0000n, 2, 5), 0);
  let from = f.commandCount(0);
  f.unmap(one.made, 0x10, 1);
  t.deepEqual(opcodes(f, from), [TLBI_NH_VA, CMD_SYNC, ATC_INV, CMD_SYNC]);
  const inv = f.commands(0, from)[2]!;
  t.deepEqual([(inv.words[0] >>> 11) & 1, inv.words[0] >>> 12], [1, 5], 'SSV and the SubstreamID');
  t.not(f.write(0, 0x1_0000n, 9, 5), 0);
  t.is(f.write(0, 0x1_0000n, 3), 0);
  smmu.attach(device, null);
  t.true(f.ports[0]!.ats.enabled, 'the PASID needs it still');
  from = f.commandCount(0);
  smmu.attachPasid(device, 5, null);
  t.false(f.ports[0]!.ats.enabled);
  t.true(opcodes(f, from).includes(ATC_INV));
});

test('what excludes what: stage 2 and guests want the device for themselves', (t) => {
  const f = withPasids();
  const smmu = f.smmus[0]!;
  const device = f.devices[0]!;
  const one = domain(f).made;
  const parent = f.paging(0, NEST_PARENT);
  t.is(smmu.attachPasid(device, 5, parent), -EINVAL, 'a PASID is stage 1');
  t.is(smmu.attach(device, parent), 0);
  t.is(smmu.attachPasid(device, 5, one), -EINVAL, 'the device is on stage 2');
  const viommu = smmu.allocViommu(device, parent, 1) as DriverViommu;
  viommu.vdeviceInit(device, 5n);
  const data = new Uint8Array(16);
  new DataView(data.buffer).setBigUint64(0, 1n | (5n << 1n), true);
  const nested = viommu.allocNested(dataOf(2, data), 0);
  if (typeof nested === 'number') throw new Error(`allocNested said ${nested}`);
  t.is(smmu.attach(device, nested), 0);
  t.is(smmu.attachPasid(device, 5, one), -EINVAL, 'the guest has the table');
  t.is(smmu.attach(device, null), 0);
  t.is(smmu.attachPasid(device, 5, one), 0);
  t.is(smmu.attach(device, parent), -EBUSY);
  t.is(smmu.attach(device, nested), -EBUSY);
  t.is(f.write(0, 0x1_0000n, 1, 5), 0, 'nothing has changed');
  t.is(smmu.attachPasid(device, 256, one), -EINVAL);
});

test('a domain of another SMMU’s kind, and one that cannot be had', (t) => {
  const f = withPasids(8, { smmus: 2, driver: { sharing: 'per-psmmu' } });
  const other = f.paging(1, ALLOC_PASID);
  t.is(f.smmus[0]!.attachPasid(f.devices[0]!, 5, other), -EINVAL);
  const s2 = new DriverFixture({ traits: { pasidBits: 8 }, hardware: { stages: 's2' } });
  t.is(s2.smmus[0]!.allocPaging(s2.devices[0]!, ALLOC_PASID), -95);
});

test('out of memory for a leaf of CDs: nothing is attached, no tag is lost', (t) => {
  const f = withPasids(20);
  const smmu = f.smmus[0]!;
  const device = f.devices[0]!;
  const { made } = domain(f);
  smmu.attach(device, made);
  const second = domain(f).made;
  const taken: number[] = [];
  for (let pfn = f.frames.alloc(16); pfn >= 0; pfn = f.frames.alloc(16)) taken.push(pfn);
  t.is(smmu.attachPasid(device, 2000, second), -12);
  for (const pfn of taken) f.frames.free(pfn, 16);
  const before = f.allocated.length;
  t.is(smmu.attachPasid(device, 2000, second), 0);
  const first = f.allocated.filter(({ kind }) => kind === 'asid').map(({ id }) => id);
  t.deepEqual(first.slice(before - 1), [2, 2], 'the same ASID again');
  t.is(f.write(0, 0x1_0000n, 1, 2000), 0);
});
