/** Devices with an ATC, with page requests, that stall; and a host at EL2: the driver over the SMMU model. */
import test from 'ava';
import { Xlat } from '../../../../hw/iotlb/port-layout.js';
import type { DriverViommu } from '../../../../runtime/drivers/contract.js';
import { DriverFixture, type DriverFixtureOptions, newGather } from '../../../kit/smmu-driver-fixture.js';
import { dataOf } from '../../../kit/user-data.js';

const ETIMEDOUT = 110;
const RW = 3;
const NEST_PARENT = 1;
const FROM_ATC = 5;
const STALLED = 0xfe;
const VERDICT_NONE = 0;
const VERDICT_ABORT = 2;
const DIRTY_TRACKING = 1n;
const ATS_NOT_SUPPORTED = 8n;

const CFGI_STE = 0x03;
const TLBI_NH_VA = 0x12;
const TLBI_EL2_ALL = 0x20;
const TLBI_EL2_ASID = 0x21;
const TLBI_EL2_VA = 0x22;
const TLBI_S2_IPA = 0x2a;
const ATC_INV = 0x40;
const PRI_RESP = 0x41;
const RESUME = 0x44;
const CMD_SYNC = 0x46;

const withAts = (over: DriverFixtureOptions = {}): DriverFixture =>
  new DriverFixture({
    traits: { ats: true },
    ...over,
    hardware: { ats: true, atcTimeoutNs: 1e6, ...over.hardware },
  });

const source = (f: DriverFixture): number => f.ports[0]!.field(0, Xlat.at.source);
const opcodes = (f: DriverFixture, from: number): number[] => f.commands(0, from).map((c) => c.opcode);

function mapped(f: DriverFixture, flags = 0) {
  const domain = f.paging(0, flags);
  const pfn = f.pages(4);
  domain.map(0x10, pfn, 4, RW);
  f.smmus[0]!.attach(f.devices[0]!, domain);
  return { domain, pfn };
}

test('ATS: on while attached; what the ATC holds goes with the mapping, after the TLBs', (t) => {
  const f = withAts();
  t.is(f.smmus[0]!.hwInfo(f.devices[0]!).capabilities, DIRTY_TRACKING);
  t.false(f.ports[0]!.ats.enabled);
  const { domain, pfn } = mapped(f);
  t.true(f.ports[0]!.ats.enabled);
  t.is(f.write(0, 0x1_0000n, 1), 0);
  t.is(f.write(0, 0x1_0001n, 2), 0);
  t.is(source(f), FROM_ATC);
  t.is(f.byteAt(pfn, 1), 2);
  const from = f.commandCount(0);
  const { notes } = f.unmap(domain, 0x10, 3);
  t.deepEqual(opcodes(f, from), [TLBI_NH_VA, CMD_SYNC, ATC_INV, CMD_SYNC]);
  const inv = f.commands(0, from).find((c) => c.opcode === ATC_INV)!;
  // 0x10..0x12: four pages from 0x10.
  t.deepEqual(inv.words, [ATC_INV, 0x100, (0x10 << 12) | 2, 0]);
  t.deepEqual(
    notes.map(({ command, failed }) => [command, failed]),
    [
      ['CMD_TLBI_NH_VA', false],
      ['CMD_ATC_INV', false],
    ],
  );
  t.not(f.write(0, 0x1_0000n), 0);
  t.is(f.write(0, 0x1_3000n, 3), 0);
});

test('ATS: off before the STE refuses, the ATC emptied, and nothing left over for the next attach', (t) => {
  const f = withAts();
  const { pfn } = mapped(f);
  t.is(f.write(0, 0x1_0000n, 1), 0);
  const from = f.commandCount(0);
  f.smmus[0]!.attach(f.devices[0]!, null);
  t.false(f.ports[0]!.ats.enabled);
  const seen = opcodes(f, from);
  t.true(seen.indexOf(CFGI_STE) >= 0 && seen.indexOf(CFGI_STE) < seen.indexOf(ATC_INV));
  t.not(f.write(0, 0x1_0000n, 9), 0);
  t.is(f.byteAt(pfn), 1);
  const { pfn: other } = mapped(f);
  t.is(f.write(0, 0x1_0000n, 2), 0);
  t.deepEqual([f.byteAt(pfn), f.byteAt(other)], [1, 2]);
});

