/**
 * The server: a machine behind a Unix socket, for programs that open /dev/iommu with the preload library. One thread,
 * the core's; a request is a call of the core on behalf of the client's Task.
 *
 *   client process                          server
 *   control connection  -- request/reply -- Client { Task } --.
 *   descriptor = socket ------------------- ServedFile -------+--> core.as(task, file.ioctl | read | write | mmap)
 *   mapping + socket ---------------------- SharedWindow -----'
 *
 * Who may connect is decided by the socket's mode (0600). Who a client is it proves: it writes a nonce into its own
 * memory, and we read it there. Credentials of the socket would name whoever connected before a fork, and Node has
 * no way to ask for them.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { EACCES, EBADF, EMFILE, ENODEV, ENOENT, ENOMEM, ESRCH } from '../../uapi/abi/errno.js';
import type { Mapping, OpenFile } from '../core/file-table.js';
import type { Machine } from '../machine.js';
import { Client } from './client.js';
import { type Answer, ioctl, onBehalfOf, transfer, type Watcher } from './client-calls.js';
import { ClientFiles } from './client-file.js';
import { ClientAccounts, type ClientDescriptors, ClientTask } from './client-task.js';
import { Connection, type ConnectionEvents } from './connection.js';
import { FailNthFile } from './fail-nth-file.js';
import { wireVersion } from './preload-library.js';
import { ServedFile } from './served-file.js';
import { SharedWindow } from './shared-window.js';
import { Turn } from './turn.js';
import {
  decodeHello,
  encodeChallenge,
  encodeWelcome,
  HELLO_BYTES,
  NONCE_BYTES,
  OP_ACCOUNT,
  OP_BARRIER,
  OP_FILE,
  OP_HELLO,
  OP_IDENTIFY,
  OP_IOCTL,
  OP_MAP,
  OP_PROOF,
  OP_READ,
  OP_WRITE,
  type Request,
  SECRET_BYTES,
  WIRE_FILE_FAIL_NTH,
  WIRE_FILE_IOMMUFD,
  WIRE_FILE_SPARE,
  WIRE_FILE_VFIO_CONTAINER,
  WIRE_FILE_VFIO_DEVICE,
  WIRE_MAGIC,
  WIRE_MAP_EXEC,
  WIRE_MAP_SHARED,
  WIRE_TESTING,
} from './wire.js';

export interface ServerOptions extends Watcher {
  /** For the files that clients map; nobody else may enter it. */
  readonly folder: string;
  /** One line each. */
  readonly log: (line: string) => void;
  /** Told when a client has something mapped, and when none has. */
  readonly onMapped: ((mapped: boolean) => void) | undefined;
  /** What stands in for /sys/kernel/debug; '' when fault injection is not served. */
  readonly debugfs: string;
  /** As Turn takes it. */
  readonly later?: (work: () => void) => void;
}

/** What a connection has turned out to be. */
type Peer =
  | { readonly is: 'new' }
  | { readonly is: 'unproven'; readonly pid: number; readonly proofVa: bigint; readonly nonce: Buffer }
  | { readonly is: 'control'; readonly client: Client }
  | { readonly is: 'file'; readonly file: ServedFile }
  | { readonly is: 'map'; readonly file: ServedFile; readonly window: SharedWindow };

const NEW: Peer = { is: 'new' };

/** Names of files by WIRE_FILE_*. */
const PATHS: Readonly<Record<number, (index: number) => string>> = {
  [WIRE_FILE_IOMMUFD]: () => '/dev/iommu',
  [WIRE_FILE_VFIO_CONTAINER]: () => '/dev/vfio/vfio',
  [WIRE_FILE_VFIO_DEVICE]: (index) => `/dev/vfio/devices/vfio${index}`,
};
const ACCOUNT_BYTES = 16;
/** What the log says of an exception that nothing should throw. */
const MADE_FAIL = 'made the server fail';

export class Server implements ConnectionEvents {
  readonly #machine: Machine;
  readonly #options: ServerOptions;
  readonly #turn: Turn;
  readonly #version = wireVersion();
  readonly #peers = new Map<Connection, Peer>();
  /** By secret. */
  readonly #clients = new Map<string, Client>();
  /** By inode of the client's end. */
  readonly #files = new Map<number, ServedFile>();
  readonly #windows = new Set<SharedWindow>();
  #windowCount = 0;
  readonly #clientFiles: ClientFiles;
  readonly #accounts = new ClientAccounts();

  constructor(machine: Machine, options: ServerOptions) {
    this.#machine = machine;
    this.#options = options;
    this.#turn = new Turn(() => this.#guard(() => this.poll()), options.later);
    this.#clientFiles = new ClientFiles(machine.foreign);
  }

