/**
 * A stand-in for the kernel under the VMM library: objects with reference counts, Linux's errnos for what a VMM
 * decides by, and a record of every invalidation. No translation; the machine tests have that.
 */

import { FrameAllocator } from '../../hw/memory/frame-allocator.js';
import { framesLayout } from '../../hw/memory/frames-layout.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { monotonicClock, ThreadTable, ThreadTableLayout } from '../../hw/sync/thread.js';
import { UserMemory } from '../../runtime/user-memory.js';
import type { VmmTransport } from '../../runtime/vmm/transport.js';
import { scratchBytes } from '../../runtime/vmm/transport.js';
import { Destroy, IOMMU_DESTROY } from '../../uapi/iommufd/destroy.js';
import { HwInfo, IOMMU_GET_HW_INFO } from '../../uapi/iommufd/hw-info.js';
import { HwptAlloc, IOMMU_HWPT_ALLOC } from '../../uapi/iommufd/hwpt.js';
import { HwptInvalidate } from '../../uapi/iommufd/hwpt-invalidate.js';
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_UNMAP,
  IoasAlloc,
  IoasMap,
  IoasUnmap,
} from '../../uapi/iommufd/ioas.js';
import { IOMMU_VDEVICE_ALLOC, VdeviceAlloc } from '../../uapi/iommufd/vdevice.js';
import { IOMMU_VEVENTQ_ALLOC, VeventqAlloc } from '../../uapi/iommufd/veventq.js';
import { IOMMU_VIOMMU_ALLOC, ViommuAlloc } from '../../uapi/iommufd/viommu.js';
import { VFIO_BASE, VfioDeviceAttachIommufdPt, VfioDeviceBindIommufd } from '../../uapi/vfio/cdev.js';

export type FakeKind = 'ioas' | 'device' | 'paging' | 'nested' | 'viommu' | 'vdevice' | 'veventq';

export interface FakeObject {
  readonly id: number;
  readonly kind: FakeKind;
  users: number;
  readonly holds: FakeObject[];
  /** Which physical SMMU, -1 when that means nothing. */
  readonly smmu: number;
  /** Nested: words 0 and 1 of the STE. vDEVICE: the vSID. */
  readonly data: readonly bigint[];
}

export interface FakeOptions {
  /** Physical SMMU of each device. */
  readonly deviceSmmus: readonly number[];
  /** Whether SMMUs can share a stage 2. */
  readonly sharing?: boolean;
  readonly idr?: readonly number[];
  readonly ramBytes?: number;
}

const EIO = 5;
const ENOENT = 2;
const EBUSY = 16;
const EEXIST = 17;
const EINVAL = 22;
const EOPNOTSUPP = 95;
/** S1P S2P TTF=2 COHACC ASID16 ST_LEVEL=1 TTENDIAN=2; SIDSIZE 16, queues 2^10; RIL; OAS 48, 4 KiB. */
export const FAKE_IDR: readonly number[] = [
  0x3 | (2 << 2) | (1 << 4) | (1 << 12) | (1 << 18) | (2 << 21) | (1 << 24) | (1 << 27),
  16 | (10 << 16) | (10 << 21),
  0,
  1 << 10,
  0,
  5 | (1 << 4),
];

export class FakeIommufd implements VmmTransport {
  readonly iommufd = 7;
  readonly memory: MachineMemory;
  readonly user: UserMemory;
  readonly scratch: { va: bigint; bytes: number };
  readonly objects = new Map<number, FakeObject>();
  /** Commands issued, in order: which vIOMMU, and the two 64-bit words. */
  readonly issued: { viommuId: number; command: readonly [bigint, bigint] }[] = [];
  /** pt_id of each attached device, by index. */
  readonly attached = new Map<number, number>();
  readonly unread = new Map<number, Uint8Array[]>();
  readonly counts = new Map<number, number>();
  readonly mapped = new Map<bigint, bigint>();
  /** The next invalidations handle so many entries and then fail so. */
  failInvalidate: { after: number; errno: number } | null = null;
  /** The nth ioctl from now on (1 is the next) fails with ENOMEM. */
  failNth = 0;
  readonly #options: Required<FakeOptions>;
  readonly #bound = new Map<number, FakeObject>();
  #nextId = 1;

