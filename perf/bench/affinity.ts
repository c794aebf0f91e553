/**
 * Which processor a thread runs on, and for how long it did: Linux's taskset and /proc. Elsewhere nothing can be
 * pinned, and the times are those of the process.
 *
 * A new thread inherits the processors of the one that starts it: let go of a thread before it starts others.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';

const TASKS = '/proc/self/task';
/** Counted now: a thread that is pinned counts one. */
const PROCESSORS = availableParallelism();
const ALL = `0-${PROCESSORS - 1}`;

/** Of the engine: there before anything is measured. */
const engineThreads = new Set(threads());
let works: boolean | undefined;
let me: number | undefined;

/** Whether threads can be pinned here. */
export function canPin(): boolean {
  works ??= currentThread() > 0 && taskset(currentThread(), ALL);
  return works;
}

/** @returns the kernel's id of the calling thread, 0 when there is none to know */
export function currentThread(): number {
  if (me !== undefined) return me;
  try {
    me = Number(/\/task\/(\d+)$/.exec(readlinkSync('/proc/thread-self'))?.[1] ?? 0);
  } catch {
    me = 0;
  }
  return me;
}

/** All threads of this process. */
function threads(): number[] {
  try {
    return readdirSync(TASKS).map(Number);
  } catch {
    return [];
  }
}

/** Threads that were started since this module was loaded: workers, not the engine's own compilers and collectors. */
export function workerThreads(): number[] {
  return threads().filter((thread) => !engineThreads.has(thread));
}

/** @param thread  or a process with one thread. @returns whether it is now on that processor alone */
export function pin(thread: number, cpu: number): boolean {
  return canPin() && taskset(thread, String(cpu % PROCESSORS));
}

/** @returns ns that all the threads of a process had a processor, NaN when that is not known */
export function processNs(pid: number): number {
  try {
    return readdirSync(`/proc/${pid}/task`).reduce(
      (sum, thread) =>
        sum + Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]),
      0,
    );
  } catch {
    return Number.NaN;
  }
}

export function unpin(thread: number): void {
  if (canPin()) taskset(thread, ALL);
}

/** How old the kernel's account of a thread that runs on another processor may be: a tick at 250 Hz. */
export const TICK_NS = 4e6;

/**
 * Nanoseconds that a thread of this process has had a processor: exact of the calling thread, a tick old of
 * others. NaN when it is gone or not to be known.
 */
export function ranNs(thread: number): number {
  // Asking for the process's usage makes the kernel bring the caller's account up to date; reading it does not.
  if (thread === currentThread()) process.cpuUsage();
  try {
    return Number(readFileSync(`${TASKS}/${thread}/schedstat`, 'utf8').split(' ', 1)[0]);
  } catch {
    return Number.NaN;
  }
}

function taskset(thread: number, cpus: string): boolean {
  return spawnSync('taskset', ['-pc', cpus, String(thread)], { stdio: 'ignore' }).status === 0;
}
