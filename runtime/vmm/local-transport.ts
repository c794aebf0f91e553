/**
 * The transport of a VMM on the core's own thread: plain calls. For embedding in an emulator, and for tests.
 */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { EBADF, ENODEV } from '../../uapi/abi/errno.js';
import { IOMMU_HWPT_INVALIDATE } from '../../uapi/iommufd/hwpt-invalidate.js';
import type { IommufdFd } from '../core/fd.js';
import type { Machine } from '../machine.js';
import type { UserMemory } from '../user-memory.js';
import { scratchBytes, type VmmTransport } from './transport.js';

/** An open /dev/iommu. */
export interface LocalIommufd {
  /** Descriptor number. */
  readonly fd: number;
  ioctl(cmd: number, bytes: Uint8Array): number;
}

/** A file that an ioctl gave out, by descriptor. */
export interface LocalFiles {
  /** Whole records that fit in `maxBytes` | -errno. */
  read(fd: number, maxBytes: number): Uint8Array | number;
  /** @returns bytes taken | -errno */
  write(fd: number, bytes: Uint8Array): number;
  close(fd: number): void;
}

/** An open VFIO cdev. */
export interface LocalVfio {
  ioctl(cmd: number, bytes: Uint8Array): number;
  close(): void;
}

export interface LocalTransportOptions {
  readonly memory: MachineMemory;
  readonly user: UserMemory;
  readonly iommufd: LocalIommufd;
  readonly files: LocalFiles;
  /** open() of a device's cdev, by the device's index; null when there is none. Each is opened at its first use. */
  openVfio(deviceIndex: number): LocalVfio | null;
  /** Physical SMMUs to have scratch memory for. */
  readonly viommus?: number;
}

export class LocalTransport implements VmmTransport {
  readonly memory: MachineMemory;
  readonly user: UserMemory;
  readonly scratch: { readonly va: bigint; readonly bytes: number };
  readonly #options: LocalTransportOptions;
  readonly #open = new Map<number, LocalVfio>();

  /** @throws IommufdError ENOMEM when there is no user memory for the scratch area */
  constructor(options: LocalTransportOptions) {
    this.#options = options;
    this.memory = options.memory;
    this.user = options.user;
    const bytes = scratchBytes(options.viommus ?? 16);
    const va = options.user.alloc(bytes, { contiguous: true });
    this.scratch = { va, bytes };
  }

  get iommufd(): number {
    return this.#options.iommufd.fd;
  }

  ioctl(cmd: number, bytes: Uint8Array): number {
    return this.#options.iommufd.ioctl(cmd, bytes);
  }

  invalidate(bytes: Uint8Array): number {
    return this.#options.iommufd.ioctl(IOMMU_HWPT_INVALIDATE, bytes);
  }

  vfio(deviceIndex: number, cmd: number, bytes: Uint8Array): number {
    const device = this.#open.get(deviceIndex) ?? this.#options.openVfio(deviceIndex);
    if (device === null) return -ENODEV;
    this.#open.set(deviceIndex, device);
    return device.ioctl(cmd, bytes);
  }

  vfioClose(deviceIndex: number): void {
    this.#open.get(deviceIndex)?.close();
    this.#open.delete(deviceIndex);
  }

  read(fd: number, into: Uint8Array): number {
    const records = this.#options.files.read(fd, into.byteLength);
    if (typeof records === 'number') return records;
    into.set(records);
    return records.byteLength;
  }

  write(fd: number, bytes: Uint8Array): number {
    return this.#options.files.write(fd, bytes);
  }

  close(fd: number): void {
    this.#options.files.close(fd);
  }

  /**
   * A VMM's hold on a machine, through an iommufd of it. Dispose before the machine is closed.
   * @throws IommufdError ENOMEM when there is no user memory for the scratch area
   */
  static of(machine: Machine, iommufd: IommufdFd): LocalTransport {
    const { core, memory, user, config } = machine;
    return new LocalTransport({
      memory,
      user,
      iommufd,
      viommus: config.iommus.length,
      files: {
        read: (fd, maxBytes) => core.own.files.get(fd)?.read?.(maxBytes) ?? -EBADF,
        write: (fd, bytes) => core.own.files.get(fd)?.write?.(bytes) ?? -EBADF,
        close: (fd) => void core.own.files.close(fd),
      },
      openVfio: (deviceIndex) => {
        const device = config.devices[deviceIndex];
        return device === undefined ? null : core.openVfio(machine.device(device.label));
      },
    });
  }

  /** Closes what is still open and returns the scratch memory; the iommufd is the caller's. */
  dispose(): void {
    for (const device of this.#open.values()) device.close();
    this.#open.clear();
    this.user.free(this.scratch.va, this.scratch.bytes);
  }
}