  constructor(options: FakeOptions) {
    this.#options = { sharing: true, idr: FAKE_IDR, ramBytes: 64 * 2 ** 20, ...options };
    this.memory = MachineMemory.create({ ramBytes: this.#options.ramBytes });
    const shape = framesLayout(this.#options.ramBytes);
    const frames = FrameAllocator.init(this.memory, this.memory.allocRegion(shape, 'frames'));
    UserMemory.allocRegions(this.memory);
    const threads = new ThreadTable(this.memory, this.memory.allocRegion(ThreadTableLayout, 'threads'));
    const { words } = this.memory;
    const env = { words, threads, threadId: threads.register(), clock: monotonicClock, canPark: true };
    this.user = new UserMemory(this.memory, env, frames);
    const bytes = scratchBytes(8);
    this.scratch = { va: this.user.alloc(bytes, { contiguous: true }), bytes };
  }

  count(kind: FakeKind): number {
    return [...this.objects.values()].filter((object) => object.kind === kind).length;
  }

  /** Attached table of a device. */
  tableOf(deviceIndex: number): FakeObject | undefined {
    return this.objects.get(this.attached.get(deviceIndex) ?? 0);
  }

  ioctl(cmd: number, bytes: Uint8Array): number {
    this.counts.set(cmd, (this.counts.get(cmd) ?? 0) + 1);
    if (this.failNth > 0 && --this.failNth === 0 && cmd !== IOMMU_DESTROY) return -12;
    switch (cmd) {
      case IOMMU_IOAS_ALLOC:
        IoasAlloc.put(bytes, 'outIoasId', this.#make('ioas', [], -1).id);
        return 0;
      case IOMMU_IOAS_MAP: {
        const { iova, length } = IoasMap.decode(bytes);
        if (this.mapped.has(iova)) return -EEXIST;
        this.mapped.set(iova, length);
        return 0;
      }
      case IOMMU_IOAS_UNMAP: {
        const { iova, length } = IoasUnmap.decode(bytes);
        if (this.mapped.get(iova) !== length) return -ENOENT;
        this.mapped.delete(iova);
        return 0;
      }
      case IOMMU_HWPT_ALLOC:
        return this.#hwptAlloc(bytes);
      case IOMMU_VIOMMU_ALLOC: {
        const { devId, hwptId } = ViommuAlloc.decode(bytes);
        const device = this.objects.get(devId);
        const parent = this.objects.get(hwptId);
        if (!device || parent?.kind !== 'paging') return -ENOENT;
        if (!this.#options.sharing && parent.smmu !== device.smmu) return -EINVAL;
        ViommuAlloc.put(bytes, 'outViommuId', this.#make('viommu', [parent], device.smmu).id);
        return 0;
      }
      case IOMMU_VDEVICE_ALLOC: {
        const { devId, viommuId, virtId } = VdeviceAlloc.decode(bytes);
        const device = this.objects.get(devId);
        const viommu = this.objects.get(viommuId);
        if (!device || viommu?.kind !== 'viommu') return -ENOENT;
        if (viommu.smmu !== device.smmu) return -EINVAL;
        for (const object of this.objects.values())
          if (object.kind === 'vdevice' && object.holds[0] === viommu && object.data[0] === virtId)
            return -EEXIST;
        VdeviceAlloc.put(bytes, 'outVdeviceId', this.#make('vdevice', [viommu], device.smmu, [virtId]).id);
        return 0;
      }
      case IOMMU_VEVENTQ_ALLOC: {
        const viommu = this.objects.get(VeventqAlloc.getField(bytes, 'viommuId'));
        if (viommu?.kind !== 'viommu') return -ENOENT;
        const queue = this.#make('veventq', [viommu], viommu.smmu);
        queue.users++;
        VeventqAlloc.put(bytes, 'outVeventqId', queue.id);
        VeventqAlloc.put(bytes, 'outVeventqFd', 1000 + queue.id);
        this.unread.set(1000 + queue.id, []);
        return 0;
      }
      case IOMMU_GET_HW_INFO: {
        const { dataUptr } = HwInfo.decode(bytes);
        const data = new Uint8Array(40);
        const view = new DataView(data.buffer);
        this.#options.idr.forEach((word, i) => void view.setUint32(8 + i * 4, word, true));
        HwInfo.put(bytes, 'dataType', 2);
        return this.user.copyOut(dataUptr, data);
      }
      case IOMMU_DESTROY: {
        const object = this.objects.get(Destroy.getField(bytes, 'id'));
        if (!object) return -ENOENT;
        if (object.users > 0) return -EBUSY;
        this.objects.delete(object.id);
        for (const held of object.holds) held.users--;
        if (object.kind === 'ioas') this.mapped.clear();
        return 0;
      }
      default:
        return -25;
    }
  }

  vfio(deviceIndex: number, cmd: number, bytes: Uint8Array): number {
    if (this.failNth > 0 && --this.failNth === 0) return -12;
    const smmu = this.#options.deviceSmmus[deviceIndex];
    if (smmu === undefined) return -ENOENT;
    if ((cmd & 0xff) === VFIO_BASE + 18) {
      if (this.#bound.has(deviceIndex)) return -EINVAL;
      const device = this.#make('device', [], smmu);
      this.#bound.set(deviceIndex, device);
      VfioDeviceBindIommufd.put(bytes, 'outDevid', device.id);
      return 0;
    }
    const old = this.tableOf(deviceIndex);
    if ((cmd & 0xff) === VFIO_BASE + 20) {
      if (old) old.users--;
      this.attached.delete(deviceIndex);
      return 0;
    }
    const table = this.objects.get(VfioDeviceAttachIommufdPt.getField(bytes, 'ptId'));
    if (table?.kind !== 'nested' && table?.kind !== 'paging') return -ENOENT;
    if (table.smmu !== smmu) return -EINVAL;
    if (old) old.users--;
    table.users++;
    this.attached.set(deviceIndex, table.id);
    return 0;
  }

  vfioClose(deviceIndex: number): void {
    const device = this.#bound.get(deviceIndex);
    this.#bound.delete(deviceIndex);
    if (device) this.objects.delete(device.id);
  }

  invalidate(bytes: Uint8Array): number {
    const { hwptId, dataUptr, entryNum } = HwptInvalidate.decode(bytes);
    const fail = this.failInvalidate;
    const handled = fail === null ? entryNum : Math.min(entryNum, fail.after);
    const data = new Uint8Array(16 * entryNum);
    if (this.user.copyIn(dataUptr, data) < 0) return -14;
    const view = new DataView(data.buffer);
    for (let i = 0; i < handled; i++)
      this.issued.push({
        viommuId: hwptId,
        command: [view.getBigUint64(i * 16, true), view.getBigUint64(i * 16 + 8, true)],
      });
    HwptInvalidate.put(bytes, 'entryNum', handled);
    return handled < entryNum ? -(fail?.errno ?? EIO) : 0;
  }

  read(fd: number, into: Uint8Array): number {
    const records = this.unread.get(fd);
    if (!records) return -9;
    let at = 0;
    while (records[0] !== undefined && at + records[0].byteLength <= into.byteLength) {
      const record = records.shift()!;
      into.set(record, at);
      at += record.byteLength;
    }
    return at;
  }

  write(_fd: number, _bytes: Uint8Array): number {
    return -EINVAL;
  }

  close(fd: number): void {
    const queue = this.objects.get(fd - 1000);
    if (queue) queue.users--;
    this.unread.delete(fd);
  }

  #hwptAlloc(bytes: Uint8Array): number {
    const { devId, ptId, dataType, dataUptr } = HwptAlloc.decode(bytes);
    const device = this.objects.get(devId);
    const on = this.objects.get(ptId);
    if (!device || !on) return -ENOENT;
    if (dataType === 0) {
      HwptAlloc.put(bytes, 'outHwptId', this.#make('paging', [on], device.smmu).id);
      return 0;
    }
    if (on.kind !== 'viommu') return -EINVAL;
    if (dataType !== 2) return -EOPNOTSUPP;
    const data = new Uint8Array(16);
    if (this.user.copyIn(dataUptr, data) < 0) return -14;
    const view = new DataView(data.buffer);
    const ste = [view.getBigUint64(0, true), view.getBigUint64(8, true)];
    const config = Number((ste[0]! >> 1n) & 7n);
    if ((ste[0]! & 1n) === 0n || ![0, 4, 5].includes(config)) return -EIO;
    HwptAlloc.put(bytes, 'outHwptId', this.#make('nested', [on], on.smmu, ste).id);
    return 0;
  }

  #make(kind: FakeKind, holds: FakeObject[], smmu: number, data: readonly bigint[] = []): FakeObject {
    const object: FakeObject = { id: this.#nextId++, kind, users: 0, holds, smmu, data };
    for (const held of holds) held.users++;
    this.objects.set(object.id, object);
    return object;
  }
}
