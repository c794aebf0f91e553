/**
 * A machine: memory, SMMUs, devices and the host software on top, built from a configuration and ready to use
 * on one thread. The hardware is hosted *inline*: whoever waits for it steps it (`env.relax`), so an embedder
 * needs no threads at all. `startWorkers` moves the models to threads of their own; nothing else changes.
 *
 *   checkConfig -> memory and regions -> models (inline) -> driver probe and reset -> iommufd core
 */

import { writeFileSync } from 'node:fs';
import { bugSwitches } from '../hw/bugs/bug-switches.js';
import { PortLayout } from '../hw/iotlb/port-layout.js';
import { Kernel } from '../hw/kernel/kernel.js';
import { refusedBugs } from '../hw/kernel/variants.js';
import { FrameAllocator } from '../hw/memory/frame-allocator.js';
import { framesLayout } from '../hw/memory/frames-layout.js';
import { MachineMemory } from '../hw/memory/machine-memory.js';
import type { WasmMemory } from '../hw/memory/webassembly.js';
import { pageTablesLayout } from '../hw/pagetable/page-table-layout.js';
import { AtsControl } from '../hw/pci/ats-control.js';
import type { DmaPort } from '../hw/pci/dma-port.js';
import { InterruptLines, type InterruptSource } from '../hw/smmuv3/interrupt-lines.js';
import { Mmio } from '../hw/smmuv3/mmio.js';
import { smmuv3Regions } from '../hw/smmuv3/regions.js';
import { ResetLine } from '../hw/smmuv3/reset.js';
import { Smmuv3Layout } from '../hw/smmuv3/smmuv3-layout.js';
import { ClockLayout } from '../hw/smmuv3/trace-layout.js';
import type { Clock, SyncEnv } from '../hw/sync/thread.js';
import { cmdqvRegions } from '../hw/tegra241-cmdqv/config.js';
import { CmdqvMmio } from '../hw/tegra241-cmdqv/mmio.js';
import { PAGE_BYTES } from '../hw/tegra241-cmdqv/registers.js';
import { ENOMEM, errnoName } from '../uapi/abi/errno.js';
import { IommufdCore } from './core/core.js';
import type { IommufdFd } from './core/fd.js';
import { RamFrames } from './core/task.js';
import type { HostDevice, IoasObserver, PasidCapability } from './drivers/contract.js';
import { MockIommu } from './drivers/mock/iommu.js';
import { DRIVER_NAME } from './drivers/smmuv3/driver-layout.js';
import type { ImplProbe } from './drivers/smmuv3/impl.js';
import { Smmuv3Invalidator } from './drivers/smmuv3/invalidate.js';
import { PageTableSlots } from './drivers/smmuv3/page-table-slots.js';
import { createDriverRegions, DEFAULT_VIOMMUS } from './drivers/smmuv3/regions.js';
import { type HostEvent, Smmuv3Instance } from './drivers/smmuv3/smmu.js';
import type { OnAllocateTag } from './drivers/smmuv3/tags.js';
import { ViommuRecords } from './drivers/smmuv3/viommu-record.js';
import type { CmdqvOptions } from './drivers/tegra241/cmdqv.js';
import { Tegra241CmdqvImpl } from './drivers/tegra241/impl.js';
import { foreignRangeOf } from './foreign-range.js';
import { encodeImage } from './image/image-file.js';
import { inputOf } from './image/opened-machine.js';
import { InlineModels } from './inline-models.js';
import { ConfigError, checkConfig } from './machine-config.js';
import {
  CLOCK_KEY,
  cmdqvConfigOf,
  coreBugsOf,
  FRAMES_KEY,
  invalidatorOptionsOf,
  portKey,
  smmuConfigOf,
} from './machine-hardware.js';
import { allocBaseRegions, allocMachineRegions, controlBytes } from './machine-regions.js';
import type { CheckedConfig, MachineConfig, ResolvedDevice } from './machine-schema.js';
import { type AttachOptions, type MachineHandle, MachineThread } from './machine-thread.js';
import type { VfioContainer } from './objects/vfio-container.js';
import type { VfioDevice } from './objects/vfio-device.js';
import { ForeignFrames } from './serve/foreign-frames.js';
import { ForeignMemory, MachineFrames } from './serve/foreign-memory.js';
import { UserMemory } from './user-memory.js';

