/**
 * A host device's driver and engine in one task: it maps and unmaps its buffers by ioctl, without waiting, and
 * meanwhile sends DMA at all of them, those being unmapped included, as a device does that has not yet heard.
 *
 *   nic   one-page buffers in a ring: map, DMA, unmap for each
 *   nvme  scatter lists of many pages, live for some time
 *   gpu   a few large mappings, random access, rarely remapped
 *
 * Buffer states: unmapped -> mapping (ticket out) -> mapped -> unmapping (ticket out) -> unmapped. In the two
 * settled states the outcome of a DMA is certain; in the two others it may be either, but never stale.
 */

import { XLAT_ABORT } from '../../../hw/iotlb/port-layout.js';
import { F_TRANSLATION } from '../../../hw/smmuv3/event.js';
import { rest } from '../../../hw/sync/wait.js';
import { ENOMEM } from '../../../uapi/abi/errno.js';
import {
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  IoasMap,
  IoasUnmap,
} from '../../../uapi/iommufd/ioas.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VfioDeviceAttachIommufdPt,
  VfioDeviceDetachIommufdPt,
} from '../../../uapi/vfio/cdev.js';
import type { ProgramContext } from '../../../workers/program.js';
import { iommufdTarget, vfioTarget } from '../../../workers/protocol/mailbox-layout.js';
import { Shadow } from '../checker/shadow.js';
import { bump } from '../counters.js';
import { Random } from '../random.js';
import { DeviceStats, StressLayout } from '../stress-layout.js';
import { DmaBatch, EXPECT_EITHER, EXPECT_OK } from './dma-batch.js';
import { Hostile } from './hostile.js';
import { Pace } from './pace.js';

/** A window of an address space: `slots` buffers of `slotPages` pages. */
export interface Window {
  readonly firstPage: number;
  readonly slots: number;
  readonly slotPages: number;
}

export interface HostTrafficArgs {
  readonly kind: 'nic' | 'nvme' | 'gpu';
  /** Index in the machine. */
  readonly device: number;
  readonly fdIndex: number;
  readonly ioasId: number;
  readonly window: Window;
  /** User virtual page behind the window's first page; the others follow. */
  readonly userPage: number;
  /** Windows of the other devices in this address space: fair game for DMA, outcome unknown. */
  readonly neighbours: readonly Window[];
  /** A page that is always mapped, and only readable. */
  readonly readOnlyPage: number;
  /** A page that is never mapped. */
  readonly holePage: number;
  readonly badSid: number;
  readonly hostilePercent: number;
  /** Share of the time to work, 0..1. */
  readonly duty: number;
}

const DRAIN_REST_MS = 0.5;
/** A device leaves its address space and comes back every half to three seconds. */
const REATTACH_MIN_NS = 0.5e9;
const REATTACH_SPREAD_NS = 2.5e9;
const DETACHED_DMAS = 16;
/** DMA at the windows of others, of which some is unmapped and so faults. */
const NEIGHBOUR_PERCENT = 5;

const UNMAPPED = 0;
const MAPPING = 1;
const MAPPED = 2;
const UNMAPPING = 3;

/** Ioctls a device keeps in the air, and how many of its buffers it likes to have mapped. */
const STYLE = {
  nic: { inFlight: 8, mappedPercent: 80, writePercent: 60, remapPercent: 100 },
  nvme: { inFlight: 4, mappedPercent: 75, writePercent: 50, remapPercent: 60 },
  gpu: { inFlight: 1, mappedPercent: 90, writePercent: 30, remapPercent: 3 },
} as const;

interface Pending {
  readonly ticket: number;
  readonly slot: number;
}

/** The buffers that are mapped before traffic begins: four in five. */
export const mappedAtStart = (slot: number): boolean => slot % 5 !== 4;

