/**
 * Who goes next, decided in the thread that has the token: by the plan while it lasts, then by a policy whose state
 * lies in the control memory. Strategies write plans and policies; nothing here knows which strategy it is.
 */
import {
  type ControlMemory,
  H,
  POLICY_CONTINUE,
  POLICY_PCT,
  POLICY_RANDOM,
  STATUS_DONE,
  STATUS_PARKED,
  STATUS_POLL,
  STATUS_REST,
  T,
} from './control.js';

/** Threads that could run, as bits. `memory` is the one under test. */
export function enabledThreads(control: ControlMemory, memory: Int32Array): number {
  const { i32 } = control;
  const threads = i32[H.threads]!;
  let enabled = 0;
  for (let t = 0; t < threads; t++) {
    const at = control.thread(t);
    const status = i32[at + T.status]!;
    if (status === STATUS_PARKED || status === STATUS_DONE) continue;
    if (status === STATUS_POLL && memory[i32[at + T.waitOffset]! >>> 2] === i32[at + T.waitValue]) continue;
    if (status === STATUS_REST && i32[H.writes] === i32[at + T.writesSeen]) continue;
    enabled |= 1 << t;
  }
  return enabled;
}

/**
 * Stores that could become visible now, each thread's oldest to each word: their number, and by `pick` the choice
 * that stands for the nth.
 */
export function visibleStores(control: ControlMemory, pick = -1): number {
  const { i32 } = control;
  if (i32[H.buffering] === 0) return 0;
  let found = 0;
  const threads = i32[H.threads]!;
  for (let t = 0; t < threads; t++) {
    const n = i32[control.thread(t) + T.buffered]!;
    for (let entry = 0; entry < n; entry++) {
      const offset = i32[control.bufferEntry(t, entry)];
      let first = true;
      for (let older = 0; older < entry && first; older++)
        first = (i32[control.bufferEntry(t, older)]! & ~7) !== (offset! & ~7);
      if (!first) continue;
      if (found === pick) return flushChoice(t, entry);
      found++;
    }
  }
  return found;
}

export const flushChoice = (thread: number, entry: number): number => thread | ((entry + 1) << 8);

/** In a plan: the nth store that could become visible, for whoever knows how many there are but not which. */
export const NTH_STORE = 1 << 20;

/** For the log: where among the visible stores the chosen one is, and the first of its thread. */
export function storePlaces(control: ControlMemory, choice: number): number {
  let first = -1;
  for (let n = 0; ; n++) {
    const store = visibleStores(control, n);
    if (first < 0 && (store & 255) === (choice & 255)) first = n;
    if (store === choice) return (n << 10) | (first << 20);
  }
}

/** xorshift32 of the control memory. @returns 0..n-1 */
export function randomBelow(control: ControlMemory, n: number): number {
  const { i32 } = control;
  let x = i32[H.random]!;
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  i32[H.random] = x;
  return Math.floor(((x >>> 0) / 2 ** 32) * n);
}

/**
 * @param current  the thread that runs
 * @param enabled  bits, at least one
 * @param stores   how many could become visible
 */
export function choose(control: ControlMemory, current: number, enabled: number, stores: number): number {
  const { i32 } = control;
  const decision = i32[H.decisions]!;
  if (decision < i32[H.planLength]!) {
    const planned = i32[control.plan(decision)]!;
    if (planned >= NTH_STORE && planned - NTH_STORE < stores)
      return visibleStores(control, planned - NTH_STORE);
    if (planned >= 0 && isPossible(control, planned, enabled, stores)) return planned;
    if (planned >= 0 && i32[H.planStrict] !== 0) i32[H.diverged] = 1;
  }
  switch (i32[H.policy]) {
    case POLICY_RANDOM:
      return nth(control, enabled, randomBelow(control, count(enabled) + stores));
    case POLICY_PCT:
      return byPriority(control, current, enabled, stores, decision);
    default:
      return continued(current, enabled);
  }
}

/** POLICY_CONTINUE: whoever runs goes on; when it cannot, the next thread in turn. */
export function continued(current: number, enabled: number): number {
  for (let i = 0; ; i++) {
    const thread = (current + i) % 32;
    if (enabled & (1 << thread)) return thread;
  }
}

function isPossible(control: ControlMemory, choice: number, enabled: number, stores: number): boolean {
  if (choice < 256) return choice < 32 && (enabled & (1 << choice)) !== 0;
  for (let n = 0; n < stores; n++) if (visibleStores(control, n) === choice) return true;
  return false;
}

function nth(control: ControlMemory, enabled: number, n: number): number {
  for (let t = 0; t < 32; t++) if (enabled & (1 << t) && n-- === 0) return t;
  return visibleStores(control, n);
}

/**
 * The enabled thread of highest priority; at the k-th change point, the one that would run falls to priority k.
 * With store buffers, one store in four decisions becomes visible, as nothing else would make them.
 */
function byPriority(
  control: ControlMemory,
  current: number,
  enabled: number,
  stores: number,
  decision: number,
): number {
  const { i32 } = control;
  if (stores > 0 && randomBelow(control, 4) === 0)
    return visibleStores(control, randomBelow(control, stores));
  let best = highest(control, enabled);
  const points = i32[H.changePoints]!;
  for (let k = 0; k < points; k++)
    if (i32[control.plan(k)] === decision) {
      i32[control.thread(best) + T.priority] = -1 - k;
      best = highest(control, enabled);
    }
  return best < 0 ? continued(current, enabled) : best;
}

function highest(control: ControlMemory, enabled: number): number {
  let best = -1;
  for (let t = 0; t < 32; t++) {
    if ((enabled & (1 << t)) === 0) continue;
    if (
      best < 0 ||
      control.i32[control.thread(t) + T.priority]! > control.i32[control.thread(best) + T.priority]!
    )
      best = t;
  }
  return best;
}

export function count(bits: number): number {
  let n = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) n++;
  return n;
}

export { POLICY_CONTINUE, POLICY_PCT, POLICY_RANDOM };
