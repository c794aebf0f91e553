/**
 * A process that does nothing and has memory: what a client of a server is, to the server. Who made it may write to
 * that memory, and so proves to be it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, readlinkSync, readSync, writeSync } from 'node:fs';
import type { Socket } from 'node:net';

export const PAGE = 4096;
/** Pages at the end of its heap, which it does not use. */
const PASSIVE_PAGES = 24;

const SOCKETS = [3, 4, 5, 6];

export class PassiveProcess {
  readonly pid: number;
  /** Address of PASSIVE_PAGES pages. */
  readonly va: bigint;
  /** Descriptors that are sockets, as those of a server's files are. */
  readonly sockets: readonly { readonly fd: number; readonly inode: number }[];
  readonly #child: ChildProcess;
  readonly #mem: number;

  /** @throws Error there is no cat, or no /proc */
  constructor() {
    // It waits for its input, and ends with whoever holds that.
    this.#child = spawn('cat', {
      stdio: ['pipe', 'ignore', 'ignore', ...SOCKETS.map(() => 'pipe' as const)],
    });
    this.#child.unref();
    for (const stream of this.#child.stdio) (stream as Socket | null)?.unref();
    if (this.#child.pid === undefined) throw new Error('fuzz: cat cannot be run');
    this.pid = this.#child.pid;
    const heap = /^[0-9a-f]+-([0-9a-f]+) rw-p .*\[heap\]$/m.exec(heapOf(this.pid));
    if (heap === null) throw new Error('fuzz: cat has no heap');
    this.va = BigInt(`0x${heap[1]}`) - BigInt(PASSIVE_PAGES * PAGE);
    this.#mem = openSync(`/proc/${this.pid}/mem`, 'r+');
    this.sockets = SOCKETS.map((fd) => ({ fd, inode: inodeOf(readlinkSync(`/proc/${this.pid}/fd/${fd}`)) }));
  }

  /** @param at  bytes from `va` */
  write(at: number, bytes: Uint8Array): void {
    writeSync(this.#mem, bytes, 0, bytes.byteLength, Number(this.va) + at);
  }

  read(at: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    readSync(this.#mem, bytes, 0, length, Number(this.va) + at);
    return bytes;
  }

  end(): void {
    closeSync(this.#mem);
    this.#child.kill('SIGKILL');
  }
}

const inodeOf = (link: string): number => Number(/^socket:\[(\d+)\]$/.exec(link)?.[1] ?? 0);

/** Its mappings once it has a heap, which its first allocation makes. */
function heapOf(pid: number): string {
  const until = performance.now() + 5000;
  for (;;) {
    const maps = readFileSync(`/proc/${pid}/maps`, 'latin1');
    if (maps.includes('[heap]') || performance.now() > until) return maps;
  }
}
