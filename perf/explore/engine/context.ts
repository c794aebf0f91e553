/** A thread's ThreadContext: see scenario.ts. */
import { BUG_NAMES, type BugName, bugSwitches, NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import type { WasmMemory } from '../../../hw/memory/webassembly.js';
import { type Clock, type SyncEnv, ThreadTable, ThreadTableLayout } from '../../../hw/sync/thread.js';
import { Words } from '../../../hw/sync/words.js';
import type { ThreadContext } from '../scenario.js';
import { BUG_WORDS, type ControlMemory, H } from './control.js';
import { ScheduleOver, type ThreadScheduler } from './thread-scheduler.js';

/** A scenario without a machine has the thread table here. */
export const THREADS_AT = 64;
export const BASE = 2048;
export const GHOST_WORDS = 1024;
/** After those of the scenario: the monitors'. */
export const MONITOR_WORDS = 512;

export interface ContextParts {
  readonly control: ControlMemory;
  readonly scheduler: ThreadScheduler;
  readonly memory: WasmMemory;
  readonly ghost: Int32Array;
  readonly index: number;
  readonly names: readonly string[];
  readonly checks: readonly string[];
  readonly seed: number;
  readonly note: (text: string) => void;
}

export class WorkerContext implements ThreadContext {
  readonly name: string;
  readonly index: number;
  readonly threads: number;
  readonly memory: WasmMemory;
  readonly words: Words;
  readonly clock: Clock;
  bugs: readonly BugName[] = [];
  readonly checks: readonly string[];
  readonly ghost: Int32Array;
  readonly monitorGhost: Int32Array;
  readonly base = BASE;
  env: SyncEnv;
  /** What uses() said; null: all of the memory. */
  used: readonly (readonly [number, number])[] | null = null;
  readonly #parts: ContextParts;
  #random: number;
  readonly #bugBits = new Int32Array(BUG_WORDS);
  #published: { version: number; value: unknown } = { version: 0, value: undefined };

  constructor(parts: ContextParts) {
    const { scheduler } = parts;
    this.#parts = parts;
    this.name = parts.names[parts.index]!;
    this.index = parts.index;
    this.threads = parts.names.length;
    this.memory = parts.memory;
    this.words = new Words(parts.memory.buffer as SharedArrayBuffer);
    this.clock = { nowNs: () => scheduler.nowNs, epochNs: 0 };
    this.checks = parts.checks;
    this.ghost = parts.ghost.subarray(0, GHOST_WORDS);
    this.monitorGhost = parts.ghost.subarray(GHOST_WORDS);
    this.env = {
      words: this.words,
      threads: new ThreadTable(this, { base: THREADS_AT }),
      threadId: parts.index + 1,
      clock: this.clock,
      canPark: true,
      spin: false,
      parkSliceMs: Number.POSITIVE_INFINITY,
      bugs: NO_BUGS,
    };
    this.#random = 0;
  }

  /** Before a schedule. */
  reset(): void {
    const { bugs } = this.#parts.control;
    if (bugs.some((bits, i) => bits !== this.#bugBits[i])) {
      this.#bugBits.set(bugs);
      this.bugs = BUG_NAMES.filter((_, index) => ((bugs[index >> 5]! >>> (index & 31)) & 1) !== 0);
      this.env = { ...this.env, bugs: bugSwitches(this.bugs) };
    }
    this.#random = (this.#parts.seed ^ Math.imul(this.index + 1, 0x9e3779b9)) | 1;
  }

  get steps(): number {
    return this.#parts.scheduler.steps;
  }

  check(invariant: string, holds: boolean, story: () => string, as = invariant): void {
    const { control, checks, scheduler } = this.#parts;
    const index = checks.indexOf(as);
    if (index < 0) throw new TypeError(`the scenario does not say that it checks ${as}`);
    control.i32[control.checkCount(index)]!++;
    control.i32[H.checksRun]!++;
    if (holds) return;
    scheduler.fail(invariant, told(story));
    throw new ScheduleOver('an invariant is broken');
  }

  note(text: string): void {
    this.#parts.note(text);
  }

  random(n: number): number {
    let x = this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x;
    return Math.floor(((x >>> 0) / 2 ** 32) * n);
  }

  guard(look: (op: number, offset: number) => void): void {
    this.#parts.scheduler.guard = look;
  }

  uses(ranges: readonly (readonly [number, number])[]): void {
    this.used = ranges;
  }

  lateStores(first: number, last: number): void {
    const { i32 } = this.#parts.control;
    i32[H.bufferFirst] = first | 0;
    i32[H.bufferLast] = last | 0;
  }

  restsOn(offset: number): void {
    this.#parts.scheduler.restOffset = offset;
  }

  publish(value: unknown): void {
    const { control } = this.#parts;
    const text = JSON.stringify(value);
    if (control.i32[H.handleVersion] !== 0 && text === this.#lastText) return;
    this.#lastText = text;
    control.published = text;
    control.i32[H.handleVersion]!++;
  }

  #lastText = '';

  published(): unknown {
    const { control } = this.#parts;
    const version = control.i32[H.handleVersion]!;
    if (this.#published.version !== version)
      this.#published = { version, value: JSON.parse(control.published) };
    return this.#published.value;
  }
}

/** An invariant that is broken stays so when there is no telling how. */
function told(story: () => string): string {
  try {
    return story();
  } catch (error) {
    return `no story: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
  }
}

/** Switches bugs on in the control memory, and all others off. @throws RangeError the zoo has outgrown it */
export function setBugs({ bugs: bits }: ControlMemory, bugs: readonly BugName[]): void {
  if (BUG_NAMES.length > 32 * BUG_WORDS)
    throw new RangeError(`the zoo has ${BUG_NAMES.length} bugs, and ${32 * BUG_WORDS} bits`);
  bits.fill(0);
  for (const bug of bugs) {
    const index = BUG_NAMES.indexOf(bug);
    bits[index >> 5]! |= 1 << (index & 31);
  }
}

/** What the state of a scenario without a machine is: who is alive, and 800 bytes of its own. Bytes, [first, end). */
export const STATE_RANGES = [
  [THREADS_AT + ThreadTableLayout.at.state, THREADS_AT + ThreadTableLayout.at.state + 64],
  [BASE, BASE + 800],
] as const;

/** `still` of a scenario without a machine. */
export const REST_AT = THREADS_AT + ThreadTableLayout.at.still;
