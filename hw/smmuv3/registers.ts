/**
 * The register file: offsets and fields. [IHI0070] 6.3. Offsets are from the base of the SMMU; 0x10000 and up
 * is page 1, where the producer and consumer indexes of the queues that the SMMU writes lie.
 *
 * Not modelled: Secure and Realm register files, ECMDQ, GATOS/VATOS, MPAM, performance monitors.
 */
import { address, bit, bits, reg32, reg64 } from './bitfield.js';

export const IDR0 = reg32('SMMU_IDR0', 0x00, {
  S2P: bit(0),
  S1P: bit(1),
  TTF: bits(3, 2),
  COHACC: bit(4),
  BTM: bit(5),
  HTTU: bits(7, 6),
  DORMHINT: bit(8),
  Hyp: bit(9),
  ATS: bit(10),
  NS1ATS: bit(11),
  ASID16: bit(12),
  MSI: bit(13),
  SEV: bit(14),
  ATOS: bit(15),
  PRI: bit(16),
  VMW: bit(17),
  VMID16: bit(18),
  CD2L: bit(19),
  VATOS: bit(20),
  TTENDIAN: bits(22, 21),
  ATSRECERR: bit(23),
  STALL_MODEL: bits(25, 24),
  TERM_MODEL: bit(26),
  ST_LEVEL: bits(28, 27),
});
export const TTF_AARCH64 = 2;
export const TTENDIAN_LITTLE = 2;
export const STALL_MODEL_OPTIONAL = 0;
export const STALL_MODEL_NO_STALL = 1;
export const STALL_MODEL_FORCED = 2;

export const IDR1 = reg32('SMMU_IDR1', 0x04, {
  SIDSIZE: bits(5, 0),
  SSIDSIZE: bits(10, 6),
  PRIQS: bits(15, 11),
  EVENTQS: bits(20, 16),
  CMDQS: bits(25, 21),
  ATTR_PERMS_OVR: bit(26),
  ATTR_TYPES_OVR: bit(27),
  REL: bit(28),
  QUEUES_PRESET: bit(29),
  TABLES_PRESET: bit(30),
  ECMDQ: bit(31),
});

export const IDR2 = reg32('SMMU_IDR2', 0x08, { BA_VATOS: bits(9, 0) });

export const IDR3 = reg32('SMMU_IDR3', 0x0c, {
  HAD: bit(2),
  PBHA: bit(3),
  XNX: bit(4),
  PPS: bit(5),
  MPAM: bit(7),
  FWB: bit(8),
  STT: bit(9),
  RIL: bit(10),
  BBML: bits(12, 11),
  E0PD: bit(13),
  PTWNNC: bit(14),
});

export const IDR4 = reg32('SMMU_IDR4', 0x10, {});

export const IDR5 = reg32('SMMU_IDR5', 0x14, {
  OAS: bits(2, 0),
  GRAN4K: bit(4),
  GRAN16K: bit(5),
  GRAN64K: bit(6),
  DS: bit(7),
  VAX: bits(11, 10),
  STALL_MAX: bits(31, 16),
});

export const IIDR = reg32('SMMU_IIDR', 0x18, {
  Implementer: bits(11, 0),
  Revision: bits(15, 12),
  Variant: bits(19, 16),
  ProductID: bits(31, 20),
});

export const AIDR = reg32('SMMU_AIDR', 0x1c, {
  ArchMinorRev: bits(3, 0),
  ArchMajorRev: bits(7, 4),
});

const cr0 = {
  SMMUEN: bit(0),
  PRIQEN: bit(1),
  EVENTQEN: bit(2),
  CMDQEN: bit(3),
  ATSCHK: bit(4),
  VMW: bits(8, 6),
} as const;
/** 6.3.9. A write takes effect when CR0ACK shows it. */
export const CR0 = reg32('SMMU_CR0', 0x20, cr0);
export const CR0ACK = reg32('SMMU_CR0ACK', 0x24, cr0);

export const CR1 = reg32('SMMU_CR1', 0x28, {
  QUEUE_IC: bits(1, 0),
  QUEUE_OC: bits(3, 2),
  QUEUE_SH: bits(5, 4),
  TABLE_IC: bits(7, 6),
  TABLE_OC: bits(9, 8),
  TABLE_SH: bits(11, 10),
});

export const CR2 = reg32('SMMU_CR2', 0x2c, {
  E2H: bit(0),
  /** Record C_BAD_STREAMID for StreamIDs out of range. */
  RECINVSID: bit(1),
  PTM: bit(2),
});

export const STATUSR = reg32('SMMU_STATUSR', 0x40, { DORMANT: bit(0) });

/** Attributes of traffic while SMMUEN = 0. A write needs Update = 1, and is done when Update reads 0. */
export const GBPA = reg32('SMMU_GBPA', 0x44, {
  MemAttr: bits(3, 0),
  MTCFG: bit(4),
  ALLOCCFG: bits(11, 8),
  SHCFG: bits(13, 12),
  PRIVCFG: bits(17, 16),
  INSTCFG: bits(19, 18),
  ABORT: bit(20),
  Update: bit(31),
});

