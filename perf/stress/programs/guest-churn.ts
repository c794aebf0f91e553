/**
 * A guest and its VMM on one thread: it owns a VM on the iommufd, drives its virtual SMMUs as a guest kernel
 * does, and churns the stage 1 of its devices while these send DMA. Its invalidations run on this thread,
 * through the shared object table, straight to the physical SMMUs' command queues.
 *
 *   map      canary ok -> shadow live -> PTE
 *   unmap    PTE clear -> TLBI + SYNC, ATC_INV + SYNC (IOMMU_HWPT_INVALIDATE) -> shadow dead, canary, ATC looked into
 *   balloon  IOAS_UNMAP of a slice of guest RAM under the devices' feet, IOAS_MAP puts it back
 */

import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { PROT_READ, PROT_WRITE } from '../../../hw/pagetable/aarch64.js';
import { PAGE_TABLE_BYTES } from '../../../hw/pagetable/page-table-layout.js';
import { rest } from '../../../hw/sync/wait.js';
import { Timeline } from '../../../hw/timeline/timeline.js';
import { portKey } from '../../../runtime/machine-hardware.js';
import type { GuestAddressSpace } from '../../../runtime/vmm/guest-address-space.js';
import { GuestDriver } from '../../../runtime/vmm/guest-driver.js';
import { GuestRam } from '../../../runtime/vmm/guest-ram.js';
import type { VirtualSmmu } from '../../../runtime/vmm/virtual-smmu.js';
import { Vm } from '../../../runtime/vmm/vm.js';
import { errnoName } from '../../../uapi/abi/errno.js';
import type { ProgramContext } from '../../../workers/program.js';
import { Histogram } from '../../report/histogram.js';
import { Shadow } from '../checker/shadow.js';
import { bump } from '../counters.js';
import { Random } from '../random.js';
import {
  DeviceStats,
  GuestStats,
  MAX_GUEST_SLOTS,
  SLOT_CHANGING,
  SLOT_MAPPED,
  SLOT_UNMAPPED,
  StressLayout,
} from '../stress-layout.js';
import { guestTrack, TIMELINE_GUEST_BALLOON, TIMELINE_GUEST_MAP, TIMELINE_GUEST_UNMAP } from '../timeline.js';
import { GuestPages } from './guest-pages.js';
import { Pace } from './pace.js';

export interface GuestChurnArgs {
  readonly vm: number;
  /** Machine index of each device, and the StreamID the guest sees. */
  readonly devices: readonly { readonly index: number; readonly vSid: number }[];
  readonly ramVa: bigint;
  readonly ramBytes: number;
  /** Physical frame of the RAM's first page. */
  readonly ramPfn: number;
  readonly vsmmu: 'one' | 'per-psmmu';
  readonly s2Sharing: 'shared' | 'per-psmmu';
  /** Guest pages of each device's slots, from firstPage on. */
  readonly firstPage: number;
  readonly slots: number;
  readonly steadyPage: number;
  readonly readOnlyPage: number;
  /** Share of the time to work, 0..1. */
  readonly duty: number;
}

export interface GuestChurnResult {
  /** VMs there were, one after the other. */
  readonly lives: number;
  /** Of the last one. */
  readonly viommus: number;
  readonly nestParents: number;
  readonly refusedStes: number;
  readonly events: number;
}

/** Pages that are ballooned together. */
const SLICE_PAGES = 16;
const MAPPED_PERCENT = 90;
/** A VM lives one to four seconds: then its VMIDs and its RAM serve the next. */
const LIFE_MIN_NS = 1e9;
const LIFE_SPREAD_NS = 3e9;
const DEVICE_WAIT_MS = 2;
const DEVICE_WAITS = 1500;

interface Driven {
  readonly index: number;
  readonly driver: GuestDriver;
  readonly space: GuestAddressSpace;
  /** IPA page behind each slot, -1 when unmapped. */
  readonly ipaPages: Float64Array;
  /** Linear offset of the published slot states. */
  readonly states: number;
}

