/** A VM over the stand-in kernel of vmm-fake-iommufd.ts: guest RAM, a Vm, guest drivers. */
import { Kernel } from '../../hw/kernel/kernel.js';
import { PAGE_TABLE_BYTES, pageTablesLayout } from '../../hw/pagetable/page-table-layout.js';
import { GuestDriver, type GuestDriverOptions } from '../../runtime/vmm/guest-driver.js';
import { GuestRam } from '../../runtime/vmm/guest-ram.js';
import { Vm, type VmOptions } from '../../runtime/vmm/vm.js';
import { FakeIommufd, type FakeOptions } from './vmm-fake-iommufd.js';

export const RAM_BYTES = 8 * 2 ** 20;
export const IPA_BASE = 0x4000_0000;
const TABLES = 64;

export class VmmFixture {
  readonly fake: FakeIommufd;
  readonly kernel: Kernel;
  readonly ram: GuestRam;
  readonly vm: Vm;
  readonly descriptors: readonly number[];

  constructor(fakeOptions: FakeOptions, vmOptions: VmOptions = {}) {
    this.fake = new FakeIommufd(fakeOptions);
    this.kernel = Kernel.load(this.fake.memory);
    const { memory, user } = this.fake;
    const { base } = memory.allocRegion(pageTablesLayout(TABLES), 'guest-tables');
    this.descriptors = Array.from({ length: TABLES }, (_, i) => base + i * PAGE_TABLE_BYTES);
    const userVa = user.alloc(RAM_BYTES, { contiguous: true });
    this.ram = new GuestRam(memory, user, { userVa, bytes: RAM_BYTES });
    const vm = Vm.create(this.fake, this.ram, vmOptions);
    if (typeof vm === 'number') throw new Error(`vm: ${vm}`);
    this.vm = vm;
  }

  /** A started driver for the nth virtual SMMU. */
  driver(nth = 0, options: Partial<GuestDriverOptions> = {}): GuestDriver {
    const mmio = this.vm.smmus[nth]!;
    const descriptors = this.descriptors.slice(nth * 16, nth * 16 + 16);
    const driver = new GuestDriver({ ram: this.ram, mmio, kernel: this.kernel, descriptors, ...options });
    const status = driver.start();
    if (status < 0) throw new Error(`guest driver: ${status}`);
    return driver;
  }

  /** Opcodes of the commands issued to one vIOMMU since the last call, in order. */
  takeOpcodes(viommuId: number): number[] {
    const opcodes = this.fake.issued
      .filter((one) => one.viommuId === viommuId)
      .map((one) => Number(one.command[0] & 0xffn));
    this.fake.issued.splice(
      0,
      this.fake.issued.length,
      ...this.fake.issued.filter((one) => one.viommuId !== viommuId),
    );
    return opcodes;
  }
}

/** Unwraps a value that can be -errno. */
export function ok<T extends object>(value: T | number): T {
  if (typeof value === 'number') throw new Error(`unexpected ${value}`);
  return value;
}
