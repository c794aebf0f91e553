/** Nesting: a guest's stage 1 over the host's stage 2, its invalidations and its events, over the SMMU model. */
import test from 'ava';
import type {
  DriverViommu,
  NestedDomain,
  PagingDomain,
  ViommuOwner,
} from '../../../../runtime/drivers/contract.js';
import { ViommuRecord } from '../../../../runtime/drivers/smmuv3/driver-layout.js';
import { Smmuv3Invalidator } from '../../../../runtime/drivers/smmuv3/invalidate.js';
import { watchAccesses } from '../../../kit/schedule-hook.js';
import { DriverFixture, newGather } from '../../../kit/smmu-driver-fixture.js';
import { cd, S1_PAGE } from '../../../kit/smmu-structures.js';
import { dataOf } from '../../../kit/user-data.js';

const ENOENT = 2;
const EIO = 5;
const EEXIST = 17;
const EINVAL = 22;
const ENOSPC = 28;
const EOPNOTSUPP = 95;
const ETIMEDOUT = 110;

const RW = 3;
const NEST_PARENT = 1;
const ARM_SMMUV3 = 1;
const DATA_ARM_SMMUV3 = 2;
const INVALIDATE_ARM_SMMUV3 = 1;
const F_TRANSLATION = 0x10;
const ABORTED = 0xff;

const CFGI_CD = 0x05;
const CFGI_CD_ALL = 0x06;
const TLBI_NH_ALL = 0x10;
const TLBI_NH_ASID = 0x11;
const TLBI_NH_VA = 0x12;
const TLBI_S12_VMALL = 0x28;
const TLBI_S2_IPA = 0x2a;
const TLBI_NSNH_ALL = 0x30;
const ATC_INV = 0x40;
const CMD_SYNC = 0x46;

/** The guest's RAM: IPA pages from here on. */
const GUEST = 0x4_0000;
const GUEST_PAGES = 16;
const VA_PAGE = 0x123;
const VA = BigInt(VA_PAGE) << 12n;
const ASID = 5;

/** A guest with a CD, three levels of stage-1 tables, and page 4 of its RAM at VA. */
class Guest {
  readonly f: DriverFixture;
  readonly parent: PagingDomain;
  readonly ram: number;

  constructor(f: DriverFixture, parent: PagingDomain) {
    this.f = f;
    this.parent = parent;
    this.ram = f.pages(GUEST_PAGES);
    parent.map(GUEST, this.ram, GUEST_PAGES, RW);
    cd({ root: this.ipa(1), asid: ASID }).forEach((word, i) => {
      this.write64(0, i, word);
    });
    this.write64(1, Math.floor(VA_PAGE / 2 ** 18), BigInt(this.ipa(2)) | 3n);
    this.write64(2, Math.floor(VA_PAGE / 2 ** 9) % 512, BigInt(this.ipa(3)) | 3n);
    this.mapPage(4);
  }

  /** Byte IPA of a page of the guest's RAM. */
  ipa(page: number): number {
    return (GUEST + page) * 4096;
  }

  write64(page: number, index: number, value: bigint): void {
    this.f.write64((this.ram + page) * 4096 + index * 8, value);
  }

  /** What VA translates to; -1: nothing. */
  mapPage(page: number): void {
    this.write64(3, VA_PAGE % 512, page < 0 ? 0n : BigInt(this.ipa(page)) | S1_PAGE);
  }
}

function vste(config: number, contextPtr = 0, word1 = 0n): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, 1n | (BigInt(config) << 1n) | BigInt(contextPtr), true);
  view.setBigUint64(8, word1, true);
  return bytes;
}

const NO_OWNER: ViommuOwner = { allocMmap: () => -12, freeMmap: () => undefined, allocFails: () => false };

function viommu(f: DriverFixture, device: number, parent: PagingDomain): DriverViommu {
  const made = f.devices[device]!.iommu.allocViommu(f.devices[device]!, parent, ARM_SMMUV3, null, NO_OWNER);
  if (typeof made === 'number') throw new Error(`allocViommu said ${made}`);
  return made;
}

