/** Public entry point `iommufd/uapi`: the ABI of Linux 7.0's iommufd, without any behaviour. */

export * from './abi/errno.js';
export * from './abi/ioctl.js';
export * from './abi/iommufd-error.js';
export * from './abi/struct.js';
export * from './drivers/amd.js';
export * from './drivers/smmuv3.js';
export * from './drivers/tegra241.js';
export * from './drivers/vtd.js';
export * from './iommufd/destroy.js';
export * from './iommufd/fault.js';
export * from './iommufd/hw-info.js';
export * from './iommufd/hw-queue.js';
export * from './iommufd/hwpt.js';
export * from './iommufd/hwpt-dirty.js';
export * from './iommufd/hwpt-invalidate.js';
export * from './iommufd/ioas.js';
export * from './iommufd/ioctl-table.js';
export * from './iommufd/option.js';
export * from './iommufd/vdevice.js';
export * from './iommufd/veventq.js';
export * from './iommufd/vfio-ioas.js';
export * from './iommufd/viommu.js';
export * from './vfio/cdev.js';
export * from './vfio/container.js';
