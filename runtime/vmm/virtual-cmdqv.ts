/**
 * A guest driver's VCMDQ: a command queue in guest RAM that the hardware reads by itself. The guest's driver writes
 * commands and moves PROD in the page that its VMM has mapped for it; nothing traps but the queue's allocation.
 *
 *   guest driver --commands--> queue in guest RAM ---- read by the pIOMMU ----> caches of the SMMU
 *                --PROD------> VINTF page (mmap) ------^
 *
 * What the hardware takes from a guest: TLBI_NH_VA, TLBI_NH_ASID, ATC_INV, CMD_SYNC without a signal. Everything
 * else goes through the SMMU's own queue, as Linux does (arm_smmu_get_cmdq).
 *
 * One thread. Not modelled: the trapped registers of a CMDQV (PARAM, ALLOC, BASE): create() stands for them.
 */
import { bug } from '../../hw/memory/bug.js';
import {
  CMD_ATC_INV,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  COMMAND_BYTES,
  COMMAND_WORDS,
  encodeSync,
  SYNC_CS_NONE,
} from '../../hw/smmuv3/command.js';
import { queueAdvance, queueFull, queueIndex, queuePointer } from '../../hw/smmuv3/queue.js';
import { CERROR_ATC_INV_SYNC } from '../../hw/smmuv3/registers.js';
import type { SyncEnv } from '../../hw/sync/thread.js';
import { waitUntil } from '../../hw/sync/wait.js';
import { VcmdqPage } from '../../hw/tegra241-cmdqv/page-driver.js';
import { VCMDQ_CONS } from '../../hw/tegra241-cmdqv/registers.js';
import { EIO, ENOMEM, ETIMEDOUT } from '../../uapi/abi/errno.js';
import type { GuestRam } from './guest-ram.js';

const PAGE = 4096;
const DEADLINE_NS = 5e9;
/** Nobody need notify a guest: it looks. */
const SLICE_MS = 1;

export interface VirtualCmdqvOptions {
  /** The guest's thread. */
  readonly env: SyncEnv;
  readonly ram: GuestRam;
  /** Linear offset of the mapped VINTF page (IommufdMapping.linear). */
  readonly page: number;
  /** Logical number of the VCMDQ, from 0 up. */
  readonly index?: number;
  /** log2 of entries, at least 1. */
  readonly log2?: number;
  /**
   * What the VMM does when the guest gives its queue an address: IOMMU_HW_QUEUE_ALLOC.
   * @returns the queue's object ID | -errno
   */
  allocate(index: number, ipa: number, bytes: number): number;
  /** Rings the SMMU's doorbell, so that its thread looks at once; without it, it looks every millisecond. */
  readonly told?: () => void;
}

export class VirtualCmdqv {
  /** Its HW queue, for IOMMU_DESTROY. */
  readonly hwQueueId: number;
  /** Commands that the hardware refused, and that were replaced. */
  refused = 0;
  readonly #env: SyncEnv;
  readonly #ram: GuestRam;
  readonly #page: VcmdqPage;
  readonly #log2: number;
  readonly #pfn: number;
  readonly #sync = new Uint32Array(COMMAND_WORDS);
  #prod = 0;
  #dirty = false;

