/**
 * Objects by ID. `SharedObjects` is what any thread may do: take and drop a short reference, read the payload.
 * `ObjectTable` adds what only the core does: reserve an ID, publish it on success, take it away.
 *
 * A short reference counts in both `users` and `wait_cnt`, as iommufd_get_object() does. So an IOMMU_DESTROY
 * that meets one answers -EBUSY, and a forced destroy (unbind) waits for it.
 *
 * @source drivers/iommu/iommufd/main.c, iommufd_private.h iommufd_lock_obj
 */
import { bug } from '../../hw/memory/bug.js';
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { SyncEnv } from '../../hw/sync/thread.js';
import { waitUntil } from '../../hw/sync/wait.js';
import type { Words } from '../../hw/sync/words.js';
import { EBUSY, ENOENT, ENOMEM } from '../../uapi/abi/errno.js';
import {
  DYING,
  FREE,
  GENERATION_SHIFT,
  LIVE,
  MAX_OBJECTS,
  OBJ_ANY,
  OBJECT,
  OBJECT_BYTES,
  ObjectsLayout,
  RESERVED,
  STATE_MASK,
  WAIT_MASK,
} from './objects-layout.js';

const isHeld = (gate: number): boolean => (gate & WAIT_MASK) !== 0;

export class SharedObjects {
  protected readonly words: Words;
  protected readonly base: number;
  readonly #unchecked: boolean;

  /** @param index  N of the region `objects:N` */
  constructor(memory: MachineMemory, { words, bugs }: Pick<SyncEnv, 'words' | 'bugs'>, index: number) {
    this.words = words;
    this.#unchecked = bugs?.['id-reused-before-reference-dropped'] === true;
    this.base = memory.region(ObjectsLayout, `objects:${index}`).base;
  }

  /**
   * Take a short reference (iommufd_get_object). While it is held the object exists and its ID is not reused.
   * @param type  OBJ_*, or OBJ_ANY
   * @returns 0 | -ENOENT missing, of another type, or being destroyed
   */
  get(id: number, type: number): number {
    if (id < 1 || id > MAX_OBJECTS) return -ENOENT;
    const at = this.objectAt(id);
    for (;;) {
      const gate = this.words.load(at + OBJECT.gate);
      if ((gate & STATE_MASK) !== LIVE || (gate & WAIT_MASK) === 0) return -ENOENT;
      if (type !== OBJ_ANY && this.words.load(at + OBJECT.type) !== type) return -ENOENT;
      if (this.#unchecked) {
        this.words.add(at + OBJECT.gate, 1);
        break;
      }
      // Success proves that generation and state were the same when the type was read.
      if (this.words.compareExchange(at + OBJECT.gate, gate, gate + 1) === gate) break;
    }
    for (;;) {
      const users = this.words.load(at + OBJECT.users);
      if (users === 0) {
        this.#putWait(at);
        return -ENOENT;
      }
      if (this.words.compareExchange(at + OBJECT.users, users, users + 1) === users) return 0;
    }
  }

  /** Drop a short reference: users first, so that a forced destroy never sees users without wait_cnt. */
  put(id: number): void {
    const at = this.objectAt(id);
    this.words.sub(at + OBJECT.users, 1);
    this.#putWait(at);
  }

  /** Type of an object that the caller holds. */
  typeOf(id: number): number {
    return this.words.load(this.objectAt(id) + OBJECT.type);
  }

  /** Payload word of an object that the caller holds. */
  payload(id: number, index: number): number {
    return this.words.load(this.objectAt(id) + OBJECT.payload + index * 4);
  }

  protected objectAt(id: number): number {
    return this.base + ObjectsLayout.at.objects + (id - 1) * OBJECT_BYTES;
  }

  #putWait(at: number): void {
    const before = this.words.sub(at + OBJECT.gate, 1);
    if ((before & WAIT_MASK) === 1 && this.words.load(this.base + ObjectsLayout.at.waiting) !== 0)
      this.words.notify(at + OBJECT.gate, 256);
  }
}

export class ObjectTable extends SharedObjects {
  readonly #env: SyncEnv;
  /** No free ID lies below. */
  #firstFree = 1;

  constructor(memory: MachineMemory, env: SyncEnv, index: number) {
    super(memory, env, index);
    this.#env = env;
  }

