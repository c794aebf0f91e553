/**
 * A device's DMA engine: what an emulated device calls to read and write memory through its IOMMU.
 *
 * A batch of up to PORT_BATCH transactions is translated inside one epoch, its data moved, and the epoch
 * left; so a SYNC that began meanwhile completes only afterwards. Hits are found by this thread alone;
 * misses travel to the pIOMMU together and are all outstanding at once. [IHI0070] 3.1, 4.6.3 (SYNC completes
 * after every transaction that could have used what was invalidated).
 *
 * A device with ATS translates through its ATC without more ado (hw/kernel/assembly/atc.ts). A transaction that
 * stalls leaves the batch, and is sent again when software says so: read() and write() wait for that on a thread
 * that may sleep, and elsewhere return XLAT_STALLED. Not modelled: PCIe ordering between devices.
 */
import {
  PORT_BATCH,
  PortLayout,
  STALL_TAGS,
  VERDICT_ABORT,
  VERDICT_NONE,
  VERDICT_RAZ_WI,
  XLAT_ABORT,
  XLAT_BYTES,
  XLAT_EXTERNAL_ABORT,
  XLAT_FLAG_INSTRUCTION,
  XLAT_FLAG_PRIVILEGED,
  XLAT_FLAG_WRITE,
  XLAT_OK,
  XLAT_RAZ_WI,
  XLAT_STALLED,
  Xlat,
} from '../iotlb/port-layout.js';
import { UnitLayout } from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import { requireAddress, requireBytes } from '../memory/bytes-argument.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import type { SyncEnv } from '../sync/thread.js';
import { NEVER, waitUntil } from '../sync/wait.js';
import { OP_LOAD, OP_STORE } from '../sync/words.js';
import { AtsControl } from './ats-control.js';
import { type PageRequest, PageRequester, type PageResponse, ssidOf } from './page-requests.js';
import { verdictIn } from './stall-verdict.js';

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

/** How a device marks its transactions. */
export interface DmaOptions {
  /** SubstreamID, 20 bits. Default: none. */
  readonly pasid?: number;
  readonly privileged?: boolean;
  /** Of a read. */
  readonly instruction?: boolean;
}

/** A piece of a transfer: one page at most. */
interface Piece {
  readonly iova: bigint;
  /** Offset in the bytes transferred. */
  readonly at: number;
  readonly length: number;
}

export class DmaPort {
  readonly name: string;
  readonly streamId: number;
  /** The device's ATS capability. */
  readonly ats: AtsControl;
  /** False on the thread that answers stalls and page requests: it would wait for itself. */
  waitsForStalls = true;
  readonly #pages: PageRequester;
  readonly #env: SyncEnv;
  readonly #memory: MachineMemory;
  readonly #kernel: Kernel;
  readonly #base: number;
  readonly #unit: number;
  /** Word index of batch slot 0. */
  readonly #slots: number;
  #stalled: number[] = [];

