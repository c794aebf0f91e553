/**
 * A run's timelines (hw/timeline): which tracks there are, what the programs on them record, and how much is kept.
 *
 *   core            ioctls           smmu:N      batches walked, commands, SYNCs (hw/smmuv3/trace.ts)
 *   device:N        DMA batches      guest:N     map, unmap with its invalidation, balloon
 */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { Timeline } from '../../hw/timeline/timeline.js';
import { smmuTrack, TIMELINE_FIRST_FREE } from '../../hw/timeline/timeline-layout.js';
import type { Machine } from '../../runtime/machine.js';
import type { ExposedFd, ExposedVfio } from '../../workers/core-targets.js';

/** Args: transactions, translated, faulted, misses, SID. */
export const TIMELINE_DMA = TIMELINE_FIRST_FREE;
/** Args: command, 1 for VFIO, result as i32, file or device. */
export const TIMELINE_IOCTL = TIMELINE_FIRST_FREE + 1;
/** Args: device, first page, pages. */
export const TIMELINE_GUEST_MAP = TIMELINE_FIRST_FREE + 2;
export const TIMELINE_GUEST_UNMAP = TIMELINE_FIRST_FREE + 3;
/** Args: slice of guest RAM. */
export const TIMELINE_GUEST_BALLOON = TIMELINE_FIRST_FREE + 4;

export const CORE_TRACK = 'core';
export const deviceTrack = (device: number): string => `device:${device}`;
export const guestTrack = (vm: number): string => `guest:${vm}`;

/** Events that each thread's ring keeps, where there are few threads; and what all rings may take. */
const EVENTS = 2 ** 16;
const MAX_BYTES = 192 * 2 ** 20;
const MIN_EVENTS = 1024;

export interface TimelinePlan {
  readonly tracks: readonly string[];
  /** Kept of each track. */
  readonly events: number;
  readonly bytes: number;
}

export function planTimelines(iommus: number, devices: number, guests: number): TimelinePlan {
  const numbered = (count: number, name: (n: number) => string) =>
    Array.from({ length: count }, (_, n) => name(n));
  const tracks = [
    CORE_TRACK,
    ...numbered(iommus, smmuTrack),
    ...numbered(devices, deviceTrack),
    ...numbered(guests, guestTrack),
  ];
  let events = EVENTS;
  while (events > MIN_EVENTS && Timeline.bytesNeeded(tracks.length, events) > MAX_BYTES) events /= 2;
  return { tracks, events, bytes: Timeline.bytesNeeded(tracks.length, events) };
}

export function allocTimelines(memory: MachineMemory, plan: TimelinePlan): void {
  Timeline.allocRegions(memory, plan.tracks, plan.events);
}

/** The files of a machine as workers are to see them: with a record of each call, when it has timelines. */
export function timedTarget(machine: Machine, target: ExposedFd | ExposedVfio): ExposedFd | ExposedVfio {
  const timeline = Timeline.attach(machine.memory, CORE_TRACK, machine.env.clock);
  if (timeline === null) return target;
  const timed = (vfio: number, index: number) => (cmd: number, bytes: Uint8Array) => {
    const began = timeline.nowNs();
    const result = target.ioctl(cmd, bytes);
    timeline.record(TIMELINE_IOCTL, began, cmd, vfio, result, index);
    return result;
  };
  if ('host' in target)
    return { host: target.host, ioctl: timed(1, target.host.index), close: () => target.close() };
  return { index: target.index, fd: target.fd, ioctl: timed(0, target.index) };
}
