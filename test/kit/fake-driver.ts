/**
 * A host IOMMU driver for tests of the core: page tables are Maps, translations linger until sync() as in an
 * IOTLB, and any call can be made to fail.
 */
import type {
  DirtyTracking,
  Domain,
  DriverHwQueue,
  DriverHwQueues,
  DriverViommu,
  Gather,
  HostDevice,
  HwQueuePlace,
  IommuInstance,
  NestedDomain,
  PageFaults,
  PagingDomain,
  SharedInvalidator,
  ViommuEvent,
  ViommuOwner,
} from '../../runtime/drivers/contract.js';
import { copyStructFromUser, copyStructToUser, type UserData } from '../../runtime/drivers/user-data.js';
import { ViommuTegra241Cmdqv } from '../../uapi/drivers/tegra241.js';

const EOPNOTSUPP = 95;
const EINVAL = 22;
const EEXIST = 17;
const ENOENT = 2;
const EIO = 5;
const EFAULT = 14;
const ENOMEM = 12;

/** Counts the points where something can fail, and fails the one that is armed. */
export class FailurePlan {
  calls = 0;
  /** The call that fails, from 1; 0 for none. */
  failAt = 0;
  fired = false;

  arm(nth: number): void {
    this.calls = 0;
    this.failAt = nth;
    this.fired = false;
  }

  hit(): boolean {
    if (++this.calls !== this.failAt) return false;
    this.fired = true;
    return true;
  }
}

export interface FakeOptions {
  readonly driver?: string;
  readonly pageSizesLg2?: readonly number[];
  readonly aperture?: { firstUnit: number; lastUnit: number };
  readonly reserved?: readonly { firstPage: number; lastPage: number }[];
  /** Domains of other instances are refused, as by an SMMU that does not share. */
  readonly privateDomains?: boolean;
  readonly capabilities?: bigint;
  /** Of every device; 0 for none. */
  readonly maxPasids?: number;
  /** A guest's tables are for all PASIDs. */
  readonly userPasidTable?: boolean;
}

export class FakeDomain implements PagingDomain {
  readonly kind = 'paging';
  readonly driver: string;
  readonly nestParent: boolean;
  readonly pageSizesLg2: readonly number[];
  readonly unitLg2: number;
  readonly aperture: { firstUnit: number; lastUnit: number };
  readonly iommu: FakeIommu;
  /** IOVA unit -> physical unit (frame, with units of 4 KiB) and permissions. */
  readonly entries = new Map<number, { pfn: number; prot: number }>();
  /** Physical units that a cache may still hold: cleared, not synced. */
  readonly stale = new Set<number>();
  /** Lengths of the runs given to map(). */
  readonly runs: number[] = [];
  syncs = 0;
  freed = false;
  readonly dirty: FakeDirty | undefined;

  constructor(iommu: FakeIommu, nestParent: boolean, tracksDirty = false) {
    this.iommu = iommu;
    this.driver = iommu.driver;
    this.nestParent = nestParent;
    this.dirty = tracksDirty ? new FakeDirty(iommu.failures) : undefined;
    this.pageSizesLg2 = iommu.options.pageSizesLg2 ?? [12, 21, 30];
    this.unitLg2 = Math.min(12, this.pageSizesLg2[0]!);
    this.aperture = iommu.options.aperture ?? { firstUnit: 0, lastUnit: 2 ** (48 - this.unitLg2) - 1 };
  }

  map(iovaUnit: number, paUnit: number, units: number, prot: number): number {
    if (this.iommu.failures.hit()) return -ENOMEM;
    const smallest = 2 ** (this.pageSizesLg2[0]! - this.unitLg2);
    for (const value of [iovaUnit, paUnit, units])
      if (!Number.isSafeInteger(value) || value % smallest !== 0)
        throw new Error(`fake: ${value} is not whole IO pages`);
    for (let i = 0; i < units; i++) if (this.entries.has(iovaUnit + i)) return -EEXIST;
    for (let i = 0; i < units; i++) this.entries.set(iovaUnit + i, { pfn: paUnit + i, prot });
    this.runs.push(units);
    return 0;
  }