export function hostTraffic(context: ProgramContext, args: HostTrafficArgs): void {
  const { thread, mailbox } = context;
  const port = context.port!;
  const { memory } = thread;
  const random = new Random(context.seed);
  const shadow = new Shadow(memory);
  const stats =
    memory.region(StressLayout, 'stress').base + StressLayout.at.devices + args.device * DeviceStats.size;
  const batch = new DmaBatch(
    thread.env,
    memory,
    port,
    shadow,
    random,
    { device: args.device, owner: args.ioasId, vm: -1 },
    stats,
  );
  const hostile = new Hostile(memory, port, shadow, random, args, stats);
  const style = STYLE[args.kind];
  const { window } = args;
  const state = new Uint8Array(window.slots);
  const pending: Pending[] = [];
  const target = iommufdTarget(args.fdIndex);
  const bytes = new Uint8Array(64);
  const pace = new Pace(thread.env, random, args.duty);
  for (let slot = 0; slot < window.slots; slot++) if (mappedAtStart(slot)) state[slot] = MAPPED;
  let mapped = state.reduce((sum, one) => sum + (one === MAPPED ? 1 : 0), 0);
  let cursor = 0;

  const post = (slot: number): boolean => {
    const iova = BigInt(window.firstPage + slot * window.slotPages) << 12n;
    const length = BigInt(window.slotPages) << 12n;
    const map = state[slot] === UNMAPPED;
    if (map)
      IoasMap.encode(
        {
          size: IoasMap.size,
          flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
          ioasId: args.ioasId,
          reserved: 0,
          userVa: BigInt(args.userPage + slot * window.slotPages) << 12n,
          length,
          iova,
        },
        bytes,
      );
    else IoasUnmap.encode({ size: IoasUnmap.size, ioasId: args.ioasId, iova, length }, bytes);
    const ticket = map
      ? mailbox.post(target, IOMMU_IOAS_MAP, bytes.subarray(0, IoasMap.size))
      : mailbox.post(target, IOMMU_IOAS_UNMAP, bytes.subarray(0, IoasUnmap.size));
    if (ticket < 0) return false;
    state[slot] = map ? MAPPING : UNMAPPING;
    if (!map) mapped--;
    pending.push({ ticket, slot });
    return true;
  };

  const reap = (): void => {
    for (let i = pending.length - 1; i >= 0; i--) {
      const { ticket, slot } = pending[i]!;
      if (!mailbox.done(ticket)) continue;
      const result = mailbox.take(ticket, bytes);
      pending.splice(i, 1);
      const mapping = state[slot] === MAPPING;
      if (result < 0 && !(mapping && result === -ENOMEM))
        throw new Error(
          `${port.name}: ${mapping ? 'IOAS_MAP' : 'IOAS_UNMAP'} of slot ${slot} gave ${result}`,
        );
      if (result < 0) bump(memory, stats + DeviceStats.at.refused);
      else bump(memory, stats + (mapping ? DeviceStats.at.maps : DeviceStats.at.unmaps));
      state[slot] = mapping && result === 0 ? MAPPED : UNMAPPED;
      if (state[slot] === MAPPED) mapped++;
    }
  };

  /** Starts ioctls until enough are in the air, keeping the share of mapped buffers about where it should be. */
  const churn = (): void => {
    for (let tries = 0; tries < 16 && pending.length < style.inFlight; tries++) {
      cursor = args.kind === 'nic' ? (cursor + 1) % window.slots : random.below(window.slots);
      const slot = cursor;
      const wantMap = mapped * 100 < style.mappedPercent * window.slots;
      if (state[slot] === UNMAPPED && wantMap) {
        if (!post(slot)) return;
      } else if (state[slot] === MAPPED && !wantMap && random.chance(style.remapPercent) && !post(slot))
        return;
    }
  };

  const fill = (): void => {
    while (!batch.full) {
      if (random.chance(args.hostilePercent)) {
        hostile.add(batch);
        continue;
      }
      const neighbour = args.neighbours.length > 0 && random.chance(NEIGHBOUR_PERCENT);
      const where = neighbour ? args.neighbours[random.below(args.neighbours.length)]! : window;
      const slot = random.below(where.slots);
      const write = random.chance(style.writePercent);
      const page = where.firstPage + slot * where.slotPages + random.below(where.slotPages);
      if (neighbour) batch.add(page, write, EXPECT_EITHER);
      else if (state[slot] === MAPPED) batch.add(page, write, EXPECT_OK);
      else if (state[slot] !== UNMAPPED) batch.add(page, write, EXPECT_EITHER);
      // Certain to fault, so an event each: only as often as a hostile one.
      else if (random.chance(args.hostilePercent)) batch.add(page, write, F_TRANSLATION);
    }
  };

  /** Off the address space and on again: in between every DMA is aborted, and the ASID goes back and comes anew. */
  const reattach = (): void => {
    const device = vfioTarget(args.device);
    VfioDeviceDetachIommufdPt.encode({ argsz: VfioDeviceDetachIommufdPt.size, flags: 0, pasid: 0 }, bytes);
    const detached = mailbox.call(
      device,
      VFIO_DEVICE_DETACH_IOMMUFD_PT,
      bytes.subarray(0, VfioDeviceDetachIommufdPt.size),
    );
    if (detached < 0) throw new Error(`${port.name}: detach gave ${detached}`);
    for (let i = 0; i < DETACHED_DMAS; i++)
      batch.add(
        window.firstPage + random.below(window.slots * window.slotPages),
        random.chance(50),
        XLAT_ABORT,
      );
    batch.run();
    const attach = { argsz: VfioDeviceAttachIommufdPt.size, flags: 0, ptId: args.ioasId, pasid: 0 };
    VfioDeviceAttachIommufdPt.encode(attach, bytes);
    const attached = mailbox.call(
      device,
      VFIO_DEVICE_ATTACH_IOMMUFD_PT,
      bytes.subarray(0, VfioDeviceAttachIommufdPt.size),
    );
    if (attached < 0) throw new Error(`${port.name}: attach gave ${attached}`);
    bump(memory, stats + DeviceStats.at.reattaches);
  };
  const nextReattach = (): number =>
    thread.env.clock.nowNs() + REATTACH_MIN_NS + random.next() * (REATTACH_SPREAD_NS / 2 ** 32);
  let reattachAt = nextReattach();

  while (!context.stopRequested()) {
    reap();
    if (thread.env.clock.nowNs() >= reattachAt) {
      reattach();
      reattachAt = nextReattach();
    }
    churn();
    fill();
    batch.run();
    if (memory.u32[stats >> 2] === 0) memory.words.store(stats + DeviceStats.at.running, 1);
    pace.breathe();
  }
  // Leave nothing in the air: the core is still serving.
  while (pending.length > 0) {
    reap();
    rest(thread.env, DRAIN_REST_MS);
  }
  memory.words.store(stats + DeviceStats.at.running, 2);
}