test('ATS: from one domain to another without a stale translation', (t) => {
  const f = withAts();
  const { pfn } = mapped(f);
  t.is(f.write(0, 0x1_0000n, 1), 0);
  const { pfn: other } = mapped(f);
  t.true(f.ports[0]!.ats.enabled);
  t.is(f.write(0, 0x1_0000n, 2), 0);
  t.deepEqual([f.byteAt(pfn), f.byteAt(other)], [1, 2]);
});

test('ATS: a device without it, or behind an SMMU without it, uses none', (t) => {
  for (const f of [withAts({ traits: {} }), withAts({ hardware: { ats: false, pri: false } })]) {
    t.is(f.smmus[0]!.hwInfo(f.devices[0]!).capabilities, DIRTY_TRACKING | ATS_NOT_SUPPORTED);
    const { domain } = mapped(f);
    t.is(f.write(0, 0x1_0000n), 0);
    t.is(f.write(0, 0x1_0000n), 0);
    t.not(source(f), FROM_ATC);
    const from = f.commandCount(0);
    f.unmap(domain, 0x10, 1);
    t.false(opcodes(f, from).includes(ATC_INV));
  }
});

test('ATS: over a nesting parent a change empties the whole ATC', (t) => {
  const f = withAts();
  const { domain } = mapped(f, NEST_PARENT);
  t.is(f.write(0, 0x1_0000n), 0);
  const from = f.commandCount(0);
  f.unmap(domain, 0x12, 1);
  t.deepEqual(opcodes(f, from), [TLBI_S2_IPA, CMD_SYNC, ATC_INV, CMD_SYNC]);
  t.deepEqual(f.commands(0, from)[2]!.words, [ATC_INV, 0x100, 52, 0]);
});

test('ATS: the guest’s STE decides while its stage 1 is in force', (t) => {
  const f = withAts();
  const { domain: parent } = mapped(f, NEST_PARENT);
  const viommu = f.smmus[0]!.allocViommu(f.devices[0]!, parent, 1) as DriverViommu;
  t.is(viommu.vdeviceInit(f.devices[0]!, 5n), 0);
  const nested = (ste0: bigint, ste1: bigint) => {
    const data = new Uint8Array(16);
    new DataView(data.buffer).setBigUint64(0, ste0, true);
    new DataView(data.buffer).setBigUint64(8, ste1, true);
    const made = viommu.allocNested(dataOf(2, data), 0);
    if (typeof made === 'number') throw new Error(`allocNested said ${made}`);
    return made;
  };
  const EATS = 1n << 28n;
  const S1 = 1n | (5n << 1n) | 0x1000_0000n;
  const BYPASS = 1n | (4n << 1n);
  for (const [ste0, ste1, on] of [
    [S1, 0n, false],
    [S1, EATS, true],
    [BYPASS, 0n, true],
    [S1, 0n, false],
  ] as const) {
    t.is(f.smmus[0]!.attach(f.devices[0]!, nested(ste0, ste1)), 0);
    t.is(f.ports[0]!.ats.enabled, on, `${ste0.toString(16)} ${ste1.toString(16)}`);
  }
});

test('ATS: a device that does not answer ends the unmap in time, reported; what it holds is not taken for gone', (t) => {
  const logged: string[] = [];
  const f = withAts({ driver: { log: (message) => logged.push(message) } });
  const { domain } = mapped(f);
  t.is(f.write(0, 0x1_0000n), 0);
  f.ports[0]!.ats.hang(true);
  const gather = newGather();
  t.is(domain.unmap(0x10, 1, gather), 1);
  t.is(domain.sync(gather), -ETIMEDOUT);
  t.deepEqual(
    gather.notes.map(({ command, failed }) => [command, failed]),
    [
      ['CMD_TLBI_NH_VA', false],
      ['CMD_ATC_INV', true],
    ],
  );
  t.true(f.smmus[0]!.poll());
  t.like(f.hostEvents, [{ kind: 'gerror', bits: 1, commandSkipped: false, atcTimeouts: 1 }]);
  t.deepEqual(logged, ['smmu0: a device did not complete an ATC invalidation in time']);
  // The queue goes on, and so does the device once it answers again.
  f.ports[0]!.ats.hang(false);
  f.unmap(domain, 0x11, 1);
  t.not(f.write(0, 0x1_1000n), 0);
  t.is(f.write(0, 0x1_2000n), 0);
});

const withStalls = (): DriverFixture =>
  new DriverFixture({ traits: { stall: true }, hardware: { stalls: 'optional' } });

