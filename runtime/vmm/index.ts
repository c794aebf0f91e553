/**
 * Public entry point `iommufd/vmm`: what a VMM is made of. A Vm holds an iommufd, guest RAM and virtual SMMUs;
 * a GuestDriver is the guest kernel's side. A VMM with a way of its own to the kernel implements VmmTransport.
 */
export type { VsmmuStrategy } from './dispatch.js';
export type { GuestAddressSpace } from './guest-address-space.js';
export { GuestDriver, type GuestDriverOptions, type SecondaryQueue } from './guest-driver.js';
export { DEFAULT_IPA_BASE, GuestRam, type GuestRamOptions } from './guest-ram.js';
export { allocGuestTables } from './guest-tables.js';
export { LocalTransport, type LocalTransportOptions } from './local-transport.js';
export { type ScratchArea, scratchBytes, type VmmTransport } from './transport.js';
export { VirtualCmdqv, type VirtualCmdqvOptions } from './virtual-cmdqv.js';
export { type SmmuMmio, type VirtualInterrupt, VirtualSmmu } from './virtual-smmu.js';
export { Vm, type VmOptions } from './vm.js';
export type { VmDevice } from './vm-device.js';
