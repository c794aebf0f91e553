/**
 * One SMMUv3, as silicon does it. [IHI0070] SMMUv3.2, Non-secure state only.
 *
 *   registers (mmio.ts) --> control: CR0, GBPA, IRQ_CTRL      commands: command-queue.ts --> IOTLB, contexts
 *   ports (hw/iotlb)    --> requests: translation.ts --> config-cache.ts, compiled walks --> event-queue.ts
 *
 * step() does a bounded amount of each and never blocks, so the same model runs inline on its caller's thread or
 * in a worker's loop. All state lies in the machine's memory; the objects here hold scratch only, and a new one
 * built on another thread carries on where the last one stopped. Exactly one may be stepped at a time.
 */
import { UnitLayout } from '../iotlb/unit-layout.js';
import type { Kernel } from '../kernel/kernel.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import type { SyncEnv } from '../sync/thread.js';
import type { Words } from '../sync/words.js';
import type { Timeline } from '../timeline/timeline.js';
import { AtcInvalidations } from './atc-invalidations.js';
import { Bus } from './bus.js';
import { CommandExecutor } from './command-executor.js';
import { CommandQueue } from './command-queue.js';
import type { Companion, CompanionParts } from './companion.js';
import type { Smmuv3Config } from './config.js';
import { ConfigCache } from './config-cache.js';
import { EpochGate } from './epoch-gate.js';
import { EventQueue } from './event-queue.js';
import type { InterruptSource } from './interrupt-lines.js';
import { Interrupts } from './interrupts.js';
import type { Log } from './mmio.js';
import { Ports } from './ports.js';
import { Prefetch } from './prefetch.js';
import { PageRequests } from './pri-queue.js';
import type { Smmuv3Regions } from './regions.js';
import { cr0Mask } from './register-file.js';
import { CR0, GBPA } from './registers.js';
import { resetRegisters } from './reset.js';
import { Smmuv3Layout, UPDATE_GBPA, UPDATE_RESET, UPDATE_SMMUEN } from './smmuv3-layout.js';
import { Stalls } from './stalls.js';
import { Trace } from './trace.js';
import { Translation } from './translation.js';

const at = Smmuv3Layout.at;
const SMMUEN = CR0.SMMUEN.mask;
const CMDQEN = CR0.CMDQEN.mask;

export interface Smmuv3Hooks {
  /** Refusals and accesses to what is not modelled, each once. Default: dropped. */
  readonly log?: Log;
  /** A wired interrupt fired: called inside step(), on the thread that steps. */
  readonly onInterrupt?: (source: InterruptSource) => void;
  /** Makes the queues beside the SMMU's own, where there are any. */
  readonly companion?: (parts: CompanionParts) => Companion;
  /** To say when things were done, where there is a trace. */
  readonly timeline?: Timeline | null;
}

export class Smmuv3 {
  readonly config: Smmuv3Config;
  readonly trace: Trace;
  readonly #words: Words;
  readonly #base: number;
  readonly #cr0Mask: number;
  readonly #kernel: Kernel;
  readonly #regions: Smmuv3Regions;
  readonly #gate: EpochGate;
  readonly #configs: ConfigCache;
  readonly #stalls: Stalls;
  readonly #atc: AtcInvalidations;
  readonly #commands: CommandQueue;
  readonly #translation: Translation;
  readonly #companion: Companion | null;

