/**
 * On whose behalf the core works at the moment: Linux's `current`. A program in this process is one Task over the
 * machine's user memory; a server makes one per client process, and says whose turn it is with IommufdCore.as().
 */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { OP_LOAD, OP_STORE } from '../../hw/sync/words.js';
import { EBADF, EFAULT, EINVAL } from '../../uapi/abi/errno.js';
import type { PinnableMemory } from '../iova/pinnable-memory.js';
import type { MemFileDescription } from '../mem-file.js';
import { FailNth } from './fail-nth.js';
import type { Descriptors } from './file-table.js';
import type { UserFile } from './user-file.js';

/** What a process is charged for pinned pages: VmPin and VmLck in /proc/PID/status. */
export interface MmAccount {
  /** Pages pinned for it (mm->pinned_vm). */
  pinnedVm: number;
  /** Those that count against its RLIMIT_MEMLOCK as VFIO counts (mm->locked_vm), see iova/accounting.ts. */
  lockedVm: number;
}

/** What a user is charged for, over all their processes (user->locked_vm). */
export interface UserAccount {
  /** Pages. */
  lockedVm: number;
}

/** The memory of a process: struct mm_struct, as much of it as iommufd uses. */
export interface AddressSpace extends PinnableMemory {
  /** copy_from_user. @returns 0 | -EFAULT, then `into` holds nothing of use */
  copyIn(va: bigint, into: Uint8Array): number;
  /** copy_to_user. @returns 0 | -EFAULT, then nothing was written */
  copyOut(va: bigint, from: Uint8Array): number;
  /**
   * How often a frame of this memory is pinned.
   * @returns -1 where that is not counted page by page: in a larger page, or without frames of RAM
   */
  pinsOf(pfn: number): number;
  readonly account: MmAccount;
  /** False once the process is gone (mmget_not_zero fails): nothing more can be pinned. */
  readonly alive: boolean;
}

/** include/uapi/linux/capability.h. */
export const CAP_IPC_LOCK = 14;
export const CAP_SYS_RESOURCE = 24;

export interface Task {
  readonly mm: AddressSpace;
  readonly files: Descriptors;
  readonly user: UserAccount;
  readonly failNth: FailNth;
  /** The struct of the call under way can be read and not written: an answer is -EFAULT. */
  readonly structReadOnly?: boolean;
  /** @param cap  CAP_* */
  capable(cap: number): boolean;
  /** RLIMIT_MEMLOCK in bytes, or Infinity. */
  rlimitMemlock(): number;
  /** @returns what the descriptor is open on | -EBADF no such descriptor | -EINVAL nothing with pages of its own */
  userFile(fd: number): UserFile | number;
}

/** What lies behind frame numbers, whoever owns the frames. */
export interface PhysicalMemory {
  /** @param offset  bytes into the frame; the range may run into the frames that follow. @returns 0 | -EFAULT */
  read(pfn: number, offset: number, into: Uint8Array): number;
  write(pfn: number, offset: number, from: Uint8Array): number;
}

/** The frames of a machine's RAM. */
export class RamFrames implements PhysicalMemory {
  readonly #memory: MachineMemory;

  constructor(memory: MachineMemory) {
    this.#memory = memory;
  }

  read(pfn: number, offset: number, into: Uint8Array): number {
    const linear = this.#memory.linearOf(pfn * 4096 + offset, into.byteLength);
    if (linear < 0) return -EFAULT;
    this.#memory.words.bytes(OP_LOAD, linear);
    into.set(this.#memory.u8.subarray(linear, linear + into.byteLength));
    return 0;
  }

  write(pfn: number, offset: number, from: Uint8Array): number {
    const linear = this.#memory.linearOf(pfn * 4096 + offset, from.byteLength);
    if (linear < 0) return -EFAULT;
    this.#memory.words.bytes(OP_STORE, linear);
    this.#memory.u8.set(from, linear);
    return 0;
  }
}

/** The program that the machine lives in: it may lock what it likes, unless it says otherwise. */
export class OwnTask implements Task {
  readonly mm: AddressSpace;
  readonly files: Descriptors;
  readonly user: UserAccount = { lockedVm: 0 };
  readonly failNth = new FailNth();
  /** CAP_*; a test takes some away. */
  readonly capabilities = new Set([CAP_IPC_LOCK, CAP_SYS_RESOURCE]);
  /** RLIMIT_MEMLOCK in bytes. */
  memlockBytes = Number.POSITIVE_INFINITY;

  constructor(mm: AddressSpace, files: Descriptors) {
    this.mm = mm;
    this.files = files;
  }

  capable(cap: number): boolean {
    return this.capabilities.has(cap);
  }

  rlimitMemlock(): number {
    return this.memlockBytes;
  }

  userFile(fd: number): UserFile | number {
    const file = this.files.get(fd);
    if (file === undefined) return -EBADF;
    return file.kind === 'memfd' ? (file as MemFileDescription).file : -EINVAL;
  }
}
