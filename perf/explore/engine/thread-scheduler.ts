/**
 * One explored thread's schedule hook. Before each shared access it lets somebody be chosen: itself, and it goes on;
 * another, and it hands over the token and parks until it is chosen. Sleeping and waking are bookkeeping in the
 * control memory: check-and-sleep is one step, who sleeps is not enabled, and time passes when nobody is.
 *
 * A thread with a store buffer keeps its stores to the buffered range (RAM, as devices see it). They become visible one
 * by one, in any order but that of one word, when the schedule says so; all at once at dma_wmb, a read-modify-write, a
 * store outside the range (registers, locks), a wait, a notify, and when the thread ends. Stores of the compiled
 * kernel are not kept.
 */
import {
  OP_LOAD,
  OP_NOTIFY,
  OP_RMW,
  OP_STORE,
  OP_WAIT,
  type ScheduleHook,
  type WaitResult,
  type WordOp,
} from '../../../hw/sync/words.js';
import { choose, continued, count, enabledThreads, storePlaces, visibleStores } from './chooser.js';
import {
  BUFFER_ENTRIES,
  type ControlMemory,
  D,
  END_DONE,
  END_NOT_YET,
  END_VIOLATION,
  H,
  MAX_STEPS,
  OP_FLUSH,
  OP_START,
  STATUS_DONE,
  STATUS_PARKED,
  STATUS_POLL,
  STATUS_REST,
  STATUS_RUNNABLE,
  T,
  WOKEN_OK,
  WOKEN_TIMED_OUT,
} from './control.js';
import type { StateCount } from './state-count.js';

/** What a step costs on the virtual clock. */
const STEP_NS = 10;

/** Ends a thread whose schedule is over. Never to be caught for good. */
export class ScheduleOver extends Error {}

/** A broken invariant, as it travels to the report. */
export interface ViolationRecord {
  readonly invariant: string;
  readonly detail: string;
  readonly thread: string;
}

/** Whoever writes down what a thread does, as it does it; for a schedule that is to be told. */
export interface StepWatcher {
  /** What the thread did last is done: it comes to its next access, or to its end. */
  arriving(): void;
  /** It makes this access now. */
  access(op: number, offset: number): void;
  /** The access is this store. @param kept  in the store buffer only */
  storing(offset: number, low: number, kept: boolean): void;
  slept(asleep: boolean): void;
  woken(threads: number): void;
  /** A store that somebody's buffer kept becomes visible, as this thread was to decide. */
  showing(thread: number, offset: number, low: number): void;
}

export class ThreadScheduler implements ScheduleHook {
  /** False while the scenario is set up and checked: accesses are then nobody's steps. */
  active = false;
  /** What an access's site is, for whoever wants to know; none by default. */
  siteOf: (() => number) | null = null;
  watcher: StepWatcher | null = null;
  /** Counts the states that are passed, if anybody wants to know. */
  states: StateCount | null = null;
  /** Is shown each access as it is made; it may fail(), and then throws. */
  guard: ((op: number, offset: number) => void) | null = null;
  readonly #control: ControlMemory;
  readonly #i32: Int32Array;
  readonly #memory: Int32Array;
  readonly #me: number;
  readonly #at: number;
  readonly #names: readonly string[];
  /** `threads.still` of the machine: a wait there is a rest. -1: none. */
  restOffset = -1;

  constructor(control: ControlMemory, memory: SharedArrayBuffer, me: number, names: readonly string[]) {
    this.#control = control;
    this.#i32 = control.i32;
    this.#memory = new Int32Array(memory, 0, Math.floor(memory.byteLength / 4));
    this.#me = me;
    this.#at = control.thread(me);
    this.#names = names;
  }

  // ---- the hook ----

