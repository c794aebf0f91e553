/**
 * Every atomic access that TypeScript makes to a machine's memory, by byte offset. Only `hw/sync` calls
 * Atomics; everyone else goes through `Words` or through a primitive built on it, so that one hook sees
 * every shared access (a *schedule point*) and an explorer can decide who runs next.
 *
 * Offsets are bytes, 4-byte aligned (8 for the 64-bit forms); values are int32 unless said.
 */

/** Called before each shared access; null in normal runs. */
export type ScheduleHook = (op: WordOp, offset: number) => void;
export type WordOp = 'load' | 'store' | 'rmw' | 'wait' | 'notify';

let hook: ScheduleHook | null = null;

/** Installs the schedule-point hook of this thread, or removes it with null. */
export function setScheduleHook(next: ScheduleHook | null): void {
  hook = next;
}

export type WaitResult = 'ok' | 'not-equal' | 'timed-out';

export class Words {
  readonly #i32: Int32Array;
  readonly #i64: BigInt64Array;

  constructor(buffer: SharedArrayBuffer) {
    this.#i32 = new Int32Array(buffer, 0, Math.floor(buffer.byteLength / 4));
    this.#i64 = new BigInt64Array(buffer, 0, Math.floor(buffer.byteLength / 8));
  }

  load(offset: number): number {
    if (hook !== null) hook('load', offset);
    return Atomics.load(this.#i32, offset >>> 2);
  }

  store(offset: number, value: number): void {
    if (hook !== null) hook('store', offset);
    Atomics.store(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  add(offset: number, value: number): number {
    if (hook !== null) hook('rmw', offset);
    return Atomics.add(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  sub(offset: number, value: number): number {
    if (hook !== null) hook('rmw', offset);
    return Atomics.sub(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  and(offset: number, value: number): number {
    if (hook !== null) hook('rmw', offset);
    return Atomics.and(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  or(offset: number, value: number): number {
    if (hook !== null) hook('rmw', offset);
    return Atomics.or(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  xor(offset: number, value: number): number {
    if (hook !== null) hook('rmw', offset);
    return Atomics.xor(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  exchange(offset: number, value: number): number {
    if (hook !== null) hook('rmw', offset);
    return Atomics.exchange(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before; the exchange took place when it equals `expected` */
  compareExchange(offset: number, expected: number, value: number): number {
    if (hook !== null) hook('rmw', offset);
    return Atomics.compareExchange(this.#i32, offset >>> 2, expected, value);
  }

  load64(offset: number): bigint {
    if (hook !== null) hook('load', offset);
    return BigInt.asUintN(64, Atomics.load(this.#i64, Math.floor(offset / 8)));
  }

  store64(offset: number, value: bigint): void {
    if (hook !== null) hook('store', offset);
    Atomics.store(this.#i64, Math.floor(offset / 8), BigInt.asIntN(64, value));
  }

  /** @returns the value before; the exchange took place when it equals `expected` */
  compareExchange64(offset: number, expected: bigint, value: bigint): bigint {
    if (hook !== null) hook('rmw', offset);
    const before = Atomics.compareExchange(
      this.#i64,
      Math.floor(offset / 8),
      BigInt.asIntN(64, expected),
      BigInt.asIntN(64, value),
    );
    return BigInt.asUintN(64, before);
  }

  /**
   * Copies `count` words out of shared memory: one schedule point, plain accesses. For data that a protocol's
   * own word guards; by itself it may be torn between words.
   */
  read(offset: number, into: Int32Array, at: number, count: number): void {
    if (hook !== null) hook('load', offset);
    const word = offset >>> 2;
    for (let i = 0; i < count; i++) into[at + i] = this.#i32[word + i]!;
  }

  /** Copies `count` words into shared memory, as read() does out of it. */
  write(offset: number, from: Int32Array, at: number, count: number): void {
    if (hook !== null) hook('store', offset);
    const word = offset >>> 2;
    for (let i = 0; i < count; i++) this.#i32[word + i] = from[at + i]!;
  }

  /** write() from a Uint32Array; one function for both kinds of array would be slow with each. */
  writeUnsigned(offset: number, from: Uint32Array, at: number, count: number): void {
    if (hook !== null) hook('store', offset);
    const word = offset >>> 2;
    for (let i = 0; i < count; i++) this.#i32[word + i] = from[at + i]! | 0;
  }

  /** Parks while the word still holds `value`, for at most `timeoutMs`. */
  wait(offset: number, value: number, timeoutMs: number): WaitResult {
    if (hook !== null) hook('wait', offset);
    return Atomics.wait(this.#i32, offset >>> 2, value, timeoutMs);
  }

  /** @returns how many parked threads were woken */
  notify(offset: number, count: number): number {
    if (hook !== null) hook('notify', offset);
    return Atomics.notify(this.#i32, offset >>> 2, count);
  }

  /** Resolves when the word changes from `value` or the time is over; for threads that must not park. */
  waitAsync(offset: number, value: number, timeoutMs: number): Promise<WaitResult> {
    if (hook !== null) hook('wait', offset);
    const result = Atomics.waitAsync(this.#i32, offset >>> 2, value, timeoutMs);
    return result.async ? (result.value as Promise<WaitResult>) : Promise.resolve(result.value as WaitResult);
  }
}