function nested(v: DriverViommu, data: Uint8Array): NestedDomain {
  const made = v.allocNested(dataOf(DATA_ARM_SMMUV3, data), 0);
  if (typeof made === 'number') throw new Error(`allocNested said ${made}`);
  return made;
}

const vmidOf = (f: DriverFixture, v: DriverViommu): number =>
  f.memory.words.load(v.sharedBase + ViommuRecord.at.vmid);

/** A guest whose every device translates by its stage 1; vSIDs are 0x10 + device. */
function nestedSetup(f: DriverFixture, indexes = [0]) {
  const parent = f.paging(indexes[0]!, NEST_PARENT);
  const guest = new Guest(f, parent);
  const viommus = indexes.map((i) => viommu(f, i, parent));
  const domains = indexes.map((i, n) => {
    const v = viommus[n]!;
    if (v.vdeviceInit(f.devices[i]!, BigInt(0x10 + i)) !== 0) throw new Error('vdeviceInit');
    const domain = nested(v, vste(5, guest.ipa(0)));
    if (f.devices[i]!.iommu.attach(f.devices[i]!, domain) !== 0) throw new Error('attach');
    return domain;
  });
  return { parent, guest, viommus, domains };
}

function invalidate(f: DriverFixture, v: DriverViommu, ...commands: (readonly number[])[]) {
  const entries = new Uint8Array(commands.length * 16);
  const view = new DataView(entries.buffer);
  commands.forEach((words, n) => {
    words.forEach((word, i) => {
      view.setUint32(n * 16 + i * 4, word, true);
    });
  });
  const handled = Uint32Array.of(0xdead);
  const status = new Smmuv3Invalidator(f.memory, f.env).cacheInvalidate(
    v.sharedBase,
    entries,
    16,
    commands.length,
    handled,
  );
  return { status, handled: handled[0]! };
}

test('nested: DMA goes through the guest’s table and the host’s', (t) => {
  const f = new DriverFixture();
  const { guest } = nestedSetup(f);
  t.is(f.write(0, VA, 0x77), 0);
  t.is(f.byteAt(guest.ram + 4), 0x77);
});

test('nested: vSTE bypass uses stage 2 alone, abort and V = 0 abort', (t) => {
  const f = new DriverFixture();
  const parent = f.paging(0, NEST_PARENT);
  const guest = new Guest(f, parent);
  const v = viommu(f, 0, parent);
  t.is(f.smmus[0]!.attach(f.devices[0]!, nested(v, vste(4))), 0);
  t.is(f.write(0, BigInt(guest.ipa(6)), 9), 0);
  t.is(f.byteAt(guest.ram + 6), 9);
  t.is(f.smmus[0]!.attach(f.devices[0]!, nested(v, vste(0))), 0);
  t.is(f.write(0, BigInt(guest.ipa(6))), ABORTED);
  t.is(f.smmus[0]!.attach(f.devices[0]!, nested(v, vste(4))), 0);
  t.is(f.smmus[0]!.attach(f.devices[0]!, nested(v, new Uint8Array(16).fill(0xfe))), 0);
  t.is(f.write(0, BigInt(guest.ipa(6))), ABORTED);
});

test('nested: EATS = 1 is accepted, and the device works without ATS', (t) => {
  const f = new DriverFixture();
  const { viommus, guest } = nestedSetup(f);
  t.is(f.smmus[0]!.attach(f.devices[0]!, nested(viommus[0]!, vste(5, guest.ipa(0), 1n << 28n))), 0);
  t.is(f.write(0, VA), 0);
});

test('allocNested: flags -EOPNOTSUPP, another data type -EINVAL, an illegal vSTE -EIO', (t) => {
  const f = new DriverFixture();
  const v = viommu(f, 0, f.paging(0, NEST_PARENT));
  const alloc = (type: number, data: Uint8Array, flags = 0) => v.allocNested(dataOf(type, data), flags);
  t.is(alloc(DATA_ARM_SMMUV3, vste(5), 1), -EOPNOTSUPP);
  t.is(alloc(1, vste(5)), -EINVAL);
  t.is(alloc(DATA_ARM_SMMUV3, vste(7)), -EIO);
  t.is(alloc(DATA_ARM_SMMUV3, vste(5).subarray(0, 15)), -EINVAL, 'too short');
  t.is(alloc(DATA_ARM_SMMUV3, new Uint8Array(24)), -EINVAL, 'longer than any known one, as Linux has it');
});