/** Paging domains that can exist at once. */
const PAGE_TABLES = 1024;
const PAGE_TABLES_KEY = 'page-tables';
/** An SMMU that takes longer is gone. */
const RESET_DEADLINE_NS = 5e9;
/** Turns of the inline hardware that one settle() may take before the machine is called stuck. */
const MAX_SETTLE_STEPS = 100_000;

/** Looks into a machine from the moment its memory exists: a checker, a tracer. */
export interface Instruments {
  readonly observer?: IoasObserver;
  readonly onAllocateTag?: OnAllocateTag;
  /** Events that no guest is told of, with the number of their IOMMU. */
  readonly onHostEvent?: (iommu: number, event: HostEvent) => void;
}

/** @param iommu  its name */
export type InterruptListener = (iommu: string, source: InterruptSource) => void;

export interface CreateOptions {
  /** What an operator should read, each message once. Default: dropped. */
  readonly log?: (message: string) => void;
  readonly clock?: Clock;
  /** See SyncEnv. */
  readonly spin?: boolean;
  readonly parkSliceMs?: number;
  /** Memory to build the machine in, all zero and of the right size: that of a machine that is closed. */
  readonly memory?: WasmMemory;
  /** Linux's test ioctl and its mock IOMMU, for programs that test iommufd itself. Default: neither exists. */
  readonly testIoctl?: boolean;
  /** Called once the machine's regions exist and before anything runs; may carve out regions of its own. */
  readonly instrument?: (memory: MachineMemory, kernel: Kernel, config: CheckedConfig) => Instruments;
}

/** One physical IOMMU of a machine. */
export interface MachineIommu {
  readonly name: string;
  readonly index: number;
  /** Its register file, for a driver of one's own. The machine's own driver has it enabled already. */
  readonly mmio: Mmio;
  /** The registers of the CMDQV beside it, null where there is none. */
  readonly cmdqv: CmdqvMmio | null;
  readonly instance: Smmuv3Instance;
}

export class Machine {
  readonly config: CheckedConfig;
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  readonly env: SyncEnv;
  readonly user: UserMemory;
  readonly frames: FrameAllocator;
  /** Frames that are the memory of other processes: clients of a server. */
  readonly foreign: ForeignFrames;
  readonly iommus: readonly MachineIommu[];
  readonly core: IommufdCore;
  readonly #devices: readonly HostDevice[];
  readonly #thread: MachineThread;
  readonly #ports = new Map<number, DmaPort>();
  readonly #fds = new Set<IommufdFd>();
  readonly #vfios = new Set<VfioDevice>();
  readonly #lines: readonly InterruptLines[];
  readonly #interrupted = new Set<InterruptListener>();
  /** The models, while they are hosted here; null while workers host them. */
  #models: InlineModels | null = null;

