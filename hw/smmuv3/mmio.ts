/**
 * The bus front of one SMMU: what a driver's loads and stores of registers do, on any thread. [IHI0070] 6.2, 6.3.
 * A store that the access rules allow goes to the region and rings the doorbell; the model acts on it later,
 * when its thread steps. A store that the rules forbid (read-only, or locked while a queue is enabled) is
 * ignored, as the spec permits from SMMUv3.2 on.
 *
 * Not modelled: access sizes other than 32 and 64 bits; everything that registers.ts leaves out reads as zero,
 * ignores writes, and is logged once per offset.
 */
import { UnitLayout } from '../iotlb/unit-layout.js';
import { Doorbell } from '../sync/doorbell.js';
import type { SyncEnv } from '../sync/thread.js';
import type { Words } from '../sync/words.js';
import type { Smmuv3Regions } from './regions.js';
import * as R from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';

export type Log = (message: string) => void;

/** Who may write a register when. */
type Rule =
  | 'ro'
  | 'rw'
  | 'smmu-off'
  | 'cmdq-off'
  | 'eventq-off'
  | 'priq-off'
  | 'gerror-irq-off'
  | 'eventq-irq-off'
  | 'priq-irq-off'
  | 'cr1'
  | 'gbpa';

interface Slot {
  readonly name: string;
  /** Byte offset in the region. */
  readonly at: number;
  readonly rule: Rule;
  /** Bits that exist; the others are RES0. */
  readonly mask: number;
}

const ALL = 0xffff_ffff;
const slots = new Map<number, Slot>();

function slot(reg: { name: string; offset: number }, at: number, rule: Rule, mask = ALL): void {
  slots.set(reg.offset, { name: reg.name, at, rule, mask });
}

function slot64(reg: { name: string; offset: number }, at: number, rule: Rule, mask: bigint): void {
  slot(reg, at, rule, Number(mask & 0xffff_ffffn));
  slots.set(reg.offset + 4, { name: reg.name, at: at + 4, rule, mask: Number(mask >> 32n) });
}

const at = Smmuv3Layout.at;
const QUEUE_BASE = R.CMDQ_BASE.ADDR.mask | R.CMDQ_BASE.LOG2SIZE.mask | R.CMDQ_BASE.RA.mask;
const MSI_ADDRESS = R.EVENTQ_IRQ_CFG0.ADDR.mask;
const PRODUCER = R.EVENTQ_PROD.WR.mask | R.EVENTQ_PROD.OVFLG.mask;
const IRQ_ENABLES = R.IRQ_CTRL.GERROR_IRQEN.mask | R.IRQ_CTRL.EVENTQ_IRQEN.mask;

