/**
 * A machine of a few SMMUs under the host driver, all inline on one thread: the models are stepped whenever the
 * driver waits. Devices send DMA through real ports; commands are recorded as the models consume them.
 */

import type { BugSwitches } from '../../hw/bugs/bug-switches.js';
import { PortLayout } from '../../hw/iotlb/port-layout.js';
import { contextsLayout, iotlbLayout, UnitLayout } from '../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../hw/kernel/kernel.js';
import { FrameAllocator } from '../../hw/memory/frame-allocator.js';
import { framesLayout } from '../../hw/memory/frames-layout.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { pageTablesLayout } from '../../hw/pagetable/page-table-layout.js';
import { DmaPort } from '../../hw/pci/dma-port.js';
import { type Smmuv3Config, smmuv3Config } from '../../hw/smmuv3/config.js';
import { Smmuv3 } from '../../hw/smmuv3/model.js';
import { createSmmuv3Regions, type Smmuv3Regions } from '../../hw/smmuv3/regions.js';
import { COMMAND_RECORDS, CommandRecord, TraceLayout } from '../../hw/smmuv3/trace-layout.js';
import { monotonicClock, type SyncEnv, ThreadTable, ThreadTableLayout } from '../../hw/sync/thread.js';
import type { Gather, HostDevice, PagingDomain, ViommuEvent } from '../../runtime/drivers/contract.js';
import { PageTableSlots } from '../../runtime/drivers/smmuv3/page-table-slots.js';
import { createDriverRegions } from '../../runtime/drivers/smmuv3/regions.js';
import { type HostEvent, Smmuv3Instance, type Smmuv3Options } from '../../runtime/drivers/smmuv3/smmu.js';
import { ViommuRecords } from '../../runtime/drivers/smmuv3/viommu-record.js';

const RAM_BYTES = 32 * 1024 * 1024;
const TABLES = 32;
const VIOMMUS = 16;

export interface DriverFixtureOptions {
  readonly smmus?: number;
  readonly hardware?: Partial<Smmuv3Config>;
  readonly driver?: Partial<Smmuv3Options>;
  /** Known bugs switched on. */
  readonly bugs?: BugSwitches;
  /** One device for each pair: [SMMU, StreamID]. Default: one a SMMU, StreamID 0x100 + index. */
  readonly devices?: readonly (readonly [number, number])[];
  /** What every device can do. */
  readonly traits?: {
    readonly ats?: boolean;
    readonly pri?: boolean;
    readonly stall?: boolean;
    /** Width of its PASIDs. */
    readonly pasidBits?: number;
  };
}

export class DriverFixture {
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  readonly env: SyncEnv & { canPark: boolean };
  readonly frames: FrameAllocator;
  readonly configs: Smmuv3Config[] = [];
  readonly regions: Smmuv3Regions[] = [];
  readonly models: Smmuv3[] = [];
  readonly smmus: Smmuv3Instance[] = [];
  readonly devices: HostDevice[] = [];
  readonly ports: DmaPort[] = [];
  readonly hostEvents: HostEvent[] = [];
  readonly events: ViommuEvent[] = [];
  readonly allocated: { iommu: number; kind: string; id: number; cached: number }[] = [];
  readonly slots: PageTableSlots;
  readonly records: ViommuRecords;
  /** Models that answer; an index taken out is a dead pIOMMU. */
  readonly alive = new Set<number>();

  constructor(options: DriverFixtureOptions = {}) {
    const count = options.smmus ?? 1;
    this.memory = MachineMemory.create({ ramBytes: RAM_BYTES, controlBytes: 64 * 2 ** 20 });
    this.kernel = Kernel.load(this.memory);
    const threads = new ThreadTable(this.memory, this.memory.allocRegion(ThreadTableLayout, 'threads'));
    this.env = {
      words: this.memory.words,
      threads,
      threadId: threads.register(),
      clock: monotonicClock,
      canPark: false,
      relax: () => this.step(),
      bugs: options.bugs,
    };
    this.frames = FrameAllocator.init(
      this.memory,
      this.memory.allocRegion(framesLayout(this.memory.ram.bytes), 'frames'),
    );
    this.memory.allocRegion(pageTablesLayout(TABLES), 'page-tables');
    this.slots = new PageTableSlots(this.memory, 'page-tables', TABLES);
    createDriverRegions(
      this.memory,
      Array.from({ length: count }, (_, i) => i),
      VIOMMUS,
    );
    this.records = new ViommuRecords(this.memory, VIOMMUS);
    for (let index = 0; index < count; index++) {
      const config = smmuv3Config({ index, iotlbEntries: 256, ...options.hardware });
      const regions = createSmmuv3Regions(this.memory, this.kernel, config, true);
      this.configs.push(config);
      this.regions.push(regions);
      this.models.push(new Smmuv3(this.env, this.memory, this.kernel, regions, config));
      this.alive.add(index);
    }
    for (let index = 0; index < count; index++) this.smmus.push(this.probe(index, options.driver));
    const devices = options.devices ?? this.smmus.map((_, i) => [i, 0x100 + i] as const);
    devices.forEach(([smmu, streamId], index) => {
      this.#addDevice(index, smmu, streamId, options.traits ?? {});
    });
  }

  /** One step of every model that is alive. */
  step(): boolean {
    let worked = false;
    for (const index of this.alive) worked = this.models[index]!.step() || worked;
    return worked;
  }

  /** Models have threads of their own now: this one may sleep. */
  mayPark(): void {
    this.env.canPark = true;
  }

