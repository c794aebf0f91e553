/**
 * A small machine around the compiled kernel: one unit with its contexts and IOTLB, one port, a scratch area
 * of Xlats, and writers for what the pIOMMU and the device would write. Addresses are bigints.
 */
import type { BugSwitches } from '../../hw/bugs/bug-switches.js';
import { PortLayout, Xlat } from '../../hw/iotlb/port-layout.js';
import { contextsLayout, iotlbLayout, StreamContext, UnitLayout } from '../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../hw/kernel/kernel.js';
import { layout, raw } from '../../hw/memory/layout.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { pageTablesLayout } from '../../hw/pagetable/page-table-layout.js';

export const RAM_PA = 0x8000_0000n;
export const SLOT = 64;
export const ScratchLayout = layout('scratch', 1, { xlats: raw(SLOT * 256) });

export interface ContextFields {
  kind: number;
  tag?: number;
  flags?: number;
  s1Root?: bigint;
  s1InputBits?: number;
  s1OutputBits?: number;
  s1StartLevel?: number;
  s2Root?: bigint;
  s2InputBits?: number;
  s2OutputBits?: number;
  s2StartLevel?: number;
  s1GranuleLg2?: number;
  s2GranuleLg2?: number;
  ssid?: number;
}

export interface XlatResult {
  status: number;
  pa: bigint;
  ipa: bigint;
  sizeLg2: number;
  fillSeq: number;
  fault: number;
  source: number;
  level: number;
  cookie: number;
}

export class KernelBench {
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  readonly unit: number;
  readonly contexts: number;
  readonly iotlb: number;
  readonly port: number;
  readonly scratch: number;
  readonly tables: number;

  constructor(options: { ramBytes?: number; entries?: number; bugs?: BugSwitches } = {}) {
    const { ramBytes = 2 << 20, entries = 64 } = options;
    this.memory = MachineMemory.create({ ramBytes, controlBytes: 2 << 20 });
    const { memory } = this;
    this.unit = memory.allocRegion(UnitLayout, 'unit:0').base;
    this.contexts = memory.allocRegion(contextsLayout(), 'contexts:0').base;
    this.iotlb = memory.allocRegion(iotlbLayout(entries), 'iotlb:0').base;
    this.port = memory.allocRegion(PortLayout, 'port:0').base;
    this.scratch = memory.allocRegion(ScratchLayout, 'scratch').base;
    this.tables = memory.allocRegion(pageTablesLayout(8), 'page-tables').base;
    this.kernel = Kernel.load(memory, options.bugs);
    this.kernel.iotlbInit(this.unit, this.iotlb, entries);
    this.set32(this.unit + UnitLayout.at.gen, 1);
    this.set32(this.port + PortLayout.at.unit, this.unit);
    this.set32(this.port + PortLayout.at.contexts, this.contexts);
    this.set32(this.port + PortLayout.at.iotlb, this.iotlb);
  }

  get32(offset: number): number {
    return this.memory.u32[offset >>> 2]!;
  }

  set32(offset: number, value: number): void {
    this.memory.u32[offset >>> 2] = value;
  }

  get64(offset: number): bigint {
    return BigInt.asUintN(64, this.memory.i64[offset / 8]!);
  }

  set64(offset: number, value: bigint): void {
    this.memory.i64[offset / 8] = BigInt.asIntN(64, value);
  }

  /** A 64-bit word of RAM by physical address; undefined outside. */
  ram(pa: bigint): bigint | undefined {
    const linear = pa > 2n ** 50n ? -1 : this.memory.linearOf(Number(pa), 8);
    return linear < 0 ? undefined : this.get64(linear);
  }

  setRam(pa: bigint, value: bigint): void {
    this.set64(this.memory.linearOf(Number(pa), 8), value);
  }

  /** Writes the context of a stream and returns where it lies. */
  context(sid: number, fields: ContextFields): number {
    const ssid = fields.ssid ?? 0xffff_ffff;
    const base = this.contexts + ((sid ^ (Math.imul(ssid + 1, 0x9e37_79b1) >>> 20)) & 1023) * 128;
    const at = StreamContext.at;
    const all = {
      tag: 0,
      flags: 3,
      s1Root: 0n,
      s1InputBits: 48,
      s1OutputBits: 48,
      s1StartLevel: 0,
      ...fields,
    };
    const more = {
      s2Root: 0n,
      s2InputBits: 48,
      s2OutputBits: 48,
      s2StartLevel: 0,
      s1GranuleLg2: 12,
      s2GranuleLg2: 12,
      ssid: 0xffff_ffff,
      ...all,
      sid,
      valid: 1,
    };
    for (const [key, value] of Object.entries(more)) {
      const offset = base + at[key as keyof typeof at];
      if (typeof value === 'bigint') this.set64(offset, value);
      else this.set32(offset, value);
    }
    return base;
  }

  ask(xlat: number, iova: bigint, flags = 0, sid = 0, ssid = 0xffff_ffff): void {
    const at = Xlat.at;
    this.set64(xlat + at.iova, iova);
    this.set32(xlat + at.flags, flags);
    this.set32(xlat + at.sid, sid);
    this.set32(xlat + at.ssid, ssid);
    for (const offset of [at.pa, at.ipa]) this.set64(xlat + offset, 0xdead_beef_dead_beefn);
    for (const offset of [at.status, at.sizeLg2, at.fillSeq, at.fault, at.source, at.level])
      this.set32(xlat + offset, 0xdead);
  }

  result(xlat: number): XlatResult {
    const at = Xlat.at;
    return {
      status: this.get32(xlat + at.status),
      pa: this.get64(xlat + at.pa),
      ipa: this.get64(xlat + at.ipa),
      sizeLg2: this.get32(xlat + at.sizeLg2),
      fillSeq: this.get32(xlat + at.fillSeq),
      fault: this.get32(xlat + at.fault),
      source: this.get32(xlat + at.source),
      level: this.get32(xlat + at.level),
      cookie: this.get32(xlat + at.cookie),
    };
  }

  /** One translation by the pIOMMU, from scratch slot 0. */
  translate(context: number, iova: bigint, write = false): XlatResult {
    this.ask(this.scratch, iova, write ? 1 : 0);
    this.kernel.translate(this.unit, context, this.iotlb, this.scratch);
    return this.result(this.scratch);
  }

  /** Batch slot of the port. */
  slot(i: number): number {
    return this.port + PortLayout.at.batch + i * SLOT;
  }
}