test('attach: stage 1 without a vDEVICE is -ENOENT, on another SMMU -EINVAL; nothing changes', (t) => {
  const f = new DriverFixture({ smmus: 2 });
  const parent = f.paging(0, NEST_PARENT);
  const v = viommu(f, 0, parent);
  const domain = nested(v, vste(5, 0x1000));
  f.smmus[0]!.attach(f.devices[0]!, null);
  const from = f.commandCount(0);
  t.is(f.smmus[0]!.attach(f.devices[0]!, domain), -ENOENT);
  t.is(f.smmus[1]!.attach(f.devices[1]!, domain), -EINVAL);
  t.is(f.commandCount(0), from);
});

test('allocViommu: types, parents that nest nothing, SMMUs that cannot nest', (t) => {
  const f = new DriverFixture({ smmus: 2 });
  const [device] = f.devices;
  const parent = f.paging(0, NEST_PARENT);
  t.is(f.smmus[0]!.allocViommu(device!, parent, 0), -EOPNOTSUPP);
  t.is(f.smmus[0]!.allocViommu(device!, parent, 2), -EOPNOTSUPP);
  t.is(f.smmus[0]!.allocViommu(device!, f.paging(0), ARM_SMMUV3), -EINVAL);
  const single = new DriverFixture({ hardware: { stages: 's2' } });
  t.is(single.smmus[0]!.allocViommu(single.devices[0]!, single.paging(), ARM_SMMUV3), -EOPNOTSUPP);
});

test('per-psmmu: a parent of another SMMU is -EINVAL, the VMID is the parent’s', (t) => {
  const f = new DriverFixture({ smmus: 2, driver: { sharing: 'per-psmmu' } });
  const parent = f.paging(0, NEST_PARENT);
  t.is(f.smmus[1]!.allocViommu(f.devices[1]!, parent, ARM_SMMUV3), -EINVAL);
  const v = viommu(f, 0, parent);
  t.is(vmidOf(f, v), 1);
  t.is(f.smmus[0]!.smmu.vmids.count, 1);
  v.destroy();
  t.is(f.smmus[0]!.smmu.vmids.count, 1);
  parent.free();
  t.is(f.smmus[0]!.smmu.vmids.count, 0);
});

test('shared: a VMID for each vIOMMU from its creation; -ENOSPC when there is none; flushed, then free again', (t) => {
  const f = new DriverFixture({ hardware: { vmidBits: 8 } });
  const { viommus, domains } = nestedSetup(f);
  const vmid = vmidOf(f, viommus[0]!);
  t.is(f.write(0, VA), 0);
  t.true(f.cachedUnder(0, 'vmid', vmid) > 0);
  const { vmids } = f.smmus[0]!.smmu;
  while (vmids.count < 255) vmids.allocate();
  t.is(f.smmus[0]!.allocViommu(f.devices[0]!, f.paging(0, NEST_PARENT), ARM_SMMUV3), -ENOSPC);
  f.smmus[0]!.attach(f.devices[0]!, null);
  domains[0]!.free();
  const from = f.commandCount(0);
  viommus[0]!.destroy();
  t.deepEqual(
    f.commands(0, from).map((c) => [c.opcode, c.words[1]]),
    [
      [TLBI_S12_VMALL, vmid],
      [CMD_SYNC, 0],
    ],
  );
  const again = viommu(f, 0, f.paging(0, NEST_PARENT));
  t.is(vmidOf(f, again), vmid);
  t.true(f.allocated.every(({ cached }) => cached === 0));
});

