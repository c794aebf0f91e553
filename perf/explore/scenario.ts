/**
 * What is explored: a few threads of real code over one shared memory. A scenario is a module's export, since every
 * explored thread is a worker that loads it by its URL; the threads begin anew in zeroed memory for each schedule.
 *
 *   thread 0: program(ctx) sets up   thread 1..: program(ctx) attaches   all: run(), explored   thread 0: check()
 *
 * `program` is called with nobody else running and makes no schedule points; it returns what runs. Keep it and run()
 * deterministic but for the schedule: no clock but ctx.clock, no randomness but ctx.random, nothing asynchronous.
 */
import type { BugName } from '../../hw/bugs/bug-switches.js';
import type { WasmMemory } from '../../hw/memory/webassembly.js';
import type { Clock, SyncEnv } from '../../hw/sync/thread.js';
import type { Words } from '../../hw/sync/words.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import { MAX_CHECKS, MAX_EXPLORED } from './engine/control.js';

/** What a thread of a scenario has of its own, given to `program`. */
export interface ThreadContext {
  readonly name: string;
  /** Number of this thread, and how many there are. */
  readonly index: number;
  readonly threads: number;
  readonly memory: WasmMemory;
  readonly words: Words;
  /** Virtual: moves with the steps, and leaps when everyone sleeps. */
  readonly clock: Clock;
  /** Bugs of the zoo that are on in this campaign. */
  readonly bugs: readonly BugName[];
  /** What the scenario says that it checks. */
  readonly checks: readonly string[];
  /** Words that all threads share without schedule points: for what a checker must know. Zeroed for each schedule. */
  readonly ghost: Int32Array;
  /** The same, for the monitors of a machine. */
  readonly monitorGhost: Int32Array;
  /** Steps so far in this schedule, anybody's. */
  readonly steps: number;
  /** Where a scenario without a machine may put its own: everything from here on is zero. */
  readonly base: number;
  /** For hw/sync, in a scenario without a machine. */
  readonly env: SyncEnv;
  /**
   * Checks an invariant; a false one ends the schedule, and is what the campaign reports.
   * @param invariant  one of the scenario's `checks`
   * @param story      what was seen; called only when it does not hold
   * @param as         what it is counted as, when that is another of the scenario's `checks`
   */
  check(invariant: string, holds: boolean, story: () => string, as?: string): void;
  /** Shows each access that this thread makes from here on, at the moment that it is made. */
  guard(look: (op: number, offset: number) => void): void;
  /** A line in the story of a replay. */
  note(text: string): void;
  /** 0..n-1, the same in every schedule of a seed. */
  random(n: number): number;
  /** A word that threads sleep on for nothing but rest (ThreadTable.still): they go on when anything was stored. */
  restsOn(offset: number): void;
  /** Thread 0: the parts of the memory, [first, end) in bytes, that are used and so zeroed each time. Default: all. */
  uses(ranges: readonly (readonly [number, number])[]): void;
  /** Thread 0: where threads with a store buffer keep stores back, [first, last] in bytes. Default: everywhere. */
  lateStores(first: number, last: number): void;
  /** From the first thread to the others, before they attach; structured as JSON. */
  publish(value: unknown): void;
  /** What the first thread published. */
  published(): unknown;
}

/** What a thread runs, and what is looked at when all have run. */
export interface ThreadBody {
  run(): void;
  /** Thread 0 alone: after all are through and the daemons asleep, without schedule points. */
  check?(): void;
}

/** One thread, and so one worker. */
export interface ScenarioThread {
  readonly name: string;
  /** Hardware that waits for work: the schedule ends when the others are through, and it has nothing left to do. */
  readonly daemon?: boolean;
  readonly program: (ctx: ThreadContext) => ThreadBody | (() => void);
}

/** See the head of this file. */
export interface Scenario {
  readonly name: string;
  /** One line. */
  readonly about: string;
  /** Invariants that it checks, in addition to those the explorer always checks. */
  readonly checks: readonly string[];
  /** The first one sets up, and checks at the end. */
  readonly threads: readonly ScenarioThread[];
  /** The memory: that of a machine, or so many bytes. Default: 64 KiB. */
  readonly memory?: { readonly machine: MachineConfig } | { readonly bytes: number };
  /** What stories call its words, in a scenario without a machine: byte offsets from ctx.base. */
  readonly words?: Readonly<Record<string, number>>;
  /** Steps after which a schedule counts as one that does not end. Default 20000. */
  readonly stepLimit?: number;
  /** Sleeps with a deadline may end by it. Default: time-outs mean that somebody was not woken. */
  readonly timeouts?: boolean;
  /** Threads whose stores to RAM become visible late, and out of order. */
  readonly storeBuffer?: readonly string[];
}

/** How a machine of a scenario is to be built, or attached to: it waits as the explorer wants it. */
export const exploredWaiting = (ctx: ThreadContext) => ({
  clock: ctx.clock,
  spin: false,
  parkSliceMs: Number.POSITIVE_INFINITY,
});

/** Checks a scenario, for an error at load instead of in a worker. @throws TypeError naming what is wrong */
export function defineScenario(scenario: Scenario): Scenario {
  const { name, threads, checks, storeBuffer = [] } = scenario;
  for (const [key, is] of Object.entries({
    name: 'string',
    about: 'string',
    checks: 'array',
    threads: 'array',
  })) {
    const value = scenario[key as keyof Scenario] as unknown;
    if ((Array.isArray(value) ? 'array' : typeof value) !== is)
      throw new TypeError(`scenario ${name}: ${key} has to be ${is === 'array' ? 'an array' : 'a string'}`);
  }
  const names = threads.map((thread) => thread.name);
  if (threads.length === 0) throw new TypeError(`scenario ${name}: there is no thread`);
  if (threads.length > MAX_EXPLORED)
    throw new TypeError(`scenario ${name}: more than ${MAX_EXPLORED} threads`);
  if (checks.length > MAX_CHECKS) throw new TypeError(`scenario ${name}: more than ${MAX_CHECKS} checks`);
  if (new Set(checks).size !== checks.length) throw new TypeError(`scenario ${name}: a check is there twice`);
  if (new Set(names).size !== names.length) throw new TypeError(`scenario ${name}: two threads of one name`);
  if (threads.every(({ daemon }) => daemon === true))
    throw new TypeError(`scenario ${name}: nothing but daemons`);
  for (const thread of storeBuffer)
    if (!names.includes(thread))
      throw new TypeError(`scenario ${name}: storeBuffer names '${thread}', which is no thread`);
  return scenario;
}

/** Whether a module's export is a scenario, as far as can be told. */
export function isScenario(value: unknown): value is Scenario {
  if (typeof value !== 'object' || value === null) return false;
  const { name, about, checks, threads } = value as Partial<Record<keyof Scenario, unknown>>;
  return (
    typeof name === 'string' && typeof about === 'string' && Array.isArray(checks) && Array.isArray(threads)
  );
}
