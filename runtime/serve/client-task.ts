/**
 * A client process as the core knows it: Linux's task_struct, read from /proc when somebody asks. A process of one
 * user shares what that user is charged for with all others of the same user.
 */
import { closeSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import { EINVAL } from '../../uapi/abi/errno.js';
import { FailNth } from '../core/fail-nth.js';
import type { Descriptors, OpenFile } from '../core/file-table.js';
import { CAP_SYS_RESOURCE, type Task, type UserAccount } from '../core/task.js';
import type { UserFile } from '../core/user-file.js';
import type { ClientFiles } from './client-file.js';
import { ClientFileView } from './client-file-view.js';
import { ClientMemory } from './client-memory.js';

/** What the server's wire does for a process's descriptors: each is one end of a socket pair. */
export interface ClientDescriptors {
  /** The open file whose client end is the socket with this inode number. */
  bySocket(inode: string): OpenFile | undefined;
  /** Gives the process a descriptor. @returns its number | -EMFILE */
  install(file: OpenFile): number;
  /** Takes it back, before the process has seen it. @returns 0 | -EBADF */
  close(fd: number): number;
}

/** What all the clients of one machine share. */
export class ClientAccounts {
  readonly #users = new Map<number, UserAccount>();

  of(uid: number): UserAccount {
    let user = this.#users.get(uid);
    if (user === undefined) {
      user = { lockedVm: 0 };
      this.#users.set(uid, user);
    }
    return user;
  }
}

export class ClientTask implements Task {
  readonly pid: number;
  readonly uid: number;
  /** Its process: the same number, unless it is a thread's. */
  readonly tgid: number;
  readonly mm: ClientMemory;
  readonly files: Descriptors;
  readonly user: UserAccount;
  readonly failNth = new FailNth();
  structReadOnly = false;
  readonly #files: ClientFiles;
  readonly #statusFile: ProcFile;
  readonly #limitsFile: ProcFile;

  /** @throws as ClientMemory's constructor does */
  constructor(pid: number, files: ClientFiles, accounts: ClientAccounts, descriptors: ClientDescriptors) {
    this.pid = pid;
    this.#files = files;
    this.mm = new ClientMemory(pid, files);
    this.#statusFile = new ProcFile(`/proc/${pid}/status`);
    this.#limitsFile = new ProcFile(`/proc/${pid}/limits`);
    this.uid = Number(this.#status('Uid')?.split(/\s+/)[0] ?? -1);
    this.tgid = Number(this.#status('Tgid') ?? -1);
    this.user = accounts.of(this.uid);
    this.files = {
      install: (file) => descriptors.install(file),
      get: (fd) => {
        const inode = this.#socketOf(fd);
        return inode === undefined ? undefined : descriptors.bySocket(inode);
      },
      close: (fd) => descriptors.close(fd),
    };
  }

  /** The process is gone. */
  release(): void {
    this.mm.release();
    this.#statusFile.close();
    this.#limitsFile.close();
  }

  /**
   * SYS_RESOURCE opens nothing here but the choice of how pages are counted: root has it also in a container that
   * leaves it to nobody.
   */
  capable(cap: number): boolean {
    if (this.#hasCapability('CapEff', cap)) return true;
    return cap === CAP_SYS_RESOURCE && this.#isRoot() && !this.#hasCapability('CapBnd', cap);
  }

  rlimitMemlock(): number {
    const soft = /^Max locked memory\s+(\S+)/m.exec(this.#limitsFile.read())?.[1];
    if (soft === 'unlimited') return Number.POSITIVE_INFINITY;
    return Number(soft ?? 0);
  }

  userFile(fd: number): UserFile | number {
    const inode = this.#socketOf(fd);
    // What is a socket, one of ours or any other, has no pages.
    return inode === undefined ? ClientFileView.of(this.#files, this.pid, fd) : -EINVAL;
  }

  /** Whether a descriptor is the socket with that inode number, in any of its threads. */
  hasSocket(fd: number, inode: number): boolean {
    if (this.#socketOf(fd) === String(inode)) return true;
    // The first thread may have ended, and others may have descriptors of their own (CLONE_FILES).
    try {
      return readdirSync(`/proc/${this.pid}/task`).some(
        (tid) => this.#socketOf(fd, `task/${tid}/fd`) === String(inode),
      );
    } catch {
      return false;
    }
  }

  /** Inode number of the socket that a descriptor of the process is; undefined when it is none. */
  #socketOf(fd: number, folder = 'fd'): string | undefined {
    if (!Number.isInteger(fd) || fd < 0) return undefined;
    try {
      return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${this.pid}/${folder}/${fd}`))?.[1];
    } catch {
      return undefined;
    }
  }

  /** By the user ID in effect. */
  #isRoot(): boolean {
    return this.#status('Uid')?.split(/\s+/)[1] === '0';
  }

  #hasCapability(set: string, cap: number): boolean {
    return ((BigInt(`0x${this.#status(set) ?? '0'}`) >> BigInt(cap)) & 1n) === 1n;
  }

  /** A field of /proc/PID/status, which this file stands for whatever program the process runs. */
  #status(field: string): string | undefined {
    const text = this.#statusFile.read();
    const at = text.indexOf(`\n${field}:`);
    return at < 0 ? undefined : text.slice(at + field.length + 2, text.indexOf('\n', at + 1)).trim();
  }
}

/** A file of /proc, open: read anew each time, empty when the process is gone. */
class ProcFile {
  #fd: number;
  readonly #bytes = Buffer.allocUnsafe(4096);

  constructor(path: string) {
    try {
      this.#fd = openSync(path, 'r');
    } catch {
      this.#fd = -1;
    }
  }

  read(): string {
    if (this.#fd < 0) return '';
    try {
      return this.#bytes.toString('latin1', 0, readSync(this.#fd, this.#bytes, 0, this.#bytes.byteLength, 0));
    } catch {
      return '';
    }
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}
