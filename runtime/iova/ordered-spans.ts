/**
 * A sorted set of disjoint byte spans: what an interval tree is in the kernel, for spans that never overlap.
 *
 *   chunks  [ s s s s ] [ s s s ] [ s s s s s ]      each chunk at most MAX spans, sorted by start
 *
 * Two levels of binary search, and inserting moves at most one chunk: logarithmic for a lookup, near enough
 * for a change up to some millions of spans. A position is (page, offset): a 64-bit byte address is not exact
 * as a Number, its page number is.
 */

export interface Span {
  readonly firstPage: number;
  readonly firstOffset: number;
  /** Inclusive. */
  readonly lastPage: number;
  readonly lastOffset: number;
}

const MAX = 512;

export class OrderedSpans<T extends Span> {
  readonly #chunks: T[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The first span, by address, that touches [first, last]. */
  firstIn(firstPage: number, firstOffset: number, lastPage: number, lastOffset: number): T | undefined {
    let c = this.#chunkOf(firstPage, firstOffset);
    if (c < 0) c = 0;
    const chunk = this.#chunks[c];
    if (chunk === undefined) return undefined;
    let i = floorIn(chunk, firstPage, firstOffset);
    if (i < 0 || before(chunk[i]!.lastPage, chunk[i]!.lastOffset, firstPage, firstOffset)) i++;
    const span = i < chunk.length ? chunk[i] : this.#chunks[c + 1]?.[0];
    if (span === undefined || before(lastPage, lastOffset, span.firstPage, span.firstOffset))
      return undefined;
    return span;
  }

  /** The span after one that is in the set. */
  next(span: T): T | undefined {
    const c = this.#chunkOf(span.firstPage, span.firstOffset);
    const chunk = this.#chunks[c];
    if (chunk === undefined) return undefined;
    const i = floorIn(chunk, span.firstPage, span.firstOffset);
    return i + 1 < chunk.length ? chunk[i + 1] : this.#chunks[c + 1]?.[0];
  }

  /** The span before one that is in the set. */
  previous(span: T): T | undefined {
    const c = this.#chunkOf(span.firstPage, span.firstOffset);
    const chunk = this.#chunks[c];
    if (chunk === undefined) return undefined;
    const i = floorIn(chunk, span.firstPage, span.firstOffset);
    return i > 0 ? chunk[i - 1] : this.#chunks[c - 1]?.at(-1);
  }

  /** The span must not touch another. */
  insert(span: T): void {
    this.#size++;
    const c = Math.max(this.#chunkOf(span.firstPage, span.firstOffset), 0);
    const chunk = this.#chunks[c];
    if (chunk === undefined) {
      this.#chunks.push([span]);
      return;
    }
    const i = floorIn(chunk, span.firstPage, span.firstOffset) + 1;
    if (i === chunk.length) chunk.push(span);
    else chunk.splice(i, 0, span);
    if (chunk.length <= MAX) return;
    // Appending is the usual order: leave the old chunk full, so that a packed map stays packed.
    const at = i === MAX ? MAX : MAX >> 1;
    this.#chunks.splice(c + 1, 0, chunk.splice(at));
  }

  /** @returns whether the span was in the set */
  remove(span: T): boolean {
    const c = this.#chunkOf(span.firstPage, span.firstOffset);
    const chunk = this.#chunks[c];
    if (chunk === undefined) return false;
    const i = floorIn(chunk, span.firstPage, span.firstOffset);
    if (chunk[i] !== span) return false;
    this.#size--;
    if (i === chunk.length - 1) chunk.pop();
    else chunk.splice(i, 1);
    if (chunk.length === 0) this.#chunks.splice(c, 1);
    else if (chunk.length < MAX >> 3) this.#mergeWithNext(c);
    return true;
  }

  /** In address order. The set must not change meanwhile. */
  *[Symbol.iterator](): Generator<T> {
    for (const chunk of this.#chunks) yield* chunk;
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#size = 0;
  }

  #mergeWithNext(c: number): void {
    const next = this.#chunks[c + 1];
    const chunk = this.#chunks[c]!;
    if (next === undefined || chunk.length + next.length > MAX >> 1) return;
    chunk.push(...next);
    this.#chunks.splice(c + 1, 1);
  }

  /** Index of the last chunk that starts at or before a position, -1 when all start after it. */
  #chunkOf(page: number, offset: number): number {
    let low = 0;
    let high = this.#chunks.length - 1;
    while (low <= high) {
      const mid = (low + high) >>> 1;
      const first = this.#chunks[mid]![0]!;
      if (before(page, offset, first.firstPage, first.firstOffset)) high = mid - 1;
      else low = mid + 1;
    }
    return high;
  }
}

/** Index of the last span that starts at or before a position, or -1. */
function floorIn(chunk: readonly Span[], page: number, offset: number): number {
  let low = 0;
  let high = chunk.length - 1;
  while (low <= high) {
    const mid = (low + high) >>> 1;
    const span = chunk[mid]!;
    if (before(page, offset, span.firstPage, span.firstOffset)) high = mid - 1;
    else low = mid + 1;
  }
  return high;
}

function before(pageA: number, offsetA: number, pageB: number, offsetB: number): boolean {
  return pageA < pageB || (pageA === pageB && offsetA < offsetB);
}