  constructor(env: SyncEnv, memory: MachineMemory, kernel: Kernel, name: string, key: string) {
    this.#env = env;
    this.#memory = memory;
    this.#kernel = kernel;
    this.name = name;
    this.#base = memory.region(PortLayout, key).base;
    this.#unit = memory.u32[(this.#base + PortLayout.at.unit) >> 2]!;
    this.streamId = memory.u32[(this.#base + PortLayout.at.sid) >> 2]!;
    this.#slots = (this.#base + PortLayout.at.batch) >> 2;
    this.ats = new AtsControl(memory.words, this.#base);
    this.#pages = new PageRequester(memory, this.#base);
  }

  /**
   * Describes transaction `slot` of the next batch: one page at most.
   * @param slot  0 to PORT_BATCH - 1
   * @param iovaLow  bytes, with iovaHigh: two 32-bit halves
   * @param sid   a Requester ID is believed, as by a root port without ACS Source Validation
   * @throws RangeError no such slot
   */
  prepare(slot: number, iovaLow: number, iovaHigh: number, flags: number, sid: number, ssid: number): void {
    // The next word is another region's.
    if (!(slot >= 0 && slot < PORT_BATCH))
      throw new RangeError(`slot is ${slot}, not in 0..${PORT_BATCH - 1}`);
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

  /** XLAT_OK, or the fault: an SMMU event number, or another XLAT_* that is a status. */
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

  /** STAG of a slot whose status is XLAT_STALLED. */
  stallTag(slot: number): number {
    return this.field(slot, AT.level);
  }

  /** VERDICT_*: what software decided about a stalled transaction, VERDICT_NONE while it has not. */
  verdict(stag: number): number {
    const word = this.#base + PortLayout.at.verdicts + (stag % STALL_TAGS) * 4;
    return verdictIn(this.#memory.words.load(word), stag);
  }

  /** STAGs of the last read() or write() that returned XLAT_STALLED: to be called again when verdict() says retry. */
  get stalled(): readonly number[] {
    return this.#stalled;
  }

  /**
   * Asks for a page to be made present. The group's answer is pageResponse's to tell.
   * @returns 0 | -EOPNOTSUPP | -EBUSY, as PageRequester.request
   */
  pageRequest(request: PageRequest): number {
    const result = this.#pages.request(request);
    if (result === 0) this.#ringDoorbell();
    return result;
  }

  /** Tells that no page request of this PASID follows. @returns as pageRequest */
  stopPageRequests(pasid: number): number {
    const result = this.#pages.stop(pasid);
    if (result === 0) this.#ringDoorbell();
    return result;
  }

  /** What a group was answered; told once. */
  pageResponse(group: number): PageResponse {
    return this.#pages.response(group);
  }

  /**
   * The same, after waiting for it. On the thread that answers (poll()) it waits for the hardware alone.
   * @param timeoutNs  then it is 'waiting' still
   */
  awaitPageResponse(group: number, timeoutNs = NEVER): PageResponse {
    let response: PageResponse = 'waiting';
    const answered = (): boolean => {
      response = this.#pages.response(group);
      return response !== 'waiting';
    };
    if (this.#mayWait) this.#await(answered, timeoutNs);
    else while (!answered() && this.#env.relax?.() === true);
    return response;
  }

  /** Waits for no answer of this group any more. */
  forgetPageRequests(group: number): void {
    this.#pages.forget(group);
  }

  /**
   * Device writes memory.
   * @param iova  bytes
   * @returns 0, or the status of the first transaction that faulted; pages before it were written. XLAT_STALLED
   *          where this thread may not wait: see `stalled`
   * @throws PortDeadError | TypeError | RangeError
   */
  write(iova: bigint, bytes: Uint8Array, options: DmaOptions = {}): number {
    requireAddress(iova, 'iova');
    requireBytes(bytes, 'bytes');
    return this.#transfer(iova, bytes, XLAT_FLAG_WRITE, options, (linear, at, n) => {
      // Phantom, or ignored: translated and permission-checked, no data phase.
      if (linear < 0) return;
      this.#memory.words.bytes(OP_STORE, linear);
      this.#memory.u8.set(bytes.subarray(at, at + n), linear);
    });
  }

  /**
   * Device reads memory. Bytes behind a phantom address read as zero.
   * @param iova  bytes
   * @returns as write
   * @throws PortDeadError | TypeError | RangeError
   */
  read(iova: bigint, into: Uint8Array, options: DmaOptions = {}): number {
    requireAddress(iova, 'iova');
    requireBytes(into, 'into');
    return this.#transfer(iova, into, 0, options, (linear, at, n) => {
      if (linear < 0) {
        into.fill(0, at, at + n);
        return;
      }
      this.#memory.words.bytes(OP_LOAD, linear);
      into.set(this.#memory.u8.subarray(linear, linear + n), at);
    });
  }

  /** @param move  copies `n` bytes at offset `at`; linear -1 is nowhere: zero, or ignored */
  #transfer(
    iova: bigint,
    data: Uint8Array,
    write: number,
    options: DmaOptions,
    move: (linear: number, at: number, n: number) => void,
  ): number {
    const bytes = data.byteLength;
    const ssid = ssidOf(options.pasid);
    const flags =
      write |
      (options.privileged ? XLAT_FLAG_PRIVILEGED : 0) |
      (options.instruction && write === 0 ? XLAT_FLAG_INSTRUCTION : 0);
    this.#stalled = [];
    let at = 0;
    while (at < bytes) {
      let pieces: Piece[] = [];
      for (; pieces.length < PORT_BATCH && at < bytes; at += pieces.at(-1)!.length) {
        const address = BigInt.asUintN(64, iova + BigInt(at));
        const length = Math.min(bytes - at, PAGE - Number(address & BigInt(PAGE - 1)));
        pieces.push({ iova: address, at, length });
      }
      // Pieces that stalled, and are to be sent again, make a batch of their own.
      while (pieces.length > 0) {
        const stalled = new Map<number, Piece>();
        const failed = this.#batch(pieces, flags, ssid, data, move, stalled);
        if (failed !== XLAT_OK) return failed;
        if (stalled.size === 0) break;
        pieces = [];
        this.#stalled = [...stalled.keys()];
        if (!this.#mayWait) return XLAT_STALLED;
        for (const [stag, piece] of stalled) {
          const verdict = this.#awaitVerdict(stag);
          if (verdict === VERDICT_ABORT) return XLAT_ABORT;
          if (verdict === VERDICT_RAZ_WI) move(-1, piece.at, piece.length);
          else pieces.push(piece);
        }
        this.#stalled = [];
      }
    }
    return XLAT_OK;
  }

  /** Translates and moves one batch. @returns the status of the first piece that faulted */
  #batch(
    pieces: readonly Piece[],
    flags: number,
    ssid: number,
    data: Uint8Array,
    move: (linear: number, at: number, n: number) => void,
    stalled: Map<number, Piece>,
  ): number {
    pieces.forEach(({ iova }, slot) => {
      const low = Number(iova & 0xffff_ffffn);
      this.prepare(slot, low, Number(iova >> 32n), flags, this.streamId, ssid);
    });
    this.translate(pieces.length);
    let failed = XLAT_OK;
    for (let slot = 0; slot < pieces.length && failed === XLAT_OK; slot++) {
      const piece = pieces[slot]!;
      const status = this.status(slot);
      if (status === XLAT_STALLED) stalled.set(this.stallTag(slot), piece);
      else if (status === XLAT_RAZ_WI) move(-1, piece.at, piece.length);
      else if (status !== XLAT_OK) failed = status;
      else {
        const pa = this.pa(slot);
        const linear = this.#memory.linearOf(pa, piece.length);
        if (linear < 0 && this.#memory.external?.includes(pa) === true) {
          const slots = this.#together(pieces, slot, pa);
          const last = pieces[slot + slots - 1]!;
          failed = this.#external(pa, data.subarray(piece.at, last.at + last.length), flags);
          slot += slots - 1;
        } else move(linear, piece.at, piece.length);
      }
    }
    this.end();
    return failed;
  }

  /** How many of the slots from `slot` on lie one behind the other, on the bus and in the transfer. */
  #together(pieces: readonly Piece[], slot: number, pa: number): number {
    const toData = pieces[slot]!.at - pa;
    let end = slot + 1;
    for (let next = pa + pieces[slot]!.length; end < pieces.length; next += pieces[end]!.length, end++)
      if (this.status(end) !== XLAT_OK || this.pa(end) !== next || pieces[end]!.at - next !== toData) break;
    return end - slot;
  }

  /** The data phase of what lies elsewhere than in RAM. */
  #external(pa: number, bytes: Uint8Array, flags: number): number {
    const external = this.#memory.external!;
    const done = (flags & XLAT_FLAG_WRITE) !== 0 ? external.write(pa, bytes) : external.read(pa, bytes);
    return done ? XLAT_OK : XLAT_EXTERNAL_ABORT;
  }

  /** Software that answers runs on another thread, and this one may sleep. */
  get #mayWait(): boolean {
    return this.waitsForStalls && this.#env.canPark && this.#env.relax === undefined;
  }

  /** @throws PortDeadError when the pIOMMU is gone: nobody decides any more */
  #awaitVerdict(stag: number): number {
    const status = this.#await(() => this.verdict(stag) !== VERDICT_NONE, NEVER);
    if (status < 0) throw new PortDeadError(this.name, -status);
    return this.verdict(stag);
  }

  #await(ready: () => boolean, timeoutNs = ANSWER_DEADLINE_NS): number {
    const { words, clock } = this.#env;
    return waitUntil(
      this.#env,
      this.#base + PortLayout.at.answered,
      ready,
      clock.nowNs() + timeoutNs,
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
