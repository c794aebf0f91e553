/** Typed calls on vIOMMUs and what belongs to them. */
import { requireBytes } from '../../../hw/memory/bytes-argument.js';
import { EBADF } from '../../../uapi/abi/errno.js';
import { IommufdError } from '../../../uapi/abi/iommufd-error.js';
import { HwQueueAlloc, IOMMU_HW_QUEUE_ALLOC } from '../../../uapi/iommufd/hw-queue.js';
import { IOMMU_VDEVICE_ALLOC, VdeviceAlloc } from '../../../uapi/iommufd/vdevice.js';
import { IOMMU_VEVENTQ_ALLOC, VeventqAlloc } from '../../../uapi/iommufd/veventq.js';
import { IOMMU_VIOMMU_ALLOC, ViommuAlloc } from '../../../uapi/iommufd/viommu.js';
import { type ByteSize, byteSize } from '../byte-size.js';
import { checkKeys } from '../call-check.js';
import { type EventFile, POLLIN } from '../file-table.js';
import { HwptCalls } from './hwpt-calls.js';

/** What mmap() of an iommufd shows. */
export interface IommufdMapping {
  /** The machine's memory itself: stores are seen by the hardware. */
  readonly view: Uint8Array;
  /** Where it lies in the machine's linear memory. */
  readonly linear: number;
  /** munmap(2) of the whole; until then its owner cannot be destroyed. */
  unmap(): void;
}

/** A vEVENTQ's file descriptor. */
export interface Veventq {
  readonly veventqId: number;
  /** Descriptor number, as the ioctl returned it. */
  readonly fd: number;
  /** Whole records (header, then data) that fit in `maxBytes`; empty when there is none or none fits. */
  read(maxBytes: number): Uint8Array;
  /** Whether a read would find something. */
  poll(): boolean;
  close(): void;
}

const VIOMMU_KEYS = ['devId', 'hwptId', 'type', 'flags', 'data'];
const VDEVICE_KEYS = ['viommuId', 'devId', 'virtId'];
const VEVENTQ_KEYS = ['viommuId', 'type', 'depth'];
const HW_QUEUE_KEYS = ['viommuId', 'type', 'index', 'iova', 'length', 'flags'];
const MMAP_KEYS = ['offset', 'length', 'shared', 'exec'];

export abstract class ViommuCalls extends HwptCalls {
  /**
   * @param options.data  the driver's own struct, as long as the caller's version of it
   * @returns `data` as the driver left it
   */
  viommuAlloc(options: { devId: number; hwptId: number; type: number; flags?: number; data?: Uint8Array }): {
    viommuId: number;
    data: Uint8Array;
  } {
    checkKeys('viommuAlloc', options, VIOMMU_KEYS);
    const { devId, hwptId, type, flags = 0, data = new Uint8Array(0) } = options;
    requireBytes(data, 'data');
    const dataUptr = this.copyToScratch(data);
    const fields = { flags, type, devId, hwptId, dataLen: data.byteLength, dataUptr };
    const { outViommuId } = this.call(IOMMU_VIOMMU_ALLOC, ViommuAlloc, fields);
    return { viommuId: outViommuId, data: this.copyBack(dataUptr, data.byteLength) };
  }

  vdeviceAlloc(options: { viommuId: number; devId: number; virtId: bigint | number }): { vdeviceId: number } {
    checkKeys('vdeviceAlloc', options, VDEVICE_KEYS);
    const { viommuId, devId, virtId } = options;
    const out = this.call(IOMMU_VDEVICE_ALLOC, VdeviceAlloc, { viommuId, devId, virtId: BigInt(virtId) });
    return { vdeviceId: out.outVdeviceId };
  }

  /** @param options.depth  events kept unread */
  veventqAlloc(options: { viommuId: number; type: number; depth: number }): Veventq {
    checkKeys('veventqAlloc', options, VEVENTQ_KEYS);
    const { viommuId, type, depth } = options;
    const out = this.call(IOMMU_VEVENTQ_ALLOC, VeventqAlloc, { viommuId, type, veventqDepth: depth });
    const { files } = this.ctx.core.own;
    const file = files.get(out.outVeventqFd) as EventFile;
    return {
      veventqId: out.outVeventqId,
      fd: out.outVeventqFd,
      read: (maxBytes) => {
        const records = file.read(maxBytes);
        if (typeof records === 'number') throw new IommufdError(-records, 'read');
        return records;
      },
      poll: () => (file.poll() & POLLIN) !== 0,
      close: () => {
        if (files.get(out.outVeventqFd) === file) files.close(out.outVeventqFd);
      },
    };
  }

  /**
   * Hands a queue in guest memory to the hardware.
   * @param options.iova    its address in the nesting parent's IOAS
   * @param options.length  bytes
   */
  hwQueueAlloc(options: {
    viommuId: number;
    type: number;
    index: number;
    iova: bigint;
    length: ByteSize;
    flags?: number;
  }): { hwQueueId: number } {
    checkKeys('hwQueueAlloc', options, HW_QUEUE_KEYS);
    const { viommuId, type, index, iova, flags = 0 } = options;
    const length = byteSize(options.length, 'length');
    const fields = { flags, viommuId, type, index, nestingParentIova: iova, length };
    return { hwQueueId: this.call(IOMMU_HW_QUEUE_ALLOC, HwQueueAlloc, fields).outHwQueueId };
  }

  /**
   * mmap(2) of pages of hardware that a driver offered, by the offset and length it named.
   * @param options.shared  MAP_SHARED; default true
   * @param options.exec    PROT_EXEC; default false
   */
  mmap(options: { offset: bigint; length: ByteSize; shared?: boolean; exec?: boolean }): IommufdMapping {
    checkKeys('mmap', options, MMAP_KEYS);
    const { offset, shared = true, exec = false } = options;
    const length = Number(byteSize(options.length, 'length'));
    const mapping = this.open ? this.ctx.mmaps.map(offset, length, shared, exec) : -EBADF;
    if (typeof mapping === 'number') throw new IommufdError(-mapping, 'mmap');
    const { linear, bytes } = mapping;
    const { u8 } = this.ctx.context.memory;
    return { view: u8.subarray(linear, linear + bytes), linear, unmap: mapping.unmap };
  }
}
