/**
 * Every atomic access that TypeScript makes to a machine's memory, by byte offset. Only `hw/sync` calls
 * Atomics; everyone else goes through `Words` or through a primitive built on it, so that one hook sees
 * every shared access (a *schedule point*) and an explorer can decide who runs next.
 *
 * Offsets are bytes, 4-byte aligned (8 for the 64-bit forms); values are int32 unless said.
 */

/** What an access is; the compiled kernel says the same numbers. */
export type WordOp = 0 | 1 | 2 | 3 | 4;
export const OP_LOAD = 0;
export const OP_STORE = 1;
export const OP_RMW = 2;
export const OP_WAIT = 3;
export const OP_NOTIFY = 4;

export type WaitResult = 'ok' | 'not-equal' | 'timed-out';

/**
 * Who sees every shared access of a thread, and may let other threads run before it: a recorder, an explorer.
 * It stands in for what makes threads sleep and wake, and may keep stores back as a processor's store buffer does.
 */
export interface ScheduleHook {
  /** Before each shared access. */
  point(op: WordOp, offset: number): void;
  /**
   * A store is about to be made, after its point().
   * @param low, high  halves of the value, int32; high is 0 for 4 bytes
   * @returns whether the hook took it: it is then not made now
   */
  storing(offset: number, bytes: 4 | 8, low: number, high: number): boolean;
  /** The newest store of this thread to the word that the hook still keeps; undefined when there is none. */
  forward32(offset: number): number | undefined;
  forward64(offset: number): bigint | undefined;
  /**
   * Check and sleep, as one step that the hook makes a point of.
   * @param polled  nobody notifies: the sleep ends when the word has changed
   * @returns null when it leaves that to Atomics
   */
  wait(offset: number, value: number, timeoutMs: number, polled: boolean): WaitResult | null;
  /** @returns how many were woken; null when it leaves that to Atomics */
  notify(offset: number, count: number): number | null;
  /** Everything this thread stored becomes visible before anything it stores from here on. */
  dmaWmb(): void;
}

let hook: ScheduleHook | null = null;

/** Installs the hook of this thread, or removes it with null. */
export function setScheduleHook(next: ScheduleHook | null): void {
  hook = next;
}

/** The hook of this thread, null in normal runs. */
export function scheduleHook(): ScheduleHook | null {
  return hook;
}

/** A thread's atomic access to shared memory, by byte offset; the schedule hook sees each one. */
export class Words {
  readonly #i32: Int32Array;
  readonly #i64: BigInt64Array;

  constructor(buffer: SharedArrayBuffer) {
    this.#i32 = new Int32Array(buffer, 0, Math.floor(buffer.byteLength / 4));
    this.#i64 = new BigInt64Array(buffer, 0, Math.floor(buffer.byteLength / 8));
  }

