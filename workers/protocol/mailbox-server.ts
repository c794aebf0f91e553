/**
 * The core's side of the mailbox: finds posted tickets, performs each call on a private copy of its structure,
 * and publishes the outcome. What clients wrote is not trusted: a malformed ticket is answered, never thrown.
 */
import { type BugSwitches, NO_BUGS } from '../../hw/bugs/bug-switches.js';
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { OP_LOAD, OP_STORE, type Words } from '../../hw/sync/words.js';
import { EFAULT, EINVAL, EIO } from '../../uapi/abi/errno.js';
import {
  kindOf,
  MAILBOX_KEY,
  MailboxLayout,
  ownerOf,
  TARGET_FILE_CLOSE,
  TARGET_FILE_READ,
  TARGET_FILE_WRITE,
  TARGET_IOMMUFD,
  TARGET_VFIO,
  TARGET_VFIO_CLOSE,
  TICKET_ABANDONED,
  TICKET_BYTES,
  TICKET_CLAIMED,
  TICKET_DONE,
  TICKET_FREE,
  TICKET_POSTED,
  TICKET_SERVING,
  TICKETS,
  Ticket,
  ticketState,
} from './mailbox-layout.js';

const AT = Ticket.at;
const WORDS = TICKETS / 32;

/** What a ticket can ask for. Each returns >= 0 or -errno, -EBADF where nothing is open. */
export interface MailboxTargets {
  iommufd(fdIndex: number, cmd: number, bytes: Uint8Array): number;
  vfio(deviceIndex: number, cmd: number, bytes: Uint8Array): number;
  vfioClose(deviceIndex: number): number;
  fileRead(fd: number, into: Uint8Array): number;
  fileWrite(fd: number, bytes: Uint8Array): number;
  fileClose(fd: number): number;
}

interface Gathered {
  readonly index: number;
  readonly order: number;
}

export class MailboxServer {
  readonly #memory: MachineMemory;
  readonly #words: Words;
  readonly #base: number;
  readonly #targets: MailboxTargets;
  readonly #bugs: BugSwitches;
  /** Found but not served yet, oldest post first. */
  #gathered: Gathered[] = [];

  /** Carves the mailbox out on first use, and empties it. Only while no other thread is attached. */
  constructor(memory: MachineMemory, targets: MailboxTargets, bugs: BugSwitches = NO_BUGS) {
    if (!memory.hasRegion(MAILBOX_KEY)) memory.allocRegion(MailboxLayout, MAILBOX_KEY);
    const { base, size } = memory.region(MailboxLayout, MAILBOX_KEY);
    memory.u8.fill(0, base, base + size);
    this.#memory = memory;
    this.#words = memory.words;
    this.#base = base;
    this.#targets = targets;
    this.#bugs = bugs;
  }

