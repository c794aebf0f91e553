/**
 * How a VMM reaches the kernel. Everything in this folder talks to this interface, so the same VMM runs on the
 * core's thread (local-transport.ts, plain calls) and on a guest's own thread, where ordinary ioctls travel
 * through a mailbox and IOMMU_HWPT_INVALIDATE runs on the calling thread.
 *
 *   Vm, VirtualSmmu ---- ioctl, vfio, read ----> mailbox or call ----> core
 *                  \---- invalidate -----------------------------> shared object table, command queue
 *
 * Every call is synchronous and returns >= 0 or -errno. A transport, and the Vm on it, belong to one thread.
 */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { UserMemory } from '../user-memory.js';

export interface VmmTransport {
  /** ioctl of the iommufd. @param bytes  the struct, outputs written in place. @returns 0 | -errno */
  ioctl(cmd: number, bytes: Uint8Array): number;
  /** ioctl of a VFIO device (its index in the machine). @returns 0 | -errno */
  vfio(deviceIndex: number, cmd: number, bytes: Uint8Array): number;
  /** close() of a VFIO device: what undoes the bind. */
  vfioClose(deviceIndex: number): void;
  /** IOMMU_HWPT_INVALIDATE, here and now. @returns 0 | -errno */
  invalidate(bytes: Uint8Array): number;
  /** read() of a file the iommufd gave out. @returns bytes read, 0 when there is nothing | -errno */
  read(fd: number, into: Uint8Array): number;
  /** write() of a file the iommufd gave out: answers to a fault queue. @returns bytes taken | -errno */
  write(fd: number, bytes: Uint8Array): number;
  /** close() of a file the iommufd gave out. */
  close(fd: number): void;
  /** The iommufd's number, as VFIO_DEVICE_BIND_IOMMUFD takes it. */
  readonly iommufd: number;
  readonly memory: MachineMemory;
  readonly user: UserMemory;
  /** User memory, contiguous in RAM, that this thread alone uses for what ioctl structs point at. */
  readonly scratch: { readonly va: bigint; readonly bytes: number };
}

/** Bytes that one vIOMMU's invalidation batch takes of the scratch memory. */
export const BATCH_ENTRIES = 64;
export const BATCH_ENTRY_BYTES = 16;
/** Start of the scratch memory: data of one ioctl at a time. */
export const CALL_DATA_BYTES = 256;

/** Scratch memory that serves `viommus` vIOMMUs. */
export const scratchBytes = (viommus: number): number =>
  CALL_DATA_BYTES + viommus * BATCH_ENTRIES * BATCH_ENTRY_BYTES;

/** A piece of scratch memory, as user space and as this thread address it. */
export interface ScratchArea {
  readonly va: bigint;
  /** Linear offset, 64-byte aligned. */
  readonly linear: number;
  readonly bytes: number;
}