test('shared stage 2 over three SMMUs: each vIOMMU has its own VMID, an unmap invalidates every tag', (t) => {
  const f = new DriverFixture({ smmus: 3 });
  // SMMU 1 and 2 hand out other numbers than SMMU 0, and the same one as each other.
  f.smmus[1]!.smmu.vmids.allocate();
  f.smmus[2]!.smmu.vmids.allocate();
  const { parent, guest, viommus } = nestedSetup(f, [0, 1, 2]);
  const vmids = viommus.map((v) => vmidOf(f, v));
  t.deepEqual(vmids, [1, 2, 2]);
  for (const i of [0, 1, 2]) t.is(f.write(i, VA), 0);
  const from = [0, 1, 2].map((i) => f.commandCount(i));
  const { notes } = f.unmap(parent, GUEST + 4, 1);
  for (const i of [0, 1, 2]) {
    const commands = f.commands(i, from[i]!);
    t.deepEqual(
      commands.map((c) => c.opcode),
      [TLBI_S2_IPA, TLBI_NH_ALL, CMD_SYNC],
    );
    t.true(commands.slice(0, 2).every((c) => c.words[1] === vmids[i]));
    t.is(f.cachedUnder(i, 'vmid', vmids[i]!), 0);
    t.is(f.write(i, VA), F_TRANSLATION);
  }
  t.deepEqual(
    notes.map((n) => [n.iommu, n.tag, n.command]),
    [0, 1, 2].map((i) => [i, vmids[i], 'CMD_TLBI_S2_IPA']),
  );
  t.is(f.byteAt(guest.ram + 4), 0xa5);
});

test('a plain device and a vIOMMU on one stage 2: two tags on the SMMU, both invalidated', (t) => {
  const f = new DriverFixture({
    devices: [
      [0, 0x100],
      [0, 0x101],
    ],
  });
  const { parent, guest } = nestedSetup(f);
  t.is(f.smmus[0]!.attach(f.devices[1]!, parent), 0);
  t.is(f.write(0, VA), 0);
  t.is(f.write(1, BigInt(guest.ipa(4))), 0);
  const { notes } = f.unmap(parent, GUEST + 4, 1);
  t.deepEqual(notes.map((n) => n.tag).sort(), [1, 2]);
  t.is(f.write(0, VA), F_TRANSLATION);
  t.is(f.write(1, BigInt(guest.ipa(4))), F_TRANSLATION);
});

test('the invalidation entry of a vIOMMU goes with its last device', (t) => {
  const f = new DriverFixture();
  const { parent } = nestedSetup(f);
  f.smmus[0]!.attach(f.devices[0]!, null);
  const gather = newGather();
  parent.unmap(GUEST, 1, gather);
  const from = f.commandCount(0);
  t.is(parent.sync(gather), 0);
  t.is(f.commandCount(0), from);
  t.deepEqual(gather.notes, []);
});

test('vDEVICE: another SMMU -EINVAL, a taken vSID -EEXIST, 256 at most; a wide ID is one that no command names', (t) => {
  const f = new DriverFixture({
    smmus: 2,
    devices: [
      [0, 0x100],
      [0, 0x101],
      [1, 0x100],
    ],
  });
  const v = viommu(f, 0, f.paging(0, NEST_PARENT));
  t.is(v.vdeviceInit(f.devices[2]!, 1n), -EINVAL);
  t.is(v.vdeviceInit(f.devices[0]!, 2n ** 32n - 1n), 0);
  t.is(v.vdeviceInit(f.devices[1]!, 2n ** 32n - 1n), -EEXIST);
  for (let i = 1n; i < 256n; i++) t.is(v.vdeviceInit({ ...f.devices[1]! }, i * 256n), 0);
  t.is(v.vdeviceInit(f.devices[1]!, 3n), -ENOSPC);
  t.is(v.vdeviceInit({ ...f.devices[1]! }, 2n ** 40n), 0, 'wider than a StreamID: takes no place');
  v.vdeviceDestroy(f.devices[0]!, 2n ** 32n - 1n);
  t.is(v.vdeviceInit(f.devices[1]!, 3n), 0);
});

test('guest invalidation: stale until asked for, gone when the call returns', (t) => {
  const f = new DriverFixture();
  const { guest, viommus } = nestedSetup(f);
  t.is(f.write(0, VA), 0);
  guest.mapPage(-1);
  t.is(f.write(0, VA), 0, 'the IOTLB may keep it');
  const va = [TLBI_NH_VA, ASID << 16, VA_PAGE << 12, 0];
  t.deepEqual(invalidate(f, viommus[0]!, va), { status: 0, handled: 1 });
  t.is(f.write(0, VA), F_TRANSLATION);
});

