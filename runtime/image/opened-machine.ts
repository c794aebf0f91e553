/**
 * A machine out of an image: the hardware alone, as it stood. Registers, stream tables, page tables, queues, RAM
 * and (unless left out) caches are where they were, and the models go on from there, inline: what a device's
 * DMA did before, it does again. Commands and events that were under way still are.
 *
 * Not in an image, because it is this side of the hardware: the iommufd core with its open files, IOASes and
 * objects, and the driver's own picture of its tables. Whoever opens a file here is refused by name; an image is
 * for looking, and for programming the SMMUs through their registers.
 */
import { readFileSync } from 'node:fs';
import { ATC_BYTES, ATC_ENTRIES, PortLayout } from '../../hw/iotlb/port-layout.js';
import { contextsLayout, iotlbLayout, UnitLayout } from '../../hw/iotlb/unit-layout.js';
import type { Kernel } from '../../hw/kernel/kernel.js';
import { requireBytes } from '../../hw/memory/bytes-argument.js';
import { FrameAllocator } from '../../hw/memory/frame-allocator.js';
import { framesLayout } from '../../hw/memory/frames-layout.js';
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { DmaPort } from '../../hw/pci/dma-port.js';
import { Mmio } from '../../hw/smmuv3/mmio.js';
import type { Smmuv3 } from '../../hw/smmuv3/model.js';
import { smmuv3Regions } from '../../hw/smmuv3/regions.js';
import { Smmuv3Layout } from '../../hw/smmuv3/smmuv3-layout.js';
import { type Clock, type SyncEnv, ThreadTableLayout } from '../../hw/sync/thread.js';
import { ConfigError, checkConfig } from '../machine-config.js';
import { FRAMES_KEY, portKey, smmuConfigOf, THREADS_KEY } from '../machine-hardware.js';
import type { CheckedConfig } from '../machine-schema.js';
import { MachineThread } from '../machine-thread.js';
import { encodeImage, ImageError, parseImage, restoreMemory } from './image-file.js';

/** Turns that one settle() may take before the machine is called stuck. */
const MAX_SETTLE_STEPS = 100_000;

export interface OpenImageOptions {
  readonly log?: (message: string) => void;
  readonly clock?: Clock;
}

export interface OpenedIommu {
  readonly name: string;
  readonly index: number;
  readonly mmio: Mmio;
}

export class OpenedMachine {
  readonly config: CheckedConfig;
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  readonly env: SyncEnv;
  readonly frames: FrameAllocator;
  readonly iommus: readonly OpenedIommu[];
  readonly #thread: MachineThread;
  readonly #models: readonly Smmuv3[];
  readonly #ports = new Map<number, DmaPort>();

  /** Use openImage. */
  constructor(bytes: Uint8Array, options: OpenImageOptions) {
    const image = parseImage(bytes);
    const config = configOf(image.config);
    if (config.memory !== image.ram.bytes)
      throw new ImageError(
        'config.memory',
        `is ${config.memory}, but there are ${image.ram.bytes} bytes of RAM`,
      );
    const memory = restoreMemory(image);
    const log = options.log ?? (() => undefined);
    this.config = config;
    this.memory = memory;
    try {
      forgetThreads(memory, config);
      this.frames = new FrameAllocator(memory, memory.region(framesLayout(memory.ram.bytes), FRAMES_KEY));
      this.#thread = MachineThread.attach(
        { memory: memory.handle(), config },
        options.clock === undefined ? { log } : { log, clock: options.clock },
      );
      this.env = this.#thread.env;
      this.kernel = this.#thread.kernel;
      if (!image.caches) emptyCaches(memory, this.kernel, config);
      this.#models = config.iommus.map((_, index) => this.#thread.smmuModel(index));
      this.iommus = config.iommus.map(({ name }, index) => ({
        name,
        index,
        mmio: new Mmio(this.env, smmuv3Regions(memory, smmuConfigOf(config, index)), log),
      }));
    } catch (error) {
      // MachineMemory names the region that is missing or of another build.
      const { message } = error as Error;
      if (message.startsWith('memory: ')) throw new ImageError('regions', message.slice('memory: '.length));
      throw error;
    }
    this.env.relax = () => this.#step();
  }

  /** @throws RangeError no such IOMMU */
  iommu(name: string): OpenedIommu {
    const found = this.iommus.find((iommu) => iommu.name === name);
    if (found === undefined) throw new RangeError(`there is no IOMMU '${name}'`);
    return found;
  }

  /** The DMA engine of the device with this bdf or name. @throws RangeError no such device */
  dmaPort(label: string): DmaPort {
    const index = this.config.devices.findIndex((device) => device.label === label);
    if (index < 0) throw new RangeError(`there is no device '${label}'`);
    let port = this.#ports.get(index);
    if (port === undefined) {
      port = this.#thread.dmaPort(index);
      this.#ports.set(index, port);
    }
    return port;
  }

  /** Steps the hardware until it has nothing to do. @returns whether it had */
  settle(): boolean {
    let any = false;
    for (let steps = 0; steps < MAX_SETTLE_STEPS && this.#step(); steps++) any = true;
    return any;
  }

  /** @throws ImageError always: the core's state is not in an image */
  openIommufd(): never {
    throw hardwareOnly('openIommufd');
  }

  /** @throws ImageError always */
  openVfio(_label: string): never {
    throw hardwareOnly('openVfio');
  }

  openVfioContainer(): never {
    throw hardwareOnly('openVfioContainer');
  }

  /** An image of what it is now. */
  saveImage({ caches = true }: { readonly caches?: boolean } = {}): Uint8Array {
    return encodeImage({ memory: this.memory, frames: this.frames, config: inputOf(this.config), caches });
  }

  #step(): boolean {
    let any = false;
    for (const model of this.#models) any = model.step() || any;
    return any;
  }
}