  unmap(iovaUnit: number, units: number, gather: Gather): number {
    for (let i = 0; i < units; i++) {
      const entry = this.entries.get(iovaUnit + i);
      if (entry === undefined) throw new Error(`fake: unit ${iovaUnit + i} unmapped twice`);
      this.stale.add(entry.pfn);
      this.entries.delete(iovaUnit + i);
    }
    for (let i = 0; i < units; i++) this.dirty?.marked.delete(iovaUnit + i);
    gather.firstUnit = Math.min(gather.firstUnit, iovaUnit);
    gather.lastUnit = Math.max(gather.lastUnit, iovaUnit + units - 1);
    return units;
  }

  sync(gather: Gather): number {
    this.syncs++;
    this.stale.clear();
    if (gather.wantNotes)
      gather.notes.push({
        iommu: this.iommu.index,
        tag: 1,
        command: 'FAKE_TLBI',
        firstPage: gather.firstUnit,
        pages: gather.lastUnit - gather.firstUnit + 1,
        syncIndex: this.syncs,
        tickIssued: 0,
        tickDone: 1,
        failed: false,
        durationNs: 1,
      });
    return 0;
  }

  lookup(iovaUnit: number): number {
    return this.entries.get(iovaUnit)?.pfn ?? -1;
  }

  free(): void {
    if (this.freed || this.entries.size > 0) throw new Error('fake: domain freed twice or while mapped');
    this.freed = true;
    this.iommu.liveDomains--;
  }
}

/** Marks that a test sets; those of one call are reported as runs. */
class FakeDirty implements DirtyTracking {
  readonly marked = new Set<number>();
  readonly failures: FailurePlan;
  enabled = false;
  /** [unit, units] of each readAndClear(). */
  readonly asked: [number, number][] = [];
  /** What the next calls answer. */
  status = 0;

  constructor(failures: FailurePlan) {
    this.failures = failures;
  }

  setTracking(enable: boolean): number {
    if (this.status === 0) this.enabled = enable;
    return this.status;
  }

  readAndClear(
    iovaUnit: number,
    units: number,
    clear: boolean,
    report: (unit: number, units: number) => void,
    gather: Gather,
  ): number {
    if (this.status < 0) return this.status;
    this.asked.push([iovaUnit, units]);
    let run = 0;
    for (let unit = iovaUnit; unit <= iovaUnit + units; unit++) {
      if (unit < iovaUnit + units && this.marked.has(unit)) {
        run++;
        if (clear) this.marked.delete(unit);
        continue;
      }
      if (run > 0) report(unit - run, run);
      if (run > 0 && clear) {
        gather.firstUnit = Math.min(gather.firstUnit, unit - run);
        gather.lastUnit = Math.max(gather.lastUnit, unit - 1);
      }
      run = 0;
    }
    return 0;
  }
}

export class FakeNested implements NestedDomain {
  readonly kind = 'nested';
  readonly driver: string;
  readonly iommu: FakeIommu;

  constructor(iommu: FakeIommu) {
    this.iommu = iommu;
    this.driver = iommu.driver;
  }

  free(): void {
    this.iommu.liveNested--;
  }
}

/** Data type 2 and 16 bytes, like an SMMUv3's STE; the first byte must be 1. */
function checkNested({ type, lenBytes, copyIn }: UserData): number {
  if (type !== 2 || lenBytes !== 16) return -EINVAL;
  const bytes = new Uint8Array(16);
  if (copyIn(bytes) < 0) return -EFAULT;
  return bytes[0] === 1 ? 0 : -EIO;
}

/** Two queues of type 1, in order; the second cannot outlive the first. */
class FakeHwQueues implements DriverHwQueues {
  readonly live: FakeHwQueue[] = [];
  readonly #iommu: FakeIommu;

  constructor(iommu: FakeIommu) {
    this.#iommu = iommu;
  }

  supports(type: number): boolean {
    return type === 1;
  }

  init(place: HwQueuePlace): DriverHwQueue | number {
    if (this.#iommu.failures.hit()) return -ENOMEM;
    if (place.index >= 2 || place.lengthBytes < 32n) return -EINVAL;
    if (this.live.some((queue) => queue.place.index === place.index)) return -EEXIST;
    if (place.index !== this.live.length) return -EIO;
    const queue = new FakeHwQueue(this.live, place);
    this.live.push(queue);
    return queue;
  }
}

class FakeHwQueue implements DriverHwQueue {
  readonly dependsOn: DriverHwQueue | null;
  readonly place: HwQueuePlace;
  readonly #live: FakeHwQueue[];