  probe(index: number, driver: Partial<Smmuv3Options> = {}): Smmuv3Instance {
    const { memory, kernel, env, frames, slots, records } = this;
    let tick = 0;
    const instance = Smmuv3Instance.probe({
      memory,
      kernel,
      env,
      frames,
      slots,
      records,
      index,
      name: `smmu${index}`,
      sharing: 'shared',
      tick: () => ++tick,
      onHostEvent: (event) => this.hostEvents.push(event),
      onAllocate: (iommu, kind, id) =>
        this.allocated.push({ iommu, kind, id, cached: this.cachedUnder(iommu, kind, id) }),
      ...driver,
    });
    if (typeof instance === 'number') throw new Error(`fixture: probe of SMMU ${index} said ${instance}`);
    instance.onEvent = (event) => this.events.push(event);
    return instance;
  }

  /** IOTLB entries under an ID. */
  cachedUnder(iommu: number, kind: string, id: number): number {
    const { iotlb } = this.regions[iommu]!;
    return kind === 'vmid' ? this.kernel.iotlbCountVmid(iotlb, id) : this.kernel.iotlbCountAsid(iotlb, 0, id);
  }

  #addDevice(
    index: number,
    smmu: number,
    streamId: number,
    traits: NonNullable<DriverFixtureOptions['traits']>,
  ): void {
    const { words } = this.memory;
    const port = this.memory.allocRegion(PortLayout, `port:${index}`).base;
    const { unit } = this.regions[smmu]!;
    words.store(port + PortLayout.at.unit, unit);
    words.store(port + PortLayout.at.contexts, this.memory.region(contextsLayout(), `contexts:${smmu}`).base);
    const entries = this.configs[smmu]!.iotlbEntries;
    words.store(port + PortLayout.at.iotlb, this.memory.region(iotlbLayout(entries), `iotlb:${smmu}`).base);
    words.store(port + PortLayout.at.sid, streamId);
    words.store(port + PortLayout.at.ats, traits.ats ? 1 : 0);
    words.store(port + PortLayout.at.pri, traits.pri ? 1 : 0);
    const slot = words.load(unit + UnitLayout.at.portCount);
    words.store(unit + UnitLayout.at.ports + slot * 4, port);
    words.store(unit + UnitLayout.at.portCount, slot + 1);
    this.ports.push(new DmaPort(this.env, this.memory, this.kernel, `dev${index}`, `port:${index}`));
    this.devices.push({
      index,
      name: `dev${index}`,
      iommu: this.smmus[smmu]!,
      streamId,
      groupId: index,
      ats: traits.ats ? this.ports[index]!.ats : undefined,
      canStall: traits.stall ?? false,
      pasid: traits.pasidBits ? { bits: traits.pasidBits, execute: false, privileged: false } : undefined,
    });
  }

  /** A paging domain, or the test fails. */
  paging(device = 0, flags = 0): PagingDomain {
    const made = this.devices[device]!.iommu.allocPaging(this.devices[device]!, flags);
    if (typeof made === 'number') throw new Error(`fixture: allocPaging said ${made}`);
    return made;
  }

  /** Fresh zeroed frames. */
  pages(count: number): number {
    const pfn = this.frames.allocRun(count);
    if (pfn < 0) throw new Error('fixture: out of frames');
    this.frames.zero(pfn, count);
    return pfn;
  }

  /** unmap and sync. */
  unmap(domain: PagingDomain, page: number, pages: number): Gather {
    const gather = newGather();
    const unmapped = domain.unmap(page, pages, gather);
    if (unmapped !== pages) throw new Error(`fixture: unmap said ${unmapped}`);
    const status = domain.sync(gather);
    if (status !== 0) throw new Error(`fixture: sync said ${status}`);
    return gather;
  }

  /** Writes one byte by DMA. @returns 0 or the fault */
  write(device: number, iova: bigint, byte = 0xa5, pasid?: number): number {
    return this.ports[device]!.write(iova, Uint8Array.of(byte), pasid === undefined ? {} : { pasid });
  }

  byteAt(pfn: number, offset = 0): number {
    return this.memory.u8[this.memory.linearOf(pfn * 4096, 4096) + offset]!;
  }

  write64(pa: number, value: bigint): void {
    this.memory.words.store64(this.memory.linearOf(pa, 8), value);
  }

  read64(pa: number): bigint {
    return this.memory.words.load64(this.memory.linearOf(pa, 8));
  }

  /** The commands SMMU `index` has consumed since `from` (as returned by commandCount). */
  commands(index: number, from = 0): Command[] {
    return readTrace(this.memory, this.regions[index]!.trace, from);
  }

  commandCount(index: number): number {
    return traceSeq(this.memory, this.regions[index]!.trace);
  }

  /** Steps until nothing moves. */
  run(): void {
    for (let i = 0; this.step(); i++) if (i > 10_000) throw new Error('fixture: the models never rest');
  }
}

export const newGather = (wantNotes = true): Gather => ({
  firstUnit: 0,
  lastUnit: -1,
  freedTables: [],
  notes: [],
  wantNotes,
});

function traceSeq(memory: MachineMemory, trace: number): number {
  return memory.words.load(trace + TraceLayout.at.commandSeq);
}

export interface Command {
  readonly opcode: number;
  readonly words: readonly [number, number, number, number];
}

function readTrace(memory: MachineMemory, trace: number, from: number): Command[] {
  const found: Command[] = [];
  for (let seq = from + 1; seq <= traceSeq(memory, trace); seq++) {
    const at = trace + TraceLayout.at.commands + ((seq - 1) % COMMAND_RECORDS) * CommandRecord.size;
    const word = (offset: number): number => memory.words.load(at + offset) >>> 0;
    const words = [
      word(CommandRecord.at.word0),
      word(CommandRecord.at.word1),
      word(CommandRecord.at.word2),
      word(CommandRecord.at.word3),
    ] as const;
    found.push({ opcode: words[0] & 0xff, words });
  }
  return found;
}