export function guestChurn(context: ProgramContext, args: GuestChurnArgs): GuestChurnResult {
  const random = new Random(context.seed);
  const total = { lives: 0, viommus: 0, nestParents: 0, refusedStes: 0, events: 0 };
  do {
    const life = new Life(context, args, random).run(
      LIFE_MIN_NS + random.next() * (LIFE_SPREAD_NS / 2 ** 32),
    );
    total.lives++;
    total.viommus = life.viommus;
    total.nestParents = life.nestParents;
    total.refusedStes += life.refusedStes;
    total.events += life.events;
  } while (!context.stopRequested());
  return total;
}

/** @throws Error naming the step when a call that has to work does not */
function must(step: string, status: number): number {
  if (status < 0) throw new Error(`guest: ${step} gave ${errnoName(-status)}`);
  return status;
}

/** One VM from its making to its end. */
class Life {
  readonly #context: ProgramContext;
  readonly #args: GuestChurnArgs;
  readonly #base: number;
  readonly #stats: number;
  readonly #random: Random;
  readonly #latency: Histogram;
  readonly #timeline: Timeline | null;
  readonly #vm: Vm;
  readonly #drivers = new Map<VirtualSmmu, GuestDriver>();
  readonly #devices: Driven[] = [];
  /** Bases of the ports of devices with an ATC, by device. */
  readonly #atcs = new Map<number, number>();
  readonly #shadow: Shadow;
  readonly #pages: GuestPages;
  /** First slice of the data pages, and how many there are. */
  readonly #firstSlice: number;
  readonly #slices: number;
  #events = 0;

  constructor(context: ProgramContext, args: GuestChurnArgs, random: Random) {
    this.#context = context;
    this.#args = args;
    const { memory, user, kernel } = context.thread;
    const base = memory.region(StressLayout, 'stress').base;
    const stats = base + StressLayout.at.guests + args.vm * GuestStats.size;
    this.#base = base;
    this.#stats = stats;
    this.#random = random;
    this.#timeline = Timeline.attach(memory, guestTrack(args.vm), context.thread.env.clock);
    const transport = context.transport!;
    this.#latency = new Histogram(memory.u32, stats + GuestStats.at.latency);
    const ram = new GuestRam(memory, user, { userVa: args.ramVa, bytes: args.ramBytes });
    const { vsmmu, s2Sharing } = args;
    const vm = Vm.create(transport, ram, { vsmmu, s2Sharing, sliceBytes: SLICE_PAGES * 4096, ats: true });
    if (typeof vm === 'number') throw new Error(`guest: creating the VM gave ${errnoName(-vm)}`);
    this.#vm = vm;
    for (const { index } of args.devices) {
      const port = memory.region(PortLayout, portKey(index)).base;
      if (memory.words.load(port + PortLayout.at.ats) !== 0) this.#atcs.set(index, port);
    }
    for (const { index, vSid } of args.devices)
      must(`attaching device ${index}`, vm.attachDevice(index, vSid));

    // Data pages in whole slices, so that ballooning never takes the guest's own tables away.
    const wanted = args.devices.length * args.slots + 64;
    const dataPages = Math.ceil(wanted / SLICE_PAGES) * SLICE_PAGES;
    const first = must('allocating data pages', ram.frames.alloc(dataPages, SLICE_PAGES));
    const ramPage = ram.ipaBase / 4096;
    this.#firstSlice = (first - ramPage) / SLICE_PAGES;
    this.#slices = dataPages / SLICE_PAGES;
    this.#shadow = new Shadow(memory);
    this.#shadow.forgetGuest(args.ramPfn, args.ramBytes / 4096);
    this.#pages = new GuestPages(
      memory,
      this.#shadow,
      args.vm,
      first,
      args.ramPfn + (first - ramPage),
      dataPages,
    );