  constructor(live: FakeHwQueue[], place: HwQueuePlace) {
    this.#live = live;
    this.place = place;
    this.dependsOn = live.at(-1) ?? null;
  }

  destroy(): void {
    if (this.#live.pop() !== this) throw new Error('fake: HW queues destroyed out of order');
  }
}

/** The page of hardware that a vIOMMU of type 2 lends, by its linear address: nobody looks into it. */
export const FAKE_PAGE = { linear: 0x20000, bytes: 0x2000 };

export class FakeViommu implements DriverViommu {
  readonly hwQueues?: FakeHwQueues;
  /** Given back when it is destroyed. */
  mmap: { owner: ViommuOwner; offset: number } | null = null;
  readonly iommu: FakeIommu;
  readonly sharedBase: number;
  readonly virtIds = new Map<bigint, HostDevice>();
  destroyed = false;

  constructor(iommu: FakeIommu, sharedBase: number, queues: boolean) {
    this.iommu = iommu;
    this.sharedBase = sharedBase;
    if (queues) this.hwQueues = new FakeHwQueues(iommu);
  }

  allocNested(data: UserData, _flags: number): NestedDomain | number {
    if (this.iommu.failures.hit()) return -ENOMEM;
    const status = checkNested(data);
    if (status < 0) return status;
    this.iommu.liveNested++;
    return new FakeNested(this.iommu);
  }

  vdeviceInit(device: HostDevice, virtId: bigint): number {
    if (this.iommu.failures.hit()) return -ENOMEM;
    this.virtIds.set(virtId, device);
    return 0;
  }

  vdeviceDestroy(_device: HostDevice, virtId: bigint): void {
    if (!this.virtIds.delete(virtId)) throw new Error(`fake: vDEVICE ${virtId} destroyed twice`);
  }

  destroy(): void {
    if (this.destroyed || this.virtIds.size > 0) throw new Error('fake: vIOMMU destroyed too early');
    this.destroyed = true;
    this.mmap?.owner.freeMmap(this.mmap.offset);
    this.iommu.liveViommus--;
  }
}

export class FakeIommu implements IommuInstance {
  readonly index: number;
  readonly name: string;
  readonly driver: string;
  readonly options: FakeOptions;
  readonly failures: FailurePlan;
  /** What each device is pointed at; absent until the core says. */
  readonly attached = new Map<number, Domain | null>();
  /** What each PASID of each device is pointed at, as `device:pasid`. */
  readonly attachedPasids = new Map<string, Domain>();
  onEvent: ((event: ViommuEvent) => void) | null = null;
  faults: PageFaults | null = null;
  readonly userPasidTable: boolean;
  /** Attachments of each device whose faults somebody handles. */
  readonly #faulting = new Map<HostDevice, number>();
  liveDomains = 0;
  liveNested = 0;
  liveViommus = 0;
  viommus: FakeViommu[] = [];
  /** A device whose attach answers -EINVAL for this domain. */
  refuses: ((device: HostDevice, domain: Domain) => boolean) | null = null;

  constructor(index: number, failures: FailurePlan, options: FakeOptions = {}) {
    this.index = index;
    this.name = `fake${index}`;
    this.driver = options.driver ?? 'fake';
    this.options = options;
    this.userPasidTable = options.userPasidTable ?? false;
    this.failures = failures;
  }

  maxPasids(_device: HostDevice): number {
    return this.options.maxPasids ?? 0;
  }

  attachPasid(device: HostDevice, pasid: number, domain: PagingDomain | null): number {
    const key = `${device.index}:${pasid}`;
    const old = this.attachedPasids.get(key) ?? null;
    if (domain !== null) {
      if (this.failures.hit()) return -ENOMEM;
      if (this.refuses?.(device, domain)) return -EINVAL;
      const status = this.#mayFault(device, domain);
      if (status < 0) return status;
      this.attachedPasids.set(key, domain);
    } else this.attachedPasids.delete(key);
    this.#noLongerFaults(device, old);
    return 0;
  }

  /** arm_smmu_enable_iopf */
  #mayFault(device: HostDevice, domain: Domain): number {
    if (!domain.handlesFaults) return 0;
    const count = this.#faulting.get(device) ?? 0;
    const status = count > 0 ? 0 : (this.faults?.addDevice(device) ?? 0);
    if (status === 0) this.#faulting.set(device, count + 1);
    return status;
  }