export const AGBPA = reg32('SMMU_AGBPA', 0x48, {});

const irqCtrl = {
  GERROR_IRQEN: bit(0),
  PRIQ_IRQEN: bit(1),
  EVENTQ_IRQEN: bit(2),
} as const;
export const IRQ_CTRL = reg32('SMMU_IRQ_CTRL', 0x50, irqCtrl);
export const IRQ_CTRLACK = reg32('SMMU_IRQ_CTRLACK', 0x54, irqCtrl);

const gerror = {
  CMDQ_ERR: bit(0),
  EVENTQ_ABT_ERR: bit(2),
  PRIQ_ABT_ERR: bit(3),
  MSI_CMDQ_ABT_ERR: bit(4),
  MSI_EVENTQ_ABT_ERR: bit(5),
  MSI_PRIQ_ABT_ERR: bit(6),
  MSI_GERROR_ABT_ERR: bit(7),
  SFM_ERR: bit(8),
} as const;
/** An error is active while its bit differs between GERROR (the SMMU toggles) and GERRORN (software follows). */
export const GERROR = reg32('SMMU_GERROR', 0x60, gerror);
export const GERRORN = reg32('SMMU_GERRORN', 0x64, gerror);

const msiAddress = { ADDR: address(51, 2) } as const;
const msiAttributes = { MemAttr: bits(3, 0), SH: bits(5, 4) } as const;
export const GERROR_IRQ_CFG0 = reg64('SMMU_GERROR_IRQ_CFG0', 0x68, msiAddress);
export const GERROR_IRQ_CFG1 = reg32('SMMU_GERROR_IRQ_CFG1', 0x70, {
  DATA: bits(31, 0),
});
export const GERROR_IRQ_CFG2 = reg32('SMMU_GERROR_IRQ_CFG2', 0x74, msiAttributes);

export const STRTAB_BASE = reg64('SMMU_STRTAB_BASE', 0x80, {
  ADDR: address(51, 6),
  RA: bit(62),
});
export const STRTAB_BASE_CFG = reg32('SMMU_STRTAB_BASE_CFG', 0x88, {
  LOG2SIZE: bits(5, 0),
  SPLIT: bits(10, 6),
  /** STRTAB_FMT_* */
  FMT: bits(17, 16),
});
export const STRTAB_FMT_LINEAR = 0;
export const STRTAB_FMT_2LVL = 1;

const queueBase = {
  LOG2SIZE: bits(4, 0),
  ADDR: address(51, 5),
  /** Read-allocate hint of the Command queue, write-allocate of the others. */
  RA: bit(62),
} as const;
export const CMDQ_BASE = reg64('SMMU_CMDQ_BASE', 0x90, queueBase);
export const CMDQ_PROD = reg32('SMMU_CMDQ_PROD', 0x98, { WR: bits(19, 0) });
export const CMDQ_CONS = reg32('SMMU_CMDQ_CONS', 0x9c, {
  RD: bits(19, 0),
  /** CERROR_* */
  ERR: bits(30, 24),
});

export const EVENTQ_BASE = reg64('SMMU_EVENTQ_BASE', 0xa0, queueBase);
export const EVENTQ_IRQ_CFG0 = reg64('SMMU_EVENTQ_IRQ_CFG0', 0xb0, msiAddress);
export const EVENTQ_IRQ_CFG1 = reg32('SMMU_EVENTQ_IRQ_CFG1', 0xb8, {
  DATA: bits(31, 0),
});
export const EVENTQ_IRQ_CFG2 = reg32('SMMU_EVENTQ_IRQ_CFG2', 0xbc, msiAttributes);

export const PRIQ_BASE = reg64('SMMU_PRIQ_BASE', 0xc0, queueBase);
export const PRIQ_IRQ_CFG0 = reg64('SMMU_PRIQ_IRQ_CFG0', 0xd0, msiAddress);
export const PRIQ_IRQ_CFG1 = reg32('SMMU_PRIQ_IRQ_CFG1', 0xd8, {
  DATA: bits(31, 0),
});
export const PRIQ_IRQ_CFG2 = reg32('SMMU_PRIQ_IRQ_CFG2', 0xdc, {
  ...msiAttributes,
  /** Interrupt only for a message with Last set. */
  LO: bit(31),
});

const producer = { WR: bits(19, 0), OVFLG: bit(31) } as const;
const consumer = { RD: bits(19, 0), OVACKFLG: bit(31) } as const;
export const EVENTQ_PROD = reg32('SMMU_EVENTQ_PROD', 0x100a8, producer);
export const EVENTQ_CONS = reg32('SMMU_EVENTQ_CONS', 0x100ac, consumer);
export const PRIQ_PROD = reg32('SMMU_PRIQ_PROD', 0x100c8, producer);
export const PRIQ_CONS = reg32('SMMU_PRIQ_CONS', 0x100cc, consumer);

/** CMDQ_CONS.ERR. 7.1. */
export const CERROR_NONE = 0;
export const CERROR_ILL = 1;
export const CERROR_ABT = 2;
export const CERROR_ATC_INV_SYNC = 3;

/** Bytes of the two register pages. */
export const REGISTER_BYTES = 0x20000;
