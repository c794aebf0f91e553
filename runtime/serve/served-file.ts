/**
 * One of our descriptors as the server knows it: the connection whose client end is the descriptor, and the open
 * file behind it. The last close of the descriptor, in whatever process, ends the connection.
 *
 * A descriptor polls as readable while its connection holds bytes for the client. For an event file there is one
 * while it has something to read (`signalled`); the client that reads the file empty is told to take it out. Each
 * byte sent is taken out once, so an event that comes meanwhile brings another byte and none is lost. Any other file
 * is always readable, as a character device without a poll of its own is.
 */
import { EINVAL, ESPIPE } from '../../uapi/abi/errno.js';
import { type OpenFile, POLLIN } from '../core/file-table.js';
import { FAULT_FILE, VEVENT_FILE } from '../trace/transfer.js';
import type { Client, OpenedFile } from './client.js';
import type { Connection } from './connection.js';
import { WIRE_DRAIN, WIRE_FILE_OTHER, WIRE_FILE_SPARE } from './wire.js';

/** A file that is read and written at positions; one who does not name any is at 0. */
export interface PositionedFile {
  /** @returns the bytes read | -errno */
  readAt(offset: number, maxBytes: number): Uint8Array | number;
  /** @returns bytes taken | -errno */
  writeAt(offset: number, bytes: Uint8Array): number;
}

const MADE_PATHS: Readonly<Partial<Record<OpenFile['kind'], string>>> = {
  event: VEVENT_FILE,
  fault: FAULT_FILE,
};

export class ServedFile implements OpenedFile {
  readonly connection: Connection;
  /** Whose it is, in the sense that it goes when they misbehave. */
  readonly owner: Client;
  readonly inode: number;
  /** WIRE_FILE_*. */
  kind: number;
  positioned: PositionedFile | null = null;
  /** As the kernel would name it in /proc/PID/fd. */
  path = '';
  #file: OpenFile | null = null;
  #signalled = false;
  /** The descriptor, and mappings of it. */
  #uses = 1;

  constructor(connection: Connection, owner: Client, inode: number, kind: number) {
    this.connection = connection;
    this.owner = owner;
    this.inode = inode;
    this.kind = kind;
  }

  get file(): OpenFile | null {
    return this.#file;
  }

  /** Opens it: from here on it is `file`. Then comes begin(), once the client knows. */
  become(file: OpenFile): void {
    this.#file = file;
  }

  /** Makes it poll as it is. */
  begin(): void {
    const file = this.#file;
    if (file === null) return;
    if (file.poll === undefined) {
      this.connection.sendByte();
      return;
    }
    file.onReadable = () => this.#signal();
    if ((file.poll() & POLLIN) !== 0) this.#signal();
  }

  becomeMade(file: OpenFile): void {
    this.kind = WIRE_FILE_OTHER;
    this.path = MADE_PATHS[file.kind] ?? `anon_inode:[${file.kind}]`;
    this.become(file);
    this.begin();
  }

  unmake(): void {
    this.kind = WIRE_FILE_SPARE;
    this.#release();
  }

  /** @param offset  of pread, undefined of read. @returns the bytes read | -errno */
  read(maxBytes: number, offset?: number): Uint8Array | number {
    if (this.positioned !== null) return this.positioned.readAt(offset ?? 0, maxBytes);
    const { file } = this;
    if (file?.read === undefined) return -EINVAL;
    return offset === undefined ? file.read(maxBytes) : -ESPIPE;
  }

  /** As read. @returns bytes taken | -errno */
  write(bytes: Uint8Array, offset?: number): number {
    if (this.positioned !== null) return this.positioned.writeAt(offset ?? 0, bytes);
    const { file } = this;
    if (file?.write === undefined) return -EINVAL;
    return offset === undefined ? file.write(bytes) : -ESPIPE;
  }

  /** A mapping holds the file as its descriptor does. */
  hold(): void {
    this.#uses++;
  }

  /** The descriptor is closed, or a mapping gone: the file is released with the last of them. */
  drop(): void {
    if (--this.#uses === 0) this.#release();
  }

  /** After a read or write. @returns the reply flag that tells the client to take a byte out, once for each sent */
  drained(): number {
    if (!this.#signalled || ((this.#file?.poll?.() ?? POLLIN) & POLLIN) !== 0) return 0;
    this.#signalled = false;
    return WIRE_DRAIN;
  }

  #release(): void {
    const file = this.#file;
    if (file === null) return;
    this.#file = null;
    if (file.poll !== undefined) file.onReadable = null;
    file.release();
  }

  #signal(): void {
    if (this.#signalled) return;
    this.#signalled = true;
    this.connection.sendByte();
  }
}