test('guest invalidation: VMID and StreamID are the host’s, whatever the guest wrote', (t) => {
  const f = new DriverFixture();
  const { viommus } = nestedSetup(f);
  const vmid = vmidOf(f, viommus[0]!);
  const from = f.commandCount(0);
  const done = invalidate(
    f,
    viommus[0]!,
    [TLBI_NSNH_ALL, 0xffff_ffff, 0, 0],
    [TLBI_NH_ALL, 0xffff, 0, 0],
    [TLBI_NH_ASID, (9 << 16) | 0xffff, 0, 0],
    [CFGI_CD, 0x10, 1, 0],
    [CFGI_CD_ALL, 0x10, 0, 0],
  );
  t.deepEqual(done, { status: 0, handled: 5 });
  t.deepEqual(
    f.commands(0, from).map((c) => [c.opcode, c.words[1]]),
    [
      [TLBI_NH_ALL, vmid],
      [TLBI_NH_ALL, vmid],
      [TLBI_NH_ASID, (9 << 16) | vmid],
      [CFGI_CD, 0x100],
      [CFGI_CD_ALL, 0x100],
      [CMD_SYNC, 0],
    ],
  );
});

test('guest invalidation: a bad command ends it; those before are issued and counted, no other', (t) => {
  const f = new DriverFixture();
  const { viommus } = nestedSetup(f);
  let from = f.commandCount(0);
  const ok = [TLBI_NH_ALL, 0, 0, 0];
  t.deepEqual(invalidate(f, viommus[0]!, ok, ok, [CMD_SYNC, 0, 0, 0], ok), { status: -EIO, handled: 2 });
  t.deepEqual(
    f.commands(0, from).map((c) => c.opcode),
    [TLBI_NH_ALL, TLBI_NH_ALL, CMD_SYNC],
  );
  from = f.commandCount(0);
  t.deepEqual(invalidate(f, viommus[0]!, [CFGI_CD, 0x99, 0, 0], ok), { status: -EIO, handled: 0 });
  t.is(f.commandCount(0), from);
  t.deepEqual(invalidate(f, viommus[0]!), { status: 0, handled: 0 });
});

test('guest invalidation: as 7.0, a bad command is counted with those of its batch, none of them issued', (t) => {
  const f = new DriverFixture();
  const [viommu] = nestedSetup(f).viommus;
  const invalidator = new Smmuv3Invalidator(f.memory, f.env, { compat: '7.0', deadlineNs: 2e6 });
  const handled = new Uint32Array(1);
  /** `good` commands, then one that is none of a guest's. */
  const issued = (good: number) => {
    const from = f.commandCount(0);
    const words = new Uint32Array((good + 1) * 4);
    for (let i = 0; i < good; i++) words[i * 4] = TLBI_NH_ALL;
    words[good * 4] = CMD_SYNC;
    const entries = new Uint8Array(words.buffer);
    t.is(invalidator.cacheInvalidate(viommu!.sharedBase, entries, 16, good + 1, handled), -EIO);
    return f.commands(0, from).map((c) => c.opcode);
  };
  t.deepEqual([issued(2), handled[0]], [[], 2]);
  // A batch is 63 commands and its SYNC.
  const batch = [...new Array(63).fill(TLBI_NH_ALL), CMD_SYNC];
  t.deepEqual([issued(63), handled[0]], [batch, 63]);
  t.deepEqual([issued(130), handled[0]], [[...batch, ...batch], 130]);
  f.alive.delete(0);
  const nhAll = new Uint8Array(new Uint32Array(12).map((_, i) => (i % 4 === 0 ? TLBI_NH_ALL : 0)).buffer);
  t.is(invalidator.cacheInvalidate(viommu!.sharedBase, nhAll, 16, 3, handled), -ETIMEDOUT);
  t.is(handled[0], 2, 'all but one of what the SMMU did not complete');
});