  /**
   * Performs up to `max` calls.
   * @returns how many were answered
   * @throws whatever a call threw (a bug in the core), after answering it -EIO
   */
  serve(max: number): number {
    let served = 0;
    while (served < max) {
      if (this.#gathered.length === 0) this.#gather();
      const next = this.#gathered.shift();
      if (next === undefined) break;
      if (this.#serveOne(next)) served++;
    }
    return served;
  }

  hasWork(): boolean {
    if (this.#gathered.length > 0) return true;
    for (let word = 0; word < WORDS; word++) if (this.#words.load(this.#pending(word)) !== 0) return true;
    return false;
  }

  /** No more calls are taken: clients get -EOWNERDEAD for what is unanswered. */
  close(): void {
    this.#words.store(this.#base + MailboxLayout.at.closed, 1);
    for (let index = 0; index < TICKETS; index++)
      if (this.#words.load(this.#at(index) + AT.waiting) !== 0)
        this.#words.notify(this.#at(index) + AT.state, Number.POSITIVE_INFINITY);
  }

  /**
   * Takes what was posted, sorted by post. A post later than the snapshot stays for the next round: were it
   * served now, an earlier one of the same client, in a word already passed, would come after it.
   */
  #gather(): void {
    const words = this.#words;
    const snapshot = words.load(this.#base + MailboxLayout.at.posts);
    for (let word = 0; word < WORDS; word++) {
      if (words.load(this.#pending(word)) === 0) continue;
      // Cleared before the states are read: a ticket posted from here on sets its bit again.
      let bits = words.exchange(this.#pending(word), 0);
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits & -bits);
        bits &= bits - 1;
        const index = word * 32 + bit;
        const at = this.#at(index);
        const kind = kindOf(words.load(at + AT.state));
        if (kind > TICKET_ABANDONED) this.#refuseState(at);
        if (kind !== TICKET_POSTED) continue;
        const order = words.load(at + AT.order);
        const ahead = (order - snapshot) | 0;
        // Posts outstanding never exceed the tickets, so an order further ahead is made up, and served now.
        if (ahead > 0 && ahead <= TICKETS) words.or(this.#pending(word), 1 << bit);
        else this.#gathered.push({ index, order });
      }
    }
    if (this.#gathered.length > 1) this.#gathered.sort((a, b) => (a.order - b.order) | 0);
  }

  /** @returns false when the ticket was given up, or used again, since it was gathered */
  #serveOne({ index, order }: Gathered): boolean {
    const words = this.#words;
    const at = this.#at(index);
    const state = words.load(at + AT.state);
    const serving = ticketState(TICKET_SERVING, ownerOf(state));
    if (this.#bugs['mailbox-serves-abandoned-ticket']) words.store(at + AT.state, serving);
    else {
      if (kindOf(state) !== TICKET_POSTED || words.load(at + AT.order) !== order) return false;
      if (words.compareExchange(at + AT.state, state, serving) !== state) return false;
    }
    let result = -EIO;
    try {
      result = this.#perform(at);
    } finally {
      const late = this.#bugs['mailbox-answer-before-result'];
      if (!late) words.store(at + AT.result, result);
      const done = ticketState(TICKET_DONE, ownerOf(state));
      const before = words.compareExchange(at + AT.state, serving, done);
      if (before !== serving) words.store(at + AT.state, TICKET_FREE);
      if (words.load(at + AT.waiting) !== 0) words.notify(at + AT.state, Number.POSITIVE_INFINITY);
      if (late) words.store(at + AT.result, result);
    }
    return true;
  }

  #perform(at: number): number {
    const words = this.#words;
    const length = words.load(at + AT.length) >>> 0;
    if (length > TICKET_BYTES) return -EFAULT;
    const target = words.load(at + AT.target) >>> 0;
    // A private copy: the client may go on writing to the ticket.
    words.bytes(OP_LOAD, at + AT.bytes);
    const bytes = this.#memory.u8.slice(at + AT.bytes, at + AT.bytes + length);
    const result = this.#ask(target >>> 16, target & 0xffff, words.load(at + AT.cmd) >>> 0, bytes);
    words.bytes(OP_STORE, at + AT.bytes);
    this.#memory.u8.set(bytes, at + AT.bytes);
    return result;
  }

  #ask(kind: number, index: number, cmd: number, bytes: Uint8Array): number {
    switch (kind) {
      case TARGET_IOMMUFD:
        return this.#targets.iommufd(index, cmd, bytes);
      case TARGET_VFIO:
        return this.#targets.vfio(index, cmd, bytes);
      case TARGET_VFIO_CLOSE:
        return this.#targets.vfioClose(index);
      case TARGET_FILE_READ:
        return this.#targets.fileRead(index, bytes);
      case TARGET_FILE_WRITE:
        return this.#targets.fileWrite(index, bytes);
      case TARGET_FILE_CLOSE:
        return this.#targets.fileClose(index);
      default:
        return -EINVAL;
    }
  }

  #refuseState(at: number): void {
    const state = this.#words.load(at + AT.state);
    this.#words.store(at + AT.result, -EINVAL);
    this.#words.compareExchange(at + AT.state, state, ticketState(TICKET_DONE, ownerOf(state)));
  }

  #pending(word: number): number {
    return this.#base + MailboxLayout.at.pending + word * 4;
  }

  #at(index: number): number {
    return this.#base + MailboxLayout.at.tickets + index * Ticket.size;
  }
}

/**
 * Frees every ticket of a thread that died. Any thread may do it: each step is one compare-exchange.
 * @returns how many there were
 */
export function reclaimTickets(memory: MachineMemory, threadId: number): number {
  const { words } = memory;
  const { base } = memory.region(MailboxLayout, MAILBOX_KEY);
  let freed = 0;
  for (let index = 0; index < TICKETS; index++) {
    const state = base + MailboxLayout.at.tickets + index * Ticket.size + AT.state;
    // At most the core moves it meanwhile, and then twice at most: to SERVING, to DONE.
    for (let attempt = 0; attempt < 3; attempt++) {
      const seen = words.load(state);
      const kind = kindOf(seen);
      if (ownerOf(seen) !== threadId || kind === TICKET_FREE || kind === TICKET_ABANDONED) break;
      const known = kind >= TICKET_CLAIMED && kind <= TICKET_DONE;
      const next = known && kind === TICKET_SERVING ? ticketState(TICKET_ABANDONED, threadId) : TICKET_FREE;
      if (words.compareExchange(state, seen, next) !== seen) continue;
      freed++;
      break;
    }
  }
  return freed;
}