/**
 * Opens what Machine.saveImage() or saveToFile() wrote.
 * @param source  the image, or the path of a file
 * @throws ImageError naming the field that makes no sense, before any memory is made | TypeError a source that is
 *         neither | what fs.readFileSync throws
 */
export function openImage(source: Uint8Array | string, options: OpenImageOptions = {}): OpenedMachine {
  if (typeof source === 'string') return new OpenedMachine(readFileSync(source), options);
  requireBytes(source, 'source, unless it is a path,');
  return new OpenedMachine(source, options);
}

/** A configuration as createMachine takes it, from one that was checked. */
export function inputOf({ devices, ...rest }: CheckedConfig) {
  return { ...rest, devices: devices.map(({ label: _, iommuIndex: __, sid: ___, ...device }) => device) };
}

function configOf(config: Parameters<typeof checkConfig>[0]): CheckedConfig {
  try {
    return checkConfig(config);
  } catch (error) {
    if (error instanceof ConfigError) throw new ImageError(`config.${error.key}`, error.message);
    throw error;
  }
}

const hardwareOnly = (what: string): ImageError =>
  new ImageError(what, 'this machine was opened from an image: hardware only');

/** No thread of the image's time is parked, inside an epoch, or alive. */
function forgetThreads(memory: MachineMemory, config: CheckedConfig): void {
  const { words } = memory;
  const threads = memory.region(ThreadTableLayout, THREADS_KEY);
  memory.u8.fill(0, threads.base, threads.base + threads.size);
  config.iommus.forEach((_, index) => {
    const unit = memory.region(UnitLayout, `unit:${index}`).base;
    words.store(unit + UnitLayout.at.doorbellParked, 0);
    const smmu = memory.region(Smmuv3Layout, `smmuv3:${index}`).base;
    words.store(smmu + Smmuv3Layout.at.irqParked, 0);
    words.store(smmu + Smmuv3Layout.at.consParked, 0);
    words.store(smmu + Smmuv3Layout.at.resetParked, 0);
  });
  config.devices.forEach((_, device) => {
    const port = memory.region(PortLayout, portKey(device)).base;
    words.store(port + PortLayout.at.ack, 0);
    words.store(port + PortLayout.at.parked, 0);
  });
}

function emptyCaches(memory: MachineMemory, kernel: Kernel, config: CheckedConfig): void {
  config.iommus.forEach(({ iotlbEntries }, index) => {
    const unit = memory.region(UnitLayout, `unit:${index}`).base;
    const contexts = memory.region(contextsLayout(), `contexts:${index}`);
    memory.u8.fill(0, contexts.base, contexts.base + contexts.size);
    const iotlb = memory.region(iotlbLayout(iotlbEntries), `iotlb:${index}`);
    memory.u8.fill(0, iotlb.base, iotlb.base + iotlb.size);
    kernel.iotlbInit(unit, iotlb.base, iotlbEntries);
  });
  config.devices.forEach((_, device) => {
    const port = memory.region(PortLayout, portKey(device)).base;
    memory.words.store(port + PortLayout.at.lastGen, 0);
    memory.u8.fill(0, port + PortLayout.at.atc, port + PortLayout.at.atc + ATC_BYTES * ATC_ENTRIES);
  });
}