slot(R.IDR0, at.idr0, 'ro');
slot(R.IDR1, at.idr1, 'ro');
slot(R.IDR2, at.idr2, 'ro');
slot(R.IDR3, at.idr3, 'ro');
slot(R.IDR4, at.idr4, 'ro');
slot(R.IDR5, at.idr5, 'ro');
slot(R.IIDR, at.iidr, 'ro');
slot(R.AIDR, at.aidr, 'ro');
/** PRIQEN, ATSCHK and VMW do not exist here: IDR0 has PRI, ATS and VMW at 0. */
export const CR0_MASK = R.CR0.SMMUEN.mask | R.CR0.EVENTQEN.mask | R.CR0.CMDQEN.mask;
slot(R.CR0, at.cr0, 'rw', CR0_MASK);
slot(R.CR0ACK, at.cr0ack, 'ro');
slot(R.CR1, at.cr1, 'cr1', 0xfff);
slot(R.CR2, at.cr2, 'smmu-off', R.CR2.RECINVSID.mask | R.CR2.PTM.mask);
slot(R.GBPA, at.gbpa, 'gbpa', R.GBPA.ABORT.mask | R.GBPA.Update.mask);
slot(R.IRQ_CTRL, at.irqCtrl, 'rw', IRQ_ENABLES);
slot(R.IRQ_CTRLACK, at.irqCtrlAck, 'ro');
slot(R.GERROR, at.gerror, 'ro');
slot(R.GERRORN, at.gerrorn, 'rw', 0x1fd);
slot64(R.GERROR_IRQ_CFG0, at.gerrorIrqCfg0, 'gerror-irq-off', MSI_ADDRESS);
slot(R.GERROR_IRQ_CFG1, at.gerrorIrqCfg1, 'gerror-irq-off');
slot(R.GERROR_IRQ_CFG2, at.gerrorIrqCfg2, 'gerror-irq-off', 0x3f);
slot64(R.STRTAB_BASE, at.strtabBase, 'smmu-off', R.STRTAB_BASE.ADDR.mask | R.STRTAB_BASE.RA.mask);
slot(
  R.STRTAB_BASE_CFG,
  at.strtabBaseCfg,
  'smmu-off',
  R.STRTAB_BASE_CFG.LOG2SIZE.mask | R.STRTAB_BASE_CFG.SPLIT.mask | R.STRTAB_BASE_CFG.FMT.mask,
);
slot64(R.CMDQ_BASE, at.cmdqBase, 'cmdq-off', QUEUE_BASE);
slot(R.CMDQ_PROD, at.cmdqProd, 'rw', R.CMDQ_PROD.WR.mask);
slot(R.CMDQ_CONS, at.cmdqCons, 'cmdq-off', R.CMDQ_CONS.RD.mask | R.CMDQ_CONS.ERR.mask);
slot64(R.EVENTQ_BASE, at.eventqBase, 'eventq-off', QUEUE_BASE);
slot(R.EVENTQ_PROD, at.eventqProd, 'eventq-off', PRODUCER);
slot(R.EVENTQ_CONS, at.eventqCons, 'rw', PRODUCER);
slot64(R.EVENTQ_IRQ_CFG0, at.eventqIrqCfg0, 'eventq-irq-off', MSI_ADDRESS);
slot(R.EVENTQ_IRQ_CFG1, at.eventqIrqCfg1, 'eventq-irq-off');
slot(R.EVENTQ_IRQ_CFG2, at.eventqIrqCfg2, 'eventq-irq-off', 0x3f);
slot64(R.PRIQ_BASE, at.priqBase, 'priq-off', QUEUE_BASE);
slot(R.PRIQ_PROD, at.priqProd, 'priq-off', PRODUCER);
slot(R.PRIQ_CONS, at.priqCons, 'rw', PRODUCER);
slot64(R.PRIQ_IRQ_CFG0, at.priqIrqCfg0, 'priq-irq-off', MSI_ADDRESS);
slot(R.PRIQ_IRQ_CFG1, at.priqIrqCfg1, 'priq-irq-off');
slot(R.PRIQ_IRQ_CFG2, at.priqIrqCfg2, 'priq-irq-off', 0x3f);

/** CR1 has two halves with a rule each. */
const CR1_QUEUE = 0x3f;
const CR1_TABLE = 0xfc0;

export class Mmio {
  readonly #words: Words;
  readonly #base: number;
  readonly #doorbell: Doorbell;
  readonly #log: Log;
  readonly #logged = new Set<number>();

  /** @param log  called once per unmodelled offset that is touched */
  constructor(env: SyncEnv, regions: Smmuv3Regions, log: Log) {
    this.#words = env.words;
    this.#base = regions.smmu;
    const { doorbell, doorbellParked } = UnitLayout.at;
    this.#doorbell = new Doorbell(env, regions.unit + doorbell, regions.unit + doorbellParked);
    this.#log = log;
  }

  /** @param offset from the SMMU's base, both pages */
  read32(offset: number): number {
    const found = slots.get(offset);
    if (found === undefined) {
      this.#unmodelled('read', offset);
      return 0;
    }
    return this.#words.load(this.#base + found.at) >>> 0;
  }

  write32(offset: number, value: number): void {
    const found = slots.get(offset);
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
    const found = slots.get(offset);
    if (found !== undefined && found.at % 8 === 0 && slots.get(offset + 4)?.name === found.name)
      return this.#words.load64(this.#base + found.at);
    return (BigInt(this.read32(offset + 4)) << 32n) | BigInt(this.read32(offset));
  }

  write64(offset: number, value: bigint): void {
    const low = slots.get(offset);
    const high = slots.get(offset + 4);
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