test('stall: a fault of a device that may wait is told to abort, in stage 1 and in stage 2', (t) => {
  for (const flags of [0, NEST_PARENT]) {
    const f = withStalls();
    mapped(f, flags);
    t.is(f.write(0, 0x1_0000n), 0);
    t.is(f.write(0, 0x9_9000n), STALLED);
    const [stag] = f.ports[0]!.stalled;
    t.is(f.ports[0]!.verdict(stag!), VERDICT_NONE);
    const from = f.commandCount(0);
    t.true(f.smmus[0]!.poll());
    f.run();
    t.deepEqual(opcodes(f, from), [RESUME]);
    t.is(f.ports[0]!.verdict(stag!), VERDICT_ABORT);
    t.like(f.hostEvents, [{ kind: 'event', name: 'F_TRANSLATION', stalled: true }]);
  }
});

test('stall: what is outstanding at a detach is answered by then', (t) => {
  const f = withStalls();
  mapped(f);
  t.is(f.write(0, 0x9_9000n), STALLED);
  const [stag] = f.ports[0]!.stalled;
  f.smmus[0]!.attach(f.devices[0]!, null);
  f.run();
  t.is(f.ports[0]!.verdict(stag!), VERDICT_ABORT);
  t.false(f.smmus[0]!.poll());
});

test('stall: a device that may not wait faults at once, on the same SMMU', (t) => {
  const f = new DriverFixture({ hardware: { stalls: 'optional' } });
  mapped(f);
  t.is(f.write(0, 0x9_9000n), 0x10);
});

test('page requests: a group is denied at its last request, and the queue goes on', (t) => {
  const f = withAts({ traits: { ats: true, pri: true }, hardware: { pri: true } });
  mapped(f);
  const port = f.ports[0]!;
  t.is(port.pageRequest({ group: 3, iova: 0x5_0000n, read: true, last: false }), 0);
  t.is(port.pageRequest({ group: 3, iova: 0x5_1000n, write: true, last: true }), 0);
  f.run();
  const from = f.commandCount(0);
  t.true(f.smmus[0]!.poll());
  f.run();
  t.deepEqual(opcodes(f, from), [PRI_RESP]);
  t.is(port.pageResponse(3), 'failure');
  t.deepEqual(
    f.hostEvents.map((event) => event.kind === 'page-request' && [event.request.page, event.request.last]),
    [
      [0x50, false],
      [0x51, true],
    ],
  );
  t.false(f.smmus[0]!.poll());
});

test('a host at EL2: stage 1 of EL2-E2H, invalidated by the EL2 commands, tags flushed before reuse', (t) => {
  const f = new DriverFixture({ hardware: { hyp: true } });
  const { domain, pfn } = mapped(f);
  t.true(opcodes(f, 0).includes(TLBI_EL2_ALL), 'at the reset');
  t.is(f.write(0, 0x1_0000n, 7), 0);
  t.is(f.byteAt(pfn), 7);
  let from = f.commandCount(0);
  f.unmap(domain, 0x10, 1);
  t.deepEqual(opcodes(f, from), [TLBI_EL2_VA, CMD_SYNC]);
  t.is(f.write(0, 0x1_0000n), 0x10);
  t.is(f.write(0, 0x1_1000n), 0);
  from = f.commandCount(0);
  f.smmus[0]!.attach(f.devices[0]!, null);
  t.true(opcodes(f, from).includes(TLBI_EL2_ASID));
  // The next domain has the same ASID and other pages.
  const { pfn: other } = mapped(f);
  t.is(f.write(0, 0x1_1000n, 9), 0);
  t.is(f.byteAt(other + 1), 9);
});

test('a host at EL2: stage 2 and nesting are what they were', (t) => {
  const f = new DriverFixture({ hardware: { hyp: true } });
  const { domain } = mapped(f, NEST_PARENT);
  t.is(f.write(0, 0x1_0000n), 0);
  const from = f.commandCount(0);
  f.unmap(domain, 0x10, 1);
  t.deepEqual(opcodes(f, from), [TLBI_S2_IPA, CMD_SYNC]);
  t.is(f.write(0, 0x1_0000n), 0x10);
});

test('without the Virtualization Host Extensions the host stays at EL1', (t) => {
  const f = new DriverFixture({ hardware: { hyp: true }, driver: { vhe: false } });
  const { domain } = mapped(f);
  t.is(f.write(0, 0x1_0000n), 0);
  const from = f.commandCount(0);
  f.unmap(domain, 0x10, 1);
  t.deepEqual(opcodes(f, from), [TLBI_NH_VA, CMD_SYNC]);
  t.is(f.write(0, 0x1_0000n), 0x10);
});
