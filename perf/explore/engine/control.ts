/**
 * The explorer's own memory: whose turn it is, who is parked on what, the plan of the schedule under way and the log
 * of what happened. It lies beside the memory under test, never in it, and no access to it is a schedule point.
 *
 *   header | threads: 16 words each | checks | plan | decisions: 5 words each | buffers | text
 *
 * One thread runs at a time, the one whose token is set; it alone reads and writes here, so but for the tokens
 * nothing needs an atomic access. Whoever hands over the token stores it last and wakes its owner.
 */
export const MAX_EXPLORED = 12;
export const MAX_STEPS = 60_000;
export const MAX_PLAN = 65_536;
export const MAX_CHECKS = 64;
/** Stores that one thread may keep back. */
export const BUFFER_ENTRIES = 64;
const TEXT_BYTES = 262_144;
/** Bits for bugs of the zoo, 32 a word. */
export const BUG_WORDS = 4;

/** Header words. */
export const H = {
  phase: 0,
  /** Decisions so far in this schedule: the log's length. */
  decisions: 1,
  /** Steps so far: accesses carried out. */
  steps: 2,
  /** END_*. */
  end: 3,
  /** The thread whose violation ended the schedule, -1 for nobody's. */
  culprit: 4,
  /** Stores and read-modify-writes so far, by anyone. */
  writes: 5,
  /** Order in which threads parked. */
  parks: 6,
  stepLimit: 7,
  timeouts: 8,
  policy: 9,
  random: 10,
  planLength: 11,
  /** A planned choice that is not possible is a divergence; 0: it is left out. */
  planStrict: 12,
  changePoints: 13,
  /** Threads there are. */
  threads: 14,
  textLength: 15,
  /** Memory range whose stores are buffered, bytes: [first, last]. */
  bufferFirst: 16,
  bufferLast: 17,
  /** Bit t: thread t has a store buffer. */
  buffering: 18,
  diverged: 19,
  handleVersion: 20,
  checksRun: 21,
  publishedLength: 22,
  /** Every step of this schedule is kept by its thread. */
  record: 23,
  /** Sites of accesses are kept. */
  sites: 28,
  /** The programs are done, and the daemons finish what they have begun. */
  settling: 29,
  /** The session wants no further schedule. */
  cancel: 26,
  /** Accesses that were written down so far. */
  recorded: 27,
} as const;

/** Words of a thread. */
export const T = {
  token: 0,
  status: 1,
  daemon: 2,
  pendingOp: 3,
  pendingOffset: 4,
  waitOffset: 5,
  waitValue: 6,
  parkOrder: 7,
  /** WOKEN_*. */
  woken: 8,
  writesSeen: 9,
  priority: 10,
  buffered: 11,
  site: 12,
} as const;
const THREAD_WORDS = 16;

/** Of a thread. START: has not begun. REST: asleep for a while, on nothing. POLL: asleep until its word changes. */
export const STATUS_RUNNABLE = 0;
export const STATUS_PARKED = 1;
export const STATUS_POLL = 2;
export const STATUS_REST = 3;
export const STATUS_DONE = 4;

export const WOKEN_OK = 0;
export const WOKEN_TIMED_OUT = 1;

export const PHASE_IDLE = 0;
export const PHASE_PREPARE = 1;
export const PHASE_RUN = 2;
export const PHASE_CHECK = 3;
export const PHASE_CLOSE = 4;

export const END_NOT_YET = 0;
export const END_DONE = 1;
export const END_VIOLATION = 2;

/** How a thread is chosen where the plan says nothing. */
export const POLICY_CONTINUE = 0;
export const POLICY_RANDOM = 1;
export const POLICY_PCT = 2;

/**
 * Words of a decision in the log. `choice`: a thread, or a store to make visible: thread | (entry + 1) << 8.
 * `enabled`: threads | site << 12. `info`: op | current << 8. `stores`, that could have become visible: their
 * number | the chosen one's place among them << 10 | the place of the first of the same thread << 20.
 */
export const D = { choice: 0, offset: 1, enabled: 2, info: 3, stores: 4 } as const;
export const DECISION_WORDS = 5;
export const OP_START = 5;
export const OP_FLUSH = 6;

