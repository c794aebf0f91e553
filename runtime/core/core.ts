/**
 * The iommufd driver of one machine: opens `/dev/iommu` and VFIO device files, arbitrates who may own a
 * device's DMA, and takes the events that host drivers raise to the vIOMMUs they are meant for.
 */
import { type BugSwitches, NO_BUGS } from '../../hw/bugs/bug-switches.js';
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { EMFILE, ENOMEM, EPERM } from '../../uapi/abi/errno.js';
import { IommufdError } from '../../uapi/abi/iommufd-error.js';
import type { DriverViommu, HostDevice, ViommuEvent } from '../drivers/contract.js';
import { ACCOUNT_MM } from '../iova/accounting.js';
import { type MemFile, openMemFile } from '../mem-file.js';
import type { IommufdGroup } from '../objects/group.js';
import { VfioContainer } from '../objects/vfio-container.js';
import { VfioDevice } from '../objects/vfio-device.js';
import type { Viommu } from '../objects/viommu.js';
import type { UserAllocOptions } from '../user-memory.js';
import type { ByteSize } from './byte-size.js';
import type { Compat, CoreContext } from './context.js';
import { IommufdCtx } from './ctx.js';
import { dispatch } from './dispatch.js';
import { DmaBuf, MemoryExporter, openDmaBuf } from './dmabuf.js';
import { IommufdFd } from './fd.js';
import { FileTable, type OpenFile } from './file-table.js';
import { groupKey } from './group-key.js';
import { ObjectsLayout } from './objects-layout.js';
import { CorePageFaults } from './page-faults.js';
import { OwnTask, type PhysicalMemory, RamFrames, type Task } from './task.js';

/** Iommufds that can be open at once unless told otherwise: each costs 256 KiB of control memory. */
export const DEFAULT_MAX_FDS = 16;

export class IommufdCore {
  readonly context: CoreContext;
  /** The program that the machine lives in. */
  readonly own: OwnTask;
  /** Frames by number, whoever owns them. */
  readonly physical: PhysicalMemory;
  readonly compat: Compat;
  /** Known bugs that are on. */
  readonly bugs: BugSwitches;
  /** Where a driver's events go. */
  readonly viommus = new Map<DriverViommu, Viommu>();
  /** Device indexes that a VFIO device file has open. */
  readonly openDevices = new Set<number>();
  readonly #freeIndexes: number[];
  readonly #dmaOwners = new Map<string, { ctx: IommufdCtx; count: number }>();
  /** iommufds that are open. */
  readonly opened = new Set<IommufdCtx>();
  #current: Task;

  /** Once per machine, before other threads attach. @param maxFds  iommufds open at once */
  static allocRegions(memory: MachineMemory, maxFds = DEFAULT_MAX_FDS): void {
    for (let index = 0; index < maxFds; index++) memory.allocRegion(ObjectsLayout, `objects:${index}`);
  }

  /** Allocates the object tables too, unless that has been done. */
  constructor(context: CoreContext, options: { maxFds?: number } = {}) {
    this.context = context;
    const { memory } = context;
    this.own = new OwnTask(context.user, new FileTable());
    this.#current = this.own;
    this.physical = context.physical ?? new RamFrames(memory);
    this.compat = context.compat ?? 'fixed';
    this.bugs = context.env.bugs ?? NO_BUGS;
    if (!memory.hasRegion('objects:0')) IommufdCore.allocRegions(memory, options.maxFds);
    let count = 0;
    while (memory.hasRegion(`objects:${count}`)) count++;
    this.#freeIndexes = Array.from({ length: count }, (_, i) => i);
    const faults = new CorePageFaults(this);
    for (const iommu of context.iommus) {
      iommu.onEvent = (event) => this.#deliver(event);
      iommu.faults = faults;
    }
  }

  /** On whose behalf the core works: Linux's `current`. */
  get current(): Task {
    return this.#current;
  }

  /** Calls `call` on behalf of another process. */
  as<T>(task: Task, call: () => T): T {
    const before = this.#current;
    this.#current = task;
    try {
      return call();
    } finally {
      this.#current = before;
    }
  }

  /** Whether an allocation is to fail; asked wherever Linux allocates. @param site  what is allocated */
  allocFails(site: string): boolean {
    return this.#current.failNth.shouldFail(site);
  }

  /** open("/dev/iommu") by the program that the machine lives in. @throws IommufdError EMFILE | ENOMEM */
  open(): IommufdFd {
    const file = this.openFile();
    if (file === -EMFILE) throw new IommufdError(EMFILE, 'open', { detail: 'too many open iommufds' });
    if (typeof file === 'number') throw new IommufdError(-file, 'open');
    return new IommufdFd(file.ctx, this.own.files.install(file));
  }

