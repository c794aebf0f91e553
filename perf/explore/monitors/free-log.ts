/**
 * Who gave what back, and when: for the story of a use after free. A ring in the monitors' ghost words, written by
 * whoever frees, read by whoever finds itself touching what is free.
 *
 *   word 0: entries ever    then ENTRIES times: first, end (linear bytes), step, thread
 */
import type { ThreadContext } from '../scenario.js';

const ENTRIES = 120;
const ENTRY_WORDS = 4;

export class FreeLog {
  readonly #ctx: ThreadContext;

  constructor(ctx: ThreadContext) {
    this.#ctx = ctx;
  }

  /** [first, end) is nobody's from now on. */
  add(first: number, end: number): void {
    const { monitorGhost: words, steps, index } = this.#ctx;
    const at = 1 + (words[0]! % ENTRIES) * ENTRY_WORDS;
    words[0]!++;
    words.set([first, end, steps, index], at);
  }

  /** @returns who freed `offset` last, as words */
  tell(offset: number, names: readonly string[]): string {
    const { monitorGhost: words } = this.#ctx;
    const count = words[0]!;
    for (let n = count - 1; n >= Math.max(0, count - ENTRIES); n--) {
      const at = 1 + (n % ENTRIES) * ENTRY_WORDS;
      if (offset < words[at]! >>> 0 || offset >= words[at + 1]! >>> 0) continue;
      return `which ${names[words[at + 3]!] ?? 'nobody'} gave back at step ${words[at + 2]}`;
    }
    return 'which nobody has asked for since the machine was made, or which was given back long ago';
  }
}
