/**
 * The bus front of one SMMU: what a driver's loads and stores of registers do, on any thread. [IHI0070] 6.2, 6.3.
 * A store that the access rules allow goes to the region and rings the doorbell; the model acts on it later,
 * when its thread steps. A store that the rules forbid (read-only, or locked while a queue is enabled) is
 * ignored, as the spec permits from SMMUv3.2 on.
 *
 * Not modelled: access sizes other than 32 and 64 bits; everything that register-file.ts leaves out reads as zero,
 * ignores writes, and is logged once per offset.
 */
import { UnitLayout } from '../iotlb/unit-layout.js';
import { Doorbell } from '../sync/doorbell.js';
import type { SyncEnv } from '../sync/thread.js';
import type { Words } from '../sync/words.js';
import type { Smmuv3Regions } from './regions.js';
import { registerFile, type Slot } from './register-file.js';
import * as R from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';

export type Log = (message: string) => void;

const at = Smmuv3Layout.at;

/** CR1 has two halves with a rule each. */
const CR1_QUEUE = 0x3f;
const CR1_TABLE = 0xfc0;

export class Mmio {
  readonly #words: Words;
  readonly #base: number;
  readonly #doorbell: Doorbell;
  readonly #log: Log;
  readonly #slots: ReadonlyMap<number, Slot>;
  readonly #logged = new Set<number>();

  /** @param log  called once per unmodelled offset that is touched */
  constructor(env: SyncEnv, regions: Smmuv3Regions, log: Log) {
    this.#words = env.words;
    this.#base = regions.smmu;
    this.#slots = registerFile(env.words.load(regions.smmu + at.idr0) >>> 0);
    const { doorbell, doorbellParked } = UnitLayout.at;
    this.#doorbell = new Doorbell(env, regions.unit + doorbell, regions.unit + doorbellParked);
    this.#log = log;
  }

  /** @param offset from the SMMU's base, both pages */
  read32(offset: number): number {
    const found = this.#slots.get(offset);
    if (found === undefined) {
      this.#unmodelled('read', offset);
      return 0;
    }
    return this.#words.load(this.#base + found.at) >>> 0;
  }

  write32(offset: number, value: number): void {
    const found = this.#slots.get(offset);
    if (found === undefined) {
      this.#unmodelled('write', offset);
      return;
    }
    const mask = this.#writable(found, value);
    if (mask === 0) return;
    const word = this.#base + found.at;
    const kept = mask === found.mask ? 0 : this.#words.load(word) & ~mask;
    this.#words.store(word, (value & mask) | kept);
    this.#doorbell.ring();
  }

  read64(offset: number): bigint {
    const found = this.#slots.get(offset);
    if (found !== undefined && found.at % 8 === 0 && this.#slots.get(offset + 4)?.name === found.name)
      return this.#words.load64(this.#base + found.at);
    return (BigInt(this.read32(offset + 4)) << 32n) | BigInt(this.read32(offset));
  }

  write64(offset: number, value: bigint): void {
    const low = this.#slots.get(offset);
    const high = this.#slots.get(offset + 4);
    if (low === undefined || high === undefined || low.name !== high.name || low.at % 8 !== 0) {
      this.write32(offset, Number(value & 0xffff_ffffn));
      this.write32(offset + 4, Number((value >> 32n) & 0xffff_ffffn));
      return;
    }
    if (this.#writable(low, 0) === 0) return;
    const mask = (BigInt(high.mask) << 32n) | BigInt(low.mask);
    this.#words.store64(this.#base + low.at, value & mask);
    this.#doorbell.ring();
  }

  /** @returns the bits of the register that a write changes now; 0: the write is ignored */
  #writable(found: Slot, value: number): number {
    switch (found.rule) {
      case 'ro':
        return 0;
      case 'rw':
        return found.mask;
      case 'smmu-off':
        return this.#off(R.CR0.SMMUEN.mask) ? found.mask : 0;
      case 'cmdq-off':
        return this.#off(R.CR0.CMDQEN.mask) ? found.mask : 0;
      case 'eventq-off':
        return this.#off(R.CR0.EVENTQEN.mask) ? found.mask : 0;
      case 'priq-off':
        return this.#off(R.CR0.PRIQEN.mask) ? found.mask : 0;
      case 'gerror-irq-off':
        return this.#irqOff(R.IRQ_CTRL.GERROR_IRQEN.mask) ? found.mask : 0;
      case 'eventq-irq-off':
        return this.#irqOff(R.IRQ_CTRL.EVENTQ_IRQEN.mask) ? found.mask : 0;
      case 'priq-irq-off':
        return this.#irqOff(R.IRQ_CTRL.PRIQ_IRQEN.mask) ? found.mask : 0;
      case 'cr1':
        return (
          (this.#off(R.CR0.SMMUEN.mask) ? CR1_TABLE : 0) |
          (this.#off(R.CR0.CMDQEN.mask | R.CR0.EVENTQEN.mask | R.CR0.PRIQEN.mask) ? CR1_QUEUE : 0)
        );
      case 'gbpa':
        // 6.3.14.1: one write that sets Update, while no update is under way.
        return R.GBPA.Update.get(value) === 1 &&
          R.GBPA.Update.get(this.#words.load(this.#base + at.gbpa)) === 0
          ? found.mask
          : 0;
    }
  }

  /** Disabled, and acknowledged so. */
  #off(bits: number): boolean {
    const { cr0, cr0ack } = at;
    return ((this.#words.load(this.#base + cr0) | this.#words.load(this.#base + cr0ack)) & bits) === 0;
  }

  #irqOff(bits: number): boolean {
    const { irqCtrl, irqCtrlAck } = at;
    return (
      ((this.#words.load(this.#base + irqCtrl) | this.#words.load(this.#base + irqCtrlAck)) & bits) === 0
    );
  }

  #unmodelled(access: string, offset: number): void {
    if (this.#logged.has(offset) || this.#logged.size >= MAX_LOGGED) return;
    this.#logged.add(offset);
    this.#log(`smmuv3: ${access} of unmodelled register offset 0x${offset.toString(16)}: RAZ/WI`);
  }
}

/** A hostile guest may touch every offset; the log stays readable. */
const MAX_LOGGED = 256;