  point(op: WordOp, offset: number): void {
    if (!this.active) return;
    if (op === OP_NOTIFY) {
      // The compiled kernel: it wakes everyone, and does not ask how many.
      this.notify(offset, Number.POSITIVE_INFINITY);
      return;
    }
    this.#step(op, offset);
    if (op !== OP_LOAD) {
      this.#i32[H.writes]!++;
      if (op === OP_RMW || !this.#buffers(offset)) this.#drain();
    }
  }

  storing(offset: number, bytes: 4 | 8, low: number, high: number): boolean {
    if (!this.active) return false;
    const kept = this.#buffers(offset);
    if (this.watcher !== null) this.watcher.storing(offset, low, kept);
    if (!kept) return false;
    if (this.#i32[this.#at + T.buffered]! === BUFFER_ENTRIES) this.#flush(this.#me, 0);
    const entry = this.#control.bufferEntry(this.#me, this.#i32[this.#at + T.buffered]!++);
    this.#i32[entry] = offset;
    this.#i32[entry + 1] = bytes;
    this.#i32[entry + 2] = low;
    this.#i32[entry + 3] = high;
    return true;
  }

  forward32(offset: number): number | undefined {
    const entry = this.#newest(offset);
    if (entry < 0) return undefined;
    const at = this.#i32[entry]!;
    return offset === at ? this.#i32[entry + 2]! : this.#i32[entry + 3]!;
  }

  forward64(offset: number): bigint | undefined {
    const entry = this.#newest(offset);
    if (entry < 0 && this.#newest(offset + 4) < 0) return undefined;
    if (entry >= 0 && this.#i32[entry + 1] === 8)
      return (BigInt(this.#i32[entry + 3]! >>> 0) << 32n) | BigInt(this.#i32[entry + 2]! >>> 0);
    // Made of two halves: they become visible here.
    this.#drain();
    return undefined;
  }

  wait(offset: number, value: number, timeoutMs: number, polled = false): WaitResult | null {
    if (!this.active) return null;
    this.#step(OP_WAIT, offset);
    this.#drain();
    const i32 = this.#i32;
    const rests = offset === this.restOffset;
    const sleeps = rests || this.#memory[offset >>> 2] === value;
    if (this.watcher !== null) this.watcher.slept(sleeps);
    if (!sleeps) return 'not-equal';
    i32[this.#at + T.status] = rests ? STATUS_REST : polled ? STATUS_POLL : STATUS_PARKED;
    i32[this.#at + T.waitOffset] = offset;
    i32[this.#at + T.waitValue] = value;
    i32[this.#at + T.writesSeen] = i32[H.writes]!;
    i32[this.#at + T.parkOrder] = ++i32[H.parks]!;
    i32[this.#at + T.woken] = WOKEN_OK;
    this.#control.times[1 + this.#me] = this.#control.times[0]! + timeoutMs * 1e6;
    this.#yield(OP_WAIT, offset);
    i32[this.#at + T.status] = STATUS_RUNNABLE;
    return i32[this.#at + T.woken] === WOKEN_TIMED_OUT ? 'timed-out' : 'ok';
  }

  notify(offset: number, countMax: number): number | null {
    if (!this.active) return null;
    this.#step(OP_NOTIFY, offset);
    this.#drain();
    const { i32 } = this.#control;
    let woken = 0;
    for (; woken < countMax; woken++) {
      let first = -1;
      for (let t = 0; t < i32[H.threads]!; t++) {
        const at = this.#control.thread(t);
        if (i32[at + T.status] !== STATUS_PARKED || i32[at + T.waitOffset] !== offset) continue;
        if (first < 0 || i32[at + T.parkOrder]! < i32[first + T.parkOrder]!) first = at;
      }
      if (first < 0) break;
      i32[first + T.status] = STATUS_RUNNABLE;
    }
    if (this.watcher !== null) this.watcher.woken(woken);
    return woken;
  }

  dmaWmb(): void {
    if (this.active) this.#drain();
  }

  // ---- for the worker around it ----

  get nowNs(): number {
    // Somebody who only looks at the clock must see it move.
    const { times } = this.#control;
    times[0]! += STEP_NS;
    return times[0]!;
  }

  /** A thread that was chosen for the first time. */
  resume(): void {
    this.#checkOver();
  }

  /** The first decision of a schedule: who begins. By thread 0, which then waits like the others. */
  begin(): void {
    const i32 = this.#i32;
    const choice = this.#decide(OP_START, 0);
    i32[H.steps]!++;
    if (choice !== this.#me) {
      this.#control.give(choice);
      this.#control.take(this.#me);
    }
    this.#checkOver();
  }

  /** Steps so far in this schedule, anybody's. */
  get steps(): number {
    return this.#i32[H.steps]!;
  }

  /**
   * This thread is through. Somebody else goes on; or nobody but daemons is left, which go on until they sleep; or
   * the schedule is over, and those who still stand in the middle are ended one by one.
   * @returns thread 0: whether it was the last
   */
  finish(): boolean {
    const i32 = this.#i32;
    if (this.active) {
      if (this.watcher !== null) this.watcher.arriving();
      this.#drain();
    }
    this.active = false;
    i32[this.#at + T.status] = STATUS_DONE;
    if (i32[H.end] === END_NOT_YET && this.#programsDone()) i32[H.settling] = 1;
    const next = i32[H.end] === END_NOT_YET ? this.#successor() : this.#unfinished();
    if (next !== this.#me) this.#control.give(next);
    return next === this.#me;
  }

  /** Whose turn it is after this thread's last; its last decision may be one too many. */
  #successor(): number {
    try {
      return this.#nextOrStuck(OP_START, 0);
    } catch (error) {
      if (!(error instanceof ScheduleOver)) throw error;
      return this.#unfinished();
    }
  }

  /** Whether the schedule has ended: what is thrown from here on comes of that. */
  get over(): boolean {
    return this.#i32[H.end] !== END_NOT_YET;
  }

  /** Ends the schedule. The thread that says so unwinds by throwing, the others when it is their turn. */
  fail(invariant: string, detail: string): void {
    if (this.#i32[H.end] === END_VIOLATION) return;
    this.#i32[H.end] = END_VIOLATION;
    this.#i32[H.culprit] = this.#me;
    const thread = this.#names[this.#me] ?? `${this.#me}`;
    const record: ViolationRecord = { invariant, detail: cut(detail), thread };
    this.#control.text = JSON.stringify(record);
  }

  // ---- steps ----

  #step(op: WordOp, offset: number): void {
    this.#checkOver();
    if (this.watcher !== null) this.watcher.arriving();
    const i32 = this.#i32;
    i32[this.#at + T.pendingOp] = op;
    i32[this.#at + T.pendingOffset] = offset;
    if (this.siteOf !== null) i32[this.#at + T.site] = this.siteOf();
    this.#control.times[0]! += STEP_NS;
    if (++i32[H.steps]! > i32[H.stepLimit]!)
      this.#stop('step-limit', `no end after ${i32[H.stepLimit]} steps`);
    const choice = this.#decide(op, offset);
    if (choice !== this.#me) {
      this.#control.give(choice);
      this.#control.take(this.#me);
      this.#checkOver();
    }
    if (this.watcher !== null) this.watcher.access(op, offset);
    if (this.guard !== null) this.guard(op, offset);
  }

  /** This thread cannot go on: somebody else does, until it can. */
  #yield(op: number, offset: number): void {
    const choice = this.#nextOrStuck(op, offset);
    // It may be this one: whom else, when its sleep is what ends first.
    if (choice !== this.#me) {
      this.#control.give(choice);
      this.#control.take(this.#me);
    }
    this.#checkOver();
  }

  /** @returns who takes the next step, after the stores that were chosen to become visible before it */
  #decide(_op: number, _offset: number): number {
    const control = this.#control;
    const i32 = this.#i32;
    for (;;) {
      const enabled = enabledThreads(control, this.#memory);
      const stores = visibleStores(control);
      if (i32[H.settling] !== 0 && stores === 0) {
        // Nobody's choice: no decision of the schedule, and one order is as good as another.
        const next = continued(this.#me, enabled);
        i32[control.thread(next) + T.status] = STATUS_RUNNABLE;
        return next;
      }
      const choice =
        i32[H.settling] !== 0 ? visibleStores(control, 0) : choose(control, this.#me, enabled, stores);
      if (i32[H.settling] === 0) {
        this.#log(choice, enabled, choice < 256 ? stores : stores | storePlaces(control, choice));
        if (this.states !== null) this.states.decided(choice & 255);
      }
      if (choice < 256) {
        i32[control.thread(choice) + T.status] = STATUS_RUNNABLE;
        return choice;
      }
      const [thread, entry] = [choice & 255, (choice >>> 8) - 1];
      if (this.watcher !== null) {
        const at = control.bufferEntry(thread, entry);
        this.watcher.showing(thread, i32[at]!, i32[at + 2]!);
      }
      this.#flush(thread, entry);
    }
  }

  #log(choice: number, enabled: number, stores: number): void {
    const i32 = this.#i32;
    const n = i32[H.decisions]!;
    if (n >= MAX_STEPS) this.#stop('step-limit', `no end after ${n} decisions`);
    const at = this.#control.decision(n);
    const flush = choice >= 256;
    const thread = this.#control.thread(choice & 255);
    const offset = flush
      ? i32[this.#control.bufferEntry(choice & 255, (choice >>> 8) - 1)]!
      : i32[thread + T.pendingOffset]!;
    i32[at + D.choice] = choice;
    i32[at + D.offset] = offset;
    i32[at + D.enabled] = enabled | (i32[thread + T.site]! << 12);
    i32[at + D.info] = (flush ? OP_FLUSH : i32[thread + T.pendingOp]!) | (this.#me << 8);
    i32[at + D.stores] = stores;
    i32[H.decisions] = n + 1;
  }

  /** Decides, letting time pass when nobody can run. Ends the schedule when that would be wrong. */
  #nextOrStuck(op: number, offset: number): number {
    const control = this.#control;
    if (enabledThreads(control, this.#memory) !== 0) return this.#decide(op, offset);
    if (this.#i32[H.settling] !== 0) {
      this.#i32[H.end] = END_DONE;
      return this.#unfinished();
    }
    if (!this.#letTimePass()) {
      this.#i32[H.end] = END_VIOLATION;
      this.#i32[H.culprit] = -1;
      control.text = JSON.stringify(this.#stuck());
      const next = this.#unfinished();
      // Only the last one to finish finds nobody else in the middle.
      return next;
    }
    return this.#decide(op, offset);
  }

  /** Wakes the sleeper whose time is over first. @returns false when there is none that may be woken so */
  #letTimePass(): boolean {
    const { i32, times } = this.#control;
    let first = -1;
    for (let t = 0; t < i32[H.threads]!; t++) {
      const status = i32[this.#control.thread(t) + T.status]!;
      const mayTimeOut = status === STATUS_REST || (status !== STATUS_DONE && i32[H.timeouts] !== 0);
      if (!mayTimeOut || status === STATUS_RUNNABLE || !Number.isFinite(times[1 + t]!)) continue;
      if (first < 0 || times[1 + t]! < times[1 + first]!) first = t;
    }
    if (first < 0) return false;
    times[0] = Math.max(times[0]!, times[1 + first]!);
    i32[this.#control.thread(first) + T.status] = STATUS_RUNNABLE;
    i32[this.#control.thread(first) + T.woken] = WOKEN_TIMED_OUT;
    return true;
  }

  #stuck(): ViolationRecord {
    const i32 = this.#i32;
    const asleep: string[] = [];
    let changed = false;
    for (let t = 0; t < i32[H.threads]!; t++) {
      const at = this.#control.thread(t);
      if (i32[at + T.status] === STATUS_DONE) continue;
      const offset = i32[at + T.waitOffset]!;
      const now = this.#memory[offset >>> 2]!;
      const value = i32[at + T.waitValue]!;
      if (now !== value) changed = true;
      asleep.push(
        `${this.#names[t]} sleeps on 0x${offset.toString(16)} = ${value}${now === value ? '' : `, now ${now}`}`,
      );
    }
    return {
      invariant: changed ? 'lost wake-up' : 'deadlock',
      detail: asleep.join('; '),
      thread: this.#names[this.#me] ?? '',
    };
  }

  /** Whether every thread that is not a daemon is done: daemons then have nothing to live for. */
  #programsDone(): boolean {
    const i32 = this.#i32;
    for (let t = 0; t < i32[H.threads]!; t++) {
      const at = this.#control.thread(t);
      if (i32[at + T.status] !== STATUS_DONE && i32[at + T.daemon] === 0) return false;
    }
    return true;
  }

  /** A thread that is not done, to be ended; thread 0 when all are. */
  #unfinished(): number {
    for (let t = this.#i32[H.threads]! - 1; t >= 0; t--)
      if (this.#i32[this.#control.thread(t) + T.status] !== STATUS_DONE) return t;
    return 0;
  }

  #checkOver(): void {
    if (this.#i32[H.end] !== END_NOT_YET) throw new ScheduleOver('the schedule is over');
  }

  #stop(invariant: string, detail: string): never {
    this.fail(invariant, detail);
    throw new ScheduleOver('the schedule is over');
  }

  // ---- the store buffer ----

  #buffers(offset: number): boolean {
    const i32 = this.#i32;
    if ((i32[H.buffering]! & (1 << this.#me)) === 0) return false;
    return offset >>> 0 >= i32[H.bufferFirst]! >>> 0 && offset >>> 0 <= i32[H.bufferLast]! >>> 0;
  }

  /** The newest entry that covers the word at `offset`, or -1. */
  #newest(offset: number): number {
    for (let n = this.#i32[this.#at + T.buffered]! - 1; n >= 0; n--) {
      const entry = this.#control.bufferEntry(this.#me, n);
      const at = this.#i32[entry]!;
      if (offset === at || (this.#i32[entry + 1] === 8 && offset === at + 4)) return entry;
    }
    return -1;
  }

  #drain(): void {
    while (this.#i32[this.#at + T.buffered]! > 0) this.#flush(this.#me, 0);
  }

  /** Makes one store visible. */
  #flush(thread: number, n: number): void {
    const i32 = this.#i32;
    const entry = this.#control.bufferEntry(thread, n);
    const word = i32[entry]! >>> 2;
    Atomics.store(this.#memory, word, i32[entry + 2]!);
    if (i32[entry + 1] === 8) Atomics.store(this.#memory, word + 1, i32[entry + 3]!);
    const at = this.#control.thread(thread) + T.buffered;
    const left = --i32[at]!;
    i32.copyWithin(entry, entry + 4, this.#control.bufferEntry(thread, left + 1));
    i32[H.writes]!++;
  }
}

/** A detail has room for so many characters, however JSON writes them. */
const MAX_DETAIL = 40_000;

const cut = (text: string): string =>
  text.length <= MAX_DETAIL ? text : `${text.slice(0, MAX_DETAIL)}... (${text.length} characters)`;

/** For reports: how many could have gone on at a decision. */
export const enabledCount = (enabled: number): number => count(enabled & 0xfff);

export { OP_LOAD, OP_NOTIFY, OP_RMW, OP_STORE, OP_WAIT };