  /**
   * memfd_create by the program that the machine lives in, of `bytes` zeroes.
   * @returns its descriptor, for `IommufdFd.ioasMapFile`, and the file, for `UserMemory.map`
   * @throws IommufdError ENOMEM | EINVAL nothing asked for
   */
  memfd(bytes: ByteSize, options: UserAllocOptions = {}): { fd: number; file: MemFile } {
    const file = this.context.user.createFile(bytes, options);
    return { fd: this.own.files.install(openMemFile(file)), file };
  }

  /**
   * A dma-buf of `bytes` zeroes of the machine's RAM, as a device would export its own memory.
   * @returns its descriptor, for `IommufdFd.ioasMapFile`; `revoke(true)` takes the memory back from all who imported
   *   it, and from then on importing is ENODEV, until `revoke(false)`; who lost it has to map it anew
   * @throws IommufdError ENOMEM | EINVAL nothing asked for
   */
  dmabuf(bytes: ByteSize): { fd: number; dmabuf: DmaBuf; revoke(revoked: boolean): void } {
    const file = this.context.user.createFile(bytes, { contiguous: true });
    const pages = Math.ceil(Number(file.sizeBytes) / 4096);
    const exporter = new MemoryExporter(file.runsOf(0, pages)[0]!, () => file.put());
    const dmabuf = new DmaBuf(exporter, BigInt(pages * 4096));
    const revoke = (revoked: boolean): void => {
      exporter.revoked = revoked;
      dmabuf.invalidateMappings();
    };
    return { fd: this.own.files.install(openDmaBuf(dmabuf)), dmabuf, revoke };
  }

  /** open("/dev/vfio/vfio") by that program. @throws IommufdError EMFILE | ENOMEM */
  openContainer(): VfioContainer {
    const fd = this.open();
    fd.ctx.accountMode = ACCOUNT_MM;
    return new VfioContainer(fd);
  }

  /**
   * open("/dev/iommu") without a descriptor.
   * @param container  open("/dev/vfio/vfio"): the same, but pinned pages are charged as VFIO charges
   * @returns the file | -EMFILE | -ENOMEM
   */
  openFile(container = false): IommufdFile | number {
    if (this.allocFails('iommufd_ctx')) return -ENOMEM;
    const index = this.#freeIndexes.shift();
    if (index === undefined) return -EMFILE;
    const ctx: IommufdCtx = new IommufdCtx(this, index, () => {
      this.opened.delete(ctx);
      this.#freeIndexes.push(index);
      this.#freeIndexes.sort((a, b) => a - b);
    });
    if (container) ctx.accountMode = ACCOUNT_MM;
    this.opened.add(ctx);
    return {
      kind: 'iommufd',
      ctx,
      ioctl: (cmd, bytes) => dispatch(ctx, cmd, bytes),
      mmap: (offset, bytes, shared, exec) => ctx.mmaps.map(offset, bytes, shared, exec),
      release: () => ctx.putFile(),
    };
  }

  /** open("/dev/vfio/devices/vfioN"). */
  openVfio(device: HostDevice): VfioDevice {
    return new VfioDevice(this, device);
  }

  /**
   * iommu_device_claim_dma_owner: a group has one owner, however many of its devices are bound.
   * @returns 0 | -EPERM somebody else owns the group
   */
  claimDma(group: string, ctx: IommufdCtx): number {
    const owner = this.#dmaOwners.get(group);
    if (owner === undefined) this.#dmaOwners.set(group, { ctx, count: 1 });
    else if (owner.ctx !== ctx) return -EPERM;
    else owner.count++;
    return 0;
  }

  /** The group of a device that is bound to some iommufd. */
  groupOf(device: HostDevice): IommufdGroup | undefined {
    const key = groupKey(device);
    return this.#dmaOwners.get(key)?.ctx.groups.get(key);
  }

  releaseDma(group: string): void {
    const owner = this.#dmaOwners.get(group);
    if (owner !== undefined && --owner.count === 0) this.#dmaOwners.delete(group);
  }

  #deliver(event: ViommuEvent): void {
    this.viommus.get(event.viommu)?.reportEvent(event.type, event.data);
  }
}

/** What the descriptor of an open iommufd stands for. */
export interface IommufdFile extends OpenFile {
  readonly kind: 'iommufd';
  readonly ctx: IommufdCtx;
}
