/**
 * Some of a sorted set's spans: their first pages side by side, so that a search reads a few cache lines of numbers
 * and not an object a step, and an order that says where each span itself lies.
 *
 *   keys    3  7  9 12  .  .      sorted first pages
 *   order   2  0  3  1 | 4  5     spans[order[i]] begins at keys[i]; behind the count: places that are free
 *   spans   s7 s12 s3 s9 -  -     never moved
 *
 * Several spans may begin on one page, at offsets that grow.
 */
export interface Span {
  readonly firstPage: number;
  readonly firstOffset: number;
  /** Inclusive. */
  readonly lastPage: number;
  readonly lastOffset: number;
}

/** Spans of a full chunk. */
export const CHUNK_SPANS = 256;
const FIRST_CAPACITY = 8;

export class SpanChunk<T extends Span> {
  count = 0;
  #keys = new Float64Array(FIRST_CAPACITY);
  #order = places(FIRST_CAPACITY);
  readonly #spans: (T | undefined)[] = new Array<T | undefined>(FIRST_CAPACITY).fill(undefined);

  /** The span at an index below `count`. */
  at(index: number): T {
    return this.#spans[this.#order[index]!]!;
  }

  /** First page of the span at an index below `count`. */
  keyAt(index: number): number {
    return this.#keys[index]!;
  }

  /** Index of the last span that starts at or before a position, or -1. */
  floor(page: number, offset: number): number {
    const keys = this.#keys;
    let low = 0;
    let high = this.count - 1;
    while (low <= high) {
      const mid = (low + high) >>> 1;
      if (keys[mid]! > page) high = mid - 1;
      else low = mid + 1;
    }
    while (high >= 0 && keys[high] === page && this.at(high).firstOffset > offset) high--;
    return high;
  }

  /** The chunk must not be full. */
  insert(index: number, span: T): void {
    if (this.count === this.#keys.length) this.#grow();
    const { count } = this;
    const place = this.#order[count]!;
    if (index < count) {
      this.#keys.copyWithin(index + 1, index, count);
      this.#order.copyWithin(index + 1, index, count);
    }
    this.#keys[index] = span.firstPage;
    this.#order[index] = place;
    this.#spans[place] = span;
    this.count = count + 1;
  }

  remove(index: number): void {
    const last = this.count - 1;
    const place = this.#order[index]!;
    if (index < last) {
      this.#keys.copyWithin(index, index + 1, last + 1);
      this.#order.copyWithin(index, index + 1, last + 1);
    }
    this.#order[last] = place;
    this.#spans[place] = undefined;
    this.count = last;
  }

  /** Moves the spans from `index` on to the end of another chunk, which has room. */
  moveTail(index: number, to: SpanChunk<T>): void {
    for (let i = index; i < this.count; i++) to.insert(to.count, this.at(i));
    while (this.count > index) this.remove(this.count - 1);
  }

  #grow(): void {
    const { length } = this.#keys;
    const keys = new Float64Array(2 * length);
    keys.set(this.#keys);
    const order = places(2 * length);
    order.set(this.#order);
    this.#keys = keys;
    this.#order = order;
    for (let i = 0; i < length; i++) this.#spans.push(undefined);
  }
}

function places(count: number): Uint16Array<ArrayBuffer> {
  const order = new Uint16Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  return order;
}
