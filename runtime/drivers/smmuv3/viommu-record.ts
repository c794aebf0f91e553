/**
 * A vIOMMU's record in shared memory, and its vSID -> pSID table: written by the core, read by any thread
 * that invalidates for the guest.
 *
 * A reader keeps the table still (`enter` to `leave`) from the look-up until its commands are on the queue, so
 * that a StreamID can never reach the queue after its vDEVICE is gone.
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { RwLock } from '../../../hw/sync/rw-lock.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { EEXIST, ENOMEM, ENOSPC } from '../../../uapi/abi/errno.js';
import { LOCK_RANK } from '../../lock-order.js';
import {
  VDEVICE_BYTES,
  VDEVICE_DELETED,
  VDEVICE_EMPTY,
  VDEVICE_SLOTS,
  VDEVICE_USED,
  VdeviceEntry,
  VIOMMU_FREE,
  VIOMMU_LIVE,
  VIOMMU_RECORD_BYTES,
  VIOMMUS_KEY,
  ViommuRecord,
  viommusLayout,
} from './driver-layout.js';

const AT = ViommuRecord.at;
/** No guest command keeps the table longer than its own trip to the queue. */
const DEADLINE_NS = 10e9;

/** The core's free list of records; one a machine. */
export class ViommuRecords {
  readonly #memory: MachineMemory;
  readonly #free: number[] = [];

  /** @param slots as the `viommus` region was made with */
  constructor(memory: MachineMemory, slots: number) {
    this.#memory = memory;
    const { base } = memory.region(viommusLayout(slots), VIOMMUS_KEY);
    for (let i = slots - 1; i >= 0; i--) this.#free.push(base + i * VIOMMU_RECORD_BYTES);
  }

  /** @returns the record's linear offset | -ENOMEM */
  create(iommu: number, vmid: number): number {
    const record = this.#free.pop();
    if (record === undefined) return -ENOMEM;
    const { words } = this.#memory;
    for (let i = 0; i < VDEVICE_SLOTS; i++)
      words.store(record + AT.vdevs + i * VDEVICE_BYTES + VdeviceEntry.state, VDEVICE_EMPTY);
    words.store(record + AT.iommu, iommu);
    words.store(record + AT.vmid, vmid);
    words.add(record + AT.generation, 1);
    words.store(record + AT.state, VIOMMU_LIVE);
    return record;
  }

  destroy(record: number): void {
    this.#memory.words.store(record + AT.state, VIOMMU_FREE);
    this.#free.push(record);
  }
}

/** One thread's hands on a record. */
export class ViommuTable {
  readonly #env: SyncEnv;
  readonly #record: number;
  readonly #lock: RwLock;

  constructor(env: SyncEnv, record: number) {
    this.#env = env;
    this.#record = record;
    this.#lock = new RwLock(env, record + AT.vdevRw, LOCK_RANK.vdevs);
  }

  get live(): boolean {
    return this.#env.words.load(this.#record + AT.state) === VIOMMU_LIVE;
  }

  get iommu(): number {
    return this.#env.words.load(this.#record + AT.iommu);
  }

  get vmid(): number {
    return this.#env.words.load(this.#record + AT.vmid);
  }

  /** Keeps the table as it is until leave(). @returns 0 | -ETIMEDOUT | -EOWNERDEAD the core is gone */
  enter(): number {
    return this.#lock.readLock(this.#deadline());
  }

  leave(): void {
    this.#lock.readUnlock();
  }

  /** Inside enter(). @returns the pSID, or -1 when the guest has no such device */
  find(vsid: number): number {
    const entry = this.#search(vsid);
    return entry < 0 ? -1 : this.#env.words.load(entry + VdeviceEntry.psid) >>> 0;
  }

  /** The core. @returns 0 | -EEXIST vSID in use | -ENOSPC | -ETIMEDOUT */
  add(vsid: number, psid: number, device: number): number {
    if (this.#search(vsid) >= 0) return -EEXIST;
    const { words } = this.#env;
    const entry = this.#probe(vsid, (at) => words.load(at + VdeviceEntry.state) !== VDEVICE_USED);
    if (entry < 0) return -ENOSPC;
    if (this.#env.bugs?.['vdevice-published-before-init']) {
      words.store(entry + VdeviceEntry.vsid, vsid | 0);
      words.store(entry + VdeviceEntry.state, VDEVICE_USED);
    }
    return this.#change(() => {
      words.store(entry + VdeviceEntry.vsid, vsid | 0);
      words.store(entry + VdeviceEntry.psid, psid | 0);
      words.store(entry + VdeviceEntry.device, device);
      words.store(entry + VdeviceEntry.state, VDEVICE_USED);
    });
  }

  /** The core: on return no command can be queued through this vSID any more. @returns 0 | -ETIMEDOUT */
  remove(vsid: number): number {
    const entry = this.#search(vsid);
    if (entry < 0) return 0;
    return this.#change(() => this.#env.words.store(entry + VdeviceEntry.state, VDEVICE_DELETED));
  }

  #change(write: () => void): number {
    const status = this.#lock.writeLock(this.#deadline());
    if (status < 0) return status;
    write();
    this.#env.words.add(this.#record + AT.vdevSeq, 1);
    this.#lock.writeUnlock();
    return 0;
  }

  /** @returns the entry in use for `vsid`, or -1 */
  #search(vsid: number): number {
    const { words } = this.#env;
    const entry = this.#probe(vsid, (at) => {
      const state = words.load(at + VdeviceEntry.state);
      return (
        state === VDEVICE_EMPTY ||
        (state === VDEVICE_USED && words.load(at + VdeviceEntry.vsid) >>> 0 === vsid)
      );
    });
    return entry >= 0 && words.load(entry + VdeviceEntry.state) === VDEVICE_USED ? entry : -1;
  }

  /** The first entry from the vSID's own place on that `stop` accepts, or -1. */
  #probe(vsid: number, stop: (entry: number) => boolean): number {
    for (let i = 0; i < VDEVICE_SLOTS; i++) {
      const entry = this.#record + AT.vdevs + ((vsid + i) % VDEVICE_SLOTS) * VDEVICE_BYTES;
      if (stop(entry)) return entry;
    }
    return -1;
  }

  #deadline(): number {
    return this.#env.clock.nowNs() + DEADLINE_NS;
  }
}