  /** Use createMachine. */
  constructor(config: CheckedConfig, options: CreateOptions) {
    this.config = config;
    const zoo = bugSwitches(config.bugs.zoo);
    const refused = refusedBugs(zoo);
    if (refused !== null) throw new ConfigError('bugs.zoo', refused);
    const memory = createMemory(config, options.memory);
    allocBaseRegions(memory);
    const kernel = Kernel.load(memory, zoo);
    allocMachineRegions(memory, kernel, config);
    createDriverRegions(
      memory,
      config.iommus.map((_, index) => index),
    );
    memory.allocRegion(pageTablesLayout(PAGE_TABLES), PAGE_TABLES_KEY);
    IommufdCore.allocRegions(memory, config.maxFds);
    this.memory = memory;
    this.kernel = kernel;
    const oasBits = Math.max(...config.iommus.map((iommu) => iommu.oasBits));
    this.frames = FrameAllocator.init(
      memory,
      memory.region(framesLayout(memory.ram.bytes), FRAMES_KEY),
      oasBits,
      foreignRangeOf(config).firstPfn,
    );
    const instruments = options.instrument?.(memory, kernel, config) ?? {};
    const log = options.log ?? (() => undefined);
    this.#thread = MachineThread.attach({ memory: memory.handle(), config }, threadOptions(options, log));
    this.env = this.#thread.env;
    this.foreign = new ForeignFrames(foreignRangeOf(config), log);
    this.#thread.memory.external = new ForeignMemory(this.foreign);
    this.user = new UserMemory(memory, this.env, this.frames);
    this.hostInline(true);
    this.iommus = this.#probe(instruments, log);
    this.#lines = config.iommus.map(
      (_, index) => new InterruptLines(this.env, smmuv3Regions(memory, smmuConfigOf(config, index))),
    );
    const mock = options.testIoctl === true ? this.#makeMock() : undefined;
    const instances = this.iommus.map(({ instance }) => instance);
    this.core = new IommufdCore({
      memory,
      env: this.env,
      user: this.user,
      physical: new MachineFrames(new RamFrames(memory), this.foreign),
      iommus: mock === undefined ? instances : [...instances, mock],
      mock,
      invalidators: new Map([
        [DRIVER_NAME, new Smmuv3Invalidator(memory, this.env, invalidatorOptionsOf(config))],
      ]),
      observer: instruments.observer,
      bugs: coreBugsOf(config),
      compat: config.compat,
      log,
    });
    this.#devices = config.devices.map(({ label, bdf, iommuIndex, sid, ats, stall, ...traits }, index) => ({
      index,
      name: label,
      iommu: this.iommus[iommuIndex]!.instance,
      streamId: sid,
      groupId: index,
      ats: ats ? new AtsControl(memory.words, memory.region(PortLayout, portKey(index)).base) : undefined,
      canStall: stall,
      pci: bdf !== undefined,
      pasid: pasidOf(traits),
    }));
  }

  /** What another thread attaches with (MachineThread.attach). Take it after every region has been carved out. */
  handle(): MachineHandle {
    return { memory: this.memory.handle(), config: this.config };
  }

  /** open("/dev/iommu"). @throws IommufdError EMFILE */
  openIommufd(): IommufdFd {
    const fd = this.core.open();
    this.#fds.add(fd);
    return fd;
  }

  /** open("/dev/vfio/devices/vfioN") of the device with this bdf or name. @throws RangeError no such device */
  openVfio(label: string): VfioDevice {
    const vfio = this.core.openVfio(this.device(label));
    this.#vfios.add(vfio);
    return vfio;
  }

  /** open("/dev/vfio/vfio"): the type 1 calls that came before iommufd. @throws IommufdError EMFILE */
  openVfioContainer(): VfioContainer {
    const container = this.core.openContainer();
    this.#fds.add(container.iommufd);
    return container;
  }

  /**
   * The DMA engine of a device: what an emulated device calls. For this thread; workers attach their own. Where the
   * device may stall, a fault returns XLAT_STALLED (0xfe), as it is poll() that answers: `stalled` and `verdict()`.
   */
  dmaPort(label: string): DmaPort {
    const { index } = this.device(label);
    let port = this.#ports.get(index);
    if (port === undefined) {
      port = this.#thread.dmaPort(index);
      // The answer to a stall is poll()'s, on this thread.
      port.waitsForStalls = false;
      this.#ports.set(index, port);
    }
    return port;
  }

  /** @throws RangeError no such IOMMU */
  iommu(name: string): MachineIommu {
    const found = this.iommus.find((iommu) => iommu.name === name);
    if (found === undefined) throw new RangeError(`there is no IOMMU '${name}'`);
    return found;
  }

  /** @throws RangeError no such device */
  device(label: string): HostDevice {
    const found = this.#devices.find(({ name }) => name === label);
    if (found === undefined) {
      const names = this.#devices.map(({ name }) => name).join(', ');
      throw new RangeError(`there is no device '${label}' (${names === '' ? 'none at all' : names})`);
    }
    return found;
  }

  /**
   * Serves what the hardware raised since the last call: events to their vEVENTQs, command-queue errors. An
   * embedder calls it as often as it takes interrupts; the workers' host calls it all the time.
   * @returns whether there was anything
   */
  poll(): boolean {
    const any = this.settle();
    this.#tellInterrupts();
    let served = false;
    for (const { instance } of this.iommus) served = instance.poll() || served;
    // Devices are answered by commands: inline, they are carried out before this returns.
    if (served) this.settle();
    return any || served;
  }

  /**
   * Resets SMMUs and programs them again, as a driver does after power came back. Stream tables, CDs and page tables
   * lie in RAM and stay: what was attached is attached, mapped is mapped, and files and objects know nothing of it.
   * Lost are every cache, unread events and page requests, commands not consumed; stalled transactions end. In
   * between traffic gets what GBPA resets to (bypass), then aborts, as on hardware.
   * @param name  of one IOMMU; all of them when left out
   * @throws Error workers host the machine, whose threads may be in the middle of a command queue; or an SMMU that
   *         does not come back | RangeError no such IOMMU
   */
  reset(name?: string): void {
    if (!this.inline) throw new Error('machine: workers host it; `await host.stop()` first, then reset()');
    const { env, memory, config } = this;
    for (const { name: label, index, instance } of name === undefined ? this.iommus : [this.iommu(name)]) {
      const line = new ResetLine(env, smmuv3Regions(memory, smmuConfigOf(config, index)));
      const deadline = env.clock.nowNs() + RESET_DEADLINE_NS;
      const waited = line.wait(line.request(), deadline);
      const status = waited < 0 ? waited : instance.reset();
      if (status < 0)
        throw new Error(`machine: ${label} did not come back from its reset: ${errnoName(-status)}`);
    }
  }

  /**
   * Calls `listener` for every wired interrupt that an SMMU raised since it was last told: once for each line,
   * however often it fired. It is told by poll(), before the driver serves what raised it; a line that fires twice
   * in between fired once. MSIs are writes into the machine's memory, as on hardware.
   * @returns takes the listener away again
   * @throws TypeError it is no function
   */
  onInterrupt(listener: InterruptListener): () => void {
    if (typeof listener !== 'function') throw new TypeError('onInterrupt: the listener must be a function');
    if (this.#interrupted.size === 0) for (const lines of this.#lines) lines.take();
    this.#interrupted.add(listener);
    return () => this.#interrupted.delete(listener);
  }

  #tellInterrupts(): void {
    if (this.#interrupted.size === 0) return;
    this.#lines.forEach((lines, index) => {
      for (const source of lines.take())
        for (const listener of [...this.#interrupted]) listener(this.iommus[index]!.name, source);
    });
  }

  /** Steps inline hardware until it has nothing to do. @returns whether it had; false while workers host it */
  settle(): boolean {
    let any = false;
    for (let steps = 0; steps < MAX_SETTLE_STEPS && this.#step(); steps++) any = true;
    return any;
  }

  /** Whether this thread hosts the models. */
  get inline(): boolean {
    return this.#models !== null;
  }

  /** Whether this thread steps the models: true until workers take them over, and again after. */
  hostInline(inline: boolean): void {
    const models = () => this.config.iommus.map((_, index) => this.#thread.smmuModel(index));
    this.#models = inline ? new InlineModels(models()) : null;
    this.env.relax = inline ? () => this.#step() : undefined;
  }

  /**
   * The hardware as it stands, in a form that openImage() takes: configuration, registers, tables, queues, RAM in
   * use, and caches unless they are left out. Nothing of the core is in it: no open file, no IOAS, no object.
   * @throws Error workers host the machine: there is no moment at which its memory stands still; or memory of
   *         client processes is mapped
   */
  saveImage({ caches = true }: { readonly caches?: boolean } = {}): Uint8Array {
    if (!this.inline)
      throw new Error('machine: workers host it; `await host.stop()` first, then saveImage()');
    if (this.foreign.pinned > 0)
      throw new Error(
        "machine: client processes' memory is mapped, which an image cannot hold: unmap it first",
      );
    const { memory, frames, config } = this;
    return encodeImage({ memory, frames, config: inputOf(config), caches });
  }

  /** saveImage() into a file. @throws Error as saveImage() and fs.writeFileSync do */
  saveToFile(path: string, options: { readonly caches?: boolean } = {}): void {
    writeFileSync(path, this.saveImage(options));
  }

  /**
   * Closes every file this machine gave out: VFIO devices, then iommufds.
   * @throws Error workers host the machine: their programs may still use those files
   */
  close(): void {
    if (!this.inline) throw new Error('machine: workers host it; `await host.stop()` first, then close()');
    for (const vfio of this.#vfios) vfio.close();
    this.#vfios.clear();
    for (const fd of this.#fds) fd.close();
    this.#fds.clear();
  }

  #step(): boolean {
    return this.#models?.step() ?? false;
  }

  /** Numbered after the machine's own IOMMUs and devices. */
  #makeMock(): MockIommu {
    const { iommus, devices } = this.config;
    return new MockIommu({
      index: iommus.length,
      firstDevice: devices.length,
      memory: this.memory,
      frames: this.frames,
      allocFails: (site) => this.core.allocFails(site),
    });
  }

  #cmdqvMmio(index: number, log: (message: string) => void): CmdqvMmio | null {
    const { memory, env, config } = this;
    const cmdqv = cmdqvConfigOf(config.iommus[index]!, index);
    if (cmdqv === null) return null;
    const { unit } = smmuv3Regions(memory, smmuConfigOf(config, index));
    return new CmdqvMmio(env, cmdqv, cmdqvRegions(memory, cmdqv), unit, log);
  }

  /** How the driver starts the CMDQV beside an SMMU; undefined where there is none. */
  #cmdqvProbe(index: number, log: (message: string) => void): ImplProbe | undefined {
    const { memory, env, config } = this;
    const cmdqv = cmdqvConfigOf(config.iommus[index]!, index);
    const registers = this.#cmdqvMmio(index, log);
    if (cmdqv === null || registers === null) return undefined;
    const regions = cmdqvRegions(memory, cmdqv);
    const smmu = smmuv3Regions(memory, smmuConfigOf(config, index));
    const lines = new InterruptLines(env, smmu);
    const options: CmdqvOptions = {
      env,
      registers,
      compat: config.compat,
      page0: (vintf) => regions.pages + PAGE_BYTES * vintf,
      interrupted: () => lines.take().includes('companion'),
      word: smmu.smmu + Smmuv3Layout.at.irq,
    };
    return (device) => Tegra241CmdqvImpl.probe(device, options);
  }

  #probe(instruments: Instruments, log: (message: string) => void): MachineIommu[] {
    const { memory, kernel, env, config, frames } = this;
    const clock = memory.region(ClockLayout, CLOCK_KEY).base + ClockLayout.at.tick;
    const slots = new PageTableSlots(memory, PAGE_TABLES_KEY, PAGE_TABLES);
    const records = new ViommuRecords(memory, DEFAULT_VIOMMUS);
    return config.iommus.map(({ name, cmdqLog2, evtqLog2, priqLog2 }, index) => {
      const { onHostEvent, onAllocateTag } = instruments;
      const instance = Smmuv3Instance.probe({
        compat: config.compat,
        memory,
        kernel,
        frames,
        slots,
        records,
        env,
        index,
        name,
        cmdqLg2: cmdqLog2,
        evtqLg2: evtqLog2,
        priqLg2: priqLog2,
        sharing: config.s2Sharing,
        bugs: config.bugs,
        bugOnIommu: config.bugs.iommu,
        tick: () => env.words.add(clock, 1) >>> 0,
        allocFails: (site) => this.core.allocFails(site),
        onAllocate: onAllocateTag,
        onHostEvent: onHostEvent && ((event) => onHostEvent(index, event)),
        impl: this.#cmdqvProbe(index, log),
        log,
      });
      if (instance === -ENOMEM)
        throw new ConfigError(
          'memory',
          `${config.memory} bytes are too little for the tables and queues of ${name}`,
        );
      if (typeof instance === 'number')
        throw new Error(`machine: the driver cannot start ${name}: ${errnoName(-instance)}`);
      const mmio = new Mmio(env, smmuv3Regions(memory, smmuConfigOf(config, index)), log);
      return { name, index, mmio, cmdqv: this.#cmdqvMmio(index, log), instance };
    });
  }
}

