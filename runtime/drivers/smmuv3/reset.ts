/**
 * Bringing an SMMU up: the order in which Linux programs its registers. [IHI0070] 6.3.9 and 8.2.
 *
 *   GBPA abort -> CR0 = 0 -> CR1, CR2, stream table, command queue -> CMDQEN
 *   -> CFGI_ALL, TLBI_EL2_ALL (Hyp), TLBI_NSNH_ALL, SYNC -> event queue -> EVENTQEN -> PRI queue -> PRIQEN (PRI)
 *   -> ATSCHK (ATS) -> interrupts -> SMMUEN
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_device_reset
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import {
  CMD_TLBI_EL2_ALL,
  CMD_TLBI_NSNH_ALL,
  encodeCfgiAll,
  encodeTlbi,
} from '../../../hw/smmuv3/command.js';
import type { Mmio } from '../../../hw/smmuv3/mmio.js';
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  CR0,
  CR0ACK,
  CR1,
  CR2,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_IRQ_CFG0,
  EVENTQ_PROD,
  GBPA,
  GERROR_IRQ_CFG0,
  IRQ_CTRL,
  IRQ_CTRLACK,
  PRIQ_BASE,
  PRIQ_CONS,
  PRIQ_IRQ_CFG0,
  PRIQ_PROD,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
} from '../../../hw/smmuv3/registers.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { waitUntil } from '../../../hw/sync/wait.js';
import { ETIMEDOUT } from '../../../uapi/abi/errno.js';
import { CommandBatch } from './batch.js';
import { CommandQueue, type CommandQueueOptions } from './cmdq.js';
import { CMDQ_FLAG_MSI } from './driver-layout.js';
import type { SmmuFeatures } from './features.js';
import type { SmmuAccess } from './queue-host.js';

const SH_INNER = 3;
const CACHE_WB = 1;
const DEADLINE_NS = 5e9;
const SLICE_MS = 1;

export interface QueuePlace {
  /** Byte PA, aligned to the queue's size. */
  readonly pa: number;
  readonly lg2: number;
}

export interface ResetParts {
  readonly memory: MachineMemory;
  readonly env: SyncEnv;
  readonly access: SmmuAccess;
  readonly index: number;
  readonly cmdq: QueuePlace;
  readonly evtq: QueuePlace;
  /** Null without PRI. */
  readonly priq: QueuePlace | null;
  readonly features: Pick<SmmuFeatures, 'hyp' | 'e2h' | 'ats'>;
  readonly streamTable: { readonly base: number; readonly config: number };
  /** A SYNC reports by MSI rather than by CMDQ_CONS. */
  readonly msi: boolean;
  readonly queueOptions: CommandQueueOptions;
}