  private constructor(options: VirtualCmdqvOptions, pfn: number, log2: number, hwQueueId: number) {
    const { env, ram, page, index = 0, told } = options;
    this.#env = env;
    this.#ram = ram;
    this.#page = new VcmdqPage(env.words, page, index, told);
    this.#log2 = log2;
    this.#pfn = pfn;
    this.hwQueueId = hwQueueId;
    encodeSync(this.#sync, 0, SYNC_CS_NONE);
  }

  /** Allocates and enables a queue. @returns it | -ENOMEM | -ETIMEDOUT | what `allocate` says */
  static create(options: VirtualCmdqvOptions): VirtualCmdqv | number {
    const { ram, index = 0, log2 = 8 } = options;
    const bytes = COMMAND_BYTES * 2 ** log2;
    const pages = Math.max(1, bytes / PAGE);
    const pfn = ram.allocZeroed(pages, pages);
    if (pfn < 0) return -ENOMEM;
    const id = options.allocate(index, pfn * PAGE, bytes);
    if (id < 0) {
      ram.frames.release(pfn, pages);
      return id;
    }
    const queue = new VirtualCmdqv(options, pfn, log2, id);
    queue.#page.prod = 0;
    queue.#page.cons = 0;
    queue.#page.enable = true;
    return queue.#wait(() => queue.#page.enabled) < 0 ? -ETIMEDOUT : queue;
  }

  /** Whether a guest may put such a command on a VCMDQ. */
  supports(opcode: number): boolean {
    return opcode === CMD_TLBI_NH_VA || opcode === CMD_TLBI_NH_ASID || opcode === CMD_ATC_INV;
  }

  /** Whether something was put since the last sync(). */
  get dirty(): boolean {
    return this.#dirty;
  }

  /** Adds a command; the hardware sees it at once. @returns 0 | -ETIMEDOUT */
  put(command: Uint32Array): number {
    const full = () => queueFull(this.#prod, this.#page.cons, this.#log2);
    if (full() && this.#wait(() => this.#mend() || !full()) < 0) return -ETIMEDOUT;
    const slot = this.#pfn * PAGE + queueIndex(this.#prod, this.#log2) * COMMAND_BYTES;
    if (!this.#ram.writeWords(slot, command.subarray(0, COMMAND_WORDS))) bug('VCMDQ left guest RAM');
    this.#prod = queueAdvance(this.#prod, this.#log2);
    this.#page.prod = this.#prod;
    this.#dirty = true;
    return 0;
  }

  /**
   * Waits until everything put before is done.
   * @returns 0 | -EIO a command was refused, and replaced by a harmless one | -ETIMEDOUT
   */
  sync(): number {
    const refused = this.refused;
    const put = this.put(this.#sync);
    if (put < 0) return put;
    this.#dirty = false;
    const ticket = queuePointer(this.#prod, this.#log2);
    const done = (): boolean => {
      this.#mend();
      return queuePointer(this.#page.cons, this.#log2) === ticket && !this.#inError();
    };
    if (this.#wait(done) < 0) return -ETIMEDOUT;
    return this.refused === refused ? 0 : -EIO;
  }

  /** Disables it; its HW queue is to be destroyed before its frames are. @returns 0 | -ETIMEDOUT */
  disable(): number {
    this.#page.enable = false;
    return this.#wait(() => !this.#page.enabled);
  }

  /** After the HW queue is destroyed. */
  release(): void {
    this.#ram.frames.release(this.#pfn, Math.max(1, (COMMAND_BYTES * 2 ** this.#log2) / PAGE));
  }

  #inError(): boolean {
    return ((this.#page.gerror ^ this.#page.gerrorn) & 1) !== 0;
  }

  /** What Linux does with a command error: a harmless command instead, acknowledge. @returns false */
  #mend(): false {
    if (!this.#inError()) return false;
    const { cons } = this.#page;
    // A SYNC that gave up on a device is fetched anew, and has nothing left to wait for.
    if (VCMDQ_CONS.ERR.get(cons) !== CERROR_ATC_INV_SYNC) {
      const slot = this.#pfn * PAGE + queueIndex(cons, this.#log2) * COMMAND_BYTES;
      this.#ram.writeWords(slot, this.#sync);
    }
    this.refused++;
    this.#page.gerrorn = this.#page.gerror;
    return false;
  }

  #wait(ready: () => boolean): number {
    const deadline = this.#env.clock.nowNs() + DEADLINE_NS;
    const { consWord } = this.#page;
    const status = waitUntil(this.#env, consWord, ready, deadline, undefined, undefined, SLICE_MS);
    return status < 0 ? -ETIMEDOUT : 0;
  }
}