  accept(socket: Socket): void {
    this.#peers.set(new Connection(socket, this), NEW);
  }

  /** Clients, their open files, and what they have mapped. */
  get counts(): { clients: number; files: number; mappings: number } {
    return { clients: this.#clients.size, files: this.#files.size, mappings: this.#windows.size };
  }

  /** Carries over what clients stored to mapped memory, and serves what the hardware raised. */
  poll(): void {
    for (const window of this.#windows) window.sync();
    this.#machine.poll();
    for (const window of this.#windows) window.sync();
  }

  close(): void {
    for (const [connection, peer] of [...this.#peers]) {
      connection.close();
      this.#gone(connection, peer);
    }
    for (const client of [...this.#clients.values()]) this.#forget(client);
  }

  /** A defect of ours where no client asks for anything must not take all of them down. */
  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#options.log(`serve: ${MADE_FAIL}: ${textOf(error)}`);
    }
  }

  // ---- ConnectionEvents ----

  request(connection: Connection, request: Request): void {
    this.#turn.add(() => {
      const peer = this.#peers.get(connection);
      if (peer === undefined) return;
      try {
        this.#serve(connection, peer, request);
      } catch (error) {
        // A defect of ours must not take the other clients down.
        this.misbehaved(connection, `${MADE_FAIL}: ${textOf(error)}`);
      }
    });
  }

  ended(connection: Connection): void {
    const peer = this.#peers.get(connection);
    if (peer !== undefined) this.#guard(() => this.#gone(connection, peer));
  }

  ignored(connection: Connection): void {
    const peer = this.#peers.get(connection);
    const client = peer && clientOf(peer);
    if (client === undefined) return;
    this.#options.log(
      `serve: process ${client.pid}, or a child of its, writes to a descriptor past the library: dropped`,
    );
  }

  misbehaved(connection: Connection, what: string): void {
    const peer = this.#peers.get(connection);
    if (peer === undefined) return;
    const client = clientOf(peer);
    const who = client === undefined ? 'a connection' : `process ${client.pid}`;
    this.#options.log(`serve: ${who} ${what}: ended`);
    connection.close();
    this.#guard(() => this.#gone(connection, peer));
    if (client !== undefined) this.#end(client);
  }

  // ---- Requests ----

  #serve(connection: Connection, peer: Peer, request: Request): void {
    const { op } = request;
    if (peer.is === 'control') {
      const answer = this.#asked(peer.client, request);
      if (answer === null) this.misbehaved(connection, `sent message ${op}, which there is not`);
      else connection.reply(answer.result, answer.flags, answer.payload, answer.at);
    } else if (peer.is === 'new' && op === OP_HELLO) this.#hello(connection, request);
    else if (peer.is === 'unproven' && op === OP_PROOF) this.#prove(connection, peer);
    else if (peer.is === 'new' && (op === OP_FILE || op === OP_MAP)) {
      const client = this.#clients.get(request.payload.toString('latin1'));
      if (client === undefined) this.misbehaved(connection, 'is of no client');
      else if (op === OP_FILE) this.#open(connection, client, request);
      else this.#map(connection, client, request);
    } else this.misbehaved(connection, `sent message ${op} out of order`);
  }

