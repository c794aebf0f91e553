/**
 * A guest that maps and unmaps a page of its devices in turn: each unmap is an invalidation of the guest's own
 * command queue, that the VMM sends to the SMMU behind, and a SYNC it waits for.
 */
import { PROT_READ, PROT_WRITE } from '../../../hw/pagetable/aarch64.js';
import { PAGE_TABLE_BYTES } from '../../../hw/pagetable/page-table-layout.js';
import type { GuestAddressSpace } from '../../../runtime/vmm/guest-address-space.js';
import { GuestDriver } from '../../../runtime/vmm/guest-driver.js';
import { GuestRam } from '../../../runtime/vmm/guest-ram.js';
import type { VirtualSmmu } from '../../../runtime/vmm/virtual-smmu.js';
import { Vm } from '../../../runtime/vmm/vm.js';
import { errnoName } from '../../../uapi/abi/errno.js';
import type { ProgramContext } from '../../../workers/program.js';
import { Histogram } from '../../report/histogram.js';
import { Pace } from '../../stress/programs/pace.js';
import { Random } from '../../stress/random.js';
import { PHASE_MEASURE, ScaleGuest, ScaleLayout } from '../scale-layout.js';

export interface TenantArgs {
  readonly guest: number;
  /** Machine index of each device; the guest sees StreamIDs 1, 2, ... */
  readonly devices: readonly number[];
  readonly ramVa: bigint;
  readonly ramBytes: number;
  readonly s2Sharing: 'shared' | 'per-psmmu';
  /** A virtual SMMU for all, or one for each physical SMMU: as many command queues. */
  readonly vsmmu: 'one' | 'per-psmmu';
  /** What its devices send traffic to. */
  readonly firstPage: number;
  readonly pages: number;
  /** The page that comes and goes. */
  readonly churnPage: number;
  readonly duty: number;
}

/** Guest pages that all of a device's range goes round in. */
const DATA_PAGES = 256;

function must(step: string, status: number): void {
  if (status < 0) throw new Error(`${step} gave ${errnoName(-status)}`);
}

interface Driven {
  readonly driver: GuestDriver;
  readonly space: GuestAddressSpace;
}

export function tenant(context: ProgramContext, args: TenantArgs): void {
  const { memory, user, kernel, env } = context.thread;
  const { words, u32 } = memory;
  const { base } = memory.region(ScaleLayout, 'scale');
  const own = base + ScaleLayout.at.guests + args.guest * ScaleGuest.size;
  const latency = new Histogram(u32, own + ScaleGuest.at.latency);
  const ram = new GuestRam(memory, user, { userVa: args.ramVa, bytes: args.ramBytes });
  const { vsmmu, s2Sharing } = args;
  const vm = Vm.create(context.transport!, ram, { vsmmu, s2Sharing });
  if (typeof vm === 'number') throw new Error(`creating the VM gave ${errnoName(-vm)}`);
  for (const [i, device] of args.devices.entries())
    must(`attaching device ${device}`, vm.attachDevice(device, i + 1));
  const data = ram.allocZeroed(DATA_PAGES, DATA_PAGES);
  must('allocating data', data);

  const drivers = new Map<VirtualSmmu, GuestDriver>();
  const driven = args.devices.map((device, i): Driven => {
    const mmio = vm.smmuOf(device)!;
    let driver = drivers.get(mmio);
    if (driver === undefined) {
      const behind = args.devices.filter((other) => vm.smmuOf(other) === mmio);
      const descriptors = behind.map((other) => base + ScaleLayout.at.tables + other * PAGE_TABLE_BYTES);
      driver = new GuestDriver({ ram, mmio, kernel, descriptors });
      must('starting the SMMU driver', driver.start());
      drivers.set(mmio, driver);
    }
    const space = driver.createSpace();
    if (typeof space === 'number') throw new Error(`an address space gave ${errnoName(-space)}`);
    for (let page = 0; page < args.pages; page += DATA_PAGES)
      must('map', driver.map(space, args.firstPage + page, data, DATA_PAGES, PROT_READ | PROT_WRITE));
    must('map', driver.map(space, args.churnPage, data, 1, PROT_READ | PROT_WRITE));
    must('setting up a stream', driver.setupStream(i + 1, space));
    return { driver, space };
  });
  words.store(own + ScaleGuest.at.ready, 1);

  const pace = new Pace(env, new Random(context.seed), args.duty);
  for (let turn = 0; !context.stopRequested(); turn++) {
    const { driver, space } = driven[turn % driven.length]!;
    const began = env.clock.nowNs();
    must('unmap', driver.unmap(space, args.churnPage, 1));
    if (words.load(base + ScaleLayout.at.phase) === PHASE_MEASURE) latency.record(env.clock.nowNs() - began);
    must('map', driver.map(space, args.churnPage, data, 1, PROT_READ | PROT_WRITE));
    words.add(own + ScaleGuest.at.invalidations, 1);
    words.add(own + ScaleGuest.at.maps, 1);
    pace.breathe();
  }
  must('ending the VM', vm.destroy());
}
