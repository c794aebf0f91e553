/** What a byte offset is called: a field of a region of the machine, a word that the scenario names, or a number. */
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import {
  CONTEXT_BYTES,
  contextsLayout,
  IOTLB_ENTRY_BYTES,
  IotlbEntry,
  iotlbLayout,
  StreamContext,
  UnitLayout,
} from '../../../hw/iotlb/unit-layout.js';
import { framesLayout } from '../../../hw/memory/frames-layout.js';
import { HEADER_BYTES, type MemoryHandle, nameHash } from '../../../hw/memory/machine-memory.js';
import {
  PAGE_TABLE_BYTES,
  PageTableLayout,
  pageTablesLayout,
} from '../../../hw/pagetable/page-table-layout.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { ClockLayout, TraceLayout } from '../../../hw/smmuv3/trace-layout.js';
import { ThreadTableLayout } from '../../../hw/sync/thread.js';
import { CmdqvLayout, cmdqvPagesLayout } from '../../../hw/tegra241-cmdqv/cmdqv-layout.js';
import { OBJECT, OBJECT_BYTES, ObjectsLayout } from '../../../runtime/core/objects-layout.js';
import { DriverLayout, ViommuRecord, viommusLayout } from '../../../runtime/drivers/smmuv3/driver-layout.js';
import { frameRefsLayout, UserMemoryLayout } from '../../../runtime/user-memory.js';
import { BASE, THREADS_AT } from '../engine/context.js';
import { ramNames } from './ram-names.js';

/** Of a layout, what tells its fields. Those whose size varies begin alike, whatever the size. */
interface Fields {
  readonly name: string;
  readonly at: Readonly<Record<string, number>>;
}

const LAYOUTS: readonly Fields[] = [
  ThreadTableLayout,
  ClockLayout,
  TraceLayout,
  UnitLayout,
  PortLayout,
  contextsLayout(),
  iotlbLayout(8),
  pageTablesLayout(1),
  Smmuv3Layout,
  CmdqvLayout,
  cmdqvPagesLayout(1),
  ObjectsLayout,
  DriverLayout,
  viommusLayout(1),
  UserMemoryLayout,
  frameRefsLayout(4 * 2 ** 20),
];
const BY_HASH = new Map(LAYOUTS.map((layout) => [nameHash(layout.name), layout]));
const FRAMES = nameHash(framesLayout(2 ** 21).name);
const SMMUV3 = nameHash(Smmuv3Layout.name);

/** Fields that are arrays of records, by layout and field. */
const RECORDS: Readonly<Record<string, { bytes: number; at: Fields['at']; first?: number }>> = {
  'objects objects': { bytes: OBJECT_BYTES, at: OBJECT, first: 1 },
  'viommus records': { bytes: ViommuRecord.size, at: ViommuRecord.at },
  'contexts entries': { bytes: CONTEXT_BYTES, at: StreamContext.at },
  'iotlb entries': { bytes: IOTLB_ENTRY_BYTES, at: IotlbEntry.at },
  'page-tables tables': { bytes: PAGE_TABLE_BYTES, at: PageTableLayout.at },
};

/** @param offset  bytes from the start of the memory */
export type PlaceNames = (offset: number) => string;

/** What the first thread of a machine scenario published. */
type Published = Partial<Pick<MemoryHandle, 'ram' | 'regions'>> | undefined;

/**
 * @param names  words of a scenario without a machine: byte offsets from ctx.base
 * @param published  by the scenario's first thread
 */
export function placeNames(
  memory: Int32Array,
  published: unknown,
  names: Readonly<Record<string, number>> = {},
): PlaceNames {
  const { ram, regions } = (published ?? {}) as NonNullable<Published>;
  if (ram === undefined || regions === undefined) return plainNames(names);
  const frames = framesLayout(ram.bytes);
  const list = Object.entries(regions).sort(([, a], [, b]) => a.base - b.base);
  const isSmmu = (base: number): boolean => memory[(base - HEADER_BYTES + 4) >>> 2] === SMMUV3;
  const inRam = ramNames(
    memory,
    ram,
    list.flatMap(([key, { base }]) => (isSmmu(base) ? [{ number: key.split(':').at(-1)!, base }] : [])),
  );
  return (offset) => {
    if (offset >= ram.linear) {
      const pa = ram.basePa + offset - ram.linear;
      return inRam(pa) ?? `RAM ${hex(pa)}`;
    }
    const found = list.findLast(([, { base }]) => base <= offset);
    if (found === undefined || offset >= found[1].base + found[1].size) return hex(offset);
    const [key, { base }] = found;
    const hash = memory[(base - HEADER_BYTES + 4) >>> 2]!;
    const shape = hash === FRAMES ? frames : BY_HASH.get(hash);
    if (shape === undefined) return `${key} +${offset - base}`;
    return `${key} ${recordAt(shape, offset - base) ?? fieldAt(shape.at, offset - base)}`;
  };
}

/** `[2] users`, in an array of records; null elsewhere. */
function recordAt({ name, at }: Fields, offset: number): string | null {
  const field = Object.keys(at).findLast((one) => at[one]! <= offset);
  const record = RECORDS[`${name} ${field}`];
  if (field === undefined || record === undefined) return null;
  const inField = offset - at[field]!;
  const index = Math.floor(inField / record.bytes) + (record.first ?? 0);
  return `[${index}] ${fieldAt(record.at, inField % record.bytes)}`;
}

function plainNames(names: Readonly<Record<string, number>>): PlaceNames {
  return (offset) => {
    if (offset < BASE) return `threads ${fieldAt(ThreadTableLayout.at, offset - THREADS_AT)}`;
    const at = offset - BASE;
    const before = Object.values(names).filter((start) => start <= at);
    return before.length === 0 ? `base+${at}` : fieldAt(names, at);
  };
}

/** The last field that begins at or before an offset, and how far into it. */
function fieldAt(fields: Readonly<Record<string, number>>, offset: number): string {
  let name = '';
  let start = -1;
  for (const [field, at] of Object.entries(fields))
    if (at <= offset && at > start) [name, start] = [field, at];
  if (start < 0) return `+${offset}`;
  return offset === start ? name : `${name}+${offset - start}`;
}

const hex = (value: number): string => `0x${value.toString(16)}`;
