/** Each monitor finds nothing in a machine that is well, looks at something, and tells what was done to it. */
import test, { type ExecutionContext } from 'ava';
import { STALL_TAGS } from '../../../../hw/iotlb/port-layout.js';
import { Smmuv3Layout } from '../../../../hw/smmuv3/smmuv3-layout.js';
import { END_MONITORS } from '../../../../perf/explore/monitors/machine-monitors.js';
import type { Smmuv3PagingDomain } from '../../../../runtime/drivers/smmuv3/domain.js';
import { DriverLayout } from '../../../../runtime/drivers/smmuv3/driver-layout.js';
import { createMachine, type Machine } from '../../../../runtime/machine.js';
import type { MachineConfig } from '../../../../runtime/machine-schema.js';
import type { HwptPaging } from '../../../../runtime/objects/hwpt.js';
import { ok } from '../../../kit/vmm-fixture.js';
import { MachineFixture } from '../../../kit/vmm-machine.js';

const DEVICE = '0000:01:00.0';
const IOVA = 0x10000n;
const IOVA_PAGE = 0x10;
const S1 = 1 << 4;
const S2 = 1 << 5;
const RW = 6;
const OBJ_HWPT_PAGING = 3;
const NEST_PARENT = 1;
const SMMUV3 = 1;

/** @returns `R1 (translations)` for each that does not hold, and how many were looked at */
function lookAt(machine: Machine): { broken: string[]; stories: string; looked: Map<string, number> } {
  const broken = new Set<string>();
  const stories: string[] = [];
  const looked = new Map<string, number>();
  for (const { name, checks, look } of END_MONITORS)
    look(machine, (invariant, holds, story) => {
      if (!checks.includes(invariant)) throw new Error(`${name} does not say that it checks ${invariant}`);
      const label = `${invariant} (${name})`;
      looked.set(label, (looked.get(label) ?? 0) + 1);
      if (holds) return;
      broken.add(label);
      stories.push(story());
    });
  return { broken: [...broken], stories: stories.join('; '), looked };
}

type Device = Partial<MachineConfig['devices'][number]>;

function host(device: Device = {}) {
  const machine = createMachine({
    memory: '16MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3', ats: true }],
    devices: [{ bdf: DEVICE, iommu: 'smmu0', ...device }],
  });
  const fd = machine.openIommufd();
  const vfio = machine.openVfio(DEVICE);
  const { devId } = vfio.bindIommufd(fd);
  const { ioasId } = fd.ioasAlloc();
  const userVa = machine.user.alloc('8KiB');
  fd.ioasMap({ ioasId, userVa, length: '8KiB', iova: IOVA });
  vfio.attach(ioasId);
  const [ctx] = machine.core.opened;
  const [hwpt] = ctx!.published(OBJ_HWPT_PAGING) as HwptPaging[];
  const domain = hwpt!.domain as Smmuv3PagingDomain;
  const write = (iova = IOVA): number => machine.dmaPort(DEVICE).write(iova, new Uint8Array(8));
  return { machine, fd, vfio, devId, ioasId, ctx: ctx!, hwpt: hwpt!, domain, write };
}

const base = ({ memory }: Machine, key: string): number => memory.handle().regions[key]!.base;

/** The first word from `from` on in a region that `wanted` says yes to, as an index of u32. */
function findWord(machine: Machine, key: string, wanted: (word: number, at: number) => boolean): number {
  const { size } = machine.memory.handle().regions[key]!;
  const first = base(machine, key) >>> 2;
  for (let i = first; i < first + size / 4; i++) if (wanted(machine.memory.u32[i]!, i)) return i;
  throw new Error(`nothing of it in ${key}`);
}

function fill(machine: Machine, tag: number, page: number, pfn: number, stages = S1, ipaPage = 0): void {
  machine.kernel.iotlbFill(
    base(machine, 'unit:0'),
    base(machine, 'iotlb:0'),
    tag,
    page,
    pfn,
    12,
    RW | stages,
    ipaPage,
  );
}

test('a machine that is well breaks nothing, and there is something to look at', (t) => {
  const { machine, write } = host();
  t.is(write(), 0);
  const { broken, stories, looked } = lookAt(machine);
  t.deepEqual(broken, [], stories);
  for (const label of [
    'R3 (configuration)',
    'R1 (translations)',
    'R5 (translations)',
    'R6 (translations)',
    'R17 (commands)',
    'R18 (commands)',
    'R19 (command errors)',
    'R20 (events)',
    'R14 (address spaces)',
    'R15 (references)',
    'R12 (fault groups)',
  ])
    t.true(looked.get(label)! > 0, label);
});

type Host = ReturnType<typeof host>;

function breaks(
  what: string,
  expected: string[],
  story: RegExp,
  hurt: (host: Host, t: ExecutionContext) => void,
  device: Device = {},
): void {
  test(`${expected.join(', ')}: ${what}`, (t) => {
    const made = host(device);
    t.is(made.write(), 0);
    hurt(made, t);
    const { broken, stories } = lookAt(made.machine);
    t.deepEqual(broken, expected);
    t.regex(stories, story);
  });
}

