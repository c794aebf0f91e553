/** IOMMU_DESTROY: the one way to give up any object by ID. Linux 7.0. */

import { _IO } from '../abi/ioctl.js';
import { struct, type TypeOf } from '../abi/struct.js';

export const IOMMU_DESTROY = _IO(';', 0x80);

/**
 * Destroys the object with ID `id`, of whatever type user space may destroy.
 * @returns 0 | -ENOENT no such object | -EBUSY another object or an attached device holds it
 * @source include/uapi/linux/iommufd.h struct iommu_destroy
 */
export const Destroy = struct('iommu_destroy', { size: 'u32', id: 'u32' }, { size: 8, last: 'id' });
export type Destroy = TypeOf<typeof Destroy>;
