/**
 * What an iommufd's IOASes, page tables and attached devices do, written from the ABI's documentation and not from the
 * code under test: plain lists, no IDs reserved, no pages pinned. Every call answers an errno, 0 for success.
 *
 * All of it in bytes. Devices have an IOMMU of their own or share one; a page table works behind one IOMMU only.
 */

export const ENOENT = 2;
export const EBUSY = 16;
export const EEXIST = 17;
export const EINVAL = 22;
export const EPERM = 1;
export const ENOSPC = 28;
export const EOPNOTSUPP = 95;
export const EADDRINUSE = 98;

export const PAGE = 4096n;
export const U64_MAX = 0xffff_ffff_ffff_ffffn;
/** Past the last IOVA of a page table. */
const APERTURE_END = 1n << 48n;
const HUGE = 1n << 21n;

export interface Range {
  readonly start: bigint;
  /** Inclusive. */
  readonly last: bigint;
}

/** User memory of one map; copies share it. */
export interface Source {
  readonly va: bigint;
  readonly writable: boolean;
}

export interface Area extends Range {
  readonly source: Source;
  /** User address of the first byte. */
  readonly va: bigint;
}

export class IoasModel {
  readonly kind = 'ioas';
  areas: Area[] = [];
  allowed: Range[] = [];
  hugePages = true;
  /** Oldest first. */
  hwpts: HwptModel[] = [];
}

export class HwptModel {
  readonly kind = 'hwpt';
  readonly ioas: IoasModel;
  readonly iommu: number;
  readonly auto: boolean;
  readonly id: number;
  readonly devices = new Set<DeviceModel>();

  constructor(id: number, ioas: IoasModel, iommu: number, auto: boolean) {
    this.id = id;
    this.ioas = ioas;
    this.iommu = iommu;
    this.auto = auto;
  }
}

export class DeviceModel {
  readonly kind = 'device';
  readonly iommu: number;
  readonly reserved: readonly Range[];
  hwpt: HwptModel | null = null;

  constructor(iommu: number, reserved: readonly Range[]) {
    this.iommu = iommu;
    this.reserved = reserved;
  }
}

export type ObjectModel = IoasModel | HwptModel | DeviceModel;

const meet = (a: Range, b: Range) => a.start <= b.last && b.start <= a.last;
const lesser = (a: bigint, b: bigint) => [a, b].sort((x, y) => (x < y ? -1 : 1))[0]!;
const lowBit = (value: bigint) => value & -value;

export class IommufdModel {
  readonly objects = new Map<number, ObjectModel>();

  add(object: ObjectModel): number {
    const id = this.freeId();
    this.objects.set(id, object);
    return id;
  }

  /** IDs are given lowest first. */
  freeId(): number {
    let id = 1;
    while (this.objects.has(id)) id++;
    return id;
  }

  destroy(id: number): number {
    const object = this.objects.get(id);
    if (object === undefined) return ENOENT;
    if (object.kind === 'device') return EBUSY;
    if (object.kind === 'ioas' && object.hwpts.length > 0) return EBUSY;
    if (object.kind === 'hwpt') {
      if (object.devices.size > 0) return EBUSY;
      this.#drop(object);
    }
    this.objects.delete(id);
    return 0;
  }

  alignment(ioas: IoasModel): bigint {
    return !ioas.hugePages || ioas.hwpts.length > 0 ? PAGE : 1n;
  }

  reserved(ioas: IoasModel): Range[] {
    const ranges: Range[] = [];
    for (const hwpt of ioas.hwpts) {
      ranges.push({ start: APERTURE_END, last: U64_MAX });
      for (const device of hwpt.devices) ranges.push(...device.reserved);
    }
    return ranges;
  }

  /** What can be mapped somewhere: all that is not reserved, in order. */
  usable(ioas: IoasModel): Range[] {
    const found: Range[] = [];
    let start = 0n;
    for (const range of this.reserved(ioas).sort((a, b) => (a.start < b.start ? -1 : 1))) {
      if (range.start > start) found.push({ start, last: range.start - 1n });
      if (range.last >= start) start = range.last + 1n;
    }
    if (start <= U64_MAX) found.push({ start, last: U64_MAX });
    return found;
  }

