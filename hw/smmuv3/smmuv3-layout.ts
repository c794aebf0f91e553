/**
 * One SMMUv3 as it stands in shared memory (key `smmuv3:N`, N the unit's index): its registers, and the state
 * that must survive when another thread takes over hosting the model. [IHI0070] 6.
 *
 *   software (any thread, through Mmio)  --stores-->  cr0 ... cmdqProd ... gerrorn   --read by-->  pIOMMU
 *   pIOMMU (sole writer)                 --stores-->  cr0ack, cmdqCons, eventqProd, gerror, irq*
 *
 * Two words have two writers, in turns: CMDQ_CONS and EVENTQ_PROD belong to software while their queue is
 * disabled (enable and acknowledge bit both 0) and to the pIOMMU otherwise; GBPA belongs to software while
 * Update is 0 and to the pIOMMU while it is 1.
 */

import { PPR_BYTES, PPR_RING, STALL_TAGS, XLAT_BYTES } from '../iotlb/port-layout.js';
import { CONTEXT_BYTES, MAX_PORTS } from '../iotlb/unit-layout.js';
import { array, layout, line, raw, u32, u64 } from '../memory/layout.js';

/** Requests that one step takes from one port. */
export const SERVE_BATCH = 64;

/** One stalled transaction. */
export const StallEntry = layout('stall', 1, {
  /** STALL_* */
  state: u32(),
  stag: u32(),
  sid: u32(),
  /** Base of the port whose device waits. */
  port: u32(),
});
export const STALL_BYTES = StallEntry.size;
export const STALL_FREE = 0;
/** Its event was recorded: software is to answer. */
export const STALL_RECORDED = 1;
/** Its event could not be recorded yet. */
export const STALL_UNRECORDED = 2;

/** More than the tables that one walk passes through. */
export const EXTERNAL_WORDS = 16;

