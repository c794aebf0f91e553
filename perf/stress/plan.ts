/**
 * Who does what in a stress run: which devices belong to guests and which to the host, what traffic each sends,
 * which address spaces they share, and where in them each has its window. Pure: the same options and device
 * count give the same plan.
 */
import { OptionError } from './option-error.js';
import type { Window } from './programs/host-traffic.js';
import type { StressDevice, StressOptions, TrafficKind } from './types.js';

export type HostKind = Exclude<TrafficKind, 'guest'>;

export interface HostPlan {
  readonly device: number;
  readonly kind: HostKind;
  /** Number of the host address space it attaches to; several devices, behind several SMMUs, share one. */
  readonly space: number;
  readonly window: Window;
  /** Always mapped, readable only. */
  readonly readOnlyPage: number;
  /** Never mapped. */
  readonly holePage: number;
}

export interface GuestPlan {
  readonly vm: number;
  /** Devices, behind different SMMUs as far as there are. */
  readonly devices: readonly number[];
}

export interface StressPlan {
  readonly hosts: readonly HostPlan[];
  readonly guests: readonly GuestPlan[];
  readonly spaces: number;
}

const SHAPES: Readonly<Record<HostKind, { slots: number; slotPages: number }>> = {
  nic: { slots: 128, slotPages: 1 },
  nvme: { slots: 24, slotPages: 16 },
  gpu: { slots: 3, slotPages: 512 },
};

/** Host devices that share an address space. */
const SHARERS = 4;
/** Each member of an address space has 4 GiB of IOVA: windows lie past 32 bits, clear of the MSI window. */
const MEMBER_PAGES = 2 ** 20;
const READ_ONLY_BEFORE = 32;
const HOLE_BEFORE = 16;

/** @throws OptionError when devices do not go round */
export function planStress(options: StressOptions, devices: number): StressPlan {
  const { mix, guests } = options;
  const kinds = (['nic', 'nvme', 'gpu'] as const).filter((kind) => mix[kind] > 0);
  const hostWeight = kinds.reduce((sum, kind) => sum + mix[kind], 0);
  const guestWeight = guests > 0 ? mix.guest : 0;
  if (hostWeight + guestWeight === 0) throw new OptionError('mix', 'nothing to do: every weight is 0');
  let guestDevices = 0;
  if (guestWeight > 0) {
    const share = Math.round((devices * guestWeight) / (hostWeight + guestWeight));
    guestDevices = Math.min(Math.max(share, guests), devices - (hostWeight > 0 ? 1 : 0));
    if (guestDevices < guests)
      throw new OptionError(
        'devices',
        `${devices} devices are too few for ${guests} guests and the rest of the mix`,
      );
  }
  // Devices are numbered round the SMMUs, so neighbours are behind different ones.
  const vms: number[][] = Array.from({ length: guestWeight > 0 ? guests : 0 }, () => []);
  const perVm = vms.length > 0 ? guestDevices / vms.length : 0;
  for (let device = 0; device < guestDevices; device++)
    vms[Math.min(Math.floor(device / perVm), vms.length - 1)]!.push(device);

  const hostDevices = devices - guestDevices;
  const spaces = Math.ceil(hostDevices / SHARERS);
  const turns = kinds.flatMap((kind) => Array.from({ length: mix[kind] }, () => kind));
  const hosts = Array.from({ length: hostDevices }, (_, i): HostPlan => {
    // Every kind once before any twice, then by weight.
    const kind = i < kinds.length ? kinds[i]! : turns[(i * 7) % turns.length]!;
    const firstPage = (1 + Math.floor(i / spaces)) * MEMBER_PAGES;
    return {
      device: guestDevices + i,
      kind,
      space: i % spaces,
      window: { firstPage, ...SHAPES[kind] },
      readOnlyPage: firstPage - READ_ONLY_BEFORE,
      holePage: firstPage - HOLE_BEFORE,
    };
  });
  return { hosts, guests: vms.map((list, vm) => ({ vm, devices: list })), spaces };
}

/** Who has each of the machine's devices, for a report. */
export function devicesOf(
  plan: StressPlan,
  devices: readonly {
    readonly label: string;
    readonly iommuIndex: number;
    readonly sid: number;
    readonly ats: boolean;
  }[],
): StressDevice[] {
  return devices.map(({ label, iommuIndex, sid, ats }, index) => {
    const host = plan.hosts.find(({ device }) => device === index);
    const guest = plan.guests.find(({ devices: own }) => own.includes(index));
    return {
      label,
      iommu: iommuIndex,
      streamId: sid,
      kind: host?.kind ?? 'guest',
      guest: guest?.vm ?? null,
      space: host?.space ?? null,
      ats,
    };
  });
}

/** RAM of one guest. */
export const GUEST_RAM_BYTES = 8 * 2 ** 20;
/** Tables and queues of an SMMU, page tables of what is behind it; and what alignment may waste. */
const BYTES_PER_SMMU = 2 ** 20;
const ALIGNMENT_SLACK = 1.25;

/** A plan's memory, on the safe side: what a machine should have at least. */
export function memoryNeeded(plan: StressPlan, iommus: number): number {
  const windows = plan.hosts.reduce((sum, { window }) => sum + window.slots * window.slotPages * 4096, 0);
  return (windows + plan.guests.length * GUEST_RAM_BYTES) * ALIGNMENT_SLACK + iommus * BYTES_PER_SMMU;
}
