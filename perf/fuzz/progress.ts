/**
 * How far each shard is, in memory that the thread which waits for it can read: a shard that hangs cannot say so.
 *
 *   slot   ops, low and high | features | length of the input under way | its words
 */
import { Words } from '../../hw/sync/words.js';
import { OP_WORDS } from './target.js';

const MAX_INPUT_WORDS = 24 * OP_WORDS;
const HEADER_WORDS = 8;
const SLOT_BYTES = (HEADER_WORDS + MAX_INPUT_WORDS) * 4;
/** First word of the memory: 1 asks every shard to end its episode and return. */
const STOP_BYTES = 64;

export const progressMemory = (slots: number): SharedArrayBuffer =>
  new SharedArrayBuffer(STOP_BYTES + slots * SLOT_BYTES);

export class Progress {
  readonly #words: Words;
  readonly #u32: Uint32Array;
  readonly #at: number;

  constructor(shared: SharedArrayBuffer, slot: number) {
    this.#words = new Words(shared);
    this.#u32 = new Uint32Array(shared);
    this.#at = STOP_BYTES + slot * SLOT_BYTES;
  }

  // ---- the shard ----

  begin(input: Uint32Array): void {
    this.#u32.set(input, (this.#at >>> 2) + HEADER_WORDS);
    this.#words.store(this.#at + 12, input.length);
  }

  done(ops: number, features: number): void {
    this.#words.store(this.#at + 8, features);
    this.#words.store(this.#at + 4, Math.floor(ops / 2 ** 32));
    this.#words.store(this.#at, (ops % 2 ** 32) | 0);
  }

  get stopRequested(): boolean {
    return this.#words.load(0) !== 0;
  }

  // ---- whoever waits ----

  requestStop(): void {
    this.#words.store(0, 1);
  }

  get ops(): number {
    return (this.#words.load(this.#at) >>> 0) + this.#words.load(this.#at + 4) * 2 ** 32;
  }

  get features(): number {
    return this.#words.load(this.#at + 8) >>> 0;
  }

  /** The input under way. */
  input(): Uint32Array {
    const from = (this.#at >>> 2) + HEADER_WORDS;
    return this.#u32.slice(from, from + Math.min(this.#words.load(this.#at + 12) >>> 0, MAX_INPUT_WORDS));
  }
}
