/** What a thread did in a schedule that is to be told as a story: each access with its stack, and the notes. */
import type { ControlMemory } from './control.js';
import { H } from './control.js';
import type { FromWorker, RecordedNote, RecordedStep } from './messages.js';
import type { ThreadScheduler } from './thread-scheduler.js';

const FRAMES = 12;

export class Recorder {
  readonly #control: ControlMemory;
  readonly #thread: number;
  #steps: RecordedStep[] = [];
  #notes: RecordedNote[] = [];

  constructor(control: ControlMemory, thread: number) {
    this.#control = control;
    this.#thread = thread;
  }

  /** Before a schedule: records it or does not, as the campaign says. */
  reset(scheduler: ThreadScheduler): void {
    this.#steps = [];
    this.#notes = [];
    scheduler.onAccess = this.#on ? (op, offset) => this.#access(op, offset) : null;
  }

  note(text: string): void {
    if (this.#on) this.#notes.push({ step: this.#control.i32[H.steps]!, thread: this.#thread, text });
  }

  post(post: (message: FromWorker) => void): void {
    if (this.#on) post({ type: 'record', steps: this.#steps, notes: this.#notes });
  }

  get #on(): boolean {
    return this.#control.i32[H.record] !== 0;
  }

  #access(op: number, offset: number): void {
    const step = this.#control.i32[H.steps]!;
    this.#steps.push({ step, thread: this.#thread, op, offset, stack: stack() });
  }
}

/** The frames of the code under test, innermost first: `function (file:line)`. */
function stack(): string[] {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = FRAMES + 8;
  const lines = (new Error('where').stack ?? '').split('\n').slice(1);
  Error.stackTraceLimit = limit;
  return lines
    .filter((line) => !/\/perf\/explore\/engine\/|\/hw\/sync\/words\.|node:internal/.test(line))
    .slice(0, FRAMES)
    .map((line) =>
      line
        .trim()
        .replace(/^at /, '')
        .replace(/file:\/\/.*?\/dist\//, ''),
    );
}
