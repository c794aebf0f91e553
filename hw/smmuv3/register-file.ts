/**
 * Which registers one SMMU has, where each lies in its region, which of its bits exist, and who may write it when.
 * [IHI0070] 6.3. What IDR0 reports as absent has no bits, and for PRI no registers.
 */
import * as R from './registers.js';
import { Smmuv3Layout } from './smmuv3-layout.js';

/** Who may write a register when. */
export type Rule =
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

export interface Slot {
  readonly name: string;
  /** Byte offset in the region. */
  readonly at: number;
  readonly rule: Rule;
  /** Bits that exist; the others are RES0. */
  readonly mask: number;
}

const at = Smmuv3Layout.at;
const ALL = 0xffff_ffff;
const QUEUE_BASE = R.CMDQ_BASE.ADDR.mask | R.CMDQ_BASE.LOG2SIZE.mask | R.CMDQ_BASE.RA.mask;
const MSI_ADDRESS = R.EVENTQ_IRQ_CFG0.ADDR.mask;
const PRODUCER = R.EVENTQ_PROD.WR.mask | R.EVENTQ_PROD.OVFLG.mask;
const IRQ_ENABLES = R.IRQ_CTRL.GERROR_IRQEN.mask | R.IRQ_CTRL.EVENTQ_IRQEN.mask;
const PRIQ_ERRORS = R.GERROR.PRIQ_ABT_ERR.mask | R.GERROR.MSI_PRIQ_ABT_ERR.mask;
const GERRORS = 0x1fd & ~PRIQ_ERRORS;

/** Enables that exist; there is no VMID wildcard (IDR0.VMW). */
export function cr0Mask(idr0: number): number {
  let mask = R.CR0.SMMUEN.mask | R.CR0.EVENTQEN.mask | R.CR0.CMDQEN.mask;
  if (R.IDR0.PRI.get(idr0) === 1) mask |= R.CR0.PRIQEN.mask;
  if (R.IDR0.ATS.get(idr0) === 1) mask |= R.CR0.ATSCHK.mask;
  return mask;
}

/** By offset; a 64-bit register is two. */
export function registerFile(idr0: number): ReadonlyMap<number, Slot> {
  const slots = new Map<number, Slot>();
  const slot = (reg: { name: string; offset: number }, to: number, rule: Rule, mask = ALL): void => {
    slots.set(reg.offset, { name: reg.name, at: to, rule, mask });
  };
  const slot64 = (reg: { name: string; offset: number }, to: number, rule: Rule, mask: bigint): void => {
    slot(reg, to, rule, Number(mask & 0xffff_ffffn));
    slots.set(reg.offset + 4, { name: reg.name, at: to + 4, rule, mask: Number(mask >> 32n) });
  };
  slot(R.IDR0, at.idr0, 'ro');
  slot(R.IDR1, at.idr1, 'ro');
  slot(R.IDR2, at.idr2, 'ro');
  slot(R.IDR3, at.idr3, 'ro');
  slot(R.IDR4, at.idr4, 'ro');
  slot(R.IDR5, at.idr5, 'ro');
  slot(R.IIDR, at.iidr, 'ro');
  slot(R.AIDR, at.aidr, 'ro');
  slot(R.CR0, at.cr0, 'rw', cr0Mask(idr0));
  slot(R.CR0ACK, at.cr0ack, 'ro');
  slot(R.CR1, at.cr1, 'cr1', 0xfff);
  // No BTM, so no PTM; no ATSRECERR, so no REC_CFG_ATS.
  slot(R.CR2, at.cr2, 'smmu-off', R.CR2.RECINVSID.mask | (R.IDR0.Hyp.get(idr0) === 1 ? R.CR2.E2H.mask : 0));
  slot(R.GBPA, at.gbpa, 'gbpa', R.GBPA.ABORT.mask | R.GBPA.Update.mask);
  const pri = R.IDR0.PRI.get(idr0) === 1;
  slot(R.IRQ_CTRL, at.irqCtrl, 'rw', IRQ_ENABLES | (pri ? R.IRQ_CTRL.PRIQ_IRQEN.mask : 0));
  slot(R.IRQ_CTRLACK, at.irqCtrlAck, 'ro');
  slot(R.GERROR, at.gerror, 'ro');
  slot(R.GERRORN, at.gerrorn, 'rw', GERRORS | (pri ? PRIQ_ERRORS : 0));
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
  if (!pri) return slots;
  slot64(R.PRIQ_BASE, at.priqBase, 'priq-off', QUEUE_BASE);
  slot(R.PRIQ_PROD, at.priqProd, 'priq-off', PRODUCER);
  slot(R.PRIQ_CONS, at.priqCons, 'rw', PRODUCER);
  slot64(R.PRIQ_IRQ_CFG0, at.priqIrqCfg0, 'priq-irq-off', MSI_ADDRESS);
  slot(R.PRIQ_IRQ_CFG1, at.priqIrqCfg1, 'priq-irq-off');
  slot(R.PRIQ_IRQ_CFG2, at.priqIrqCfg2, 'priq-irq-off', R.PRIQ_IRQ_CFG2.LO.mask | 0x3f);
  return slots;
}