  #hello(connection: Connection, request: Request): void {
    if (request.payload.byteLength !== HELLO_BYTES) {
      this.misbehaved(connection, 'sent a bad greeting');
      return;
    }
    const { magic, version, pid, proofVa } = decodeHello(request.payload);
    if (magic !== WIRE_MAGIC || version !== this.#version) {
      this.misbehaved(connection, 'has a preload library of another build of iommufd');
      return;
    }
    const nonce = randomBytes(NONCE_BYTES);
    this.#peers.set(connection, { is: 'unproven', pid, proofVa, nonce });
    connection.reply(0, 0, encodeChallenge(nonce, process.pid));
  }

  #prove(connection: Connection, peer: Peer & { is: 'unproven' }): void {
    const { pid, proofVa, nonce } = peer;
    const client = this.#known(pid, proofVa, nonce) ?? this.#meet(pid, proofVa, nonce);
    if (typeof client === 'string') {
      this.#options.log(`serve: process ${pid} is refused: ${client}`);
      connection.reply(-EACCES);
      return;
    }
    client.controls.add(connection);
    this.#peers.set(connection, { is: 'control', client });
    const { debugfs } = this.#options;
    connection.reply(0, 0, encodeWelcome(client.secret, debugfs === '' ? 0 : WIRE_TESTING, debugfs));
  }

  /** The client that this is another connection of. */
  #known(pid: number, proofVa: bigint, nonce: Buffer): Client | undefined {
    for (const client of this.#clients.values())
      if (client.pid === pid && holds(client.task, proofVa, nonce)) return client;
    return undefined;
  }

  /** @returns the new client, or why it is refused */
  #meet(pid: number, proofVa: bigint, nonce: Buffer): Client | string {
    for (const client of [...this.#clients.values()]) this.#forgetDead(client);
    try {
      if (statSync(`/proc/${pid}`).uid !== process.getuid?.()) return "it is another user's";
      const descriptors: ClientDescriptors = {
        bySocket: (inode) => this.#files.get(Number(inode))?.file ?? undefined,
        install: (file) => {
          const fd = client.installSpare(file);
          return fd < 0 ? -EMFILE : fd;
        },
        close: (fd) => (client.removeSpare(fd) ? 0 : -EBADF),
      };
      const task = new ClientTask(pid, this.#clientFiles, this.#accounts, descriptors);
      const client = new Client(pid, task, randomBytes(SECRET_BYTES));
      // A thread's number would be a second client of one memory, and ours holds every nonce there is.
      if (task.tgid !== pid || pid === process.pid) {
        task.release();
        return pid === process.pid ? 'it says it is the server' : 'it is a thread of another';
      }
      if (!holds(task, proofVa, nonce)) {
        task.release();
        return 'it is not who it says it is (is it in another PID namespace?)';
      }
      this.#clients.set(client.secret.toString('latin1'), client);
      return client;
    } catch (error) {
      return `its memory cannot be read: ${(error as Error).message}`;
    }
  }

  /** @returns null when there is no such request */
  #asked(client: Client, request: Request): Answer | null {
    switch (request.op) {
      case OP_IOCTL:
        return ioctl(
          this.#machine.core,
          this.#held(client, request),
          this.#files.get(request.spare),
          client,
          request,
          this.#options,
        );
      case OP_READ:
      case OP_WRITE:
        return transfer(this.#machine.core, this.#held(client, request), client, request, this.#options);
      case OP_BARRIER:
        return { result: 0 };
      case OP_IDENTIFY:
        return { result: this.#files.get(request.file)?.kind ?? -ENOENT };
      case OP_ACCOUNT:
        return this.#account(request.index);
      default:
        return null;
    }
  }

  /**
   * The file that a request is about. An inode number is no secret: of what another process opened, the client has
   * to have a descriptor, by inheritance or from a message.
   */
  #held(client: Client, request: Request): ServedFile | undefined {
    const file = this.#files.get(request.file);
    if (file === undefined || file.owner === client || client.seen.has(file)) return file;
    if (!client.task.hasSocket(request.fd, file.inode)) return undefined;
    client.seen.add(file);
    return file;
  }

  /** VmPin and VmLck of a process, as far as the core has charged it. */
  #account(pid: number): Answer {
    const client = this.#byPid(pid);
    if (client === undefined) return { result: -ESRCH };
    const { pinnedVm, lockedVm } = client.task.mm.account;
    const payload = Buffer.alloc(ACCOUNT_BYTES);
    payload.writeBigUInt64LE(BigInt(pinnedVm), 0);
    payload.writeBigUInt64LE(BigInt(lockedVm), 8);
    return { result: 0, payload };
  }

  #open(connection: Connection, client: Client, request: Request): void {
    const { file: inode, cmd: kind } = request;
    if (inode === 0 || this.#files.has(inode)) {
      this.misbehaved(connection, 'names a descriptor twice');
      return;
    }
    const file = new ServedFile(connection, client, inode, kind);
    const status = onBehalfOf(this.#machine.core, client, () => this.#openAs(file, kind, request.index));
    connection.reply(status);
    if (status < 0) return;
    this.#peers.set(connection, { is: 'file', file });
    this.#files.set(inode, file);
    client.files.add(file);
    file.begin();
    // The program's own descriptor: what it stores there by stdio or a bare system call is not meant for us.
    connection.deafen();
  }

  /** @returns 0 | -errno */
  #openAs(served: ServedFile, kind: number, index: number): number {
    if (kind === WIRE_FILE_SPARE) return 0;
    if (kind === WIRE_FILE_FAIL_NTH && this.#options.debugfs !== '') {
      served.positioned = new FailNthFile(() => this.#byPid(index)?.task.failNth);
      return 0;
    }
    const file = this.#openFile(kind, index);
    if (typeof file === 'number') return file;
    served.become(file);
    served.path = PATHS[kind]?.(index) ?? '';
    return 0;
  }

  #openFile(kind: number, index: number): OpenFile | number {
    const { core, config } = this.#machine;
    if (kind === WIRE_FILE_IOMMUFD || kind === WIRE_FILE_VFIO_CONTAINER)
      return core.openFile(kind === WIRE_FILE_VFIO_CONTAINER);
    if (kind !== WIRE_FILE_VFIO_DEVICE) return -ENODEV;
    const device = config.devices[index];
    if (device === undefined) return -ENOENT;
    const vfio = core.openVfio(this.#machine.device(device.label));
    return {
      kind: 'vfio',
      ioctl: (cmd, bytes) => vfio.ioctl(cmd, bytes),
      release: () => vfio.close(),
    };
  }

  #map(connection: Connection, client: Client, request: Request): void {
    const served = this.#held(client, request);
    const { arg: offset, index: bytes, cmd } = request;
    const shared = (cmd & WIRE_MAP_SHARED) !== 0;
    const exec = (cmd & WIRE_MAP_EXEC) !== 0;
    const mapping = onBehalfOf(
      this.#machine.core,
      client,
      () => served?.file?.mmap?.(offset, bytes, shared, exec) ?? -ENODEV,
    );
    if (typeof mapping === 'number' || served === undefined) {
      connection.reply(mapping as number);
      return;
    }
    const window = this.#show(mapping);
    if (window === null) {
      connection.reply(-ENOMEM);
      return;
    }
    served.hold();
    this.#windows.add(window);
    if (this.#windows.size === 1) this.#options.onMapped?.(true);
    this.#peers.set(connection, { is: 'map', file: served, window });
    connection.reply(0, 0, Buffer.from(window.path));
    connection.deafen();
  }

  /** @returns null when no file can be made: the disk is full, too many are open */
  #show(mapping: Mapping): SharedWindow | null {
    const path = join(this.#options.folder, `map-${++this.#windowCount}`);
    try {
      return new SharedWindow(path, this.#machine.memory, mapping, this.#options.log);
    } catch (error) {
      this.#options.log(`serve: ${(error as Error).message}`);
      mapping.unmap();
      return null;
    }
  }

  #byPid(pid: number): Client | undefined {
    for (const client of this.#clients.values())
      if (client.pid === pid && client.task.mm.alive) return client;
    return undefined;
  }

  // ---- Ends ----

  /** A connection is closed already; what it stood for goes too. */
  #gone(connection: Connection, peer: Peer): void {
    if (!this.#peers.delete(connection)) return;
    if (peer.is === 'control') {
      const { client } = peer;
      client.controls.delete(connection);
      this.#forgetDead(client);
    } else if (peer.is === 'file') {
      this.#files.delete(peer.file.inode);
      peer.file.owner.files.delete(peer.file);
      peer.file.drop();
      this.#forgetDead(peer.file.owner);
    } else if (peer.is === 'map') {
      this.#windows.delete(peer.window);
      peer.window.release();
      peer.file.drop();
      if (this.#windows.size === 0) this.#options.onMapped?.(false);
    }
  }

  /** A process may lose its connections and live on: what it mapped is in its memory still. */
  #forgetDead(client: Client): void {
    const known = this.#clients.has(client.secret.toString('latin1'));
    if (known && client.controls.size === 0 && !client.task.mm.alive) this.#forget(client);
  }

  #forget(client: Client): void {
    this.#clients.delete(client.secret.toString('latin1'));
    client.task.release();
  }

  /** As if the client had died. */
  #end(client: Client): void {
    const connections = [...client.controls, ...[...client.files].map((file) => file.connection)];
    for (const connection of connections) {
      const peer = this.#peers.get(connection);
      connection.close();
      if (peer !== undefined) this.#guard(() => this.#gone(connection, peer));
    }
    if (this.#clients.has(client.secret.toString('latin1'))) this.#forget(client);
  }
}

const textOf = (error: unknown): string => (error as Error).stack ?? String(error);

function clientOf(peer: Peer): Client | undefined {
  if (peer.is === 'control') return peer.client;
  return peer.is === 'file' || peer.is === 'map' ? peer.file.owner : undefined;
}

/** Whether the nonce stands in the memory of that task. */
function holds(task: ClientTask, va: bigint, nonce: Buffer): boolean {
  const found = Buffer.alloc(NONCE_BYTES);
  return (
    va <= BigInt(Number.MAX_SAFE_INTEGER) &&
    task.mm.readAt(Number(va), found) &&
    timingSafeEqual(found, nonce)
  );
}
