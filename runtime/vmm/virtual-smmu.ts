/**
 * A virtual SMMUv3: the register file a guest programs, in front of one or more vIOMMUs. [IHI0070] 6.3.
 *
 *   guest --- write32 ---> registers ---> CMDQ_PROD: command queue ---> nested tables, IOMMU_HWPT_INVALIDATE
 *         <-- read32 ----            <--- event queue <--- pollEvents() <--- vEVENTQ of each vIOMMU
 *
 * It belongs to one thread: registers are trapped on the thread that accesses them. The guest is hostile; what
 * it writes ends in a GERROR, an abort or nothing, never in an exception.
 *
 * Not modelled: MSIs and message-signalled SYNC completion, Secure state, PRI queue, PMU, the reset value of
 * GBPA (bypass here). A write takes effect at once, so the acknowledge registers equal what was written.
 */
import { EVENT_BYTES, EVENT_WORDS } from '../../hw/smmuv3/event.js';
import {
  AIDR,
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_PROD,
  GBPA,
  GERROR,
  GERRORN,
  IDR0,
  IDR1,
  IDR3,
  IDR5,
  IIDR,
  IRQ_CTRL,
  IRQ_CTRLACK,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from '../../hw/smmuv3/registers.js';
import { STE } from '../../hw/smmuv3/ste.js';
import { EEXIST, EINVAL, EIO } from '../../uapi/abi/errno.js';
import { IOMMU_VEVENTQ_FLAG_LOST_EVENTS, VeventHeader } from '../../uapi/iommufd/veventq.js';
import type { GuestRam } from './guest-ram.js';
import type { VmmTransport } from './transport.js';
import { VirtualCommandQueue } from './virtual-command-queue.js';
import { type EventOutcome, VirtualEventQueue } from './virtual-event-queue.js';
import { commonFeatures, offers, type SmmuFeatures, type VirtualIdrs, virtualIdrs } from './virtual-idr.js';
import { readVirtualSte } from './virtual-stream-table.js';
import { VirtualStreams } from './virtual-streams.js';
import { type VmDevice, VSTE_WORDS } from './vm-device.js';
import type { VmViommu } from './vm-viommu.js';

/** What a guest's driver needs of an SMMU: its registers, virtual here. */
export interface SmmuMmio {
  read32(offset: number): number;
  write32(offset: number, value: number): void;
  read64(offset: number): bigint;
  write64(offset: number, value: bigint): void;
}

export type VirtualInterrupt = 'eventq' | 'gerror' | 'sync';

const VEVENT_BYTES = VeventHeader.size + EVENT_BYTES;
const VEVENTS_PER_READ = 16;
/** Reads of one vEVENTQ in one poll: a device that faults for ever must not keep the VMM here. */
const READS_PER_POLL = 64;

const CR0_WRITABLE = CR0.SMMUEN.mask | CR0.EVENTQEN.mask | CR0.CMDQEN.mask | CR0.ATSCHK.mask;
const GERROR_WRITABLE = GERROR.CMDQ_ERR.mask | GERROR.EVENTQ_ABT_ERR.mask | GERROR.SFM_ERR.mask;
const IRQ_WRITABLE = IRQ_CTRL.GERROR_IRQEN.mask | IRQ_CTRL.EVENTQ_IRQEN.mask;

export class VirtualSmmu implements SmmuMmio {
  readonly name: string;
  /** Set by whoever delivers interrupts to the guest. */
  onInterrupt: ((which: VirtualInterrupt) => void) | null = null;
  /** STEs the kernel refused since reset, for reports. */
  refusedStes = 0;
  readonly #ram: GuestRam;
  readonly #transport: VmmTransport;
  readonly #streams: VirtualStreams;
  readonly #commands: VirtualCommandQueue;
  readonly #events: VirtualEventQueue;
  readonly #ste = new Uint32Array(VSTE_WORDS);
  readonly #vevents = new Uint8Array(VEVENT_BYTES * VEVENTS_PER_READ);
  readonly #event = new Uint32Array(EVENT_WORDS);
  #features: SmmuFeatures | null = null;
  #idrs: VirtualIdrs | null = null;
  #identity = { iidr: 0, aidr: 0 };
  #cr0 = 0;
  #cr1 = 0;
  #cr2 = 0;
  #gbpa = 0;
  #irqCtrl = 0;
  #gerror = 0;
  #gerrorn = 0;
  #strtabBase = 0n;
  #strtabBaseCfg = 0;

  constructor(transport: VmmTransport, ram: GuestRam, name: string) {
    this.name = name;
    this.#transport = transport;
    this.#ram = ram;
    this.#streams = new VirtualStreams({
      apply: (device) => {
        if (this.#smmuEnabled && this.#apply(device) < 0) this.refusedStes++;
      },
      syncInterrupt: () => this.onInterrupt?.('sync'),
    });
    this.#commands = new VirtualCommandQueue(ram, this.#streams);
    this.#events = new VirtualEventQueue(ram);
  }

  // ---- devices (the VMM's side) ----

  /**
   * Whether a device whose SMMU can do this may be behind this one. Until the guest first looks at the ID
   * registers they shrink to what all can do; after that nothing promised may be missing.
   * @returns 0 | -EINVAL
   */
  admit(features: SmmuFeatures, identity: { readonly iidr: number; readonly aidr: number }): number {
    if (this.#features === null) this.#identity = { iidr: identity.iidr, aidr: identity.aidr };
    else if (this.#idrs !== null) return offers(features, this.#features) ? 0 : -EINVAL;
    this.#features = this.#features === null ? features : commonFeatures(this.#features, features);
    return 0;
  }

  /** A device appears: its traffic gets what the registers say now. @returns 0 | -EEXIST | -errno of attach */
  addStream(device: VmDevice): number {
    if (this.#streams.get(device.vSid) !== undefined) return -EEXIST;
    const status = this.#apply(device);
    // A guest's bad STE is the guest's affair: the stream is aborted, and the device is there.
    if (status < 0 && status !== -EIO) return status;
    this.#streams.add(device);
    return 0;
  }

  removeStream(vSid: number): void {
    this.#streams.remove(vSid);
  }

  stream(vSid: number): VmDevice | undefined {
    return this.#streams.get(vSid);
  }

  get viommus(): ReadonlySet<VmViommu> {
    return this.#streams.viommus;
  }

  /** Commands handled since reset. */
  get commandsHandled(): number {
    return this.#commands.handled;
  }

  // ---- registers (the guest's side) ----

  /** A register that is not modelled reads 0. */
  read32(offset: number): number {
    switch (offset) {
      case IDR0.offset:
        return this.#promised().idr0;
      case IDR1.offset:
        return this.#promised().idr1;
      case IDR3.offset:
        return this.#promised().idr3;
      case IDR5.offset:
        return this.#promised().idr5;
      case IIDR.offset:
        return this.#identity.iidr;
      case AIDR.offset:
        return this.#identity.aidr;
      case CR0.offset:
      case CR0ACK.offset:
        return this.#cr0;
      case CR1.offset:
        return this.#cr1;
      case CR2.offset:
        return this.#cr2;
      case GBPA.offset:
        return this.#gbpa;
      case IRQ_CTRL.offset:
      case IRQ_CTRLACK.offset:
        return this.#irqCtrl;
      case GERROR.offset:
        return this.#gerror;
      case GERRORN.offset:
        return this.#gerrorn;
      case STRTAB_BASE_CFG.offset:
        return this.#strtabBaseCfg;
      case CMDQ_PROD.offset:
        return this.#commands.prod;
      case CMDQ_CONS.offset:
        return this.#commands.cons;
      case EVENTQ_PROD.offset:
        return this.#events.prod;
      case EVENTQ_CONS.offset:
        return this.#events.cons;
      default:
        return this.#halfOf(offset);
    }
  }

  /** A register that is not modelled, is read-only, or must not change now, ignores the write. */
  write32(offset: number, value: number): void {
    const word = value >>> 0;
    switch (offset) {
      case CR0.offset:
        this.#writeCr0(word & CR0_WRITABLE);
        break;
      case CR1.offset:
        if (!this.#smmuEnabled) this.#cr1 = word;
        break;
      case CR2.offset:
        if (!this.#smmuEnabled) this.#cr2 = word;
        break;
      case GBPA.offset:
        this.#writeGbpa(word);
        break;
      case IRQ_CTRL.offset:
        this.#irqCtrl = word & IRQ_WRITABLE;
        break;
      case GERRORN.offset:
        this.#writeGerrorn(word & GERROR_WRITABLE);
        break;
      case STRTAB_BASE_CFG.offset:
        if (!this.#smmuEnabled) this.#strtabBaseCfg = word;
        break;
      case CMDQ_PROD.offset:
        this.#commands.prod = CMDQ_PROD.WR.get(word);
        this.#runCommands();
        break;
      case CMDQ_CONS.offset:
        if (!this.#commandsEnabled) this.#commands.cons = CMDQ_CONS.RD.get(word);
        break;
      case EVENTQ_PROD.offset:
        if (!this.#eventsEnabled) this.#events.prod = word & (EVENTQ_PROD.WR.mask | EVENTQ_PROD.OVFLG.mask);
        break;
      case EVENTQ_CONS.offset:
        this.#events.cons = word & (EVENTQ_CONS.RD.mask | EVENTQ_CONS.OVACKFLG.mask);
        break;
      default:
        this.#writeHalf(offset, word);
    }
  }

  read64(offset: number): bigint {
    return (BigInt(this.read32(offset + 4)) << 32n) | BigInt(this.read32(offset));
  }

  write64(offset: number, value: bigint): void {
    this.write32(offset, Number(value & 0xffff_ffffn));
    this.write32(offset + 4, Number((value >> 32n) & 0xffff_ffffn));
  }

  // ---- events (the VMM's side) ----

  /**
   * Moves what the vEVENTQs hold to the guest's event queue.
   * @returns how many records were taken, lost ones not counted
   */
  pollEvents(): number {
    let taken = 0;
    for (const viommu of this.#streams.viommus) {
      for (let reads = 0; reads < READS_PER_POLL; reads++) {
        const bytes = this.#transport.read(viommu.veventqFd, this.#vevents);
        if (bytes <= 0) break;
        taken += this.#deliver(bytes);
      }
    }
    return taken;
  }

  #deliver(bytes: number): number {
    const view = new DataView(this.#vevents.buffer);
    let taken = 0;
    for (let at = 0; at + VeventHeader.size <= bytes; ) {
      const { flags } = VeventHeader.decode(this.#vevents, at);
      at += VeventHeader.size;
      if ((flags & IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0) {
        if (this.#eventsEnabled) this.#events.overflow();
        continue;
      }
      if (at + EVENT_BYTES > bytes) break;
      for (let i = 0; i < EVENT_WORDS; i++) this.#event[i] = view.getUint32(at + i * 4, true);
      at += EVENT_BYTES;
      taken++;
      if (this.#eventsEnabled) this.#recorded(this.#events.record(this.#event, this.#limits().eventqsLg2));
    }
    return taken;
  }

  #recorded(outcome: EventOutcome): void {
    if (outcome === 'aborted') this.#raise(GERROR.EVENTQ_ABT_ERR.mask);
    else if (outcome === 'recorded' && (this.#irqCtrl & IRQ_CTRL.EVENTQ_IRQEN.mask) !== 0)
      this.onInterrupt?.('eventq');
  }

  // ---- inside ----

  get #smmuEnabled(): boolean {
    return (this.#cr0 & CR0.SMMUEN.mask) !== 0;
  }

  get #commandsEnabled(): boolean {
    return (this.#cr0 & CR0.CMDQEN.mask) !== 0;
  }

  get #eventsEnabled(): boolean {
    return (this.#cr0 & CR0.EVENTQEN.mask) !== 0;
  }

  /** From the first look on, the ID registers do not change. */
  #promised(): VirtualIdrs {
    this.#features ??= EMPTY;
    this.#idrs ??= virtualIdrs(this.#features);
    return this.#idrs;
  }

  #limits(): SmmuFeatures {
    return this.#features ?? EMPTY;
  }

  #writeCr0(next: number): void {
    const before = this.#cr0;
    this.#cr0 = next;
    if (((before ^ next) & CR0.SMMUEN.mask) !== 0) this.#applyAll();
    this.#runCommands();
  }

  #writeGbpa(word: number): void {
    // A write without Update is ignored; Update reads 0 again because the change is complete.
    if (GBPA.Update.get(word) === 0) return;
    this.#gbpa = GBPA.Update.put(word, 0);
    if (!this.#smmuEnabled) this.#applyAll();
  }

  #writeGerrorn(word: number): void {
    this.#gerrorn = word;
    this.#runCommands();
  }

  /** 64-bit registers, one half at a time, as a guest may write them. */
  #halfOf(offset: number): number {
    const base = offset - (offset % 8);
    const shift = offset % 8 === 4 ? 32n : 0n;
    if (offset % 4 !== 0) return 0;
    if (base === STRTAB_BASE.offset) return Number((this.#strtabBase >> shift) & 0xffff_ffffn);
    if (base === CMDQ_BASE.offset) return Number((this.#commands.base >> shift) & 0xffff_ffffn);
    if (base === EVENTQ_BASE.offset) return Number((this.#events.base >> shift) & 0xffff_ffffn);
    return 0;
  }

  #writeHalf(offset: number, word: number): void {
    if (offset % 4 !== 0) return;
    const base = offset - (offset % 8);
    const merge = (old: bigint): bigint =>
      offset % 8 === 4 ? (old & 0xffff_ffffn) | (BigInt(word) << 32n) : (old & ~0xffff_ffffn) | BigInt(word);
    if (base === STRTAB_BASE.offset && !this.#smmuEnabled) this.#strtabBase = merge(this.#strtabBase);
    if (base === CMDQ_BASE.offset && !this.#commandsEnabled) this.#commands.base = merge(this.#commands.base);
    if (base === EVENTQ_BASE.offset && !this.#eventsEnabled) this.#events.base = merge(this.#events.base);
  }

  #runCommands(): void {
    const stopped = (this.#gerror ^ this.#gerrorn) & (GERROR.CMDQ_ERR.mask | GERROR.SFM_ERR.mask);
    if (!this.#commandsEnabled || stopped !== 0) return;
    const outcome = this.#commands.consume(this.#limits());
    if (outcome === 'error') this.#raise(GERROR.CMDQ_ERR.mask);
    // The SMMU below is gone: nothing this one promised can be kept any more.
    if (outcome === 'dead') this.#raise(GERROR.SFM_ERR.mask);
  }

  #raise(error: number): void {
    // Already active: the guest has not acknowledged the last one.
    if (((this.#gerror ^ this.#gerrorn) & error) !== 0) return;
    this.#gerror ^= error;
    if ((this.#irqCtrl & IRQ_CTRL.GERROR_IRQEN.mask) !== 0) this.onInterrupt?.('gerror');
  }

  #applyAll(): void {
    for (const device of this.#streams.devices) if (this.#apply(device) < 0) this.refusedStes++;
  }

  /** Puts in force what registers and stream table say of a stream. */
  #apply(device: VmDevice): number {
    if (!this.#smmuEnabled)
      return GBPA.ABORT.get(this.#gbpa) === 1 ? device.attachAbort() : device.attachBypass();
    const { sidBits } = this.#limits();
    const found = readVirtualSte(
      this.#ram,
      this.#strtabBase,
      this.#strtabBaseCfg,
      sidBits,
      device.vSid,
      this.#ste,
    );
    // EATS is ignored where ATS is not offered: the guest's ATC_INV would be illegal commands.
    if (this.#limits().ats === 0) STE.EATS.put(this.#ste, 0);
    return found ? device.install(this.#ste) : device.attachAbort();
  }
}

/** An SMMU without a device behind it: nothing is known of the hardware, so nothing is offered. */
const EMPTY: SmmuFeatures = {
  s1p: 0,
  aarch64: 0,
  coherent: 0,
  asid16: 0,
  ats: 0,
  cd2l: 0,
  sev: 0,
  twoLevelStreamTable: 0,
  sidBits: 0,
  ssidBits: 0,
  cmdqsLg2: 0,
  eventqsLg2: 0,
  rangeInvalidate: 0,
  oas: 0,
  gran4k: 0,
  gran16k: 0,
  gran64k: 0,
};