  /** Whether a range is free to be mapped. */
  isFree(ioas: IoasModel, range: Range): number {
    if (this.reserved(ioas).some((other) => meet(other, range))) return EINVAL;
    return ioas.areas.some((area) => meet(area, range)) ? EEXIST : 0;
  }

  /** A map or copy to a place of the caller's choice, of slices that follow each other. */
  mapAt(ioas: IoasModel, iova: bigint, slices: readonly Area[], length: bigint, write: boolean): number {
    const alignment = this.alignment(ioas);
    if (length % alignment !== 0n || iova % alignment !== 0n) return EINVAL;
    const free = this.isFree(ioas, { start: iova, last: iova + length - 1n });
    if (free !== 0) return free;
    return this.#insert(ioas, iova, slices, write);
  }

  /** @returns what the place that the kernel chose must be like; an errno when it must refuse */
  autoRule(ioas: IoasModel, va: bigint, length: bigint): { alignment: bigint; offset: bigint } | number {
    const minimum = this.alignment(ioas);
    if (length % minimum !== 0n) return EINVAL;
    let alignment = 1n;
    while (alignment < length) alignment *= 2n;
    for (const limit of [lowBit(va), HUGE]) if (limit !== 0n && limit < alignment) alignment = limit;
    if (alignment < minimum) return EINVAL;
    return { alignment, offset: va % PAGE };
  }

  /** Whether the kernel may choose this range. */
  isChoice(ioas: IoasModel, range: Range): boolean {
    if (range.start < PAGE || this.isFree(ioas, range) !== 0) return false;
    if (ioas.allowed.length === 0) return true;
    // Allowed ranges that touch are one.
    let at = range.start;
    for (const allowed of [...ioas.allowed].sort((a, b) => (a.start < b.start ? -1 : 1)))
      if (allowed.start <= at && at <= allowed.last) at = allowed.last + 1n;
    return at > range.last;
  }

