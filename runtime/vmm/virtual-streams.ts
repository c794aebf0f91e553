/**
 * Which streams and vIOMMUs stand behind one virtual SMMU, and how its commands reach them: what carries a
 * StreamID goes to the owner's vIOMMU, everything else to all of them (a guest's ASID is live on each physical
 * SMMU that one of its devices is behind).
 *
 *   CFGI_CD(vSID 8) ---> vIOMMU of stream 8          TLBI_NH_VA ---> batch of vIOMMU 0, 1, 2
 */
import { COMMAND_WORDS, encodeCfgiCdAll } from '../../hw/smmuv3/command.js';
import type { CommandSink } from './virtual-command-queue.js';
import type { VmDevice } from './vm-device.js';
import type { VmViommu } from './vm-viommu.js';

export interface StreamOwner {
  /** Puts in force what the guest's registers and stream table say of a stream. */
  apply(device: VmDevice): void;
  syncInterrupt(): void;
}

export class VirtualStreams implements CommandSink {
  readonly #owner: StreamOwner;
  readonly #devices = new Map<number, VmDevice>();
  readonly #viommus = new Set<VmViommu>();
  readonly #cdAll = new Uint32Array(COMMAND_WORDS);
  /** A batch that filled up between two flushes was refused: told at the next flush. */
  #status = 0;
  #failedOrigin = -1;

  constructor(owner: StreamOwner) {
    this.#owner = owner;
  }

  add(device: VmDevice): void {
    this.#devices.set(device.vSid, device);
    this.#viommus.add(device.viommu);
  }

  /** The vIOMMU stays: it holds the physical SMMU for the next device. */
  remove(vSid: number): void {
    this.#devices.delete(vSid);
  }

  get(vSid: number): VmDevice | undefined {
    return this.#devices.get(vSid);
  }

  get devices(): Iterable<VmDevice> {
    return this.#devices.values();
  }

  get viommus(): ReadonlySet<VmViommu> {
    return this.#viommus;
  }

  get failedOrigin(): number {
    return this.#failedOrigin;
  }

  reconfigure(firstSid: number, lastSid: number, origin: number): void {
    if (firstSid === lastSid) {
      const device = this.#devices.get(firstSid);
      if (device !== undefined) this.#reconfigure(device, origin);
      return;
    }
    for (const [sid, device] of this.#devices)
      if (sid >= firstSid && sid <= lastSid) this.#reconfigure(device, origin);
  }

  toStream(sid: number, command: Uint32Array, origin: number): void {
    const device = this.#devices.get(sid);
    if (device !== undefined) this.#push(device.viommu, command, origin);
  }

  toAll(command: Uint32Array, origin: number): void {
    for (const viommu of this.#viommus) this.#push(viommu, command, origin);
  }

  flush(): number {
    for (const viommu of this.#viommus) this.#flushOne(viommu);
    const status = this.#status;
    this.#status = 0;
    return status;
  }

  syncInterrupt(): void {
    this.#owner.syncInterrupt();
  }

  #reconfigure(device: VmDevice, origin: number): void {
    this.#owner.apply(device);
    if (!device.translated) return;
    // CFGI_STE also drops the stream's CDs, even when the STE itself did not change.
    encodeCfgiCdAll(this.#cdAll, 0, device.vSid);
    this.#push(device.viommu, this.#cdAll, origin);
  }

  #push(viommu: VmViommu, command: Uint32Array, origin: number): void {
    if (viommu.batch.full) this.#flushOne(viommu);
    viommu.batch.push(command, origin);
  }

  /** Of several refusals the earliest command counts: the queue stops there. */
  #flushOne(viommu: VmViommu): void {
    const status = viommu.batch.flush();
    if (status >= 0) return;
    const { failedOrigin } = viommu.batch;
    if (this.#status < 0 && this.#failedOrigin <= failedOrigin) return;
    this.#status = status;
    this.#failedOrigin = failedOrigin;
  }
}
