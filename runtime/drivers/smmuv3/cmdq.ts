/**
 * Putting commands on an SMMU's command queue from any number of threads at once, without a lock around it:
 * the algorithm of Linux's driver, [IHI0070] 3.5.1 for the queue itself.
 *
 *   1. reserve: one compare-and-exchange on {prod, cons} takes n slots (and one for a SYNC). Who finds OWNED
 *      clear is an *owner*, and sets it; reservations made while it is set are followers.
 *   2. write the commands; for a SYNC, share the lock on cons, so that the queue cannot wrap past the waiter.
 *   3. flip the valid bit of each slot. It means the inverse of the slot's wrap parity, so that a bit is
 *      never cleared: the next lap wants it the other way round.
 *   4. owner: wait for the previous owner; clear OWNED, which fixes the range it gathered; wait until all of
 *      that range is valid; write CMDQ_PROD; hand over to the next owner.
 *   5. SYNC: wait until CMDQ_CONS has passed it, or its MSI has been written. The last one to leave publishes
 *      cons, which makes room.
 *
 * Guarantees: what was written to memory before issue() is visible to the SMMU when it executes the commands;
 * the commands of one call are contiguous in the queue; after SYNC, everything before it is complete.
 *
 * Unlike Linux, a wait that takes too long ends in -ETIMEDOUT (the queue is then of no more use), and the
 * waiter serves a command error itself, because no interrupt may reach the thread that could.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_cmdq_issue_cmdlist
 */
import { type BugSwitches, NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import { bug } from '../../../hw/memory/bug.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import {
  COMMAND_BYTES,
  COMMAND_WORDS,
  encodeSync,
  SYNC_CS_IRQ,
  SYNC_CS_SEV,
} from '../../../hw/smmuv3/command.js';
import { queueAdvance, queueIndex, queuePointer, queueSpace } from '../../../hw/smmuv3/queue.js';
import { CMDQ_CONS, CMDQ_PROD } from '../../../hw/smmuv3/registers.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { waitUntil } from '../../../hw/sync/wait.js';
import type { Words } from '../../../hw/sync/words.js';
import { ETIMEDOUT } from '../../../uapi/abi/errno.js';
import {
  CMDQ_EXCLUSIVE,
  CMDQ_FLAG_MSI,
  CMDQ_LG2_MAX,
  CMDQ_OWNED,
  DriverLayout,
  driverKey,
} from './driver-layout.js';
import { type ErrorRegisters, serveGerror } from './gerror.js';

const AT = DriverLayout.at;
const PROD_MASK = CMDQ_OWNED - 1;
const CONS_SHIFT = 16;
const DEADLINE_NS = 5e9;
/** Looks at the queue before a wait begins in earnest, with a clock and a deadline: a few microseconds. */
const QUICK_LOOKS = 256;

/** What the queue needs of an SMMU. */
export interface CommandQueueHost {
  readonly registers: ErrorRegisters;
  /** CMDQ_CONS itself. */
  readonly consWord: number;
  /** Bumped when it has moved or an error of it is active; and who is parked on that. */
  readonly consMoved: number;
  readonly consParked: number;
  /** Bumped for every interrupt, after the MSI of a SYNC; and who is parked on it. */
  readonly irqWord: number;
  readonly irqParked: number;
  /** Thread that hosts the SMMU, 0 when unknown. */
  owner(): number;
}

export interface CommandQueueOptions {
  /** How long one wait may take. */
  readonly deadlineNs?: number;
}

export class CommandQueue {
  /** Index (with wrap bit) of the SYNC that issue() or wait() last waited for. */
  lastSyncIndex = 0;

  readonly #env: SyncEnv;
  readonly #bugs: BugSwitches;
  readonly #words: Words;
  readonly #host: CommandQueueHost;
  readonly #base: number;
  readonly #queue: number;
  readonly #basePa: number;
  readonly #lg2: number;
  readonly #msi: boolean;
  readonly #deadlineNs: number;
  /** The SYNC of this queue; only the address of an MSI changes. */
  readonly #sync = new Uint32Array(COMMAND_WORDS);

