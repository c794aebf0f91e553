/**
 * Whole machines with VMs on them, on one thread: SMMU models, host driver, iommufd core, VMM library, guest
 * drivers. What a test does: set up streams, map, DMA from the devices, look at guest RAM and events.
 */
import { PAGE_TABLE_BYTES, pageTablesLayout } from '../../hw/pagetable/page-table-layout.js';
import type { IommufdFd } from '../../runtime/core/fd.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import { MachineThread } from '../../runtime/machine-thread.js';
import { GuestDriver, type GuestDriverOptions } from '../../runtime/vmm/guest-driver.js';
import { GuestRam } from '../../runtime/vmm/guest-ram.js';
import { LocalTransport } from '../../runtime/vmm/local-transport.js';
import { Vm, type VmOptions } from '../../runtime/vmm/vm.js';

const GUEST_TABLES = 64;
const TABLES_PER_DRIVER = 4;
const MIB = 2 ** 20;

export interface VmHost {
  readonly vm: Vm;
  readonly ram: GuestRam;
  readonly fd: IommufdFd;
  /** Ends the VM and gives back all that it held. @returns what Vm.destroy said */
  end(): number;
}

export class MachineFixture {
  readonly machine: Machine;
  readonly #tables: number[] = [];

  /** @param deviceIommus  for each device, the number of its SMMU */
  constructor(deviceIommus: readonly number[], config: Partial<MachineConfig> = {}) {
    const count = Math.max(...deviceIommus) + 1;
    let base = 0;
    this.machine = createMachine(
      {
        memory: '64MiB',
        iommus: Array.from({ length: count }, (_, i) => ({ name: `smmu${i}`, model: 'smmuv3' as const })),
        devices: deviceIommus.map((iommu, i) => ({ bdf: `000${iommu}:0${i}:00.0`, iommu: `smmu${iommu}` })),
        ...config,
      },
      {
        instrument: (memory) => {
          base = memory.allocRegion(pageTablesLayout(GUEST_TABLES), 'guest-tables').base;
          return {};
        },
      },
    );
    for (let i = GUEST_TABLES - 1; i >= 0; i--) this.#tables.push(base + i * PAGE_TABLE_BYTES);
  }

  label(device: number): string {
    return this.machine.config.devices[device]!.label;
  }

  /** @param shared  IOMMU_HWPT_INVALIDATE takes the way of a thread that is not the core's */
  vm(options: VmOptions = {}, bytes = 8 * MIB, shared = false): VmHost {
    const { machine } = this;
    const fd = machine.openIommufd();
    const transport = LocalTransport.of(machine, fd);
    if (shared) {
      const thread = MachineThread.attach(machine.handle());
      thread.env.relax = machine.env.relax;
      const invalidator = thread.shared(fd.index);
      transport.invalidate = (bytes) => invalidator.hwptInvalidate(bytes);
    }
    const userVa = machine.user.alloc(bytes, { contiguous: true });
    const ram = new GuestRam(machine.memory, machine.user, { userVa, bytes });
    const vm = Vm.create(transport, ram, options);
    if (typeof vm === 'number') throw new Error(`vm: ${vm}`);
    return {
      vm,
      ram,
      fd,
      end: () => {
        const status = vm.destroy();
        transport.dispose();
        machine.user.free(userVa, bytes);
        return status;
      },
    };
  }

  /** A started driver for the nth virtual SMMU of a VM. */
  driver({ vm, ram }: VmHost, nth = 0, options: Partial<GuestDriverOptions> = {}): GuestDriver {
    const descriptors = this.#tables.splice(-TABLES_PER_DRIVER);
    const { kernel } = this.machine;
    const driver = new GuestDriver({ ram, mmio: vm.smmus[nth]!, kernel, descriptors, ...options });
    const status = driver.start();
    if (status < 0) throw new Error(`guest driver: ${status}`);
    return driver;
  }

  /** DMA write of bytes derived from `seed`. @returns 0 or the fault's number */
  write(device: number, iova: bigint, bytes: number, seed: number): number {
    return this.machine.dmaPort(this.label(device)).write(iova, pattern(bytes, seed));
  }

  /** DMA read. @returns the bytes, or the fault's number */
  read(device: number, iova: bigint, bytes: number): Uint8Array | number {
    const into = new Uint8Array(bytes);
    const status = this.machine.dmaPort(this.label(device)).read(iova, into);
    return status === 0 ? into : status;
  }
}

export function pattern(bytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => (i * 7 + seed * 31 + (i >> 8)) & 0xff);
}
