/**
 * Circular queues between the SMMU and software. [IHI0070] 3.5.1.
 *
 *   31        30 ............ log2+1   log2   log2-1 ..... 0
 *   OVFLG     0 (or ERR, in CMDQ_CONS)  WR     index             PROD and CONS registers alike
 *
 * Equal index and equal wrap bit: empty. Equal index and different wrap bit: full. All functions take the
 * raw register values and the queue's LOG2SIZE (at most 19).
 */

/** PROD.OVFLG / CONS.OVACKFLG: they differ while an overflow is unacknowledged (Event and PRI queues). */
export const QUEUE_OVERFLOW = 0x8000_0000;

/** Slot number. */
export const queueIndex = (reg: number, log2: number): number => reg & ((1 << log2) - 1);

/** Index and wrap bit together: what moves through the queue. */
export const queuePointer = (reg: number, log2: number): number => reg & ((2 << log2) - 1);

export const queueEmpty = (prod: number, cons: number, log2: number): boolean =>
  queuePointer(prod, log2) === queuePointer(cons, log2);

export const queueFull = (prod: number, cons: number, log2: number): boolean =>
  (queuePointer(prod, log2) ^ queuePointer(cons, log2)) === 1 << log2;

/** Entries between CONS and PROD; more than the size when the two are inconsistent (a hostile producer). */
export const queueUsed = (prod: number, cons: number, log2: number): number =>
  (queuePointer(prod, log2) - queuePointer(cons, log2)) & ((2 << log2) - 1);

export const queueSpace = (prod: number, cons: number, log2: number): number =>
  (1 << log2) - queueUsed(prod, cons, log2);

/** The register moved on by `count` entries; bits above the wrap bit are kept. */
export const queueAdvance = (reg: number, log2: number, count = 1): number => {
  const mask = (2 << log2) - 1;
  return ((reg & ~mask) | (((reg & mask) + count) & mask)) >>> 0;
};
