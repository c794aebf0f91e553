/**
 * Use after free, looked for at every access of every explored thread, the compiled kernel's included.
 *
 *   frames   RAM that the frame allocator does not have in use: no access at all. By a device or a guest it is R1,
 *            a page that was reused too early; by the core or an IOMMU, which look at tables, use after free
 *   objects  R15: an entry of an object table: its gate may be tried at any time (that is how a reference is taken), and its
 *            type read before; the rest by who holds a reference. A thread other than the core has one only while
 *            wait_cnt is not 0; the core may fill an entry that is free.
 *   vIOMMU   R15: a record that is free: nobody but the core, which fills it
 *
 * What is free is asked of the state in the machine's memory, at the moment of the access. Not seen: plain accesses
 * that make no schedule point (a frame being zeroed, user memory copied), and an ID that went to a new object already.
 */
import { FRAME_BYTES, framesLayout } from '../../../hw/memory/frames-layout.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { OP_LOAD, OP_RMW, OP_STORE } from '../../../hw/sync/words.js';
import {
  FREE,
  MAX_OBJECTS,
  OBJECT,
  OBJECT_BYTES,
  ObjectsLayout,
  STATE_MASK,
  WAIT_MASK,
} from '../../../runtime/core/objects-layout.js';
import {
  VIOMMU_FREE,
  VIOMMU_RECORD_BYTES,
  VIOMMUS_KEY,
  ViommuRecord,
  viommusLayout,
} from '../../../runtime/drivers/smmuv3/driver-layout.js';
import { DEFAULT_VIOMMUS } from '../../../runtime/drivers/smmuv3/regions.js';
import type { Machine } from '../../../runtime/machine.js';
import { FRAMES_KEY } from '../../../runtime/machine-hardware.js';
import type { ThreadContext } from '../scenario.js';
import { FreeLog } from './free-log.js';
import type { Expect } from './monitor.js';

export const USE_AFTER_FREE = 'use after free';
const STRAY_DMA = 'R1';
const OBJECT_LIFE = 'R15';

/** What each of the two monitors may find. */
export const GUARDS = [
  { name: 'frames', checks: [USE_AFTER_FREE, STRAY_DMA] },
  { name: 'objects', checks: [OBJECT_LIFE] },
] as const;

export interface GuardOptions {
  readonly role: 'core' | 'iommu' | 'other';
  readonly names: readonly string[];
  /** How each of the two says what it sees; null: it is off. */
  readonly frames: Expect | null;
  readonly objects: Expect | null;
}

/** From here on every access of this thread is looked at. */
export function guardThread(ctx: ThreadContext, memory: MachineMemory, options: GuardOptions): void {
  const { frames, objects } = options;
  const ofFrames = frames === null ? null : frameGuard(ctx, memory, options, frames);
  const ofObjects = objects === null ? null : objectGuard(ctx, memory, options, objects);
  const ram = memory.ram.linear;
  ctx.guard((op, offset) => {
    if (op > OP_RMW) return;
    if (offset >= ram) ofFrames?.(op, offset);
    else ofObjects?.(op, offset);
  });
}

/** The core: who gave a frame back is told from here on. */
export function logFreedFrames(ctx: ThreadContext, { memory, frames }: Machine): void {
  const log = new FreeLog(ctx);
  const { linear, basePa } = memory.ram;
  frames.onFree = (pfn, pages) => {
    const first = linear + (pfn * FRAME_BYTES - basePa);
    log.add(first, first + pages * FRAME_BYTES);
  };
}

type Guard = (op: number, offset: number) => void;

const doing = (op: number): string => (op === OP_LOAD ? 'reads' : op === OP_STORE ? 'writes' : 'changes');

function frameGuard(ctx: ThreadContext, memory: MachineMemory, options: GuardOptions, expect: Expect): Guard {
  const invariant = options.role === 'other' ? STRAY_DMA : USE_AFTER_FREE;
  const { ram, i32 } = memory;
  const layout = framesLayout(ram.bytes);
  const used = (memory.region(layout, FRAMES_KEY).base + layout.at.used) >>> 2;
  const log = new FreeLog(ctx);
  let [op, at] = [0, 0];
  const story = (): string => {
    const pa = ram.basePa + (at - ram.linear);
    return `${ctx.name} ${doing(op)} 0x${pa.toString(16)} in free frame 0x${(pa >>> 12).toString(16)}, ${log.tell(at, options.names)}`;
  };
  return (kind, offset) => {
    const frame = (offset - ram.linear) >>> 12;
    [op, at] = [kind, offset];
    expect(invariant, (i32[used + (frame >>> 5)]! & (1 << (frame & 31))) !== 0, story);
  };
}

function objectGuard(
  ctx: ThreadContext,
  memory: MachineMemory,
  options: GuardOptions,
  expect: Expect,
): Guard {
  const isCore = options.role === 'core';
  const { i32 } = memory;
  const log = new FreeLog(ctx);
  const tables: number[] = [];
  for (let n = 0; memory.hasRegion(`objects:${n}`); n++)
    tables.push(memory.region(ObjectsLayout, `objects:${n}`).base + ObjectsLayout.at.objects);
  const records = memory.region(viommusLayout(DEFAULT_VIOMMUS), VIOMMUS_KEY).base;
  const recordsEnd = records + DEFAULT_VIOMMUS * VIOMMU_RECORD_BYTES;
  let [op, at, what] = [0, 0, ''];
  const story = (): string => `${ctx.name} ${doing(op)} ${what}, ${log.tell(at, options.names)}`;
  const look = (ok: boolean, kind: number, first: number, name: string): void => {
    [op, at, what] = [kind, first, name];
    expect(OBJECT_LIFE, ok, story);
  };

  const object = (table: number, kind: number, offset: number): void => {
    const first = offset - ((offset - table) % OBJECT_BYTES);
    const field = offset - first;
    if (field === OBJECT.gate) {
      // What the core stores there, rather than exchanges, ends or begins a life.
      if (isCore && kind === OP_STORE) log.add(first, first + OBJECT_BYTES);
      return;
    }
    if (field === OBJECT.type && kind === OP_LOAD) return;
    const gate = i32[(first + OBJECT.gate) >>> 2]!;
    const ok = isCore
      ? (gate & STATE_MASK) !== FREE || kind === OP_STORE
      : (gate & STATE_MASK) !== FREE && (gate & WAIT_MASK) !== 0;
    look(ok, kind, first, `object ${(first - table) / OBJECT_BYTES + 1}, to which there is no reference`);
  };

  const record = (kind: number, offset: number): void => {
    const n = Math.floor((offset - records) / VIOMMU_RECORD_BYTES);
    const first = records + n * VIOMMU_RECORD_BYTES;
    const state = first + ViommuRecord.at.state;
    if (isCore && kind === OP_STORE && offset === state) log.add(first, first + VIOMMU_RECORD_BYTES);
    const free = i32[state >>> 2] === VIOMMU_FREE;
    look(!free || (isCore && kind !== OP_LOAD), kind, first, `the free vIOMMU record ${n}`);
  };

  return (kind, offset) => {
    if (offset >= records && offset < recordsEnd) record(kind, offset);
    for (const table of tables)
      if (offset >= table && offset < table + MAX_OBJECTS * OBJECT_BYTES) object(table, kind, offset);
  };
}
