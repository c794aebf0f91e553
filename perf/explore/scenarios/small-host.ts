/** What scenarios over a host's page tables begin with: a machine as small as it can be, files, mapped pages. */
import type { IommufdFd } from '../../../runtime/core/fd.js';
import type { Machine } from '../../../runtime/machine.js';
import type { MachineConfig } from '../../../runtime/machine-schema.js';
import type { VfioDevice } from '../../../runtime/objects/vfio-device.js';
import { PageOwners } from '../monitors/page-owners.js';
import type { ThreadContext } from '../scenario.js';

type IommuConfig = MachineConfig['iommus'][number];
type DeviceConfig = MachineConfig['devices'][number];

export const PAGE_BYTES = 4096;
export const PAGE = 0x1000n;
export const BDFS = ['0000:01:00.0', '0000:01:00.1'] as const;

/** Queues and caches are all zeroed for each schedule: they are of the least size. */
export const smallIommu = (index: number, more: Partial<IommuConfig> = {}): IommuConfig => ({
  name: `smmu${index}`,
  model: 'smmuv3',
  iotlbEntries: 16,
  cmdqLog2: 7,
  evtqLog2: 4,
  sidBits: 16,
  priqLog2: 4,
  ...more,
});

/** @param devices  for each, what it has beyond its address; all behind the first IOMMU */
export const smallMachine = (
  devices: readonly Partial<DeviceConfig>[] = [{}],
  iommu: Partial<IommuConfig> = {},
): MachineConfig => ({
  iommus: [smallIommu(0, iommu)],
  devices: devices.map((more, i) => ({ bdf: BDFS[i]!, iommu: 'smmu0', ...more })),
});

export interface SmallHost {
  readonly machine: Machine;
  readonly fd: IommufdFd;
  readonly ioasId: number;
  readonly owners: PageOwners;
  /** By index of the device. */
  readonly vfios: readonly VfioDevice[];
  readonly devIds: readonly number[];
  /** Maps a new page. @returns its user address and frame */
  map(iova: bigint, owner: number, ioasId?: number): { readonly userVa: bigint; readonly pa: number };
  /** A DMA of a device on this thread, before others take the hardware over: caches what it needs. */
  warm(device: number, iova: bigint): void;
}

/** Fills every free frame with one 64-bit word: what is in a frame before somebody clears it. */
export function litter(machine: Machine, word: bigint): void {
  const { frames, memory } = machine;
  const taken: number[] = [];
  for (let pfn = frames.alloc(); pfn >= 0; pfn = frames.alloc()) taken.push(pfn);
  for (const pfn of taken) {
    const linear = memory.linearOf(pfn * PAGE_BYTES, PAGE_BYTES);
    memory.i64.fill(word, linear / 8, (linear + PAGE_BYTES) / 8);
    frames.free(pfn, 1);
  }
}

/** Every device is bound, none attached. */
export function smallHost(ctx: ThreadContext, machine: Machine): SmallHost {
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const owners = PageOwners.watch(ctx, machine);
  const vfios = machine.config.devices.map(({ label }) => machine.openVfio(label));
  const devIds = vfios.map((vfio) => vfio.bindIommufd(fd).devId);
  return {
    machine,
    fd,
    ioasId,
    owners,
    vfios,
    devIds,
    map(iova, owner, into = ioasId) {
      const userVa = machine.user.alloc(PAGE);
      fd.ioasMap({ ioasId: into, userVa, length: PAGE, iova });
      const run = { pfn: 0, pages: 0 };
      machine.user.runAt(Number(userVa / PAGE), run);
      const pa = run.pfn * PAGE_BYTES;
      owners.give(pa, owner);
      return { userVa, pa };
    },
    warm(device, iova) {
      const status = machine.dmaPort(machine.config.devices[device]!.label).write(iova, new Uint8Array(4));
      if (status !== 0) throw new Error(`the first DMA of device ${device} ends in ${status}`);
    },
  };
}