function threadOptions(options: CreateOptions, log: (message: string) => void): AttachOptions {
  const { clock, spin, parkSliceMs } = options;
  return {
    log,
    ...(clock && { clock }),
    ...(spin !== undefined && { spin }),
    ...(parkSliceMs !== undefined && { parkSliceMs }),
  };
}

/** @throws ConfigError when RAM and control regions together are more than one linear memory can be */
function createMemory(config: CheckedConfig, reused: WasmMemory | undefined): MachineMemory {
  try {
    const sizes = { ramBytes: config.memory, controlBytes: controlBytes(config) };
    return MachineMemory.create({ ...sizes, ...(reused && { memory: reused }) });
  } catch (error) {
    if (error instanceof RangeError) throw new ConfigError('memory', error.message);
    throw error;
  }
}

/** A memory that a machine of this configuration can be built in (CreateOptions.memory). @throws ConfigError */
export function memoryFor(config: MachineConfig): WasmMemory {
  return createMemory(checkConfig(config), undefined).memory;
}

/**
 * Builds a machine. Everything about the configuration is checked first.
 * @throws ConfigError naming the key
 */
export function createMachine(config: MachineConfig, options: CreateOptions = {}): Machine {
  return new Machine(checkConfig(config), options);
}

/** @returns the device's PASID capability, undefined when it has none */
function pasidOf({
  pasidBits,
  pasidExec,
  pasidPriv,
}: Pick<ResolvedDevice, 'pasidBits' | 'pasidExec' | 'pasidPriv'>): PasidCapability | undefined {
  return pasidBits === 0 ? undefined : { bits: pasidBits, execute: pasidExec, privileged: pasidPriv };
}
