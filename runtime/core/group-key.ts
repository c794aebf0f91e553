/** How groups of devices are named, over all IOMMUs. */
import type { HostDevice } from '../drivers/contract.js';

export const groupKey = (device: HostDevice): string => `${device.iommu.index}:${device.groupId}`;
