/**
 * What tickets reach on the core: the iommufds and VFIO devices that the host exposed, and the files that
 * their ioctls gave out.
 */
import type { IommufdFd } from '../runtime/core/fd.js';
import type { Descriptors, OpenFile } from '../runtime/core/file-table.js';
import type { VfioDevice } from '../runtime/objects/vfio-device.js';
import { EBADF, EINVAL } from '../uapi/abi/errno.js';
import type { MailboxTargets } from './protocol/mailbox-server.js';

/** An open iommufd. */
export type ExposedFd = Pick<IommufdFd, 'index' | 'fd' | 'ioctl'>;

/** An open VFIO device, under its device's index in the machine. */
export type ExposedVfio = Pick<VfioDevice, 'host' | 'ioctl' | 'close'>;

export class CoreTargets implements MailboxTargets {
  readonly #fds = new Map<number, ExposedFd>();
  /** By device index: null once closed through the mailbox. */
  readonly #vfios = new Map<number, ExposedVfio | null>();
  readonly #reopen: (deviceIndex: number) => ExposedVfio;

  readonly #files: Descriptors;

  /** @param reopen  opens the VFIO device of an index again, for a client that comes back after a close */
  constructor(files: Descriptors, reopen: (deviceIndex: number) => ExposedVfio) {
    this.#files = files;
    this.#reopen = reopen;
  }

  add(target: ExposedFd | ExposedVfio): void {
    if ('host' in target) this.#vfios.set(target.host.index, target);
    else this.#fds.set(target.index, target);
  }

  /** @returns the descriptor of an exposed iommufd, or -EBADF */
  fdNumber(fdIndex: number): number {
    return this.#fds.get(fdIndex)?.fd ?? -EBADF;
  }

  iommufd(fdIndex: number, cmd: number, bytes: Uint8Array): number {
    return this.#fds.get(fdIndex)?.ioctl(cmd, bytes) ?? -EBADF;
  }

  vfio(deviceIndex: number, cmd: number, bytes: Uint8Array): number {
    const known = this.#vfios.get(deviceIndex);
    if (known === undefined) return -EBADF;
    const device = known ?? this.#reopen(deviceIndex);
    this.#vfios.set(deviceIndex, device);
    return device.ioctl(cmd, bytes);
  }

  vfioClose(deviceIndex: number): number {
    const device = this.#vfios.get(deviceIndex);
    if (device === undefined || device === null) return -EBADF;
    this.#vfios.set(deviceIndex, null);
    device.close();
    return 0;
  }

  fileRead(fd: number, into: Uint8Array): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -EBADF;
    const data = isQueue(file) ? (file.read?.(into.byteLength) ?? -EINVAL) : -EINVAL;
    if (typeof data === 'number') return data;
    into.set(data);
    return data.byteLength;
  }

  fileWrite(fd: number, bytes: Uint8Array): number {
    const file = this.#files.get(fd);
    if (file === undefined) return -EBADF;
    return isQueue(file) ? (file.write?.(bytes) ?? -EINVAL) : -EINVAL;
  }

  fileClose(fd: number): number {
    const file = this.#files.get(fd);
    return file !== undefined && isQueue(file) ? this.#files.close(fd) : -EBADF;
  }
}

/** What ioctls gave out to be read: an iommufd belongs to whoever opened it. */
const isQueue = ({ kind }: OpenFile): boolean => kind === 'event' || kind === 'fault';
