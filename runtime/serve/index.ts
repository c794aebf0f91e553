/**
 * Public entry point `iommufd/serve`: a machine behind a Unix socket, for C programs that open /dev/iommu under the
 * preload library (uapi/preload). The machine stays this program's: it calls `dmaPort` for the devices it emulates
 * while clients map memory for them.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Server as NetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Machine } from '../machine.js';
import type { IoctlCall } from '../trace/call.js';
import type { Transfer } from '../trace/transfer.js';
import { Server } from './server.js';
import { DEBUGFS_BYTES } from './wire.js';

export type { IoctlCall } from '../trace/call.js';
export { formatCall, formatJson } from '../trace/format.js';
export { formatTransfer, formatTransferJson, type Transfer } from '../trace/transfer.js';

/** Builds the library that client programs are to preload (LD_PRELOAD), and says where it is. */
export { buildPreload, PreloadError } from './preload-library.js';

export interface ServeOptions {
  /** Path of the socket to make. Default: one in a folder of its own, which nobody else may enter. */
  readonly socket?: string;
  /** What an operator should read: clients refused or ended. Default: dropped. */
  readonly log?: (line: string) => void;
  /** Told of every ioctl, after it. */
  readonly onCall?: (call: IoctlCall) => void;
  /** Told of every read and write of an event file, after it. */
  readonly onTransfer?: (transfer: Transfer) => void;
  /** Told when a client has memory of the machine mapped, and when none has: time to poll() now and then. */
  readonly onMapped?: (mapped: boolean) => void;
  /** Serve /proc/PID/task/TID/fail-nth and the debugfs attributes beside it; with a machine made for tests. */
  readonly faultInjection?: boolean;
}

export interface Served {
  /** What IOMMUFD_SOCKET is to be. */
  readonly socket: string;
  /** Clients, their open files, and mappings of those. */
  readonly counts: { readonly clients: number; readonly files: number; readonly mappings: number };
  /**
   * Carries over what clients stored to memory of the machine that they have mapped, and serves what the hardware
   * raised. Done after each of their calls; a host whose devices work in between calls it as it does Machine.poll().
   */
  poll(): void;
  /** Ends every client's files and takes the socket away. The machine stays. */
  close(): Promise<void>;
}

/** Longest path of a Unix socket, bytes. */
const MAX_SOCKET_PATH = 107;
/** include/uapi/asm-generic/fcntl.h: the name itself, without opening what it is of. Node does not list it. */
const O_PATH = 0x20_0000;
/** What Linux's fault injection has in debugfs, as far as programs look. */
const FAULT_ATTRIBUTES = [
  'ignore-gfp-wait',
  'ignore-gfp-highmem',
  'verbose',
  'probability',
  'interval',
  'times',
];

/**
 * Listens for clients.
 * @throws Error the path is too long, or a server is there already; an error of fs or net
 */
export async function serve(machine: Machine, options: ServeOptions = {}): Promise<Served> {
  const folder = mkdtempSync(join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), 'iommufd-'));
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  const path = resolve(options.socket ?? join(folder, 'socket'));
  try {
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH)
      throw new Error(`serve: a socket's path has at most ${MAX_SOCKET_PATH} bytes: ${path}`);
    const debugfs = options.faultInjection === true ? makeDebugfs(folder) : '';
    const log = options.log ?? (() => undefined);
    const { onCall, onTransfer, onMapped } = options;
    const server = new Server(machine, { folder, log, debugfs, onCall, onTransfer, onMapped });
    const net = createServer((socket) => server.accept(socket));
    await removeStale(path);
    await listen(net, path);
    net.on('error', (error) => log(`serve: ${error.message}`));
    return {
      socket: path,
      get counts() {
        return server.counts;
      },
      poll: () => server.poll(),
      close: async () => {
        const closed = new Promise<void>((done) => net.close(() => done()));
        server.close();
        await closed;
        removeFolder();
      },
    };
  } catch (error) {
    removeFolder();
    throw error;
  }
}

/** Binds with a mode of 0600 from the first moment. */
async function listen(net: NetServer, path: string): Promise<void> {
  const before = process.umask(0o177);
  const listening = new Promise<void>((done, failed) => {
    net.once('error', failed);
    net.listen(path, () => {
      net.off('error', failed);
      done();
    });
  });
  process.umask(before);
  await listening;
  // A folder's default access list goes before the umask. What is at the path is not trusted to be still the socket.
  const fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
  try {
    if (fstatSync(fd).isSocket()) chmodSync(`/proc/self/fd/${fd}`, 0o600);
  } finally {
    closeSync(fd);
  }
}

/** A socket whose server died is in the way. @throws Error a server answers there */
async function removeStale(path: string): Promise<void> {
  const answer = await new Promise<string>((done) => {
    const probe = connect(path, () => {
      probe.destroy();
      done('');
    });
    probe.once('error', (error: NodeJS.ErrnoException) => done(error.code ?? 'unknown'));
  });
  if (answer === '') throw new Error(`serve: a server is at ${path} already`);
  if (answer === 'ECONNREFUSED' && lstatSync(path).isSocket()) unlinkSync(path);
}

/** What a program finds under /sys/kernel/debug. @returns the folder */
function makeDebugfs(folder: string): string {
  const root = join(folder, 'debug');
  if (Buffer.byteLength(root) >= DEBUGFS_BYTES) throw new Error(`serve: the path is too long: ${root}`);
  for (const fault of ['failslab', 'fail_page_alloc']) {
    mkdirSync(join(root, fault), { recursive: true });
    for (const attribute of FAULT_ATTRIBUTES) writeFileSync(join(root, fault, attribute), 'N\n');
  }
  return root;
}
