/**
 * The check that locks are taken in one order. A lock may be given a rank, a number that grows inwards; a
 * thread that waits for a lock may hold only locks of lower rank. Two of one rank have no order between them,
 * so holding both is an inversion as well (ranks need not be whole numbers).
 *
 * Off by default: then a lock pays one branch. A try-lock waits for nobody and so is recorded, not checked.
 */
import { bug } from '../memory/bug.js';
import type { SyncEnv } from './thread.js';

let checking = false;
/** Ranks each thread holds, in the order taken. Keyed by the environment: one thread may host several. */
let held = new WeakMap<SyncEnv, number[]>();

/** Switches the check of this thread on or off, forgetting what is held. */
export function setLockOrderCheck(on: boolean): void {
  checking = on;
  held = new WeakMap();
}

/** Before waiting for a lock: throws when a lock of the same or a higher rank is held. */
export function checkRank(env: SyncEnv, rank: number | undefined): void {
  if (!checking || rank === undefined) return;
  for (const other of held.get(env) ?? [])
    if (other >= rank)
      bug(`lock order: thread ${env.threadId} takes rank ${rank} while it holds rank ${other}`);
}

export function pushRank(env: SyncEnv, rank: number | undefined): void {
  if (!checking || rank === undefined) return;
  const ranks = held.get(env);
  if (ranks === undefined) held.set(env, [rank]);
  else ranks.push(rank);
}

export function popRank(env: SyncEnv, rank: number | undefined): void {
  if (!checking || rank === undefined) return;
  const ranks = held.get(env) ?? [];
  const at = ranks.lastIndexOf(rank);
  if (at >= 0) ranks.splice(at, 1);
}
