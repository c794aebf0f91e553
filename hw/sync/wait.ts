/**
 * The one way to wait: spin a bounded time, then park in slices, until a condition holds, a deadline on the
 * monotonic clock passes, or a thread it depends on is dead.
 *
 * Parking is sliced so that a death (which the supervisor marks, but which wakes nobody by itself) is seen
 * within one slice. A thread whose machine is hosted inline steps the models through `relax` and never
 * parks: the work it waits for is its own.
 */
import type { SyncEnv } from './thread.js';

/** Spinning about 20 us before parking keeps a busy round trip at half a microsecond. */
const SPIN_NS = 20_000;
const SPINS_PER_CLOCK_READ = 64;
const PARK_SLICE_MS = 20;

export const ETIMEDOUT = 110;
export const EOWNERDEAD = 130;

/** No deadline: for waits that only an owner's death may end. */
export const NEVER = Number.POSITIVE_INFINITY;

/**
 * Wait until `ready()` holds. It is not called again once it answered true, so it may take what it waits for.
 * @param word        byte offset of the word whose change (and notify) may make it ready
 * @param owner       thread id the wait depends on, read anew each time; 0 when nobody in particular
 * @param deadlineNs  on env.clock
 * @param announce    called with 1 before parking and -1 after, so that the waker knows to notify
 * @param napMs       longest sleep, for a waker that never notifies
 * @param blocks      whether ready() cannot hold at this value of the word. Needed when the word comes back to values
 *                    at which it can: between reading one and ready() it may have been taken and given up again, by
 *                    a waker that found nobody asleep. The sleep is then only ever on a value that blocks.
 * @returns 0 | -ETIMEDOUT | -EOWNERDEAD
 */
export function waitUntil(
  env: SyncEnv,
  word: number,
  ready: () => boolean,
  deadlineNs: number,
  owner?: () => number,
  announce?: (delta: 1 | -1) => void,
  napMs?: number,
  blocks?: (seen: number) => boolean,
): number {
  const { words, clock, threads } = env;
  const looks = env.spin === false ? 1 : SPINS_PER_CLOCK_READ;
  const spinNs = env.spin === false ? 0 : (env.spinNs ?? SPIN_NS);
  const sliceMs = napMs ?? env.parkSliceMs ?? PARK_SLICE_MS;
  let spins = 0;
  let spinUntil = -1;
  for (;;) {
    if (ready()) return 0;
    const moved = env.relax?.() ?? false;
    if (++spins % looks !== 0) continue;
    const now = clock.nowNs();
    if (now >= deadlineNs) return -ETIMEDOUT;
    const holder = owner === undefined ? 0 : owner();
    if (holder !== 0 && threads.isDead(holder)) return ready() ? 0 : -EOWNERDEAD;
    if (spinUntil < 0) spinUntil = now + spinNs;
    if (moved || now < spinUntil || !env.canPark) continue;
    announce?.(1);
    // The value is read after the announcement: a waker that changes the word from here on sees it.
    const seen = words.load(word);
    const done = ready();
    if (!done && (blocks === undefined || blocks(seen)))
      words.wait(word, seen, Math.min(sliceMs, (deadlineNs - now) / 1e6), napMs !== undefined);
    announce?.(-1);
    if (done) return 0;
  }
}

/** Parks for a while, waiting for nothing. A thread that may not park returns at once. */
export function rest(env: SyncEnv, ms: number): void {
  if (env.canPark) env.words.wait(env.threads.still, 0, ms);
}
