/** In-kernel users of an IOAS, as an embedder makes them: Linux's iommufd_access_* for drivers of emulated devices. */
import { requireAddress, requireBytes } from '../../../hw/memory/bytes-argument.js';
import { EBUSY, EINVAL } from '../../../uapi/abi/errno.js';
import { IommufdError } from '../../../uapi/abi/iommufd-error.js';
import { ACCESS_RW_SLOW_PATH, ACCESS_RW_WRITE } from '../../iova/pages.js';
import { Access, type AccessOps } from '../../objects/access.js';
import { type ByteSize, byteSize } from '../byte-size.js';
import { checkKeys } from '../call-check.js';
import { ViommuCalls } from './viommu-calls.js';

export interface AccessRwOptions {
  /** By frames, as a device would see them, even where a copy through user addresses would do. */
  readonly slowPath?: boolean;
}

const OPS_KEYS = ['needsPinPages', 'unmap'];
const RW_KEYS = ['slowPath'];

/** An access that this program holds. Every call throws an IommufdError; `Access` says which errno means what. */
export class AccessUser {
  readonly access: Access;

  /** Made by `IommufdFd.createAccess`. */
  constructor(access: Access) {
    this.access = access;
  }

  get accessId(): number {
    return this.access.id;
  }

  attach(ioasId: number): void {
    check('attach', this.access.attach(ioasId));
  }

  /** Move to another IOAS; `unmap` is told to let go of everything. */
  replace(ioasId: number): void {
    check('replace', this.access.replace(ioasId));
  }

  detach(): void {
    this.access.detach();
  }

  /**
   * @param iova  a multiple of 4 KiB
   * @param options.writable  they will be written to
   * @returns the frame of each page
   */
  pinPages(iova: bigint, length: ByteSize, { writable = false } = {}): number[] {
    requireAddress(iova, 'iova');
    const frames: number[] = [];
    const flags = writable ? ACCESS_RW_WRITE : 0;
    check('pin_pages', this.access.pinPages(iova, byteSize(length, 'length'), frames, flags));
    return frames;
  }

  /** Undo pinPages() of exactly this range. @throws IommufdError EINVAL it is not pinned so */
  unpinPages(iova: bigint, length: ByteSize): void {
    requireAddress(iova, 'iova');
    check('unpin_pages', this.access.unpinPages(iova, byteSize(length, 'length')));
  }

  /** Copy what is mapped at `iova` into `into`. */
  read(iova: bigint, into: Uint8Array, options: AccessRwOptions = {}): void {
    this.#rw(iova, into, 0, options);
  }

  /** Copy `from` to what is mapped at `iova`. */
  write(iova: bigint, from: Uint8Array, options: AccessRwOptions = {}): void {
    this.#rw(iova, from, ACCESS_RW_WRITE, options);
  }

  /** @throws IommufdError EBUSY from within its own `unmap` */
  destroy(): void {
    const status = this.access.destroyAccess();
    if (status === -EBUSY) throw new IommufdError(EBUSY, 'iommufd_access_destroy', { detail: 'in use' });
  }

  #rw(iova: bigint, data: Uint8Array, flags: number, options: AccessRwOptions): void {
    checkKeys('rw', options, RW_KEYS);
    requireAddress(iova, 'iova');
    requireBytes(data, 'data');
    check('rw', this.access.rw(iova, data, flags | (options.slowPath ? ACCESS_RW_SLOW_PATH : 0)));
  }
}

function check(call: string, status: number): void {
  if (status < 0) throw new IommufdError(-status, `iommufd_access_${call}`);
}

export abstract class AccessCalls extends ViommuCalls {
  /**
   * An in-kernel user of this iommufd, attached to nothing yet. It holds the iommufd open until it is destroyed.
   * @param ops  with `unmap`, it may pin pages
   * @throws IommufdError ENOMEM | TypeError
   */
  createAccess(ops: AccessOps = {}): AccessUser {
    checkKeys('createAccess', ops, OPS_KEYS);
    if (ops.unmap !== undefined && typeof ops.unmap !== 'function')
      throw new IommufdError(EINVAL, 'iommufd_access_create', {
        field: 'unmap',
        detail: 'must be a function',
      });
    const access = Access.create(this.ctx, ops);
    if (typeof access === 'number') throw new IommufdError(-access, 'iommufd_access_create');
    return new AccessUser(access);
  }
}
