/** Typed calls on vIOMMUs and what belongs to them. */
import { IommufdError } from '../../../uapi/abi/iommufd-error.js';
import { IOMMU_VDEVICE_ALLOC, VdeviceAlloc } from '../../../uapi/iommufd/vdevice.js';
import { IOMMU_VEVENTQ_ALLOC, VeventqAlloc } from '../../../uapi/iommufd/veventq.js';
import { IOMMU_VIOMMU_ALLOC, ViommuAlloc } from '../../../uapi/iommufd/viommu.js';
import { checkKeys } from '../call-check.js';
import { type EventFile, POLLIN } from '../file-table.js';
import { HwptCalls } from './hwpt-calls.js';

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

const VIOMMU_KEYS = ['devId', 'hwptId', 'type', 'flags'];
const VDEVICE_KEYS = ['viommuId', 'devId', 'virtId'];
const VEVENTQ_KEYS = ['viommuId', 'type', 'depth'];

export abstract class ViommuCalls extends HwptCalls {
  viommuAlloc(options: { devId: number; hwptId: number; type: number; flags?: number }): {
    viommuId: number;
  } {
    checkKeys('viommuAlloc', options, VIOMMU_KEYS);
    const { devId, hwptId, type, flags = 0 } = options;
    return {
      viommuId: this.call(IOMMU_VIOMMU_ALLOC, ViommuAlloc, { flags, type, devId, hwptId }).outViommuId,
    };
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
}
