/**
 * The machines that are measured: one SMMU and one device, which either the host drives (stage 1) or a guest
 * (nested). Built inline; `startWorkers` may move the SMMU to its own thread afterwards.
 */
import { NO_SSID, PortLayout, Xlat } from '../../hw/iotlb/port-layout.js';
import { PROT_READ, PROT_WRITE } from '../../hw/pagetable/aarch64.js';
import { pageTablesLayout } from '../../hw/pagetable/page-table-layout.js';
import type { DmaPort } from '../../hw/pci/dma-port.js';
import type { IommufdFd } from '../../runtime/core/fd.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import { GuestDriver } from '../../runtime/vmm/guest-driver.js';
import { GuestRam } from '../../runtime/vmm/guest-ram.js';
import { LocalTransport } from '../../runtime/vmm/local-transport.js';
import { Vm } from '../../runtime/vmm/vm.js';
import { must } from './rounds.js';

const PAGE = 4096;
const MIB = 2 ** 20;
const DEVICE = '0000:01:00.0';
const GUEST_RAM_BYTES = 32 * MIB;
const GUEST_TABLES = 'bench-guest-tables';
/** Guest pages that IOVAs go round in. */
const GUEST_PAGES = 1024;
/** One off a large page's boundary, so that no run of pages can become a block. */
export const FIRST_PAGE = 0x1_0001;

const config = (memory: string): MachineConfig => ({
  memory,
  iommus: [{ name: 'smmu0', model: 'smmuv3' }],
  devices: [{ bdf: DEVICE, iommu: 'smmu0' }],
});

/** A device and the pages it can reach: `pages` of them from FIRST_PAGE on, 4 KiB each. */
export interface Target {
  readonly machine: Machine;
  readonly port: DmaPort;
  readonly pages: number;
}

export interface HostTarget extends Target {
  readonly fd: IommufdFd;
  readonly ioasId: number;
}

export interface GuestTarget extends Target {
  readonly fd: IommufdFd;
  readonly viommuId: number;
}

/** A device in an IOAS of its own. Each page is a mapping of its own, over the same few frames. */
export function hostTarget(pages: number, memory = '64MiB'): HostTarget {
  const machine = createMachine(config(memory));
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const vfio = machine.openVfio(DEVICE);
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  if (pages > 0) mapPages(machine, fd, ioasId, pages);
  return { machine, port: machine.dmaPort(DEVICE), pages, fd, ioasId };
}

/** Two devices in one IOAS behind one SMMU, inline. */
export function pairOfDevices(pages: number): { machine: Machine; ports: DmaPort[] } {
  const labels = [DEVICE, '0000:02:00.0'];
  const machine = createMachine({
    memory: '64MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: labels.map((bdf) => ({ bdf, iommu: 'smmu0' })),
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  for (const label of labels) {
    const vfio = machine.openVfio(label);
    vfio.bindIommufd(fd);
    vfio.attach(ioasId);
  }
  mapPages(machine, fd, ioasId, pages);
  return { machine, ports: labels.map((label) => machine.dmaPort(label)) };
}

/** A mapping of its own for each page, from FIRST_PAGE on. */
export function mapPages(machine: Machine, fd: IommufdFd, ioasId: number, pages: number): void {
  const userVa = machine.user.alloc(pages * PAGE, { phantom: true });
  for (let i = 0; i < pages; i++) {
    const at = BigInt(i * PAGE);
    fd.ioasMap({ ioasId, userVa: userVa + at, length: PAGE, iova: BigInt(FIRST_PAGE * PAGE) + at });
  }
}

/** A device of a guest: stage 1 in the guest's RAM, which stage 2 maps in the largest pages that fit. */
export function guestTarget(pages: number): GuestTarget {
  let descriptor = 0;
  const machine = createMachine(config('128MiB'), {
    instrument: (memory) => {
      descriptor = memory.allocRegion(pageTablesLayout(1), GUEST_TABLES).base;
      return {};
    },
  });
  const fd = machine.openIommufd();
  const userVa = machine.user.alloc(GUEST_RAM_BYTES, { contiguous: true });
  const ram = new GuestRam(machine.memory, machine.user, { userVa, bytes: GUEST_RAM_BYTES });
  const vm = Vm.create(LocalTransport.of(machine, fd), ram);
  must(typeof vm !== 'number', `a VM: ${vm}`);
  must(vm.attachDevice(0, 1) === 0, 'a device in the VM');
  const mmio = vm.smmus[0]!;
  const driver = new GuestDriver({ ram, mmio, kernel: machine.kernel, descriptors: [descriptor] });
  must(driver.start() === 0, 'the guest starts its SMMU');
  const space = driver.createSpace();
  must(typeof space !== 'number', `a guest address space: ${space}`);
  const data = ram.allocZeroed(GUEST_PAGES, GUEST_PAGES);
  for (let i = 0; i < pages; i += GUEST_PAGES) {
    const n = Math.min(GUEST_PAGES, pages - i);
    must(driver.map(space, FIRST_PAGE + i, data, n, PROT_READ | PROT_WRITE) === 0, 'guest pages');
  }
  must(driver.setupStream(1, space) === 0, 'the stream');
  return { machine, port: machine.dmaPort(DEVICE), pages, fd, viommuId: vm.viommus[0]!.id };
}

/** Puts a read of a page into a batch slot. */
export function prepare(port: DmaPort, slot: number, page: number): void {
  port.prepare(slot, page << 12, page >>> 20, 0, port.streamId, NO_SSID);
}

/** Log2 of the size of the translation behind a page. */
export function leafLg2({ port }: Target, page: number): number {
  prepare(port, 0, page);
  port.translate(1);
  const lg2 = port.status(0) === 0 ? port.field(0, Xlat.at.sizeLg2) : -1;
  port.end();
  return lg2;
}

export type PortCount = 'hitsMicro' | 'hitsIotlb' | 'misses' | 'faults';

/** A counter of the device's port, modulo 2^32. */
export function portCount({ machine }: Target, which: PortCount): number {
  const { memory } = machine;
  return memory.u32[(memory.region(PortLayout, 'port:0').base + PortLayout.at[which]) >>> 2]!;
}
