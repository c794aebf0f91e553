/**
 * A device's DMA engine: what an emulated device calls to read and write memory through its IOMMU.
 *
 * A batch of up to PORT_BATCH transactions is translated inside one epoch, its data moved, and the epoch
 * left; so a SYNC that began meanwhile completes only afterwards. Hits are found by this thread alone;
 * misses travel to the pIOMMU together and are all outstanding at once. [IHI0070] 3.1, 4.6.3 (SYNC completes
 * after every transaction that could have used what was invalidated).
 *
 * Not modelled here: ATS and PRI (a device-side ATC that outlives a batch), PCIe ordering between devices.
 */
import { PORT_BATCH, PortLayout, XLAT_BYTES, XLAT_FLAG_WRITE, Xlat } from '../iotlb/port-layout.js';
import { UnitLayout } from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import { requireAddress, requireBytes } from '../memory/bytes-argument.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import type { SyncEnv } from '../sync/thread.js';
import { waitUntil } from '../sync/wait.js';

const PAGE = 4096;
const AT = Xlat.at;
/** A translation that takes longer means that the pIOMMU is gone. */
const ANSWER_DEADLINE_NS = 10e9;

/** The pIOMMU died or stopped answering: nothing further can be translated behind it. */
export class PortDeadError extends Error {
  readonly errno: number;
  constructor(port: string, errno: number) {
    super(`${port}: the IOMMU no longer answers translation requests (errno ${errno})`);
    this.errno = errno;
  }
}

export class DmaPort {
  readonly name: string;
  readonly streamId: number;
  readonly #env: SyncEnv;
  readonly #memory: MachineMemory;
  readonly #kernel: Kernel;
  readonly #base: number;
  readonly #unit: number;
  /** Word index of batch slot 0. */
  readonly #slots: number;

  constructor(env: SyncEnv, memory: MachineMemory, kernel: Kernel, name: string, key: string) {
    this.#env = env;
    this.#memory = memory;
    this.#kernel = kernel;
    this.name = name;
    this.#base = memory.region(PortLayout, key).base;
    this.#unit = memory.u32[(this.#base + PortLayout.at.unit) >> 2]!;
    this.streamId = memory.u32[(this.#base + PortLayout.at.sid) >> 2]!;
    this.#slots = (this.#base + PortLayout.at.batch) >> 2;
  }

  /** Describes transaction `slot` of the next batch: one page at most. @param iova bytes, as two 32-bit halves */
  prepare(slot: number, iovaLow: number, iovaHigh: number, flags: number, sid: number, ssid: number): void {
    const word = this.#slots + slot * (XLAT_BYTES / 4);
    const { i32 } = this.#memory;
    i32[word + AT.iova / 4] = iovaLow;
    i32[word + AT.iova / 4 + 1] = iovaHigh;
    i32[word + AT.flags / 4] = flags;
    i32[word + AT.sid / 4] = sid;
    i32[word + AT.ssid / 4] = ssid;
    i32[word + AT.cookie / 4] = slot;
  }

  /**
   * Enters an epoch and translates slots 0..count-1, all of them. The caller uses the addresses and then
   * calls end(), without waiting for anything in between.
   * @throws PortDeadError
   */
  translate(count: number): void {
    const kernel = this.#kernel;
    let outstanding = kernel.dmaBegin(this.#base, count);
    // Negative: answers to a batch that was given up still occupy the ring, and have to come in first.
    if (outstanding < 0) {
      const status = this.#await(() => {
        kernel.dmaPoll(this.#base);
        outstanding = kernel.dmaBegin(this.#base, count);
        return outstanding >= 0;
      });
      if (status < 0) throw new PortDeadError(this.name, -status);
    }
    if (outstanding === 0) return;
    this.#ringDoorbell();
    const status = this.#await(() => kernel.dmaPoll(this.#base) === 0);
    if (status < 0) {
      this.end();
      throw new PortDeadError(this.name, -status);
    }
  }

  /** Leaves the epoch: from here on the addresses are void. */
  end(): void {
    this.#kernel.dmaEnd(this.#base);
  }

  /** XLAT_OK, or the fault: an SMMU event number or XLAT_ABORT. */
  status(slot: number): number {
    return this.#memory.u32[this.#slots + slot * (XLAT_BYTES / 4) + AT.status / 4]!;
  }

  /** Physical byte address of a translated slot, exact. */
  pa(slot: number): number {
    const word = this.#slots + slot * (XLAT_BYTES / 4) + AT.pa / 4;
    const { u32 } = this.#memory;
    return u32[word]! + u32[word + 1]! * 2 ** 32;
  }

  /** Any other 32-bit field of a slot, by its offset in the Xlat layout. */
  field(slot: number, offset: number): number {
    return this.#memory.u32[this.#slots + slot * (XLAT_BYTES / 4) + (offset >> 2)]!;
  }

  /**
   * Device writes memory.
   * @param iova  bytes
   * @returns 0, or the status of the first transaction that faulted; pages before it were written
   * @throws PortDeadError | TypeError
   */
  write(iova: bigint, bytes: Uint8Array): number {
    requireAddress(iova, 'iova');
    requireBytes(bytes, 'bytes');
    return this.#transfer(iova, bytes.byteLength, XLAT_FLAG_WRITE, (linear, at, n) => {
      this.#memory.u8.set(bytes.subarray(at, at + n), linear);
    });
  }

  /**
   * Device reads memory. Bytes behind a phantom address read as zero.
   * @param iova  bytes
   * @returns 0, or the status of the first transaction that faulted; pages before it were read
   * @throws PortDeadError | TypeError
   */
  read(iova: bigint, into: Uint8Array): number {
    requireAddress(iova, 'iova');
    requireBytes(into, 'into');
    return this.#transfer(iova, into.byteLength, 0, (linear, at, n) => {
      if (linear < 0) into.fill(0, at, at + n);
      else into.set(this.#memory.u8.subarray(linear, linear + n), at);
    });
  }