  /** The calling thread becomes the unit's host. */
  constructor(
    env: SyncEnv,
    memory: MachineMemory,
    kernel: Kernel,
    regions: Smmuv3Regions,
    config: Smmuv3Config,
    hooks: Smmuv3Hooks = {},
  ) {
    const log = hooks.log ?? (() => undefined);
    const bus = new Bus(memory);
    this.config = config;
    this.trace = new Trace(memory, regions, hooks.timeline);
    this.#words = env.words;
    this.#base = regions.smmu;
    this.#cr0Mask = cr0Mask(env.words.load(regions.smmu + at.idr0));
    this.#kernel = kernel;
    this.#regions = regions;
    this.#gate = new EpochGate(env.words, regions.unit, () => this.#gateHeld());
    const interrupts = new Interrupts(bus, regions.smmu, hooks.onInterrupt);
    const events = new EventQueue(bus, regions.smmu, interrupts, config.evtqLog2);
    this.#configs = new ConfigCache(bus, kernel, regions, config, log);
    this.#stalls = new Stalls(memory, regions.smmu);
    const ports = new Ports(env.words, regions.unit);
    const pages = new PageRequests({ bus, smmu: regions.smmu, config, interrupts, ports });
    const newAtc = (waiting: number) =>
      new AtcInvalidations({ words: env.words, kernel, waiting, ports, clock: env.clock, config });
    this.#atc = newAtc(regions.smmu + at.atcWaiting);
    const shared = {
      kernel,
      regions,
      config,
      configs: this.#configs,
      trace: this.trace,
      stalls: this.#stalls,
      pages,
      log,
    };
    const prefetch = new Prefetch({ ...shared, memory });
    const executing = { ...shared, bus, prefetch, loaded: () => this.#translation.loaded };
    this.#commands = new CommandQueue({
      bus,
      smmu: regions.smmu,
      config,
      gate: this.#gate,
      interrupts,
      executor: new CommandExecutor({ ...executing, atc: this.#atc }),
      atc: this.#atc,
      trace: this.trace,
    });
    this.#translation = new Translation({ ...shared, memory, events, ports });
    this.#companion =
      hooks.companion?.({
        memory,
        words: env.words,
        gate: this.#gate,
        log,
        atc: this.#atc,
        newAtc,
        newExecutor: (atc) => new CommandExecutor({ ...executing, atc }),
        interrupt: () => interrupts.companion(),
      }) ?? null;
    env.words.store(regions.unit + UnitLayout.at.owner, env.threadId);
  }

  /** Whether it may have work that no doorbell tells of. */
  get polled(): boolean {
    return this.#companion?.polled ?? false;
  }

  /** @returns whether anything was done; when not, the caller may wait for the unit's doorbell */
  step(): boolean {
    let worked = this.#reset();
    worked = this.#control() || worked;
    worked = this.#commands.step() || worked;
    if (this.#companion !== null) worked = this.#companion.step() || worked;
    return this.#translation.step() || worked;
  }

  /** Whether step() would do anything now, without doing it. */
  hasWork(): boolean {
    return (
      this.#controlPending() ||
      this.#commands.hasWork() ||
      (this.#companion?.hasWork() ?? false) ||
      this.#translation.hasWork()
    );
  }

  /** Whether anybody waits for ports to leave their epochs. */
  #gateHeld(): boolean {
    return (
      this.#load(at.updatePending) !== 0 ||
      this.#commands.syncPending ||
      (this.#companion?.syncPending ?? false)
    );
  }

  // ---- control registers ----

  #load(offset: number): number {
    return this.#words.load(this.#base + offset);
  }

  #store(offset: number, value: number): void {
    this.#words.store(this.#base + offset, value);
  }

  #controlPending(): boolean {
    if (this.#load(at.resetAsked) !== this.#load(at.resetBegun)) return true;
    const pending = this.#load(at.updatePending);
    if (pending !== 0 && this.#gate.passed(this.#load(at.updateGen))) return true;
    if (this.#load(at.irqCtrl) !== this.#load(at.irqCtrlAck)) return true;
    if (pending === 0 && GBPA.Update.get(this.#load(at.gbpa)) === 1) return true;
    return this.#cr0Step() !== this.#load(at.cr0ack);
  }

  /**
   * What CR0ACK may show next. SMMUEN has an update of its own; CMDQEN stays until a CMD_SYNC in progress has been
   * consumed (6.3.9.3).
   */
  #cr0Step(): number {
    const ack = this.#load(at.cr0ack);
    let next = this.#load(at.cr0) & this.#cr0Mask;
    if (this.#load(at.updatePending) !== 0) next = (next & ~SMMUEN) | (ack & SMMUEN);
    if ((ack & CMDQEN) !== 0 && this.#commands.syncPending) next |= CMDQEN;
    return next;
  }

  /** reset.ts. @returns whether one was begun */
  #reset(): boolean {
    const asked = this.#load(at.resetAsked);
    if (asked === this.#load(at.resetBegun)) return false;
    this.#store(at.resetBegun, asked);
    resetRegisters(this.#words, this.#base);
    this.#kernel.iotlbInvalidateAll(this.#regions.unit, this.#regions.iotlb);
    this.#store(at.updatePending, 0);
    this.#configs.invalidateAll();
    this.#stalls.terminateAll();
    this.#atc.giveUp();
    this.#beginUpdate(UPDATE_RESET);
    this.#finishUpdate();
    return true;
  }

  #control(): boolean {
    let worked = this.#finishUpdate();
    const irqCtrl = this.#load(at.irqCtrl);
    if (irqCtrl !== this.#load(at.irqCtrlAck)) {
      this.#store(at.irqCtrlAck, irqCtrl);
      worked = true;
    }
    const ack = this.#load(at.cr0ack);
    const next = this.#cr0Step();
    if (next !== ack) {
      worked = true;
      const changed = next ^ ack;
      if ((changed & SMMUEN) !== 0) {
        this.#store(at.smmuenActive, next & SMMUEN);
        if ((next & SMMUEN) === 0) this.#stalls.terminateAll();
        this.#beginUpdate(UPDATE_SMMUEN);
      }
      // 6.3.9.2: what is fetched from here on is read with the new value.
      if ((changed & CR0.ATSCHK.mask) !== 0) this.#configs.invalidateAll();
      // The other fields have nothing to wait for.
      this.#store(at.cr0ack, (next & ~SMMUEN) | (ack & SMMUEN));
      this.#finishUpdate();
    }
    if (GBPA.Update.get(this.#load(at.gbpa)) === 1 && this.#load(at.updatePending) === 0) {
      worked = true;
      this.#store(at.gbpaActive, GBPA.Update.put(this.#load(at.gbpa) >>> 0, 0));
      this.#beginUpdate(UPDATE_GBPA);
      this.#finishUpdate();
    }
    return worked;
  }

  /** From here on the new value is in force; it is acknowledged when the DMA before it is over. */
  #beginUpdate(what: number): void {
    if (what === UPDATE_SMMUEN) this.#configs.invalidateAll();
    this.#store(at.updateGen, this.#gate.begin());
    this.#store(at.updatePending, what);
  }

  /** @returns whether an update was acknowledged */
  #finishUpdate(): boolean {
    const pending = this.#load(at.updatePending);
    if (pending === 0 || !this.#gate.passed(this.#load(at.updateGen))) return false;
    this.#store(at.updatePending, 0);
    this.#gate.end();
    if (pending === UPDATE_RESET) {
      this.#store(at.resetDone, this.#load(at.resetBegun));
      if (this.#load(at.resetParked) !== 0)
        this.#words.notify(this.#base + at.resetDone, Number.POSITIVE_INFINITY);
    } else if (pending === UPDATE_SMMUEN)
      this.#store(at.cr0ack, (this.#load(at.cr0ack) & ~SMMUEN) | this.#load(at.smmuenActive));
    else this.#store(at.gbpa, this.#load(at.gbpaActive));
    return true;
  }
}
