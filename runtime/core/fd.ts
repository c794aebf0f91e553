/**
 * An open `/dev/iommu`, as a program sees it: `ioctl` with raw struct bytes, and typed calls that sit on it,
 * one file of `calls/` for each kind of object.
 *
 * A typed call builds the struct, calls `ioctl`, and turns -errno into an IommufdError that names the field at
 * fault where the arguments prove it. Arrays and vendor data go through a scratch buffer in user memory,
 * because the ioctls take user addresses.
 *
 * `close()` drops this reference, as close(2) does: bound VFIO devices and open event queues hold the file as
 * well, and the objects go when the last of them goes.
 */
import { EBUSY } from '../../uapi/abi/errno.js';
import { Destroy, IOMMU_DESTROY } from '../../uapi/iommufd/destroy.js';
import { FaultCalls } from './calls/fault-calls.js';

export type { AccessRwOptions, AccessUser } from './calls/access-calls.js';
export type { FaultQueue } from './calls/fault-calls.js';
export type { MapFileOptions } from './calls/file-calls.js';
export type { HwptAllocOptions, InvalidateOptions } from './calls/hwpt-calls.js';
export type { CopyOptions, MapOptions } from './calls/ioas-calls.js';
export type { IommufdMapping, Veventq } from './calls/viommu-calls.js';

/** Made by `IommufdCore.open`. */
export class IommufdFd extends FaultCalls {
  destroy(id: number): void {
    this.call(IOMMU_DESTROY, Destroy, { id }, (errno) =>
      errno === EBUSY ? { detail: 'something still uses it' } : {},
    );
  }
}