test('guest invalidation: a SYNC behind the last command, and behind every 252', (t) => {
  const f = new DriverFixture();
  const { viommus } = nestedSetup(f);
  const ok = [TLBI_NH_ASID, 0, 0, 0];
  const syncs = (n: number, then: readonly number[][] = []) => {
    const from = f.commandCount(0);
    const { status, handled } = invalidate(f, viommus[0]!, ...Array.from({ length: n }, () => ok), ...then);
    const opcodes = f.commands(0, from).map((c) => c.opcode);
    return { status, handled, at: opcodes.flatMap((op, i) => (op === CMD_SYNC ? [i] : [])) };
  };
  t.deepEqual(syncs(64), { status: 0, handled: 64, at: [64] });
  t.deepEqual(syncs(130), { status: 0, handled: 130, at: [130] });
  t.deepEqual(syncs(252), { status: 0, handled: 252, at: [252] });
  t.deepEqual(syncs(300), { status: 0, handled: 300, at: [252, 301] });
  const bad = [[CMD_SYNC, 0, 0, 0]];
  t.deepEqual(syncs(63, bad), { status: -EIO, handled: 63, at: [63] }, 'the first command of a batch');
  t.deepEqual(syncs(252, bad), { status: -EIO, handled: 252, at: [252] });
});

test('guest invalidation: a command that the SMMU refuses hangs nobody', (t) => {
  const f = new DriverFixture();
  const { viommus } = nestedSetup(f);
  const reservedRange = [TLBI_NH_VA, 0, 1 << 10, 0];
  const atc = [ATC_INV, 0x10, 52, 0];
  t.deepEqual(invalidate(f, viommus[0]!, reservedRange, atc, [TLBI_NH_ALL, 0, 0, 0]), {
    status: 0,
    handled: 3,
  });
  t.is(f.write(0, VA), 0);
});

test('guest invalidation: a vDEVICE that is gone is no longer reached; a vIOMMU that is gone neither', (t) => {
  const f = new DriverFixture();
  const { viommus } = nestedSetup(f);
  f.smmus[0]!.attach(f.devices[0]!, null);
  viommus[0]!.vdeviceDestroy(f.devices[0]!, 0x10n);
  t.deepEqual(invalidate(f, viommus[0]!, [CFGI_CD, 0x10, 0, 0]), { status: -EIO, handled: 0 });
  viommus[0]!.destroy();
  t.deepEqual(invalidate(f, viommus[0]!, [TLBI_NH_ALL, 0, 0, 0]), { status: -EIO, handled: 0 });
});

test('guest invalidation: its vDEVICE cannot go between the look-up and the queue, but while SYNC is awaited', (t) => {
  const f = new DriverFixture();
  const { viommus } = nestedSetup(f);
  const [v] = viommus;
  const { linear } = f.memory.ram;
  let tried = 0;
  watchAccesses((op, offset) => {
    if (op !== 'store' || offset < linear) return;
    watchAccesses(null);
    tried++;
    // The lock knows its holder: a wait for it here would be for ever.
    t.throws(() => v!.vdeviceDestroy(f.devices[0]!, 0x10n), { message: /read lock/ });
  });
  const step = f.env.relax;
  f.env.relax = () => {
    f.env.relax = step;
    tried++;
    v!.vdeviceDestroy(f.devices[0]!, 0x10n);
    return true;
  };
  t.deepEqual(invalidate(f, v!, [CFGI_CD, 0x10, 0, 0]), { status: 0, handled: 1 });
  t.is(tried, 2);
  t.is(invalidate(f, v!, [CFGI_CD, 0x10, 0, 0]).status, -EIO);
});

test('guest invalidation: entries shorter than a command, or fewer than said, are -EINVAL', (t) => {
  const f = new DriverFixture();
  const { viommus } = nestedSetup(f);
  const invalidator = new Smmuv3Invalidator(f.memory, f.env);
  const handled = Uint32Array.of(7);
  t.is(invalidator.cacheInvalidate(viommus[0]!.sharedBase, new Uint8Array(64), 8, 2, handled), -EINVAL);
  t.is(invalidator.cacheInvalidate(viommus[0]!.sharedBase, new Uint8Array(31), 16, 2, handled), -EINVAL);
  t.is(handled[0], 0);
});

