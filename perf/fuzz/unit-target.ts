/**
 * One SMMU whose registers, structures, queues and devices are all hostile. Whatever they hold: no exception, no
 * step without end, nothing written outside RAM and the unit's own regions, and after a reset it works again.
 *
 *   RAM   commands | events | page requests | stream table | CDs, level-1 tables | table frames | free
 *   below RAM: regions of this unit, its ports, and a second unit, which nothing of this may touch
 */
import { NO_SSID, PORT_BATCH, PortLayout, XLAT_BYTES, Xlat } from '../../hw/iotlb/port-layout.js';
import { contextsLayout, iotlbLayout, UnitLayout } from '../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../hw/kernel/kernel.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { DmaPort } from '../../hw/pci/dma-port.js';
import { smmuv3Config } from '../../hw/smmuv3/config.js';
import { Mmio } from '../../hw/smmuv3/mmio.js';
import { Smmuv3 } from '../../hw/smmuv3/model.js';
import { createSmmuv3Regions, type Smmuv3Regions } from '../../hw/smmuv3/regions.js';
import { ResetLine } from '../../hw/smmuv3/reset.js';
import { Smmuv3Layout } from '../../hw/smmuv3/smmuv3-layout.js';
import { type SyncEnv, ThreadTable, ThreadTableLayout } from '../../hw/sync/thread.js';
import type { Random } from '../stress/random.js';
import { pickKind, plausibleWord, type Target } from './target.js';

const KINDS = [
  'command',
  'ste',
  'cd',
  'level-1 descriptor',
  'page table',
  'ring',
  'mmio write',
  'mmio read',
  'dma',
  'page request',
  'recovery',
] as const;
/** How often each comes up, of 32. */
const WEIGHTS = [7, 3, 3, 1, 4, 2, 3, 1, 5, 1, 2] as const;
const [COMMAND, STE, CD, LEVEL1, TABLE, RING, WRITE, READ, DMA, PAGE_REQUEST, RECOVERY] = KINDS.map(
  (_, i) => i,
) as [number, number, number, number, number, number, number, number, number, number, number];

const RAM_BYTES = 2 * 2 ** 20;
const CONTROL_BYTES = 2 ** 20;
const BASE = 0x8000_0000;
const CMDQ = BASE;
const CMDQ_LG2 = 6;
const EVTQ = BASE + 0x2000;
const EVTQ_LG2 = 4;
const PRIQ = BASE + 0x3000;
const STRTAB = BASE + 0x4000;
const STREAMS = 64;
const STREAMS_LG2 = 6;
const CDS = BASE + 0x8000;
const CD_COUNT = 256;
const LEVEL1_TABLE = BASE + 0xe000;
const TABLES = BASE + 0x1_0000;
const TABLE_FRAMES = 48;
const DATA = BASE + 0x8_0000;
const SIDS = [3, 9];
/** More steps than all that can be under way needs: whoever takes longer never ends. */
const MAX_STEPS = 20_000;
/** Bits that make a descriptor a likely one: valid, table or page, AF, unprivileged, DBM. */
const LEAF = 0x0040_0000_0000_0443n;

const OPCODES = [
  0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13, 0x18, 0x20, 0x21, 0x22, 0x23, 0x28, 0x2a,
  0x30, 0x40, 0x41, 0x44, 0x45, 0x46, 0x46, 0x46,
];
const RESPONSES = ['none', 'waiting', 'success', 'invalid', 'failure'];
const REGISTERS = [
  0x20, 0x24, 0x28, 0x2c, 0x44, 0x50, 0x60, 0x64, 0x68, 0x70, 0x80, 0x88, 0x90, 0x98, 0x9c, 0xa0, 0xb0, 0xb8,
  0xc0, 0xd0, 0xd8, 0xdc, 0x100a8, 0x100ac, 0x100c8, 0x100cc, 0x0, 0x4, 0xc, 0x14, 0x18, 0x1c,
];