  load(offset: number): number {
    // What a hook does stands elsewhere throughout: these are small enough to be inlined.
    if (hook !== null) return this.#hookedLoad(hook, offset);
    return Atomics.load(this.#i32, offset >>> 2);
  }

  store(offset: number, value: number): void {
    if (hook !== null && hookedStore(hook, offset, value)) return;
    Atomics.store(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  add(offset: number, value: number): number {
    if (hook !== null) hook.point(OP_RMW, offset);
    return Atomics.add(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  sub(offset: number, value: number): number {
    if (hook !== null) hook.point(OP_RMW, offset);
    return Atomics.sub(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  and(offset: number, value: number): number {
    if (hook !== null) hook.point(OP_RMW, offset);
    return Atomics.and(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  or(offset: number, value: number): number {
    if (hook !== null) hook.point(OP_RMW, offset);
    return Atomics.or(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  xor(offset: number, value: number): number {
    if (hook !== null) hook.point(OP_RMW, offset);
    return Atomics.xor(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before */
  exchange(offset: number, value: number): number {
    if (hook !== null) hook.point(OP_RMW, offset);
    return Atomics.exchange(this.#i32, offset >>> 2, value);
  }

  /** @returns the value before; the exchange took place when it equals `expected` */
  compareExchange(offset: number, expected: number, value: number): number {
    if (hook !== null) hook.point(OP_RMW, offset);
    return Atomics.compareExchange(this.#i32, offset >>> 2, expected, value);
  }

  load64(offset: number): bigint {
    if (hook !== null) return this.#hookedLoad64(hook, offset);
    return BigInt.asUintN(64, Atomics.load(this.#i64, Math.floor(offset / 8)));
  }

  store64(offset: number, value: bigint): void {
    if (hook !== null && hookedStore64(hook, offset, value)) return;
    Atomics.store(this.#i64, Math.floor(offset / 8), BigInt.asIntN(64, value));
  }

  /** @returns the value before; the exchange took place when it equals `expected` */
  compareExchange64(offset: number, expected: bigint, value: bigint): bigint {
    if (hook !== null) hook.point(OP_RMW, offset);
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
    if (hook !== null) {
      this.#hookedRead(hook, offset, into, at, count);
      return;
    }
    const word = offset >>> 2;
    for (let i = 0; i < count; i++) into[at + i] = this.#i32[word + i]!;
  }

  /** read() into a Uint32Array; one function for both kinds of array would be slow with each. */
  readUnsigned(offset: number, into: Uint32Array, at: number, count: number): void {
    if (hook !== null) {
      this.#hookedRead(hook, offset, into, at, count);
      return;
    }
    const word = offset >>> 2;
    for (let i = 0; i < count; i++) into[at + i] = this.#i32[word + i]!;
  }

  /** Copies `count` words into shared memory, as read() does out of it. */
  write(offset: number, from: Int32Array, at: number, count: number): void {
    if (hook !== null) {
      this.#hookedWrite(hook, offset, from, at, count);
      return;
    }
    const word = offset >>> 2;
    for (let i = 0; i < count; i++) this.#i32[word + i] = from[at + i]!;
  }

  /** write() from a Uint32Array. */
  writeUnsigned(offset: number, from: Uint32Array, at: number, count: number): void {
    if (hook !== null) {
      this.#hookedWrite(hook, offset, from, at, count);
      return;
    }
    const word = offset >>> 2;
    for (let i = 0; i < count; i++) this.#i32[word + i] = from[at + i]! | 0;
  }

  /**
   * The point of a block of bytes that the caller then copies itself: where read() and write() do not fit, as for data
   * of a DMA. It is made in memory, so what the hook keeps of this thread's stores becomes visible first.
   */
  bytes(op: typeof OP_LOAD | typeof OP_STORE, offset: number): void {
    if (hook === null) return;
    hook.point(op, offset);
    hook.dmaWmb();
  }

  #hookedLoad(hooked: ScheduleHook, offset: number): number {
    hooked.point(OP_LOAD, offset);
    return hooked.forward32(offset) ?? Atomics.load(this.#i32, offset >>> 2);
  }

  #hookedLoad64(hooked: ScheduleHook, offset: number): bigint {
    hooked.point(OP_LOAD, offset);
    return hooked.forward64(offset) ?? BigInt.asUintN(64, Atomics.load(this.#i64, Math.floor(offset / 8)));
  }

  #hookedRead(
    hooked: ScheduleHook,
    offset: number,
    into: Int32Array | Uint32Array,
    at: number,
    count: number,
  ): void {
    hooked.point(OP_LOAD, offset);
    for (let i = 0; i < count; i++)
      into[at + i] = hooked.forward32(offset + 4 * i) ?? this.#i32[(offset >>> 2) + i]!;
  }

  /** The words of a block go one by one into the hook's store buffer, or to memory. */
  #hookedWrite(
    hooked: ScheduleHook,
    offset: number,
    from: Int32Array | Uint32Array,
    at: number,
    count: number,
  ): void {
    hooked.point(OP_STORE, offset);
    for (let i = 0; i < count; i++) {
      const value = from[at + i]! | 0;
      if (!hooked.storing(offset + 4 * i, 4, value, 0)) this.#i32[(offset >>> 2) + i] = value;
    }
  }

  /**
   * Linux's dma_wmb(): what this thread stored before is seen by a device before what it stores after. Atomics of
   * JavaScript are sequentially consistent, so it takes effect only under a hook that models a store buffer.
   */
  dmaWmb(): void {
    if (hook !== null) hook.dmaWmb();
  }

  /**
   * Parks while the word still holds `value`, for at most `timeoutMs`.
   * @param polled  whoever changes the word notifies nobody: the time is a nap, after which to look again
   */
  wait(offset: number, value: number, timeoutMs: number, polled = false): WaitResult {
    const result = hook === null ? null : hook.wait(offset, value, timeoutMs, polled);
    if (result !== null) return result;
    return Atomics.wait(this.#i32, offset >>> 2, value, timeoutMs);
  }

  /** @returns how many parked threads were woken */
  notify(offset: number, count: number): number {
    const woken = hook === null ? null : hook.notify(offset, count);
    if (woken !== null) return woken;
    return Atomics.notify(this.#i32, offset >>> 2, count);
  }

  /** Resolves when the word changes from `value` or the time is over; for threads that must not park. */
  waitAsync(offset: number, value: number, timeoutMs: number): Promise<WaitResult> {
    if (hook !== null) hook.point(OP_WAIT, offset);
    const result = Atomics.waitAsync(this.#i32, offset >>> 2, value, timeoutMs);
    return result.async ? (result.value as Promise<WaitResult>) : Promise.resolve(result.value as WaitResult);
  }
}

/** @returns whether the hook keeps the store */
function hookedStore(hooked: ScheduleHook, offset: number, value: number): boolean {
  hooked.point(OP_STORE, offset);
  return hooked.storing(offset, 4, value | 0, 0);
}

function hookedStore64(hooked: ScheduleHook, offset: number, value: bigint): boolean {
  hooked.point(OP_STORE, offset);
  const low = Number(BigInt.asIntN(32, value));
  return hooked.storing(offset, 8, low, Number(BigInt.asIntN(32, value >> 32n)));
}