const THREADS_AT = 32;
const CHECKS_AT = THREADS_AT + MAX_EXPLORED * THREAD_WORDS;
const BUGS_AT = CHECKS_AT + MAX_CHECKS;
const PLAN_AT = BUGS_AT + BUG_WORDS;
const LOG_AT = PLAN_AT + MAX_PLAN;
const BUFFERS_AT = LOG_AT + MAX_STEPS * DECISION_WORDS;
const BUFFER_WORDS = BUFFER_ENTRIES * 4;
const F64_AT = BUFFERS_AT + MAX_EXPLORED * BUFFER_WORDS + (BUFFERS_AT % 2);
const TEXT_AT = F64_AT + 2 * (1 + MAX_EXPLORED);
const PUBLISHED_AT = TEXT_AT + TEXT_BYTES / 4;
const WORDS = PUBLISHED_AT + TEXT_BYTES / 4;

export class ControlMemory {
  readonly buffer: SharedArrayBuffer;
  readonly i32: Int32Array;
  /** 0: virtual nanoseconds; 1 + t: when thread t's sleep ends. */
  readonly times: Float64Array;
  readonly #text: Uint8Array;
  readonly #published: Uint8Array;

  constructor(buffer = new SharedArrayBuffer(WORDS * 4)) {
    this.buffer = buffer;
    this.i32 = new Int32Array(buffer);
    this.times = new Float64Array(buffer, F64_AT * 4, 1 + MAX_EXPLORED);
    this.#text = new Uint8Array(buffer, TEXT_AT * 4, TEXT_BYTES);
    this.#published = new Uint8Array(buffer, PUBLISHED_AT * 4, TEXT_BYTES);
  }

  thread(index: number): number {
    return THREADS_AT + index * THREAD_WORDS;
  }

  checkCount(index: number): number {
    return CHECKS_AT + index;
  }

  /** Bugs of the zoo that are on, one bit each in the order of BUG_NAMES. */
  get bugs(): Int32Array {
    return this.i32.subarray(BUGS_AT, BUGS_AT + BUG_WORDS);
  }

  plan(index: number): number {
    return PLAN_AT + index;
  }

  decision(index: number): number {
    return LOG_AT + index * DECISION_WORDS;
  }

  /** Entries of a store buffer, oldest first: offset, bytes, low, high. */
  bufferEntry(thread: number, entry: number): number {
    return BUFFERS_AT + thread * BUFFER_WORDS + entry * 4;
  }

  /** How the schedule ended, when it did not end well; JSON. */
  get text(): string {
    return read(this.#text, this.i32[H.textLength]!);
  }

  set text(text: string) {
    // A story may be long; what is cut off is its end.
    this.i32[H.textLength] = new TextEncoder().encodeInto(text, this.#text).written;
  }

  /** What thread 0 says to those that attach; JSON. */
  get published(): string {
    return read(this.#published, this.i32[H.publishedLength]!);
  }

  set published(text: string) {
    const { read: taken, written } = new TextEncoder().encodeInto(text, this.#published);
    if (taken < text.length) throw new RangeError(`a scenario publishes ${text.length} characters`);
    this.i32[H.publishedLength] = written;
  }

  /** From the session, while the workers run. */
  cancel(wanted: boolean): void {
    Atomics.store(this.i32, H.cancel, wanted ? 1 : 0);
  }

  /** Makes it `index`'s turn. The caller then waits for its own, or is through. */
  give(index: number): void {
    const token = this.thread(index) + T.token;
    Atomics.store(this.i32, token, 1);
    Atomics.notify(this.i32, token, 1);
  }

  /** Parks until it is `index`'s turn. */
  take(index: number): void {
    const token = this.thread(index) + T.token;
    while (Atomics.exchange(this.i32, token, 0) === 0) Atomics.wait(this.i32, token, 0);
  }
}

/** TextDecoder refuses shared memory. */
function read(bytes: Uint8Array, length: number): string {
  return new TextDecoder().decode(bytes.slice(0, length));
}