  #noLongerFaults(device: HostDevice, domain: Domain | null): void {
    if (!domain?.handlesFaults) return;
    const count = this.#faulting.get(device)! - 1;
    this.#faulting.set(device, count);
    if (count === 0) this.faults?.removeDevice(device);
  }

  hwInfo(_device: HostDevice) {
    const data = Uint8Array.from({ length: 40 }, (_, i) => i + 1);
    return { type: 2, data, capabilities: this.options.capabilities ?? 0n };
  }

  reservedRegions(_device: HostDevice): readonly { firstPage: number; lastPage: number }[] {
    return this.options.reserved ?? [];
  }

  allocPaging(_device: HostDevice, flags: number, data: UserData | null = null): PagingDomain | number {
    if (data !== null) return -EOPNOTSUPP;
    if (this.failures.hit()) return -ENOMEM;
    this.liveDomains++;
    return new FakeDomain(this, (flags & 1) !== 0, (flags & 2) !== 0);
  }

  allocNested(): NestedDomain | number {
    return -EOPNOTSUPP;
  }

  attach(device: HostDevice, domain: Domain | null): number {
    const old = this.attached.get(device.index) ?? null;
    if (domain === null) {
      this.attached.set(device.index, null);
      this.#noLongerFaults(device, old);
      return 0;
    }
    if (this.failures.hit()) return -ENOMEM;
    if (this.refuses?.(device, domain)) return -EINVAL;
    if (domain.driver !== this.driver) return -EINVAL;
    if (this.options.privateDomains && (domain as FakeDomain | FakeNested).iommu !== this) return -EINVAL;
    if (domain.kind === 'nested' && !this.viommus.some((v) => [...v.virtIds.values()].includes(device)))
      return -ENOENT;
    const status = this.#mayFault(device, domain);
    if (status < 0) return status;
    this.attached.set(device.index, domain);
    this.#noLongerFaults(device, old);
    return 0;
  }

  /** Type 2 takes and fills a struct of 16 bytes (mmap offset and length), and has HW queues. */
  supportsViommu(_device: HostDevice, type: number): boolean {
    return type === 1 || type === 2;
  }

  allocViommu(
    _device: HostDevice,
    parent: PagingDomain,
    type: number,
    data: UserData | null,
    owner: ViommuOwner,
  ): DriverViommu | number {
    if (this.failures.hit()) return -ENOMEM;
    if (this.options.privateDomains && (parent as FakeDomain).iommu !== this) return -EINVAL;
    const viommu = new FakeViommu(this, 0x1000 * (this.index + 1) + this.viommus.length, type === 2);
    if (type === 2) {
      if (data === null) return -EINVAL;
      const given = copyStructFromUser(ViommuTegra241Cmdqv, data, 2);
      if (typeof given === 'number') return given;
      const offset = owner.allocMmap(FAKE_PAGE.linear, FAKE_PAGE.bytes);
      if (offset < 0) return offset;
      const out = { outVintfMmapOffset: BigInt(offset), outVintfMmapLength: BigInt(FAKE_PAGE.bytes) };
      const status = copyStructToUser(ViommuTegra241Cmdqv, out, data, 2);
      if (status < 0) {
        owner.freeMmap(offset);
        return status;
      }
      viommu.mmap = { owner, offset };
    }
    this.viommus.push(viommu);
    this.liveViommus++;
    return viommu;
  }

  poll(): boolean {
    return false;
  }
}

export function fakeDevice(index: number, iommu: FakeIommu, groupId = index): HostDevice {
  return { index, name: `dev${index}`, iommu, streamId: 0x100 + index, groupId };
}

/** 16-byte entries of type 1; one that starts with 0xff is illegal (-EIO). Remembers what it was given. */
export class FakeInvalidator implements SharedInvalidator {
  readonly dataType = 1;
  readonly entryBytes = 16;
  readonly calls: { viommuBase: number; entries: Uint8Array; count: number }[] = [];

  cacheInvalidate(
    viommuBase: number,
    entries: Uint8Array,
    stride: number,
    count: number,
    handled: Uint32Array,
  ): number {
    this.calls.push({ viommuBase, entries: entries.slice(), count });
    for (let i = 0; i < count; i++) {
      handled[0] = i;
      if (entries[i * stride] === 0xff) return -EIO;
    }
    handled[0] = count;
    return 0;
  }
}
