/**
 * One connection as messages. What is malformed ends it, and whoever is behind it.
 *
 * Messages are handed on whole and handled later in the same turn of the event loop (turn.ts), so that every close
 * that the kernel reported together with them has been seen first.
 */
import type { Socket } from 'node:net';
import {
  decodeRequest,
  encodeReply,
  messageBytes,
  REQUEST_BYTES,
  type Request,
  WIRE_MAX_PAYLOAD,
} from './wire.js';

/** Requests of one connection that wait: a client waits for each answer, so more than a few are no client's. */
const MAX_WAITING = 16;
/** Answers that a client has not read. */
const MAX_UNREAD_BYTES = 4 * WIRE_MAX_PAYLOAD;

export interface ConnectionEvents {
  request(connection: Connection, request: Request): void;
  /** The other end is closed everywhere, or broken. */
  ended(connection: Connection): void;
  /** Something came where nothing is listened to any more. Called once. */
  ignored(connection: Connection): void;
  /** The other end does what no client does. */
  misbehaved(connection: Connection, what: string): void;
}

export class Connection {
  readonly #socket: Socket;
  readonly #events: ConnectionEvents;
  /** The beginning of a message whose rest has not come. */
  #part: Buffer | null = null;
  #waiting = 0;
  #open = true;
  #deaf: 'no' | 'yes' | 'told' = 'no';

  constructor(socket: Socket, events: ConnectionEvents) {
    this.#socket = socket;
    this.#events = events;
    socket.on('data', (bytes) => this.#take(bytes));
    // A client that ends with an answer unread resets its connection: that is an end like any other.
    for (const event of ['end', 'error', 'close']) socket.on(event, () => this.#ended());
  }

  get open(): boolean {
    return this.#open;
  }

  /** @param flags  WIRE_* of a reply @param at  where in the caller's struct the payload goes */
  reply(result: number, flags = 0, payload?: Uint8Array, at = 0): void {
    if (!this.#open) return;
    this.#waiting--;
    this.#socket.write(encodeReply(result, flags, payload, at));
    const unread = this.#socket.writableLength;
    if (unread > MAX_UNREAD_BYTES) this.#events.misbehaved(this, 'does not read its answers');
  }

  /** Makes the client's descriptor readable: a byte that says nothing. */
  sendByte(): void {
    if (this.#open) this.#socket.write(ONE_BYTE);
  }

  /** From now on what comes is dropped: `ignored` is called for the first of it. */
  deafen(): void {
    this.#deaf = 'yes';
    if (this.#part !== null) this.#drop();
  }

  /** Ends it from here; `ended` is not called. */
  close(): void {
    this.#open = false;
    this.#socket.destroy();
  }

  #ended(): void {
    if (!this.#open) return;
    this.close();
    this.#events.ended(this);
  }

  #drop(): void {
    this.#part = null;
    if (this.#deaf === 'yes') this.#events.ignored(this);
    this.#deaf = 'told';
  }

  #take(bytes: Buffer): void {
    if (this.#deaf !== 'no') {
      this.#drop();
      return;
    }
    let all = bytes;
    if (this.#part !== null) {
      all = Buffer.concat([this.#part, bytes]);
      this.#part = null;
    }
    let at = 0;
    while (this.#open) {
      const left = all.byteLength - at;
      if (left < REQUEST_BYTES) break;
      const length = messageBytes(all, at);
      if (length > REQUEST_BYTES + WIRE_MAX_PAYLOAD) {
        this.#events.misbehaved(this, `announces ${length} bytes`);
        return;
      }
      if (left < length) break;
      if (++this.#waiting > MAX_WAITING) {
        this.#events.misbehaved(this, 'does not wait for its answers');
        return;
      }
      this.#events.request(this, decodeRequest(all, at));
      at += length;
    }
    if (this.#open && at < all.byteLength) this.#part = all.subarray(at);
  }
}

const ONE_BYTE = new Uint8Array(1);