  #insert(ioas: IoasModel, iova: bigint, slices: readonly Area[], write: boolean): number {
    const made: Area[] = [];
    for (const { start, last, source, va } of slices) {
      if (write && !source.writable) return EPERM;
      if (va % this.alignment(ioas) !== 0n) return EINVAL;
      const at = iova + (start - slices[0]!.start);
      made.push({ start: at, last: at + (last - start), source, va });
    }
    ioas.areas.push(...made);
    return 0;
  }

  /** mapAt() where the kernel has chosen. */
  mapChosen(ioas: IoasModel, iova: bigint, slices: readonly Area[], write: boolean): number {
    return this.#insert(ioas, iova, slices, write);
  }

  /** The slices of areas behind a range; null when there is a hole. */
  slices(ioas: IoasModel, range: Range): Area[] | null {
    const found: Area[] = [];
    for (let at = range.start; at <= range.last; ) {
      const area = ioas.areas.find(({ start, last }) => start <= at && at <= last);
      if (area === undefined) return null;
      const last = lesser(area.last, range.last);
      found.push({ start: at, last, source: area.source, va: area.va + (at - area.start) });
      at = last + 1n;
    }
    return found;
  }

  /** Whole areas go in ascending order until one would be cut. @returns errno, and the bytes that went */
  unmap(ioas: IoasModel, range: Range): { errno: number; bytes: bigint } {
    let bytes = 0n;
    for (const area of [...ioas.areas].sort((a, b) => (a.start < b.start ? -1 : 1))) {
      if (!meet(area, range)) continue;
      if (area.start < range.start || area.last > range.last) return { errno: ENOENT, bytes };
      ioas.areas = ioas.areas.filter((other) => other !== area);
      bytes += area.last - area.start + 1n;
    }
    const everything = range.start === 0n && range.last === U64_MAX;
    return { errno: bytes === 0n && !everything ? ENOENT : 0, bytes };
  }

  allow(ioas: IoasModel, ranges: readonly Range[]): number {
    if (ranges.some(({ start, last }) => start >= last)) return EINVAL;
    if (ranges.some((range, i) => ranges.slice(0, i).some((other) => meet(other, range)))) return EINVAL;
    if (this.reserved(ioas).some((other) => ranges.some((range) => meet(other, range)))) return EADDRINUSE;
    ioas.allowed = [...ranges];
    return 0;
  }

  /** IOMMU_OPTION_HUGE_PAGES. @param value  0 or 1 */
  setHugePages(ioas: IoasModel, value: bigint): number {
    if (value > 1n) return EINVAL;
    const on = value === 1n;
    if (on === ioas.hugePages) return 0;
    if (!on && ioas.hwpts.length > 0 && ioas.areas.length > 0) return EINVAL;
    if (!on && !this.#wholePages(ioas)) return EADDRINUSE;
    ioas.hugePages = on;
    return 0;
  }

  /** HWPT_ALLOC over an IOAS; also what an attach does when it finds no table. @returns it, or an errno */
  hwptAlloc(ioas: IoasModel, device: DeviceModel, auto: boolean): HwptModel | number {
    if (ioas.hwpts.length === 0 && !this.#wholePages(ioas)) return EADDRINUSE;
    const aperture = { start: APERTURE_END, last: U64_MAX };
    if ([...ioas.areas, ...ioas.allowed].some((range) => meet(range, aperture))) return EADDRINUSE;
    const hwpt = new HwptModel(this.freeId(), ioas, device.iommu, auto);
    this.objects.set(hwpt.id, hwpt);
    ioas.hwpts.push(hwpt);
    return hwpt;
  }

  /** VFIO's attach, which is a replace when the device is attached. @returns errno, and the table in use */
  attach(device: DeviceModel, target: ObjectModel | undefined): { errno: number; used: number } {
    if (target === undefined) return { errno: ENOENT, used: 0 };
    if (target.kind === 'device') return { errno: EINVAL, used: 0 };
    if (target.kind === 'hwpt') {
      const errno = this.#move(device, target);
      return { errno, used: target.id };
    }
    for (const hwpt of target.hwpts.filter(({ auto }) => auto)) {
      const errno = this.#move(device, hwpt);
      if (errno === EINVAL) continue;
      return { errno, used: hwpt.id };
    }
    if (this.#clashes(device, target)) return { errno: EADDRINUSE, used: 0 };
    const made = this.hwptAlloc(target, device, true);
    if (typeof made === 'number') return { errno: made, used: 0 };
    this.#move(device, made);
    return { errno: 0, used: made.id };
  }

  detach(device: DeviceModel): void {
    const { hwpt } = device;
    device.hwpt = null;
    hwpt?.devices.delete(device);
    if (hwpt?.auto && hwpt.devices.size === 0) this.#drop(hwpt);
  }

  #move(device: DeviceModel, hwpt: HwptModel): number {
    if (device.hwpt === hwpt) return 0;
    if (device.hwpt?.ioas !== hwpt.ioas && this.#clashes(device, hwpt.ioas)) return EADDRINUSE;
    if (hwpt.iommu !== device.iommu) return EINVAL;
    const old = device.hwpt;
    hwpt.devices.add(device);
    device.hwpt = hwpt;
    old?.devices.delete(device);
    if (old?.auto && old.devices.size === 0) this.#drop(old);
    return 0;
  }

  /** Whether something that a device reserves is mapped or must stay allowed. */
  #clashes(device: DeviceModel, ioas: IoasModel): boolean {
    if (device.hwpt?.ioas === ioas) return false;
    return device.reserved.some((range) =>
      [...ioas.areas, ...ioas.allowed].some((other) => meet(other, range)),
    );
  }

  #wholePages(ioas: IoasModel): boolean {
    return ioas.areas.every(
      (area) => area.start % PAGE === 0n && (area.last + 1n) % PAGE === 0n && area.va % PAGE === 0n,
    );
  }

  #drop(hwpt: HwptModel): void {
    hwpt.ioas.hwpts = hwpt.ioas.hwpts.filter((other) => other !== hwpt);
    this.objects.delete(hwpt.id);
  }
}
