/**
 * A sorted set of disjoint byte spans: what an interval tree is in the kernel, for spans that never overlap.
 *
 *   firsts  [ 3           12           40 ]      first page of each chunk
 *   chunks  [ s s s s ] [ s s s ] [ s s s s s ]  at most CHUNK_SPANS each, sorted by start: span-chunk.ts
 *
 * Two binary searches over numbers that lie together, and a change moves at most one chunk's: a map of some
 * millions of spans costs a few cache misses more than one of a thousand. A position is (page, offset): a 64-bit
 * byte address is not exact as a Number, its page number is.
 */
import { CHUNK_SPANS, type Span, SpanChunk } from './span-chunk.js';

const FIRST_CHUNKS = 4;

export class OrderedSpans<T extends Span> {
  readonly #chunks: SpanChunk<T>[] = [];
  /** keyAt(0) of each chunk; infinite for one that is empty, which only an only one can be. */
  #firsts = new Float64Array(FIRST_CHUNKS);
  #size = 0;
  /** Where the last search ended: a check, an insertion and a removal tend to follow each other in one place. */
  #recent = 0;

  get size(): number {
    return this.#size;
  }

  /** The first span, by address, that touches [first, last]. */
  firstIn(firstPage: number, firstOffset: number, lastPage: number, lastOffset: number): T | undefined {
    const c = Math.max(this.#chunkOf(firstPage, firstOffset), 0);
    const chunk = this.#chunks[c];
    if (chunk === undefined) return undefined;
    let i = chunk.floor(firstPage, firstOffset);
    let span: T | undefined;
    if (i >= 0) {
      span = chunk.at(i);
      if (before(span.lastPage, span.lastOffset, firstPage, firstOffset)) span = undefined;
    }
    if (span === undefined) {
      i++;
      // The key alone says that most ranges are free.
      if (i < chunk.count) {
        if (chunk.keyAt(i) > lastPage) return undefined;
        span = chunk.at(i);
      } else span = this.#chunks[c + 1]?.at(0);
    }
    if (span === undefined || before(lastPage, lastOffset, span.firstPage, span.firstOffset))
      return undefined;
    return span;
  }

  /** The span after one that is in the set. */
  next(span: T): T | undefined {
    const c = this.#chunkOf(span.firstPage, span.firstOffset);
    const chunk = this.#chunks[c];
    if (chunk === undefined) return undefined;
    const i = chunk.floor(span.firstPage, span.firstOffset) + 1;
    return i < chunk.count ? chunk.at(i) : this.#chunks[c + 1]?.at(0);
  }

  /** The span before one that is in the set. */
  previous(span: T): T | undefined {
    const c = this.#chunkOf(span.firstPage, span.firstOffset);
    const chunk = this.#chunks[c];
    if (chunk === undefined) return undefined;
    const i = chunk.floor(span.firstPage, span.firstOffset) - 1;
    if (i >= 0) return chunk.at(i);
    const previous = this.#chunks[c - 1];
    return previous?.at(previous.count - 1);
  }

  /** The span must not touch another. */
  insert(span: T): void {
    this.#size++;
    const c = Math.max(this.#chunkOf(span.firstPage, span.firstOffset), 0);
    const chunk = this.#chunks[c];
    if (chunk === undefined) {
      this.#addChunk(0, new SpanChunk()).insert(0, span);
      this.#firsts[0] = span.firstPage;
      return;
    }
    const i = chunk.floor(span.firstPage, span.firstOffset) + 1;
    if (chunk.count < CHUNK_SPANS) {
      chunk.insert(i, span);
      if (i === 0) this.#firsts[c] = span.firstPage;
      return;
    }
    const right = this.#addChunk(c + 1, new SpanChunk());
    // Appending is the usual order: leave the old chunk nearly full, so that a packed map stays packed, but with
    // room for what comes between. Of full ones, each would be split at the first.
    const kept = i === CHUNK_SPANS ? CHUNK_SPANS - (CHUNK_SPANS >> 3) : CHUNK_SPANS >> 1;
    chunk.moveTail(kept, right);
    if (i <= kept) chunk.insert(i, span);
    else right.insert(i - kept, span);
    this.#firsts[c] = chunk.keyAt(0);
    this.#firsts[c + 1] = right.keyAt(0);
  }

  /** @returns whether the span was in the set */
  remove(span: T): boolean {
    const c = this.#chunkOf(span.firstPage, span.firstOffset);
    const chunk = this.#chunks[c];
    if (chunk === undefined) return false;
    const i = chunk.floor(span.firstPage, span.firstOffset);
    if (i < 0 || chunk.at(i) !== span) return false;
    this.#size--;
    chunk.remove(i);
    if (chunk.count === 0) {
      // The last one stays: a set that has one span now and then would make a chunk each time.
      if (this.#chunks.length > 1) this.#removeChunk(c);
      else this.#firsts[0] = Number.POSITIVE_INFINITY;
    } else {
      if (i === 0) this.#firsts[c] = chunk.keyAt(0);
      if (chunk.count < CHUNK_SPANS >> 3) this.#mergeWithNext(c);
    }
    return true;
  }

  /** In address order. The set must not change meanwhile. */
  *[Symbol.iterator](): Generator<T> {
    for (const chunk of this.#chunks) for (let i = 0; i < chunk.count; i++) yield chunk.at(i);
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#size = 0;
    this.#recent = 0;
  }

  #mergeWithNext(c: number): void {
    const next = this.#chunks[c + 1];
    const chunk = this.#chunks[c]!;
    if (next === undefined || chunk.count + next.count > CHUNK_SPANS >> 1) return;
    next.moveTail(0, chunk);
    this.#removeChunk(c + 1);
  }

  #addChunk(c: number, chunk: SpanChunk<T>): SpanChunk<T> {
    const { length } = this.#chunks;
    if (length === this.#firsts.length) {
      const firsts = new Float64Array(2 * length);
      firsts.set(this.#firsts);
      this.#firsts = firsts;
    }
    this.#firsts.copyWithin(c + 1, c, length);
    this.#chunks.splice(c, 0, chunk);
    return chunk;
  }

  #removeChunk(c: number): void {
    this.#firsts.copyWithin(c, c + 1, this.#chunks.length);
    this.#chunks.splice(c, 1);
  }

  /** Index of the last chunk that starts at or before a position, -1 when all start after it. */
  #chunkOf(page: number, offset: number): number {
    const firsts = this.#firsts;
    const { length } = this.#chunks;
    const recent = this.#recent;
    if (recent < length && firsts[recent]! < page && (recent + 1 === length || firsts[recent + 1]! > page))
      return recent;
    let low = 0;
    let high = length - 1;
    while (low <= high) {
      const mid = (low + high) >>> 1;
      if (firsts[mid]! > page) high = mid - 1;
      else low = mid + 1;
    }
    while (high >= 0 && firsts[high] === page && this.#chunks[high]!.at(0).firstOffset > offset) high--;
    if (high >= 0) this.#recent = high;
    return high;
  }
}

function before(pageA: number, offsetA: number, pageB: number, offsetB: number): boolean {
  return pageA < pageB || (pageA === pageB && offsetA < offsetB);
}