  #transfer(
    iova: bigint,
    bytes: number,
    flags: number,
    move: (linear: number, at: number, n: number) => void,
  ): number {
    const lengths = new Uint32Array(PORT_BATCH);
    let at = 0;
    while (at < bytes) {
      const start = at;
      let count = 0;
      for (; count < PORT_BATCH && at < bytes; count++) {
        const address = BigInt.asUintN(64, iova + BigInt(at));
        const low = Number(address & 0xffff_ffffn);
        const n = Math.min(bytes - at, PAGE - (low & (PAGE - 1)));
        this.prepare(count, low, Number(address >> 32n), flags, this.streamId, 0xffff_ffff);
        lengths[count] = n;
        at += n;
      }
      this.translate(count);
      let failed = 0;
      let offset = start;
      for (let slot = 0; slot < count && failed === 0; slot++) {
        failed = this.status(slot);
        if (failed !== 0) break;
        const linear = this.#memory.linearOf(this.pa(slot), lengths[slot]!);
        // Phantom: translated and permission-checked, no data phase for a write.
        if (linear >= 0 || flags === 0) move(linear, offset, lengths[slot]!);
        offset += lengths[slot]!;
      }
      this.end();
      if (failed !== 0) return failed;
    }
    return 0;
  }

  #await(ready: () => boolean): number {
    const { words, clock } = this.#env;
    return waitUntil(
      this.#env,
      this.#base + PortLayout.at.answered,
      ready,
      clock.nowNs() + ANSWER_DEADLINE_NS,
      () => words.load(this.#unit + UnitLayout.at.owner),
      (delta) => words.add(this.#base + PortLayout.at.parked, delta),
    );
  }

  #ringDoorbell(): void {
    const { words } = this.#memory;
    words.add(this.#unit + UnitLayout.at.doorbell, 1);
    if (words.load(this.#unit + UnitLayout.at.doorbellParked) !== 0)
      words.notify(this.#unit + UnitLayout.at.doorbell, 1);
  }
}
