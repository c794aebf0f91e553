/**
 * The asking side of the mailbox. `post` returns at once, so a program goes on sending DMA while its unmap is
 * in progress; `call` waits. Calls of one client are carried out in the order it posted them.
 *
 * A ticket number is generation * TICKETS + index: one that was taken already is refused, not served twice.
 */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { SyncEnv } from '../../hw/sync/thread.js';
import { waitUntil } from '../../hw/sync/wait.js';
import { OP_LOAD, OP_STORE } from '../../hw/sync/words.js';
import { EAGAIN, EINVAL, EOWNERDEAD } from '../../uapi/abi/errno.js';
import { Control } from './control.js';
import {
  kindOf,
  MAILBOX_KEY,
  MailboxLayout,
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
/** Keeps a ticket number below 2^31. */
const GENERATIONS = 2 ** 21;
const DEFAULT_TIMEOUT_MS = 10_000;

export class MailboxClient {
  readonly #env: SyncEnv;
  readonly #memory: MachineMemory;
  readonly #control: Control;
  readonly #base: number;
  #hint: number;

  constructor(env: SyncEnv, memory: MachineMemory) {
    this.#env = env;
    this.#memory = memory;
    this.#control = new Control(memory);
    this.#base = memory.region(MailboxLayout, MAILBOX_KEY).base;
    // Spread out, so that clients do not all try the same tickets first.
    this.#hint = (env.threadId * 37) % TICKETS;
  }

  /**
   * Hands an ioctl to the core and returns.
   * @param target  iommufdTarget(fd index) or vfioTarget(device index)
   * @param bytes   the structure, copied in
   * @returns a ticket >= 0 | -EINVAL longer than 256 bytes | -EAGAIN no free ticket | -EOWNERDEAD core gone
   */
  post(target: number, cmd: number, bytes: Uint8Array): number {
    if (bytes.byteLength > TICKET_BYTES) return -EINVAL;
    if (this.#coreGone()) return -EOWNERDEAD;
    const index = this.#claim();
    if (index < 0) return -EAGAIN;
    const { words } = this.#env;
    const ticket = this.#at(index);
    const generation = ((words.load(ticket + AT.generation) >>> 0) + 1) % GENERATIONS;
    words.store(ticket + AT.generation, generation);
    words.store(ticket + AT.target, target);
    words.store(ticket + AT.cmd, cmd);
    words.store(ticket + AT.length, bytes.byteLength);
    words.store(ticket + AT.waiting, 0);
    words.bytes(OP_STORE, ticket + AT.bytes);
    this.#memory.u8.set(bytes, ticket + AT.bytes);
    words.store(ticket + AT.order, words.add(this.#base + MailboxLayout.at.posts, 1) + 1);
    words.store(ticket + AT.state, ticketState(TICKET_POSTED, this.#env.threadId));
    words.or(this.#base + MailboxLayout.at.pending + (index >>> 5) * 4, 1 << (index & 31));
    this.#control.ringCore();
    return generation * TICKETS + index;
  }

  /** Whether take() has something to give; also true for a ticket that will never be answered. */
  done(ticket: number): boolean {
    const index = this.#owned(ticket);
    if (index < 0) return true;
    return kindOf(this.#env.words.load(this.#at(index) + AT.state)) === TICKET_DONE || this.#coreGone();
  }

  /**
   * The outcome of a finished call; the ticket is used up.
   * @param into  receives the structure as the core left it, as many bytes as it has room for
   * @returns what the ioctl returned | -EAGAIN not done yet | -EINVAL not an open ticket of this thread |
   *   -EOWNERDEAD the core is gone and the call was not answered
   */
  take(ticket: number, into: Uint8Array): number {
    const index = this.#owned(ticket);
    if (index < 0) return -EINVAL;
    const { words } = this.#env;
    const at = this.#at(index);
    if (kindOf(words.load(at + AT.state)) !== TICKET_DONE) {
      if (!this.#coreGone()) return -EAGAIN;
      if (!this.#abandon(at)) return -EOWNERDEAD;
    }
    const bytes = at + AT.bytes;
    const length = Math.min(words.load(at + AT.length) >>> 0, TICKET_BYTES, into.byteLength);
    words.bytes(OP_LOAD, bytes);
    into.set(this.#memory.u8.subarray(bytes, bytes + length));
    const result = words.load(at + AT.result);
    words.store(at + AT.state, TICKET_FREE);
    return result;
  }

  /**
   * Waits for one call. A ticket whose wait failed is given up: do not take it.
   * @returns 0 | -EINVAL not an open ticket of this thread | -ETIMEDOUT | -EOWNERDEAD
   */
  wait(ticket: number, timeoutMs = DEFAULT_TIMEOUT_MS): number {
    const index = this.#owned(ticket);
    if (index < 0) return -EINVAL;
    const { words, clock } = this.#env;
    const at = this.#at(index);
    const isDone = () => kindOf(words.load(at + AT.state)) === TICKET_DONE;
    const status = waitUntil(
      this.#env,
      at + AT.state,
      () => isDone() || this.#coreGone(),
      clock.nowNs() + timeoutMs * 1e6,
      () => this.#control.coreThread,
      (delta) => words.add(at + AT.waiting, delta),
    );
    if (isDone()) return 0;
    if (this.#abandon(at)) return 0;
    return status < 0 ? status : -EOWNERDEAD;
  }

  /**
   * One ioctl, start to end. `bytes` is copied in, and out again.
   * @returns what the ioctl returned, or what post() or wait() failed with
   */
  call(target: number, cmd: number, bytes: Uint8Array, timeoutMs = DEFAULT_TIMEOUT_MS): number {
    const ticket = this.post(target, cmd, bytes);
    if (ticket < 0) return ticket;
    const status = this.wait(ticket, timeoutMs);
    return status < 0 ? status : this.take(ticket, bytes);
  }

  #claim(): number {
    const { words, threadId } = this.#env;
    for (let i = 0; i < TICKETS; i++) {
      const index = (this.#hint + i) % TICKETS;
      const state = this.#at(index) + AT.state;
      if (words.load(state) !== TICKET_FREE) continue;
      if (words.compareExchange(state, TICKET_FREE, ticketState(TICKET_CLAIMED, threadId)) !== TICKET_FREE)
        continue;
      this.#hint = index + 1;
      return index;
    }
    return -1;
  }

  /** Gives a ticket up. @returns true when it was answered at the last moment instead */
  #abandon(at: number): boolean {
    const { words, threadId } = this.#env;
    const posted = ticketState(TICKET_POSTED, threadId);
    if (words.compareExchange(at + AT.state, posted, TICKET_FREE) === posted) return false;
    const serving = ticketState(TICKET_SERVING, threadId);
    const abandoned = ticketState(TICKET_ABANDONED, threadId);
    return words.compareExchange(at + AT.state, serving, abandoned) !== serving;
  }

  /** @returns the index of a ticket that this thread posted and has not taken, or -1 */
  #owned(ticket: number): number {
    if (!Number.isSafeInteger(ticket) || ticket < 0 || ticket >= GENERATIONS * TICKETS) return -1;
    const index = ticket % TICKETS;
    const { words, threadId } = this.#env;
    const at = this.#at(index);
    const state = words.load(at + AT.state);
    const kind = kindOf(state);
    const open = kind === TICKET_POSTED || kind === TICKET_SERVING || kind === TICKET_DONE;
    if (!open || state !== ticketState(kind, threadId)) return -1;
    return words.load(at + AT.generation) === Math.floor(ticket / TICKETS) ? index : -1;
  }

  #coreGone(): boolean {
    const { words, threads } = this.#env;
    if (words.load(this.#base + MailboxLayout.at.closed) !== 0) return true;
    return threads.isDead(this.#control.coreThread);
  }

  #at(index: number): number {
    return this.#base + MailboxLayout.at.tickets + index * Ticket.size;
  }
}