    for (const { index, vSid } of args.devices) {
      const smmu = vm.smmuOf(index)!;
      let driver = this.#drivers.get(smmu);
      if (driver === undefined) {
        const descriptors = args.devices.map(
          (device) => base + StressLayout.at.tables + device.index * PAGE_TABLE_BYTES,
        );
        driver = new GuestDriver({
          ram,
          mmio: smmu,
          kernel,
          descriptors: this.#descriptorsOf(smmu, descriptors),
        });
        must('starting the SMMU driver', driver.start());
        this.#drivers.set(smmu, driver);
      }
      const space = driver.createSpace();
      if (typeof space === 'number') throw new Error(`guest: an address space gave ${errnoName(-space)}`);
      const states = base + StressLayout.at.slots + index * MAX_GUEST_SLOTS;
      const ipaPages = new Float64Array(args.slots).fill(-1);
      this.#devices.push({ index, driver, space, ipaPages, states });
      this.#mapSteady(driver, space, ram);
      must(`setting up stream ${vSid}`, driver.setupStream(vSid, space, { ats: true }));
    }
  }

  /** @param lifeNs  how long the VM is to live */
  run(lifeNs: number): Omit<GuestChurnResult, 'lives'> {
    const { memory, env } = this.#context.thread;
    const at = GuestStats.at;
    const pace = new Pace(env, this.#random, this.#args.duty);
    for (const device of this.#devices)
      for (let slot = 0; slot < this.#args.slots; slot++)
        if (this.#random.chance(MAPPED_PERCENT)) this.#map(device, slot);
    memory.words.store(this.#stats + at.ioasId, this.#vm.gpa.ioasId);
    memory.words.store(this.#stats + at.ready, 1);
    const end = env.clock.nowNs() + lifeNs;
    while (!this.#context.stopRequested() && env.clock.nowNs() < end) {
      for (let i = 1 + this.#random.below(8); i > 0; i--) this.#act();
      this.#takeEvents();
      pace.breathe();
    }
    return this.#end();
  }

  #act(): void {
    const { slots } = this.#args;
    const device = this.#devices[this.#random.below(this.#devices.length)]!;
    const dice = this.#random.below(100);
    if (dice < 3) {
      this.#balloon();
      return;
    }
    if (dice < 15) {
      // A run of slots in one go: a range invalidation.
      const pages = 2 + this.#random.below(15);
      this.#unmap(device, this.#random.below(slots - pages), pages);
      return;
    }
    const slot = this.#random.below(slots);
    if (device.ipaPages[slot]! >= 0 && dice < 50) this.#unmap(device, slot, 1);
    else {
      for (let tries = 0, at = slot; tries < 8; tries++, at = (at + 1) % slots)
        if (device.ipaPages[at]! < 0) this.#map(device, at);
    }
  }

  #map(device: Driven, slot: number): void {
    const iovaPage = this.#args.firstPage + slot;
    const ipaPage = this.#pages.take(this.#random, device.index, iovaPage);
    if (ipaPage < 0) return;
    device.ipaPages[slot] = ipaPage;
    const began = this.#timeline?.nowNs() ?? 0;
    must('map', device.driver.map(device.space, iovaPage, ipaPage, 1, PROT_READ | PROT_WRITE));
    this.#timeline?.record(TIMELINE_GUEST_MAP, began, device.index, iovaPage, 1);
    this.#context.thread.memory.u8[device.states + slot] = SLOT_MAPPED;
    bump(this.#context.thread.memory, this.#stats + GuestStats.at.maps);
  }

  /** Unmaps whatever of a run of slots is mapped, with one invalidation. */
  #unmap(device: Driven, first: number, slots: number): void {
    const { memory, env } = this.#context.thread;
    memory.u8.fill(SLOT_CHANGING, device.states + first, device.states + first + slots);
    const iovaPage = this.#args.firstPage + first;
    const tickIssued = this.#pages.tick();
    const sentNs = this.#timeline?.nowNs() ?? 0;
    const began = env.clock.nowNs();
    must('unmap', device.driver.unmap(device.space, iovaPage, slots));
    this.#latency.record(env.clock.nowNs() - began);
    this.#timeline?.record(TIMELINE_GUEST_UNMAP, sentNs, device.index, iovaPage, slots);
    const tickDone = this.#pages.tick();
    const number = this.#shadow.logGuestInvalidation(
      this.#args.vm,
      device.index,
      iovaPage,
      slots,
      tickIssued,
      tickDone,
    );
    bump(memory, this.#stats + GuestStats.at.invalidations);
    for (let slot = first; slot < first + slots; slot++) {
      const ipaPage = device.ipaPages[slot]!;
      if (ipaPage >= 0) {
        this.#pages.kill(ipaPage, number);
        if (this.#atcs.has(device.index)) this.#checkAtc(device.index, ipaPage, number);
        device.ipaPages[slot] = -1;
        bump(memory, this.#stats + GuestStats.at.unmaps);
      }
      memory.u8[device.states + slot] = SLOT_UNMAPPED;
    }
  }

  /** R2: the invalidation is complete, so the device's ATC cannot lead there any more. */
  #checkAtc(device: number, ipaPage: number, number: number): void {
    const { memory, kernel } = this.#context.thread;
    const found = kernel.atcFindPa(this.#atcs.get(device)!, this.#pages.frameOf(ipaPage), 1);
    bump(memory, this.#stats + GuestStats.at.atcScans);
    if (found !== null) this.#pages.keptByAtc(device, ipaPage, number, found);
  }

  #balloon(): void {
    const { gpa, ram } = this.#vm;
    const slice = this.#firstSlice + this.#random.below(this.#slices);
    const began = this.#timeline?.nowNs() ?? 0;
    must('ballooning out', gpa.unmapSlice(slice));
    must('ballooning in', gpa.mapSlice(slice));
    this.#timeline?.record(TIMELINE_GUEST_BALLOON, began, slice);
    this.#pages.replant(ram.ipaBase / 4096 + slice * SLICE_PAGES, SLICE_PAGES);
    bump(this.#context.thread.memory, this.#stats + GuestStats.at.balloons);
  }

  #takeEvents(): void {
    const { memory } = this.#context.thread;
    this.#vm.pollEvents();
    for (const driver of this.#drivers.values()) {
      const taken = driver.takeEvents().length;
      this.#events += taken;
      bump(memory, this.#stats + GuestStats.at.events, taken);
    }
    bump(memory, this.#stats + GuestStats.at.canaryChecks, this.#pages.checks);
    this.#pages.checks = 0;
  }

  /** The devices first fall silent: their last DMA must find what it expects. */
  #end(): Omit<GuestChurnResult, 'lives'> {
    const { memory, env } = this.#context.thread;
    const { active } = DeviceStats.at;
    memory.words.store(this.#stats + GuestStats.at.ready, 0);
    const silent = ({ index }: Driven): boolean =>
      memory.words.load(this.#base + StressLayout.at.devices + index * DeviceStats.size + active) === 0;
    for (let i = 0; i < DEVICE_WAITS && !this.#devices.every(silent); i++) rest(env, DEVICE_WAIT_MS);
    this.#pages.sweep();
    this.#takeEvents();
    const viommus = this.#vm.viommus.length;
    const nestParents = this.#vm.nestParents.length;
    const refusedStes = this.#vm.smmus.reduce((sum, smmu) => sum + smmu.refusedStes, 0);
    for (const driver of this.#drivers.values()) driver.stop();
    must('destroying the VM', this.#vm.destroy());
    bump(memory, this.#stats + GuestStats.at.restarts);
    return { viommus, nestParents, refusedStes, events: this.#events };
  }

  #mapSteady(driver: GuestDriver, space: GuestAddressSpace, ram: GuestRam): void {
    const { steadyPage, readOnlyPage } = this.#args;
    const steady = must('allocating a page', ram.allocZeroed());
    const readOnly = must('allocating a page', ram.allocZeroed());
    must('map', driver.map(space, steadyPage, steady, 1, PROT_READ | PROT_WRITE));
    must('map', driver.map(space, readOnlyPage, readOnly, 1, PROT_READ));
  }

  /** A virtual SMMU's own share of the descriptors: those of the devices behind it. */
  #descriptorsOf(smmu: VirtualSmmu, all: readonly number[]): number[] {
    return all.filter((_, i) => this.#vm.smmuOf(this.#args.devices[i]!.index) === smmu);
  }
}