export const Smmuv3Layout = layout('smmuv3', 6, {
  // Identification: written once by the thread that builds the machine, then constant.
  idr0: u32(),
  idr1: u32(),
  idr2: u32(),
  idr3: u32(),
  idr4: u32(),
  idr5: u32(),
  iidr: u32(),
  aidr: u32(),

  // Software writes, pIOMMU reads.
  cr0: line(u32()),
  cr1: u32(),
  cr2: u32(),
  irqCtrl: u32(),
  gerrorn: u32(),
  strtabBaseCfg: u32(),
  strtabBase: u64(),
  cmdqBase: u64(),
  eventqBase: u64(),
  priqBase: u64(),
  gerrorIrqCfg0: u64(),
  eventqIrqCfg0: u64(),
  priqIrqCfg0: u64(),
  gerrorIrqCfg1: u32(),
  gerrorIrqCfg2: u32(),
  eventqIrqCfg1: u32(),
  eventqIrqCfg2: u32(),
  priqIrqCfg1: u32(),
  priqIrqCfg2: u32(),
  priqProd: u32(),
  priqCons: u32(),
  cmdqProd: line(u32()),
  eventqCons: line(u32()),

  // In turns, see above.
  gbpa: line(u32()),
  cmdqCons: line(u32()),
  eventqProd: line(u32()),

  // pIOMMU writes.
  cr0ack: line(u32()),
  irqCtrlAck: u32(),
  gerror: u32(),

  /** Interrupt futex: one is added for every interrupt raised, then waiters are woken if irqParked is not 0. */
  irq: line(u32()),
  /** IRQ_* bits raised and not yet taken: the pIOMMU sets, a handler exchanges with 0. */
  irqPending: u32(),
  /** Interrupts raised, by source; monotonic modulo 2^32. Writer: pIOMMU. */
  irqEventq: u32(),
  irqGerror: u32(),
  irqCmdSync: u32(),
  irqPriq: u32(),
  irqCompanion: u32(),
  /** Threads parked on irq: each adds one before and subtracts it after. */
  irqParked: line(u32()),

  /** Threads parked on consMoved: each adds one before and subtracts it after. */
  consParked: line(u32()),
  /**
   * Futex: one is added when CMDQ_CONS, or whether it stands at an error, has changed and consParked is not 0. The
   * register itself does not do: at an error its reason shows before the error is active, and does not change then.
   */
  consMoved: u32(),

  /** Resets asked for (any thread adds one, then rings the unit's doorbell), modulo 2^32. */
  resetAsked: line(u32()),
  /** Futex: resets asked for until the last one that is over. Writer: pIOMMU. */
  resetDone: line(u32()),
  /** Threads parked on resetDone: each adds one before and subtracts it after. */
  resetParked: line(u32()),

  /** CMD_SYNCs completed, modulo 2^32. Writer: pIOMMU. */
  syncSeq: line(u32()),
  /** 1 while a CMD_SYNC waits for ports to leave; CMDQ_CONS stands at it. pIOMMU only, as all below. */
  syncPending: u32(),
  /** Generation that the ports must have reached for the SYNC, and for an update of CR0.SMMUEN or GBPA. */
  syncGen: u32(),
  syncWord0: u32(),
  syncWord1: u32(),
  syncWord2: u32(),
  syncWord3: u32(),
  /** Resets asked for until the last one that was begun. */
  resetBegun: u32(),
  /** UPDATE_* bits whose update waits for the traffic before it. */
  updatePending: u32(),
  updateGen: u32(),
  /** CR0.SMMUEN in force. */
  smmuenActive: u32(),
  /** GBPA in force, without Update. */
  gbpaActive: u32(),

  /** Contexts cached of substreams: while 0, nobody needs to look for them. */
  ssidContexts: u32(),

  /** Counters for display; monotonic, modulo 2^32. */
  commandsConsumed: line(u32()),
  eventsRecorded: u32(),
  /** Discarded because the queue was full, disabled or aborting. */
  eventsLost: u32(),
  /** Said by a record that was still unread (STE.MEV). */
  eventsMerged: u32(),
  requestsServed: u32(),
  configFetches: u32(),

  /** Page requests recorded, and those that were answered at once because they could not be. */
  pageRequests: u32(),
  pageRequestsLost: u32(),

  /** Stalls outstanding, and of them those whose record waits for the Event queue. */
  stallsHeld: line(u32()),
  stallsUnrecorded: u32(),
  /** Where the search for a free STAG begins. */
  stallNext: u32(),
  /** Ports, as bits of the unit's port numbers, whose device has not completed an ATC invalidation. */
  atcWaiting: array(u32(), MAX_PORTS / 32),
  stalls: raw(STALL_BYTES * STALL_TAGS),

  /** Requests being served, private copies. */
  batch: raw(XLAT_BYTES * SERVE_BATCH),
  /** The IPA translation of a CD fetch. */
  fetch: raw(XLAT_BYTES),
  /** The request that a prefetch makes. */
  prefetch: raw(XLAT_BYTES),
  /** Page requests being served, private copies. */
  pprs: raw(PPR_BYTES * PPR_RING),
  /** A stream's configuration while it is being put together, a StreamContext. */
  draft: raw(CONTEXT_BYTES),
  /** Descriptors read from external memory for one translation: address and value, 64 bits each. */
  externalWords: raw(16 * EXTERNAL_WORDS),
});

/** irqPending: which handler has work. */
export const IRQ_EVENTQ = 1 << 0;
export const IRQ_GERROR = 1 << 1;
export const IRQ_CMD_SYNC = 1 << 2;
export const IRQ_PRIQ = 1 << 3;
export const IRQ_COMPANION = 1 << 4;

/** updatePending. */
export const UPDATE_SMMUEN = 1 << 0;
export const UPDATE_GBPA = 1 << 1;
export const UPDATE_RESET = 1 << 2;