breaks(
  'a cached configuration is not that of the CD',
  ['R3 (configuration)'],
  /StreamID 256.* another s1Root/,
  ({ machine, domain }) => {
    const { root } = domain.stage1Config(machine.iommu('smmu0').instance.smmu);
    machine.memory.u32[findWord(machine, 'contexts:0', (word) => word === root)]! += 0x1000;
  },
);

breaks('an unmap without TLBI', ['R1 (translations)', 'R14 (address spaces)'], /not mapped/, ({ domain }) => {
  const gather = { firstUnit: 2 ** 50, lastUnit: -1, freedTables: [], notes: [], wantNotes: false };
  domain.unmap(IOVA_PAGE, 1, gather);
});

breaks(
  'a cached page leads elsewhere',
  ['R1 (translations)'],
  /frame 0x80fff.*; by the tables/,
  ({ machine, domain }) => {
    const { asid } = domain.stage1Config(machine.iommu('smmu0').instance.smmu);
    fill(machine, asid * 0x10000, IOVA_PAGE + 1, 0x80fff);
  },
);

breaks('a tag of nobody', ['R6 (translations)'], /ASID 77, a tag of nobody/, ({ machine }) => {
  fill(machine, 77 * 0x10000, IOVA_PAGE, 0x80fff);
});

breaks('a tag that no unmap is told to', ['R5 (translations)'], /array of invalidations/, (made) => {
  const { machine, ctx, fd, devId, ioasId, domain } = made;
  fd.hwptAlloc({ devId, ptId: ioasId });
  const other = (ctx.published(OBJ_HWPT_PAGING) as HwptPaging[]).find((hwpt) => hwpt.domain !== domain)!;
  const asid = (other.domain as Smmuv3PagingDomain).holdTag(machine.iommu('smmu0').instance.smmu);
  fill(machine, asid * 0x10000, IOVA_PAGE, domain.lookup(IOVA_PAGE));
});

breaks('the ATC leads elsewhere', ['R2 (translations)'], /ATC of 0000:01:00.0 has page 0x10 /, hurtAtc, {
  ats: true,
});

/** AtcEntry: word, then address. */
function hurtAtc({ machine, domain }: Host): void {
  const pa = domain.lookup(IOVA_PAGE) * 4096;
  const { u32 } = machine.memory;
  // The batch has the address too; what follows a page word with valid and read permission is the entry's.
  const entry = findWord(
    machine,
    'port:0',
    (word, at) =>
      word === pa &&
      (u32[at - 2]! & ~0xfff) === IOVA_PAGE << 12 &&
      at > (base(machine, 'port:0') + 23552) >>> 2,
  );
  u32[entry]! += 0x1000;
}

breaks(
  'a micro-TLB that outlives its page',
  ['R1 (translations)'],
  /micro-TLB of 0000:01:00.0/,
  ({ machine, domain, write }) => {
    // The second time it is remembered.
    write();
    const pa = domain.lookup(IOVA_PAGE) * 4096;
    const first = (base(machine, 'port:0') + 4800) >>> 2;
    const entry = findWord(machine, 'port:0', (word, at) => at >= first && word === pa);
    machine.memory.u32[entry]! += 0x1000;
  },
);

const driverWord = (machine: Machine, at: (layout: typeof DriverLayout.at) => number): number =>
  (base(machine, 'smmuv3-driver:0') + at(DriverLayout.at)) >>> 2;

breaks('somebody still owns the command queue', ['R17 (commands)'], /still owns/, ({ machine }) => {
  machine.memory.u32[driverWord(machine, (at) => at.llq)]! |= 0x8000;
});
breaks('a waiter left without a word', ['R17 (commands)'], /lock, waiters/, ({ machine }) => {
  machine.memory.u32[driverWord(machine, (at) => at.lock)]! = 1;
});
breaks(
  'a slot that was written and is not valid',
  ['R17 (commands)'],
  /valid bits from slot 0/,
  ({ machine }) => {
    machine.memory.u32[driverWord(machine, (at) => at.valid)]! ^= 4;
  },
);
breaks(
  'a command that nobody handed over',
  ['R18 (commands)', 'R17 (commands)'],
  /reserved up to/,
  ({ machine }) => {
    machine.memory.u32[driverWord(machine, (at) => at.llq)]!++;
  },
);
breaks('a refused command', ['R19 (command errors)'], /1 commands were refused/, ({ machine }) => {
  const { smmu } = machine.iommu('smmu0').instance;
  // No command has opcode 0xff.
  smmu.issueSync((words, at) => words.fill(0xff, at, at + 4));
  machine.poll();
});

const smmuWord = (machine: Machine, at: (layout: typeof Smmuv3Layout.at) => number): number =>
  (base(machine, 'smmuv3:0') + at(Smmuv3Layout.at)) >>> 2;

