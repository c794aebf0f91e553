/**
 * A device that a guest drives: its stage 1 is the guest's, its stage 2 the VM's. It sends DMA at pages that
 * the guest maps and unmaps all the time, and that the host takes away and gives back underneath; each may be
 * translated or fault, but never reach what was taken away.
 */
import { rest } from '../../../hw/sync/wait.js';
import type { ProgramContext } from '../../../workers/program.js';
import { Shadow } from '../checker/shadow.js';
import { Random } from '../random.js';
import {
  DeviceStats,
  GuestStats,
  MAX_GUEST_SLOTS,
  SLOT_MAPPED,
  SLOT_UNMAPPED,
  StressLayout,
} from '../stress-layout.js';
import { DmaBatch, EXPECT_EITHER, EXPECT_OK } from './dma-batch.js';
import { Hostile } from './hostile.js';
import { Pace } from './pace.js';

export interface NestedTrafficArgs {
  /** Index in the machine. */
  readonly device: number;
  readonly vm: number;
  /** First guest page of the slots, one page each. */
  readonly firstPage: number;
  readonly slots: number;
  /** Guest pages that stay: one for reading and writing, one for reading only, one never mapped. */
  readonly steadyPage: number;
  readonly readOnlyPage: number;
  readonly holePage: number;
  readonly badSid: number;
  readonly hostilePercent: number;
  /** Share of the time to work, 0..1. */
  readonly duty: number;
}

const GUEST_POLL_MS = 2;

export function nestedTraffic(context: ProgramContext, args: NestedTrafficArgs): void {
  const { thread } = context;
  const port = context.port!;
  const { memory, env } = thread;
  const random = new Random(context.seed);
  const base = memory.region(StressLayout, 'stress').base;
  const stats = base + StressLayout.at.devices + args.device * DeviceStats.size;
  const guest = base + StressLayout.at.guests + args.vm * GuestStats.size;
  const { words } = memory;
  const shadow = new Shadow(memory);
  const slotAt = base + StressLayout.at.slots + args.device * MAX_GUEST_SLOTS;
  const hostile = new Hostile(memory, port, shadow, random, args, stats);
  const pace = new Pace(env, random, args.duty);

  let batch = new DmaBatch(
    thread.env,
    memory,
    port,
    shadow,
    random,
    { device: args.device, owner: 0, vm: args.vm },
    stats,
  );

  /**
   * Waits until the guest is up, then holds it there until pause(): the guest clears `ready` first and looks at
   * `active` second, we the other way round, so one of us sees the other. @returns false when it is time to stop
   */
  const resume = (): boolean => {
    let waited = false;
    for (;;) {
      words.store(stats + DeviceStats.at.active, 1);
      if (words.load(guest + GuestStats.at.ready) === 1) break;
      pause();
      if (context.stopRequested()) return false;
      rest(env, GUEST_POLL_MS);
      waited = true;
    }
    if (waited || owner === 0) {
      owner = words.load(guest + GuestStats.at.ioasId);
      batch = new DmaBatch(
        thread.env,
        memory,
        port,
        shadow,
        random,
        { device: args.device, owner, vm: args.vm },
        stats,
      );
    }
    return true;
  };
  const pause = (): void => words.store(stats + DeviceStats.at.active, 0);
  let owner = 0;

  while (!context.stopRequested()) {
    if (!resume()) break;
    while (!batch.full) {
      if (random.chance(args.hostilePercent)) {
        hostile.add(batch);
        continue;
      }
      const write = random.chance(50);
      if (random.chance(3)) {
        batch.add(args.steadyPage, write, EXPECT_OK);
        continue;
      }
      const slot = random.below(args.slots);
      const state = memory.u8[slotAt + slot];
      // An unmapped slot costs an event each time, so it is tried only now and then.
      const odds = state === SLOT_MAPPED ? 100 : state === SLOT_UNMAPPED ? args.hostilePercent : 30;
      if (random.chance(odds)) batch.add(args.firstPage + slot, write, EXPECT_EITHER);
    }
    batch.run();
    pause();
    if (memory.u32[stats >> 2] === 0) memory.words.store(stats + DeviceStats.at.running, 1);
    pace.breathe();
  }
  memory.words.store(stats + DeviceStats.at.running, 2);
}