export class UnitTarget implements Target {
  readonly name = 'unit';
  readonly kinds = KINDS;
  readonly episodeOps = 4096;
  readonly memory: MachineMemory;
  /** A byte below RAM that is not the unit's, for the test of the check. */
  readonly foreignByte: number;
  readonly #kernel: Kernel;
  readonly #env: SyncEnv;
  readonly #regions: Smmuv3Regions;
  readonly #mmio: Mmio;
  readonly #ports: readonly number[];
  readonly #devices: readonly DmaPort[];
  /** All of memory as it was before the first operation. */
  readonly #pristine: Uint8Array;
  /** Below RAM: [first, end) of what this unit may change. */
  readonly #own: readonly (readonly [number, number])[];
  readonly #config = smmuv3Config({
    index: 0,
    sidBits: 8,
    iotlbEntries: 64,
    ssidBits: 8,
    hyp: true,
    atcTimeoutNs: 50e6,
  });
  readonly #resetLine: ResetLine;
  #model: Smmuv3;
  #nowNs = 0;

  constructor() {
    this.memory = MachineMemory.create({ ramBytes: RAM_BYTES, controlBytes: CONTROL_BYTES });
    const memory = this.memory;
    this.#kernel = Kernel.load(memory);
    const threads = new ThreadTable(memory, memory.allocRegion(ThreadTableLayout, 'threads'));
    this.#env = {
      words: memory.words,
      threads,
      threadId: threads.register(),
      clock: { nowNs: () => this.#nowNs },
      canPark: false,
    };
    this.foreignByte = createSmmuv3Regions(memory, this.#kernel, { ...this.#config, index: 1 }).smmu;
    this.#regions = createSmmuv3Regions(memory, this.#kernel, this.#config);
    this.#mmio = new Mmio(this.#env, this.#regions, () => undefined);
    this.#ports = SIDS.map((sid, i) => this.#port(sid, i));
    this.#devices = this.#ports.map(
      (_, i) => new DmaPort(this.#env, memory, this.#kernel, `${i}`, `port:${i}`),
    );
    this.#resetLine = new ResetLine(this.#env, this.#regions);
    this.#model = this.#newModel();
    this.#enable();
    this.#pristine = memory.u8.slice();
    this.#own = [
      [this.#regions.unit, this.#regions.unit + UnitLayout.size],
      [this.#regions.contexts, this.#regions.contexts + contextsLayout().size],
      [this.#regions.iotlb, this.#regions.iotlb + iotlbLayout(this.#config.iotlbEntries).size],
      [this.#regions.smmu, this.#regions.smmu + Smmuv3Layout.size],
      ...this.#ports.map((port) => [port, port + PortLayout.size] as const),
    ]
      .map(([first, end]) => [first!, end!] as const)
      .sort(([a], [b]) => a - b);
  }

  reset(): void {
    this.memory.u8.set(this.#pristine);
    this.#nowNs = 0;
    // What an object holds besides memory is scratch, but a failure must not hang on what it held before.
    this.#model = this.#newModel();
  }

  fresh(random: Random, ops: Uint32Array, at: number): void {
    const kind = pickKind(random, WEIGHTS);
    ops[at] = kind;
    ops[at + 1] = kind === COMMAND ? OPCODES[random.below(OPCODES.length)]! : random.below(4096);
    for (let i = 2; i < 6; i++) ops[at + i] = plausibleWord(random);
    // The low word of an address that may mean something, more often than not.
    if (random.chance(70)) {
      ops[at + 4] = this.#address(random);
      ops[at + 5] = random.chance(90) ? 0 : random.below(0x10_0000);
    }
  }

  #address(random: Random): number {
    switch (random.below(5)) {
      case 0:
        return (CDS + random.below(CD_COUNT) * 64) >>> 0;
      case 1:
        return (DATA + random.below(RAM_BYTES - 0x8_0000)) >>> 0;
      case 2:
        return random.below(0x4000) << 12;
      default:
        return (TABLES + random.below(TABLE_FRAMES) * 4096) >>> 0;
    }
  }

  apply(ops: Uint32Array, at: number): number {
    const kind = ops[at]! % KINDS.length;
    const a = ops[at + 1]!;
    const b = ops[at + 2]!;
    const c = ops[at + 3]!;
    const low = ops[at + 4]!;
    const high = ops[at + 5]!;
    let outcome = 0;
    switch (kind) {
      case COMMAND:
        outcome = this.#command(a, b, c, low, high);
        break;
      case STE:
        this.#ste(a, b, c, low, high);
        break;
      case CD:
        this.#cd(a, b, c, low, high);
        break;
      case LEVEL1:
        this.#put(LEVEL1_TABLE + (a % 512) * 8, low, (high & 0xf_ffff) | (b & 1 ? 0 : b));
        break;
      case TABLE:
        this.#put(TABLES + ((a * 4096 + b) % (TABLE_FRAMES * 512)) * 8, ...descriptor(c, low, high));
        break;
      case RING:
        this.memory.words.store(
          this.#ports[a & 1]! + (((((a >>> 1) * 64 + (b & 63)) * 4) % PortLayout.size) & ~3),
          b & 0x100 ? low : c,
        );
        this.#wirePort(a & 1);
        break;
      case WRITE:
        outcome = this.#write(a, b, low, high);
        break;
      case READ:
        this.#mmio.read64((REGISTERS[a % REGISTERS.length]! & ~7) >>> 0);
        break;
      case DMA:
        outcome = this.#dma(a, b, c, low, high);
        break;
      case PAGE_REQUEST:
        outcome = this.#pageRequest(a, b, c, low, high);
        break;
      case RECOVERY:
        outcome = this.#recover(a);
        break;
    }
    // A device that stands in its epoch for ever keeps a SYNC waiting: time passes, and its ATC times out.
    this.#nowNs += 1e6;
    this.#run();
    const errors = this.#gerror();
    return (kind << 24) ^ (outcome << 8) ^ (kind === COMMAND ? errors : Math.min(errors, 1));
  }

  check(): string | null {
    const { u8, ram } = this.memory;
    let from = 0;
    for (const [first, end] of [...this.#own, [ram.linear, ram.linear] as const]) {
      const changed = differs(u8, this.#pristine, from, first);
      if (changed >= 0) return `memory at 0x${changed.toString(16)}, which is not the unit's, was changed`;
      from = end;
    }
    return null;
  }

  close(): void {
    // The memory goes with the object.
  }

  // ---- what an operation does ----

  #command(opcode: number, b: number, c: number, low: number, high: number): number {
    const prod = this.#mmio.read32(0x98);
    const slot = CMDQ + (prod % 2 ** CMDQ_LG2) * 16;
    // StreamIDs, VMIDs and ASIDs small enough to mean something.
    const subject = c & 0x8000_0000 ? c : c & 0x0003_000f;
    this.#put(slot, ((opcode & 0xff) | (b & ~0xff)) >>> 0, subject);
    this.#put(slot + 8, low, high);
    this.#mmio.write32(0x98, (prod + 1) % (2 << CMDQ_LG2));
    return OPCODES.includes(opcode) ? opcode : 0xff;
  }

  #ste(a: number, b: number, c: number, low: number, high: number): void {
    const sid = a & 0x100 ? a % STREAMS : SIDS[a & 1]!;
    const at = STRTAB + sid * 64;
    const word = (a >>> 4) & 7;
    if (word !== 0) {
      this.#put(at + word * 8, a & 0x200 ? low : b, a & 0x200 ? high : c);
      return;
    }
    // A whole entry: valid, some configuration, a CD table, a stage-2 root.
    const config = [0, 4, 5, 5, 6, 7, 7, b & 7][b & 7]!;
    const s1 = CDS + (c % CD_COUNT) * 64;
    this.#put(
      at,
      (s1 | (config << 1) | 1 | ((b >>> 3) & 0x30)) >>> 0,
      (b & 0x800 ? (b >>> 12) & 7 : 0) << 27,
    );
    // S1DSS, MEV, S1STALLD, EATS, STRW.
    this.#put(at + 8, ((c & 0xf ? 0 : (c >>> 8) & 3) | (c & 0x10 ? b & 0xf808_0000 : 0)) >>> 0, 0);
    this.#put(at + 16, b & 3, (25 | (1 << 6) | (5 << 16) | (1 << 19) | (c & 0x0780_0000)) >>> 0);
    this.#put(at + 24, (TABLES + (low % TABLE_FRAMES) * 4096) >>> 0, 0);
  }

  #cd(a: number, b: number, c: number, low: number, high: number): void {
    const at = CDS + (a % CD_COUNT) * 64;
    const word = (b >>> 8) & 7;
    if (word !== 0) {
      this.#put(at + word * 8, low, high);
      return;
    }
    const granule = [0, 0, 0, 1, 2, 3][b % 6]!;
    this.#put(
      at,
      (16 + (c % 28)) | (granule << 6) | 0xc000_0000,
      5 | (1 << 9) | (b & 0x7c00) | ((c & 3) << 16),
    );
    this.#put(at + 8, (TABLES + (low % TABLE_FRAMES) * 4096) >>> 0, 0);
  }

  #write(a: number, b: number, low: number, high: number): number {
    const offset = b & 0x400 ? (b % 0x2_0000) & ~3 : REGISTERS[a % REGISTERS.length]!;
    // Nearly always a value that leaves the unit able to work.
    if (b & 0x800 && offset % 8 === 0) this.#mmio.write64(offset, (BigInt(high) << 32n) | BigInt(low));
    else this.#mmio.write32(offset, b & 0x1000 ? low : b & 0x1f);
    return b & 0x400 ? 0xff : REGISTERS.indexOf(offset);
  }

  #dma(a: number, b: number, c: number, low: number, high: number): number {
    const { words } = this.memory;
    const index = a & 1;
    const port = this.#ports[index]!;
    const n = 1 + ((b >>> 16) % PORT_BATCH);
    for (let i = 0; i < n; i++) {
      const xlat = port + PortLayout.at.batch + i * XLAT_BYTES;
      words.store(xlat + Xlat.at.iova, (low + ((i * c) & ~0xfff)) | 0);
      words.store(xlat + Xlat.at.iova + 4, high);
      words.store(xlat + Xlat.at.flags, i === 0 ? b & 0x1f : b & 1);
      words.store(xlat + Xlat.at.sid, b & 0x100 ? c : SIDS[index]!);
      words.store(xlat + Xlat.at.ssid, b & 0x200 ? (c + (i & 1)) & 0xff : NO_SSID);
    }
    let outstanding = this.#kernel.dmaBegin(port, n);
    for (let steps = 0; outstanding > 0 && steps < 64; steps++) {
      this.#model.step();
      outstanding = this.#kernel.dmaPoll(port);
    }
    const status = words.load(port + PortLayout.at.batch + Xlat.at.status);
    this.#kernel.dmaEnd(port);
    return (status & 0xff) | (outstanding > 0 ? 0x200 : 0);
  }

  #pageRequest(a: number, b: number, c: number, low: number, high: number): number {
    const port = this.#devices[a & 1]!;
    const group = b & 0x1ff;
    if (c & 0x800) {
      if (c & 0x1000) port.forgetPageRequests(group);
      return RESPONSES.indexOf(port.pageResponse(group));
    }
    return -port.pageRequest({
      iova: (BigInt(high) << 32n) | BigInt(low),
      group,
      ...(b & 0x200 ? { pasid: c & 0xff } : {}),
      read: (c & 0x100) !== 0,
      write: (c & 0x200) !== 0,
      last: (c & 0x400) !== 0,
    });
  }

  /** What a driver does after an error: takes the events, replaces the command, acknowledges, and goes on. */
  #recover(a: number): number {
    const mmio = this.#mmio;
    const pending = this.#gerror();
    if (a % 16 === 0) {
      mmio.write32(0x20, 0);
      this.#run();
      for (const register of [0x98, 0x9c, 0x100a8, 0x100ac, 0x100c8, 0x100cc]) mmio.write32(register, 0);
      mmio.write32(0x64, mmio.read32(0x60));
      this.#enable();
      return pending;
    }
    if (a % 16 === 1) {
      const ticket = this.#resetLine.request();
      this.#run();
      // A device in the middle of a batch is waited for, as by a SYNC.
      if (!this.#resetLine.done(ticket)) for (const port of this.#ports) this.#kernel.dmaEnd(port);
      this.#run();
      if (!this.#resetLine.done(ticket)) throw new Error('a reset does not end');
      this.#enable();
      return pending;
    }
    if (a % 8 === 2) {
      const { words } = this.memory;
      words.store(this.#ports[(a >>> 6) & 1]! + PortLayout.at.atcHung, (a >>> 4) & 1);
      words.store(this.#ports[(a >>> 6) & 1]! + PortLayout.at.atsControl, (a >>> 5) & 3);
    }
    if ((pending & 1) === 1) this.#put(CMDQ + (mmio.read32(0x9c) % 2 ** CMDQ_LG2) * 16, 0x46, 0);
    mmio.write32(0x64, mmio.read32(0x60));
    mmio.write32(0x100ac, mmio.read32(0x100a8));
    mmio.write32(0x100cc, mmio.read32(0x100c8));
    return pending;
  }

  // ---- the machine ----

  #newModel(): Smmuv3 {
    return new Smmuv3(this.#env, this.memory, this.#kernel, this.#regions, this.#config);
  }

  #port(sid: number, i: number): number {
    const port = this.memory.allocRegion(PortLayout, `port:${i}`).base;
    const { words } = this.memory;
    words.store(port + PortLayout.at.sid, sid);
    words.store(port + PortLayout.at.ats, 1);
    words.store(port + PortLayout.at.pri, 1);
    words.store(port + PortLayout.at.atsControl, i);
    words.store(this.#regions.unit + UnitLayout.at.ports + i * 4, port);
    words.store(this.#regions.unit + UnitLayout.at.portCount, i + 1);
    this.#wire(port);
    return port;
  }

  /** Where a port leads is no device's to say: these words are the machine builder's. */
  #wirePort(i: number): void {
    this.#wire(this.#ports[i]!);
  }

  #wire(port: number): void {
    const { words } = this.memory;
    words.store(port + PortLayout.at.unit, this.#regions.unit);
    words.store(port + PortLayout.at.contexts, this.#regions.contexts);
    words.store(port + PortLayout.at.iotlb, this.#regions.iotlb);
  }

  #enable(): void {
    const mmio = this.#mmio;
    mmio.write32(0x2c, 1 << 1);
    mmio.write64(0x80, BigInt(STRTAB));
    mmio.write32(0x88, STREAMS_LG2);
    mmio.write64(0x90, BigInt(CMDQ | CMDQ_LG2) & 0xffff_ffffn);
    mmio.write64(0xa0, BigInt(EVTQ | EVTQ_LG2) & 0xffff_ffffn);
    mmio.write64(0xc0, BigInt(PRIQ | EVTQ_LG2) & 0xffff_ffffn);
    mmio.write32(0x20, 0b11111);
    this.#run();
  }

  #run(): void {
    for (let steps = 0; this.#model.step(); steps++)
      if (steps > MAX_STEPS) throw new Error(`the model still has work after ${MAX_STEPS} steps`);
    // Or its thread would never sleep.
    if (this.#model.hasWork()) throw new Error('the model says that it has work, and does none');
  }

  /** Active errors. */
  #gerror(): number {
    return (this.#mmio.read32(0x60) ^ this.#mmio.read32(0x64)) & 0xff;
  }

  #put(pa: number, low: number, high: number): void {
    const at = this.memory.linearOf(pa, 8) >>> 2;
    this.memory.u32[at] = low;
    this.memory.u32[at + 1] = high;
  }
}

/** Mostly a table pointer or a leaf; else whatever was asked for. */
function descriptor(c: number, low: number, high: number): [number, number] {
  if (c & 0x8000_0000) return [low, high];
  const flags = c & 1 ? Number(LEAF & 0xfffn) & ~(c & 0x4c2) : 3;
  return [((low & ~0xfff) | flags) >>> 0, (high & 0xffff) | (c & 0x0078_0000)];
}

/** @returns the first difference in [from, end), or -1 */
function differs(a: Uint8Array, b: Uint8Array, from: number, end: number): number {
  if (Buffer.compare(a.subarray(from, end), b.subarray(from, end)) === 0) return -1;
  for (let i = from; i < end; i++) if (a[i] !== b[i]) return i;
  return -1;
}
