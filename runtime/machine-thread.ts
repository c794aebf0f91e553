/**
 * One thread's view of a machine, of the whole of it: the hardware, user memory, and a guest's invalidations,
 * which do not travel to the core.
 */
import { DmaPort } from '../hw/pci/dma-port.js';
import { SharedIommufd } from './core/shared-ioctl.js';
import { DRIVER_NAME } from './drivers/smmuv3/driver-layout.js';
import { Smmuv3Invalidator } from './drivers/smmuv3/invalidate.js';
import { type AttachOptions, HardwareThread, type MachineHandle } from './hardware-thread.js';
import { invalidatorOptionsOf, portKey } from './machine-hardware.js';
import { UserMemory } from './user-memory.js';

export type { AttachOptions, MachineHandle };

export class MachineThread extends HardwareThread {
  /** Translation and copying only: allocation belongs to the core. */
  readonly user: UserMemory;
  readonly #shared = new Map<number, SharedIommufd>();

  private constructor(handle: MachineHandle, options: AttachOptions) {
    super(handle, options);
    this.user = new UserMemory(this.memory, this.env, null);
  }

  static attach(handle: MachineHandle, options: AttachOptions = {}): MachineThread {
    return new MachineThread(handle, options);
  }

  /** The DMA engine of a device, by its index in the configuration. One thread drives a device at a time. */
  dmaPort(device: number): DmaPort {
    const found = this.config.devices[device];
    if (found === undefined) throw new RangeError(`there is no device number ${device}`);
    return new DmaPort(this.env, this.memory, this.kernel, found.label, portKey(device));
  }

  /** IOMMU_HWPT_INVALIDATE on this thread, for the iommufd with that index. */
  shared(fdIndex: number): SharedIommufd {
    let shared = this.#shared.get(fdIndex);
    if (shared === undefined) {
      const invalidator = new Smmuv3Invalidator(this.memory, this.env, invalidatorOptionsOf(this.config));
      shared = new SharedIommufd(
        this.env,
        this.memory,
        this.user,
        fdIndex,
        new Map([[DRIVER_NAME, invalidator]]),
        this.config.compat,
      );
      this.#shared.set(fdIndex, shared);
    }
    return shared;
  }
}