breaks(
  'an event that never reached the queue',
  ['R20 (events)'],
  /1 records and 0 lost, PROD 0x0/,
  ({ machine }) => {
    machine.memory.u32[smmuWord(machine, (at) => at.eventsRecorded)]!++;
  },
);
breaks('an overflow where nothing was lost', ['R20 (events)'], /PROD 0x80000000/, ({ machine }) => {
  machine.memory.u32[smmuWord(machine, (at) => at.eventqProd)]! ^= 0x8000_0000;
});

breaks(
  'a page in the table that no area has',
  ['R14 (address spaces)'],
  /but no area has it/,
  ({ domain }) => {
    domain.map(0x999, domain.lookup(IOVA_PAGE), 1, 3);
  },
);
breaks(
  'pages that nobody pays for',
  ['R14 (address spaces)'],
  /has 1 pages counted as pinned, 2 are/,
  ({ machine }) => {
    machine.core.own.mm.account.pinnedVm--;
  },
);

breaks('a use too many', ['R15 (references)'], /object 2 of type 2 has 3 users, not 2/, ({ ctx, ioasId }) => {
  ctx.objects.addUser(ioasId);
});
breaks(
  'a short reference that was never given back',
  ['R15 (references)'],
  /wait_cnt 2/,
  ({ ctx, ioasId }) => {
    ctx.get(ioasId, 2);
  },
);
breaks('an object that lives on without its ID', ['R15 (references)'], /state 3/, ({ ctx, ioasId }) => {
  ctx.objects.unpublish(ioasId);
});

breaks('two vIOMMUs on one SMMU', ['R27 (one vIOMMU)'], /are all on smmu0/, ({ fd, devId, ioasId }) => {
  const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId, flags: NEST_PARENT });
  for (let i = 0; i < 2; i++) fd.viommuAlloc({ devId, hwptId, type: SMMUV3 });
});

breaks(
  'a transaction that nobody will answer',
  ['R12 (fault groups)'],
  /1 transactions stall, 0 events/,
  ({ machine }) => {
    machine.memory.u32[smmuWord(machine, (at) => at.stalls)] = 1;
  },
);

test('R10 (fault groups): a fault waits whose transaction is over', (t) => {
  const { machine, fd, vfio, devId, ioasId } = host({ stall: true });
  const { faultId } = fd.faultQueueAlloc();
  const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId, flags: 4, faultId });
  vfio.attach(hwptId);
  t.is(machine.dmaPort(DEVICE).write(0x5000n, new Uint8Array(4)), 0xfe);
  t.deepEqual(lookAt(machine).broken, []);
  machine.poll();
  t.deepEqual(lookAt(machine).broken, []);
  const { u32 } = machine.memory;
  const stalls = smmuWord(machine, (at) => at.stalls);
  for (let i = 0; i < STALL_TAGS; i++) u32[stalls + i * 4] = 0;
  const { broken, stories } = lookAt(machine);
  t.deepEqual(broken, ['R10 (fault groups)']);
  t.regex(stories, /1 faults wait for an answer, 0 transactions stall/);
});

function guest() {
  const fixture = new MachineFixture([0]);
  const vm = fixture.vm();
  vm.vm.attachDevice(0, 5);
  const driver = fixture.driver(vm);
  const space = ok(driver.createSpace());
  const pfn = vm.ram.allocZeroed(1, 1);
  driver.map(space, IOVA_PAGE, pfn, 1, 3);
  driver.setupStream(5, space);
  fixture.write(0, IOVA, 8, 1);
  const { machine } = fixture;
  const entries = Array.from({ length: 4096 }, (_, i) =>
    machine.kernel.iotlbReadEntry(base(machine, 'iotlb:0'), i),
  );
  const entry = entries.find((found) => found?.stage1 === true && found.stage2)!;
  return { machine, entry };
}

test('a guest that is well breaks nothing, and there is something to look at', (t) => {
  const { machine } = guest();
  const { broken, stories, looked } = lookAt(machine);
  t.deepEqual(broken, [], stories);
  for (const label of [
    'R7 (translations)',
    'R1 (guest translations)',
    'R27 (one vIOMMU)',
    'R3 (configuration)',
  ])
    t.true(looked.get(label)! > 0, label);
});

test('R7 (translations): a guest page is cached whose stage 2 leads elsewhere', (t) => {
  const { machine, entry } = guest();
  fill(machine, entry.vmid + entry.asid * 0x10000, entry.page, entry.pfn + 1, S1 | S2, entry.ipaPage);
  const { broken, stories } = lookAt(machine);
  t.deepEqual(broken, ['R7 (translations)', 'R1 (guest translations)']);
  t.regex(stories, /by IPA page/);
});

test('R1 (guest translations): a guest page is cached that the guest has not mapped', (t) => {
  const { machine, entry } = guest();
  fill(machine, entry.vmid + entry.asid * 0x10000, entry.page + 1, entry.pfn, S1 | S2, entry.ipaPage);
  const { broken, stories } = lookAt(machine);
  t.deepEqual(broken, ['R1 (guest translations)']);
  t.regex(stories, /not mapped/);
});