  /** Reserve the lowest free ID; nobody can look it up yet. @returns an ID from 1 | -ENOMEM the table is full */
  reserve(type: number): number {
    for (let id = this.#firstFree; id <= MAX_OBJECTS; id++) {
      const at = this.objectAt(id);
      const gate = this.words.load(at + OBJECT.gate);
      if ((gate & STATE_MASK) !== FREE) continue;
      this.#firstFree = id + 1;
      this.words.store(at + OBJECT.type, type);
      this.words.store(at + OBJECT.users, 1);
      // wait_cnt is biased by 1 until the object is taken away.
      const generation = (gate >>> GENERATION_SHIFT) + 1;
      this.words.store(at + OBJECT.gate, (generation << GENERATION_SHIFT) | RESERVED | 1);
      return id;
    }
    this.#firstFree = MAX_OBJECTS + 1;
    return -ENOMEM;
  }

  setPayload(id: number, index: number, value: number): void {
    this.words.store(this.objectAt(id) + OBJECT.payload + index * 4, value);
  }

  /** Other threads can take references from here on. */
  publish(id: number): void {
    this.#setState(id, RESERVED, LIVE);
  }

  /** Lookups answer -ENOENT from here on. */
  unpublish(id: number): void {
    this.#setState(id, LIVE, DYING);
  }

  /** Undo unpublish() after a wait that gave up: the object is dealt with when the fd is closed. */
  republish(id: number): void {
    this.#setState(id, DYING, LIVE);
    this.words.store(this.objectAt(id) + OBJECT.users, 1);
  }

  /** Give the ID back, from RESERVED (abort) or DYING. */
  free(id: number): void {
    const at = this.objectAt(id);
    const gate = this.words.load(at + OBJECT.gate);
    const state = gate & STATE_MASK;
    if (state !== RESERVED && state !== DYING) bug(`object ${id} freed in state ${state}`);
    this.words.store(at + OBJECT.gate, gate & ~(STATE_MASK | WAIT_MASK));
    this.words.store(at + OBJECT.users, 0);
    if (id < this.#firstFree) this.#firstFree = id;
  }

  /** Keep the ID of an object that is gone, so that it is not reused before the fd is closed. */
  entomb(id: number): void {
    this.#setState(id, DYING, RESERVED);
  }

  addUser(id: number): void {
    this.words.add(this.objectAt(id) + OBJECT.users, 1);
  }

  dropUser(id: number): void {
    if (this.words.sub(this.objectAt(id) + OBJECT.users, 1) < 1) bug(`object ${id}: users below zero`);
  }

  users(id: number): number {
    return this.words.load(this.objectAt(id) + OBJECT.users);
  }

  waitCount(id: number): number {
    return this.words.load(this.objectAt(id) + OBJECT.gate) & WAIT_MASK;
  }

  /** refcount_dec_if_one: true when the table held the only use, which is now gone. */
  dropLastUser(id: number): boolean {
    return this.words.compareExchange(this.objectAt(id) + OBJECT.users, 1, 0) === 1;
  }

  /** Drop the table's own wait reference. @returns whether that was the last */
  dropBias(id: number): boolean {
    return (this.words.sub(this.objectAt(id) + OBJECT.gate, 1) & WAIT_MASK) === 1;
  }

  restoreBias(id: number): void {
    this.words.add(this.objectAt(id) + OBJECT.gate, 1);
  }

  /** Wait until nobody holds a short reference. @returns 0 | -EBUSY not within `timeoutNs` */
  waitUnheld(id: number, timeoutNs: number): number {
    const gate = this.objectAt(id) + OBJECT.gate;
    const waiting = this.base + ObjectsLayout.at.waiting;
    const status = waitUntil(
      this.#env,
      gate,
      () => !isHeld(this.words.load(gate)),
      this.#env.clock.nowNs() + timeoutNs,
      undefined,
      (delta) => this.words.add(waiting, delta),
      undefined,
      isHeld,
    );
    return status === 0 ? 0 : -EBUSY;
  }

  #setState(id: number, from: number, to: number): void {
    const at = this.objectAt(id) + OBJECT.gate;
    for (;;) {
      const gate = this.words.load(at);
      if ((gate & STATE_MASK) !== from) bug(`object ${id}: state ${gate & STATE_MASK}, expected ${from}`);
      if (this.words.compareExchange(at, gate, (gate & ~STATE_MASK) | to) === gate) return;
    }
  }
}