/** @returns the command queue of an SMMU that translates | -ETIMEDOUT it did not acknowledge */
export function resetSmmu(parts: ResetParts): CommandQueue | number {
  const { access, memory, env, index, cmdq, evtq, priq, streamTable, features } = parts;
  const { registers } = access;
  const bus = new Acknowledged(env, access);

  // Traffic aborts rather than bypasses while the SMMU is off.
  bus.gbpa(GBPA.ABORT.put(0, 1));
  bus.write(0, CR0, CR0ACK);

  let cr1 = CR1.TABLE_SH.put(0, SH_INNER);
  cr1 = CR1.TABLE_OC.put(cr1, CACHE_WB);
  cr1 = CR1.TABLE_IC.put(cr1, CACHE_WB);
  cr1 = CR1.QUEUE_SH.put(cr1, SH_INNER);
  cr1 = CR1.QUEUE_OC.put(cr1, CACHE_WB);
  cr1 = CR1.QUEUE_IC.put(cr1, CACHE_WB);
  registers.write32(CR1.offset, cr1);
  const cr2 = CR2.PTM.put(CR2.RECINVSID.put(0, 1), 1);
  registers.write32(CR2.offset, CR2.E2H.put(cr2, features.e2h ? 1 : 0));

  registers.write64(STRTAB_BASE.offset, STRTAB_BASE.RA.put(BigInt(streamTable.base), 1n));
  registers.write32(STRTAB_BASE_CFG.offset, streamTable.config);

  registers.write64(CMDQ_BASE.offset, queueBase(cmdq));
  registers.write32(CMDQ_PROD.offset, 0);
  registers.write32(CMDQ_CONS.offset, 0);
  CommandQueue.reset(memory, index, {
    linear: memory.linearOf(cmdq.pa, 16),
    lg2: cmdq.lg2,
    flags: parts.msi ? CMDQ_FLAG_MSI : 0,
  });
  let enables = CR0.CMDQEN.put(0, 1);
  bus.write(enables, CR0, CR0ACK);
  if (bus.status < 0) return bus.status;

  const queue = CommandQueue.attach(memory, env, index, access, parts.queueOptions);
  const batch = new CommandBatch(queue);
  batch.add(encodeCfgiAll);
  if (features.hyp) batch.add((words, at) => encodeTlbi(words, at, CMD_TLBI_EL2_ALL, 0, 0));
  batch.add((words, at) => encodeTlbi(words, at, CMD_TLBI_NSNH_ALL, 0, 0));
  const flushed = batch.sync();
  if (flushed < 0) return flushed;

  registers.write64(EVENTQ_BASE.offset, queueBase(evtq));
  registers.write32(EVENTQ_PROD.offset, 0);
  registers.write32(EVENTQ_CONS.offset, 0);
  enables = CR0.EVENTQEN.put(enables, 1);
  bus.write(enables, CR0, CR0ACK);

  if (priq !== null) {
    registers.write64(PRIQ_BASE.offset, queueBase(priq));
    registers.write32(PRIQ_PROD.offset, 0);
    registers.write32(PRIQ_CONS.offset, 0);
    enables = CR0.PRIQEN.put(enables, 1);
    bus.write(enables, CR0, CR0ACK);
  }
  if (features.ats) {
    enables = CR0.ATSCHK.put(enables, 1);
    bus.write(enables, CR0, CR0ACK);
  }

  // Wired interrupts: no MSI addresses.
  bus.write(0, IRQ_CTRL, IRQ_CTRLACK);
  registers.write64(GERROR_IRQ_CFG0.offset, 0n);
  registers.write64(EVENTQ_IRQ_CFG0.offset, 0n);
  let irqs = IRQ_CTRL.GERROR_IRQEN.put(IRQ_CTRL.EVENTQ_IRQEN.put(0, 1), 1);
  if (priq !== null) {
    registers.write64(PRIQ_IRQ_CFG0.offset, 0n);
    irqs = IRQ_CTRL.PRIQ_IRQEN.put(irqs, 1);
  }
  bus.write(irqs, IRQ_CTRL, IRQ_CTRLACK);

  bus.write(CR0.SMMUEN.put(enables, 1), CR0, CR0ACK);
  return bus.status < 0 ? bus.status : queue;
}

function queueBase({ pa, lg2 }: QueuePlace): bigint {
  return CMDQ_BASE.LOG2SIZE.put(CMDQ_BASE.RA.put(BigInt(pa), 1n), BigInt(lg2));
}

/** Register writes that take effect when another register says so. */
class Acknowledged {
  status = 0;
  readonly #env: SyncEnv;
  readonly #registers: Mmio;
  readonly #word: number;

  constructor(env: SyncEnv, access: SmmuAccess) {
    this.#env = env;
    this.#registers = access.registers;
    this.#word = access.irqWord;
  }

  write(value: number, register: { offset: number }, ack: { offset: number }): void {
    if (this.status < 0) return;
    this.#registers.write32(register.offset, value);
    this.#wait(() => this.#registers.read32(ack.offset) === value);
  }

  gbpa(value: number): void {
    const idle = (): boolean => GBPA.Update.get(this.#registers.read32(GBPA.offset)) === 0;
    this.#wait(idle);
    this.#registers.write32(GBPA.offset, GBPA.Update.put(value, 1));
    this.#wait(idle);
  }

  /** Nobody rings when an acknowledgement changes, so the sleep is short. */
  #wait(ready: () => boolean): void {
    if (this.status < 0) return;
    const deadline = this.#env.clock.nowNs() + DEADLINE_NS;
    if (waitUntil(this.#env, this.#word, ready, deadline, undefined, undefined, SLICE_MS) < 0)
      this.status = -ETIMEDOUT;
  }
}