test('guest invalidation: entries are SMMUv3 commands of 16 bytes', (t) => {
  const f = new DriverFixture();
  const { dataType, entryBytes } = new Smmuv3Invalidator(f.memory, f.env);
  t.deepEqual([dataType, entryBytes], [INVALIDATE_ARM_SMMUV3, 16]);
});

test('events: stage-1 faults go to the guest under its vSID, stage-2 faults to the host', (t) => {
  const f = new DriverFixture();
  const { guest, parent, viommus } = nestedSetup(f);
  guest.mapPage(-1);
  t.is(f.write(0, VA + 0x18n), F_TRANSLATION);
  f.smmus[0]!.poll();
  t.is(f.events.length, 1);
  const [event] = f.events;
  t.is(event!.viommu, viommus[0]!);
  t.is(event!.type, 1);
  const view = new DataView(event!.data.buffer);
  t.is(event!.data.byteLength, 32);
  t.is(view.getBigUint64(0, true), 0x10n | (0x10n << 32n));
  t.is(view.getBigUint64(16, true), VA + 0x18n);
  guest.mapPage(4);
  f.unmap(parent, GUEST + 4, 1);
  t.is(f.write(0, VA), F_TRANSLATION);
  f.smmus[0]!.poll();
  t.is(f.events.length, 1);
  t.like(f.hostEvents.at(-1), { kind: 'event', name: 'F_TRANSLATION', record: { s2: true, sid: 0x100 } });
});

test('events: C_BAD_CD reaches the guest', (t) => {
  const f = new DriverFixture();
  const { guest, viommus } = nestedSetup(f);
  guest.write64(0, 0, 0n);
  t.is(invalidate(f, viommus[0]!, [CFGI_CD, 0x10, 1, 0]).status, 0);
  t.is(f.write(0, VA), 0x0a);
  f.smmus[0]!.poll();
  t.deepEqual(
    f.events.map((event) => event.data[0]),
    [0x0a],
  );
});

test('events: none carries a vSID after its vDEVICE is gone or its device detached', (t) => {
  const f = new DriverFixture({
    devices: [
      [0, 0x100],
      [0, 0x101],
    ],
  });
  const { guest, viommus } = nestedSetup(f, [0]);
  guest.mapPage(-1);
  f.write(0, VA);
  viommus[0]!.vdeviceDestroy(f.devices[0]!, 0x10n);
  f.smmus[0]!.poll();
  t.deepEqual(f.events, []);
  t.is(f.hostEvents.length, 1);
});

test('events: as 7.0, under the vSID of a vDEVICE that is gone until the device is attached anew', (t) => {
  const f = new DriverFixture({ driver: { compat: '7.0' } });
  const { guest, viommus, domains } = nestedSetup(f);
  guest.mapPage(-1);
  viommus[0]!.vdeviceDestroy(f.devices[0]!, 0x10n);
  f.write(0, VA);
  f.smmus[0]!.poll();
  t.is(f.events.length, 1);
  t.is(new DataView(f.events[0]!.data.buffer).getUint32(4, true), 0x10);
  t.is(f.smmus[0]!.attach(f.devices[0]!, null), 0);
  t.is(f.smmus[0]!.attach(f.devices[0]!, domains[0]!), -ENOENT);
  f.write(0, VA);
  f.smmus[0]!.poll();
  t.is(f.events.length, 1);
});

test('vIOMMUs of two guests on one SMMU do not reach each other', (t) => {
  const f = new DriverFixture({
    devices: [
      [0, 0x100],
      [0, 0x101],
    ],
  });
  const one = nestedSetup(f, [0]);
  const two = nestedSetup(f, [1]);
  t.is(f.write(0, VA), 0);
  t.is(f.write(1, VA), 0);
  t.not(vmidOf(f, one.viommus[0]!), vmidOf(f, two.viommus[0]!));
  one.guest.mapPage(-1);
  two.guest.mapPage(-1);
  t.is(invalidate(f, one.viommus[0]!, [TLBI_NSNH_ALL, 0, 0, 0]).status, 0);
  t.is(f.write(0, VA), F_TRANSLATION);
  t.is(f.write(1, VA), 0);
  t.is(invalidate(f, one.viommus[0]!, [CFGI_CD, 0x11, 0, 0]).status, -EIO);
});
