/** What a thread did in a schedule that is to be told as a story: each access with its stack, and the notes. */
import { fileURLToPath } from 'node:url';
import type { ControlMemory } from './control.js';
import { H, OP_FLUSH } from './control.js';
import type { FromWorker, RecordedNote, RecordedStep } from './messages.js';
import { OP_RMW, OP_STORE, type StepWatcher, type ThreadScheduler } from './thread-scheduler.js';

const FRAMES = 12;
/** Frames between an access and the code that makes it; the kernel's way out to the hook is one. */
const BETWEEN = /\/perf\/explore\/engine\/|\/hw\/sync\/words\.|\/hw\/kernel\/variants\.|node:internal/;
const DIST = fileURLToPath(new URL('../../../', import.meta.url));

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export class Recorder implements StepWatcher {
  readonly #control: ControlMemory;
  readonly #memory: Int32Array;
  readonly #thread: number;
  #steps: Writable<RecordedStep>[] = [];
  #notes: RecordedNote[] = [];

  constructor(control: ControlMemory, memory: SharedArrayBuffer, thread: number) {
    this.#control = control;
    this.#memory = new Int32Array(memory, 0, Math.floor(memory.byteLength / 4));
    this.#thread = thread;
  }

  /** Before a schedule: records it or does not, as the campaign says. */
  reset(scheduler: ThreadScheduler): void {
    this.#steps = [];
    this.#notes = [];
    if (this.#thread === 0) this.#control.i32[H.recorded] = 0;
    scheduler.watcher = this.#on ? this : null;
  }

  note(text: string): void {
    if (this.#on) this.#notes.push({ step: this.#control.i32[H.recorded]!, thread: this.#thread, text });
  }

  post(post: (message: FromWorker) => void): void {
    if (this.#on) post({ type: 'record', steps: this.#steps, notes: this.#notes });
  }

  // ---- what the scheduler tells ----

  arriving(): void {
    const last = this.#steps.at(-1);
    if (last === undefined || last.after !== undefined) return;
    if (last.op === OP_RMW || last.op === OP_STORE) last.after = this.#word(last.offset);
  }

  access(op: number, offset: number): void {
    this.#push(this.#thread, op, offset, stack());
  }

  storing(offset: number, low: number, kept: boolean): void {
    const last = this.#steps.at(-1);
    if (last?.op !== OP_STORE || last.offset !== offset || last.after !== undefined) return;
    last.after = low;
    last.kept = kept;
  }

  slept(asleep: boolean): void {
    const last = this.#steps.at(-1);
    if (last !== undefined) last.slept = asleep;
  }

  woken(threads: number): void {
    const last = this.#steps.at(-1);
    if (last !== undefined) last.woken = threads;
  }

  showing(thread: number, offset: number, low: number): void {
    this.#push(thread, OP_FLUSH, offset, []).after = low;
  }

  get #on(): boolean {
    return this.#control.i32[H.record] !== 0;
  }

  #push(thread: number, op: number, offset: number, frames: string[]): Writable<RecordedStep> {
    const step: Writable<RecordedStep> = {
      step: ++this.#control.i32[H.recorded]!,
      thread,
      op,
      offset,
      stack: frames,
      before: this.#word(offset),
    };
    this.#steps.push(step);
    return step;
  }

  #word(offset: number): number {
    return this.#memory[offset >>> 2] ?? 0;
  }
}

/** The frames of the code under test, innermost first: `function (file:line:column)`, as compiled. */
function stack(): string[] {
  const { stackTraceLimit, prepareStackTrace } = Error;
  Error.stackTraceLimit = FRAMES + 8;
  // Whoever maps places to sources would do so for every access.
  Error.prepareStackTrace = (_, sites) => sites.map(String);
  const lines = new Error('where').stack as unknown as string[];
  Error.stackTraceLimit = stackTraceLimit;
  Error.prepareStackTrace = prepareStackTrace;
  return lines
    .filter((line) => !BETWEEN.test(line))
    .slice(0, FRAMES)
    .map((line) => line.replace('file://', '').replace(DIST, ''));
}