  private constructor(
    memory: MachineMemory,
    env: SyncEnv,
    index: number,
    host: CommandQueueHost,
    options: CommandQueueOptions,
  ) {
    this.#env = env;
    this.#bugs = env.bugs ?? NO_BUGS;
    this.#words = env.words;
    this.#host = host;
    this.#base = memory.region(DriverLayout, driverKey(index)).base;
    this.#queue = this.#words.load(this.#base + AT.queueLinear) >>> 0;
    this.#basePa = this.#queue - memory.ram.linear + memory.ram.basePa;
    this.#lg2 = this.#words.load(this.#base + AT.queueLg2);
    this.#msi = (this.#words.load(this.#base + AT.flags) & CMDQ_FLAG_MSI) !== 0;
    this.#deadlineNs = options.deadlineNs ?? DEADLINE_NS;
    encodeSync(this.#sync, 0, SYNC_CS_SEV);
    if (this.#queue === 0) bug(`command queue ${index} is used before the SMMU's reset`);
  }

  /** The clock its waits go by, for whoever measures them. */
  nowNs(): number {
    return this.#env.clock.nowNs();
  }

  /** This thread's view of SMMU `index`'s queue; the core must have set the queue up before. */
  static attach(
    memory: MachineMemory,
    env: SyncEnv,
    index: number,
    host: CommandQueueHost,
    options: CommandQueueOptions = {},
  ): CommandQueue {
    return new CommandQueue(memory, env, index, host, options);
  }

  /** Forgets all state and points the shadow at a queue. The core, while CMDQEN = 0. */
  static reset(
    memory: MachineMemory,
    index: number,
    queue: { linear: number; lg2: number; flags: number },
  ): void {
    // The valid map is kept in 32-bit words, and a batch plus its SYNC has to fit.
    if (queue.lg2 <= 6 || queue.lg2 > CMDQ_LG2_MAX) bug(`command queue of 2^${queue.lg2} entries`);
    const { words } = memory;
    const { base } = memory.region(DriverLayout, driverKey(index));
    const cleared = [AT.llq, AT.ownerProd, AT.lock, AT.errorLock, AT.skipped, AT.atcTimeouts, AT.errorsSeen];
    for (const offset of cleared) words.store(base + offset, 0);
    for (let i = 0; i < 2 ** CMDQ_LG2_MAX / 32; i++) words.store(base + AT.valid + i * 4, 0);
    words.store(base + AT.queueLg2, queue.lg2);
    words.store(base + AT.flags, queue.flags);
    words.store(base + AT.queueLinear, queue.linear);
  }

  /** SYNCs of this SMMU, whoever issued them, that gave up on an ATC invalidation; modulo 2^32. */
  get atcTimeouts(): number {
    return this.#words.load(this.#base + AT.atcTimeouts);
  }

  /** Most commands one call may carry, SYNC included. */
  get capacity(): number {
    return 2 ** this.#lg2;
  }

  /**
   * Puts `n` commands on the queue, contiguously and in order.
   * @param cmds  COMMAND_WORDS words each
   * @param sync  append a CMD_SYNC and wait for it
   * @returns 0 | -ETIMEDOUT
   */
  issue(cmds: Uint32Array, n: number, sync: boolean): number {
    const ticket = this.submit(cmds, n, sync);
    if (ticket < 0 || !sync) return Math.min(ticket, 0);
    return this.wait(ticket);
  }

  /**
   * The first half of issue(): does not wait for the SYNC, which wait() must do before this thread's next
   * submit(), or the queue could never be emptied.
   * @returns the SYNC's index (0 or more; the end of the commands when there is none) | -ETIMEDOUT
   */
  submit(cmds: Uint32Array, n: number, sync: boolean): number {
    const words = this.#words;
    const lg2 = this.#lg2;
    const total = n + (sync ? 1 : 0);
    if (total > 2 ** lg2 || total === 0) bug(`${total} commands for a queue of 2^${lg2}`);

    // 1. Reserve.
    const llqWord = this.#base + AT.llq;
    const bugs = this.#bugs;
    let old: number;
    let prod: number;
    let head: number;
    let firstSeen = -1;
    for (;;) {
      old = words.load(llqWord);
      if (firstSeen < 0) firstSeen = old & PROD_MASK;
      if (!this.#hasSpace(old, total)) {
        const status = this.#waitForSpace(total);
        if (status < 0) return status;
        continue;
      }
      prod = old & PROD_MASK;
      head = queueAdvance(prod, lg2, total);
      const next = (old & ~0xffff) | CMDQ_OWNED | head;
      if (words.compareExchange(llqWord, old, next) === old) break;
    }
    const owner = (old & CMDQ_OWNED) === 0;

    // 2. Write.
    if (bugs['cmdq-valid-before-written']) this.#flipValid(prod, total);
    for (let i = 0; i < n; i++) this.#write(queueAdvance(prod, lg2, i), cmds, i * COMMAND_WORDS);
    const end = queueAdvance(prod, lg2, n);
    if (sync) {
      if (this.#msi)
        encodeSync(this.#sync, 0, SYNC_CS_IRQ, this.#basePa + queueIndex(end, lg2) * COMMAND_BYTES, 0);
      this.#write(end, this.#sync, 0);
      const status = this.#shareLock();
      if (status < 0) return status;
    }

    // 3. Valid.
    words.dmaWmb();
    if (!bugs['cmdq-valid-before-written']) this.#flipValid(prod, total);
    this.#announceActivity();

    // 4. Publish.
    if (owner) {
      const status = this.#publish(prod);
      if (status < 0) {
        if (sync) this.#unshareLock();
        return status;
      }
    }
    if (bugs['sync-waits-on-wrong-index']) return prod;
    if (bugs['sync-sequence-taken-early']) return queueAdvance(firstSeen, lg2, n);
    return end;
  }

  /**
   * Waits for the SYNC that submit() put at `ticket`.
   * @returns 0 | -ETIMEDOUT
   */
  wait(ticket: number): number {
    const lockWord = this.#base + AT.lock;
    const words = this.#words;
    this.lastSyncIndex = ticket;
    let cons = this.#consumedSoon(ticket);
    let status = 0;
    if (cons < 0) {
      const done = (): boolean => {
        cons = this.#consumed(ticket);
        return cons >= 0;
      };
      const { consMoved, consParked, irqWord, irqParked } = this.#host;
      // An MSI is written after CMDQ_CONS has moved: whoever waits for it sleeps on what comes later still.
      const onIrq = this.#msi && !this.#bugs['msi-waiter-sleeps-on-cons'];
      status = waitUntil(
        this.#env,
        onIrq ? irqWord : consMoved,
        done,
        this.#deadline(),
        () => this.#host.owner(),
        (delta) => words.add(onIrq ? irqParked : consParked, delta),
      );
    }
    // 5. The last one out makes room, with a cons it knows to be current.
    if (words.load(lockWord) === 1) this.#setCons(status === 0 ? cons : this.#readCons());
    this.#unshareLock();
    return status < 0 ? -ETIMEDOUT : 0;
  }

  /** #consumed(), looked for again and again for a few microseconds: most SYNCs take no longer. */
  #consumedSoon(ticket: number): number {
    const looks = this.#env.spin === false ? 1 : QUICK_LOOKS;
    for (let i = 0; i < looks; i++) {
      const cons = this.#consumed(ticket);
      if (cons >= 0) return cons;
      this.#env.relax?.();
    }
    return -1;
  }

  /** @returns the value of cons to publish when the SMMU is past `ticket`, -1 when it is not */
  #consumed(ticket: number): number {
    const lg2 = this.#lg2;
    const cons = this.#readCons();
    if (this.#msi) {
      if (this.#words.load(this.#queue + queueIndex(ticket, lg2) * COMMAND_BYTES) !== 0) return -1;
      return queueAdvance(ticket, lg2, 1);
    }
    const sameLap = ((cons ^ ticket) & (2 ** lg2)) === 0;
    const past = queueIndex(cons, lg2) > queueIndex(ticket, lg2);
    return sameLap === past ? cons : -1;
  }

  /** CMDQ_CONS as a queue pointer; serves a command error when it shows one. */
  #readCons(): number {
    const { consWord, registers } = this.#host;
    const reg = this.#words.load(consWord);
    if (CMDQ_CONS.ERR.get(reg) !== 0) serveGerror(this.#words, this.#base, registers, this.#bugs);
    return queuePointer(reg, this.#lg2);
  }

  #hasSpace(llq: number, n: number): boolean {
    const lg2 = this.#lg2;
    if (this.#bugs['cmdq-full-taken-for-empty'])
      return 2 ** lg2 - queueIndex(llq - (llq >>> CONS_SHIFT), lg2) >= n;
    return queueSpace(llq & PROD_MASK, llq >>> CONS_SHIFT, lg2) >= n;
  }

  /**
   * Room comes in two ways: nobody waits for a SYNC, and CMDQ_CONS moves; or somebody does, and publishes cons on
   * leaving. Whoever sleeps for the one is not woken by the other, so a change between the two ends either sleep.
   */
  #waitForSpace(n: number): number {
    const words = this.#words;
    const lockWord = this.#base + AT.lock;
    const llqWord = this.#base + AT.llq;
    const deadlineNs = this.#deadline();
    const space = (): boolean => this.#hasSpace(words.load(llqWord), n);
    while (!space()) {
      const status =
        words.load(lockWord) === 0
          ? this.#waitForCons(() => this.#publishConsAlone(space) || words.load(lockWord) !== 0, deadlineNs)
          : this.#waitForActivity(() => space() || words.load(lockWord) === 0, deadlineNs);
      if (status < 0) return status;
    }
    return 0;
  }

  /** With nobody waiting for a SYNC, whoever needs room may look at CMDQ_CONS for all. @returns space() then */
  #publishConsAlone(space: () => boolean): boolean {
    const lockWord = this.#base + AT.lock;
    if (this.#words.compareExchange(lockWord, 0, CMDQ_EXCLUSIVE) === 0) {
      this.#setCons(this.#readCons());
      // Only the sign goes: sharers that came meanwhile have been counted.
      if (this.#bugs['cmdq-unlock-drops-sharers']) this.#words.store(lockWord, 0);
      else this.#words.and(lockWord, ~CMDQ_EXCLUSIVE);
      this.#announceActivity();
    }
    return space();
  }

  #shareLock(): number {
    if (this.#bugs['cmdq-cons-published-early']) return 0;
    const lockWord = this.#base + AT.lock;
    if (this.#words.add(lockWord, 1) >= 0) return 0;
    return this.#waitForActivity(() => this.#words.load(lockWord) > 0);
  }

  /** Two that leave at once may both leave cons to the other: whoever needs room then has to hear of the lock. */
  #unshareLock(): void {
    if (this.#bugs['cmdq-cons-published-early']) return;
    if (this.#words.sub(this.#base + AT.lock, 1) === 1) this.#announceActivity();
  }

  /** Holder of the lock, exclusive or last sharer: nobody else writes cons meanwhile. */
  #setCons(cons: number): void {
    const llqWord = this.#base + AT.llq;
    for (;;) {
      const old = this.#words.load(llqWord);
      const next = (old & 0xffff) | (cons << CONS_SHIFT);
      if (old === next || this.#words.compareExchange(llqWord, old, next) === old) return;
    }
  }

  #publish(prod: number): number {
    const words = this.#words;
    const ownerWord = this.#base + AT.ownerProd;
    const bugs = this.#bugs;
    // a. The previous owner first, or CMDQ_PROD would move backwards.
    let status = 0;
    if (!bugs['cmdq-owner-does-not-wait'] && words.load(ownerWord) !== prod)
      status = this.#waitForActivity(() => words.load(ownerWord) === prod);
    if (status < 0) return status;
    // b. From here on, reservations have another owner.
    const end = words.and(this.#base + AT.llq, ~CMDQ_OWNED) & PROD_MASK;
    // c. Followers may still be writing theirs.
    if (!bugs['cmdq-published-before-valid'] && !this.#rangeValid(prod, end))
      status = this.#waitForActivity(() => this.#rangeValid(prod, end));
    if (status < 0) return status;
    // d. and e.
    this.#host.registers.write32(CMDQ_PROD.offset, end);
    words.store(ownerWord, end);
    this.#announceActivity();
    return 0;
  }

  /** The slot is this thread's alone until its valid bit says so. */
  #write(pointer: number, cmds: Uint32Array, from: number): void {
    const linear = this.#queue + queueIndex(pointer, this.#lg2) * COMMAND_BYTES;
    this.#words.writeUnsigned(linear, cmds, from, COMMAND_WORDS);
  }

  #flipValid(from: number, count: number): void {
    for (let left = count, at = from; left > 0; ) {
      const slot = queueIndex(at, this.#lg2);
      const n = Math.min(left, 32 - (slot & 31));
      this.#words.xor(this.#base + AT.valid + (slot >>> 5) * 4, validMask(slot, n));
      at = queueAdvance(at, this.#lg2, n);
      left -= n;
    }
  }

  #rangeValid(from: number, end: number): boolean {
    const count = (end - from) & (2 ** (this.#lg2 + 1) - 1);
    for (let left = count, at = from; left > 0; ) {
      const slot = queueIndex(at, this.#lg2);
      const n = Math.min(left, 32 - (slot & 31));
      const mask = validMask(slot, n);
      const want = (at & (2 ** this.#lg2)) === 0 ? mask : 0;
      if ((this.#words.load(this.#base + AT.valid + (slot >>> 5) * 4) & mask) !== want) return false;
      at = queueAdvance(at, this.#lg2, n);
      left -= n;
    }
    return true;
  }

  #waitForActivity(ready: () => boolean, deadlineNs?: number): number {
    if (ready()) return 0;
    return this.#wait(this.#base + AT.activity, this.#base + AT.waiters, ready, deadlineNs);
  }

  #waitForCons(ready: () => boolean, deadlineNs: number): number {
    return this.#wait(this.#host.consMoved, this.#host.consParked, ready, deadlineNs);
  }

  #wait(word: number, parked: number, ready: () => boolean, deadlineNs = this.#deadline()): number {
    const status = waitUntil(
      this.#env,
      word,
      ready,
      deadlineNs,
      () => this.#host.owner(),
      (delta) => this.#words.add(parked, delta),
    );
    return status < 0 ? -ETIMEDOUT : 0;
  }

  #announceActivity(): void {
    if (this.#words.load(this.#base + AT.waiters) === 0) return;
    this.#words.add(this.#base + AT.activity, 1);
    this.#words.notify(this.#base + AT.activity, Number.POSITIVE_INFINITY);
  }

  #deadline(): number {
    return this.#env.clock.nowNs() + this.#deadlineNs;
  }
}

/** Bits [slot mod 32, + n) of a word of the valid map. */
function validMask(slot: number, n: number): number {
  return (n === 32 ? -1 : (1 << n) - 1) << (slot & 31);
}
