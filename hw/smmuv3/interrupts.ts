/**
 * Interrupts and global errors. [IHI0070] 3.18 and 7.5. Each source has a wired output, which here is a bit of
 * irqPending, a counter and a futex that a handler's thread may park on, and an MSI when its address is not zero.
 * The wired output is raised whether or not an MSI is sent; a CMD_SYNC's interrupt has no enable bit.
 *
 * Two ways to see a wired output: `onInterrupt`, called on the thread that steps the model, inside step(); and
 * InterruptLines (interrupt-lines.ts), on any thread.
 */
import type { Words } from '../sync/words.js';
import type { Bus } from './bus.js';
import type { InterruptSource } from './interrupt-lines.js';
import { EVENTQ_IRQ_CFG0, GERROR, GERROR_IRQ_CFG0, IRQ_CTRL, PRIQ_IRQ_CFG0 } from './registers.js';
import {
  IRQ_CMD_SYNC,
  IRQ_COMPANION,
  IRQ_EVENTQ,
  IRQ_GERROR,
  IRQ_PRIQ,
  Smmuv3Layout,
} from './smmuv3-layout.js';

const at = Smmuv3Layout.at;

export class Interrupts {
  readonly #words: Words;
  readonly #bus: Bus;
  readonly #base: number;
  readonly #onInterrupt: ((source: InterruptSource) => void) | undefined;

  /** @param onInterrupt  called for each wired interrupt, when what it tells of can be seen */
  constructor(bus: Bus, smmu: number, onInterrupt?: (source: InterruptSource) => void) {
    this.#words = bus.memory.words;
    this.#bus = bus;
    this.#base = smmu;
    this.#onInterrupt = onInterrupt;
  }

  /** The Event queue became non-empty. */
  eventq(): void {
    if (!this.#enabled(IRQ_CTRL.EVENTQ_IRQEN.mask)) return;
    const sent = this.#msi(EVENTQ_IRQ_CFG0.ADDR.get(this.#load64(at.eventqIrqCfg0)), at.eventqIrqCfg1);
    this.#raise(IRQ_EVENTQ, at.irqEventq, 'eventq');
    if (!sent) this.error(GERROR.MSI_EVENTQ_ABT_ERR.mask);
  }

  /** The PRI queue became non-empty, or took the last request of a group (PRIQ_IRQ_CFG2.LO). */
  priq(): void {
    if (!this.#enabled(IRQ_CTRL.PRIQ_IRQEN.mask)) return;
    const sent = this.#msi(PRIQ_IRQ_CFG0.ADDR.get(this.#load64(at.priqIrqCfg0)), at.priqIrqCfg1);
    this.#raise(IRQ_PRIQ, at.irqPriq, 'priq');
    if (!sent) this.error(GERROR.MSI_PRIQ_ABT_ERR.mask);
  }

  /**
   * A CMD_SYNC with CS = IRQ completed.
   * @param address  byte PA of the MSI, 0 for none
   */
  cmdSync(address: number, data: number): void {
    const sent = address === 0 || this.#bus.write32(address, data);
    this.#raise(IRQ_CMD_SYNC, at.irqCmdSync, 'cmd-sync');
    if (!sent) this.error(GERROR.MSI_CMDQ_ABT_ERR.mask);
  }

  /** The output of the queues beside the SMMU's own (companion.ts): a line of its own, without enable and MSI. */
  companion(): void {
    this.#raise(IRQ_COMPANION, at.irqCompanion, 'companion');
  }

  /** A CMD_SYNC with CS = SEV completed: wakes waiters, marks nothing. */
  sev(): void {
    this.#wake();
  }

  /** Activates a global error: toggles its bit unless it is active already. */
  error(mask: number): void {
    const gerror = this.#words.load(this.#base + at.gerror);
    const gerrorn = this.#words.load(this.#base + at.gerrorn);
    if (((gerror ^ gerrorn) & mask) !== 0) return;
    this.#words.store(this.#base + at.gerror, gerror ^ mask);
    if (!this.#enabled(IRQ_CTRL.GERROR_IRQEN.mask)) return;
    const sent = this.#msi(GERROR_IRQ_CFG0.ADDR.get(this.#load64(at.gerrorIrqCfg0)), at.gerrorIrqCfg1);
    this.#raise(IRQ_GERROR, at.irqGerror, 'gerror');
    // An MSI that reports an aborted GERROR MSI aborts as well: no second one is sent.
    if (!sent && mask !== GERROR.MSI_GERROR_ABT_ERR.mask) this.error(GERROR.MSI_GERROR_ABT_ERR.mask);
  }

  /** Whether an error is active: toggled by the SMMU and not yet followed in GERRORN. */
  active(mask: number): boolean {
    const gerror = this.#words.load(this.#base + at.gerror);
    return ((gerror ^ this.#words.load(this.#base + at.gerrorn)) & mask) !== 0;
  }

  #enabled(mask: number): boolean {
    return (this.#words.load(this.#base + at.irqCtrlAck) & mask) !== 0;
  }

  #load64(offset: number): bigint {
    return this.#words.load64(this.#base + offset);
  }

  /** @returns false when the write aborted */
  #msi(address: bigint, dataAt: number): boolean {
    if (address === 0n) return true;
    return this.#bus.write32(Number(address), this.#words.load(this.#base + dataAt));
  }

  #raise(bit: number, counterAt: number, source: InterruptSource): void {
    this.#words.or(this.#base + at.irqPending, bit);
    this.#words.add(this.#base + counterAt, 1);
    this.#wake();
    this.#onInterrupt?.(source);
  }

  #wake(): void {
    this.#words.add(this.#base + at.irq, 1);
    if (this.#words.load(this.#base + at.irqParked) !== 0)
      this.#words.notify(this.#base + at.irq, Number.POSITIVE_INFINITY);
  }
}
