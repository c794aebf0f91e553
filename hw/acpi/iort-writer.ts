/**
 * A small IORT writer: nodes in, bytes with a right checksum out. For tests and for making tables of our own.
 * [DEN0049] E.e, 3.1.1; table revision 6.
 *
 * It writes what it is told, sense or not (overlaps, cycles, wrong targets), because tests need bad tables;
 * it only refuses what has no encoding. Offsets come out of the order of the nodes; mappings name their target
 * by label.
 */
import { IORT_FIXED_BYTES } from './iort.js';
import {
  IORT_NODE,
  MAPPING_BYTES,
  MAPPING_REFERENCE_AT,
  MAPPING_SINGLE,
  NODE_HEADER_BYTES,
  NODE_IDENTIFIER_AT,
  NODE_LENGTH_AT,
  NODE_MAPPING_COUNT_AT,
  NODE_MAPPING_OFFSET_AT,
  NODE_REVISION_AT,
} from './iort-nodes.js';
import { writeSdtHeader } from './sdt.js';

export interface MappingSpec {
  inputBase?: number;
  /** The number of IDs, at least 1; 1 by default. The table holds one less. */
  count?: number;
  outputBase: number;
  /** Label of the node that takes the IDs. */
  to: string;
  single?: boolean;
}

interface NodeSpecBase {
  /** For mappings to name it by. */
  label?: string;
  /** Default: the node's revision in issue E.e. */
  revision?: number;
  mappings?: MappingSpec[];
}

export type IortNodeSpec = NodeSpecBase &
  (
    | { type: 'its-group'; identifiers?: number[] }
    | { type: 'named-component'; path: string; memoryAddressSize?: number }
    | { type: 'root-complex'; segment: number; ats?: boolean; memoryAddressSize?: number }
    | { type: 'smmu'; base: number; model: number; contextInterrupts?: number[] }
    | {
        type: 'smmuv3';
        base: number;
        coherent?: boolean;
        model?: number;
        interrupts?: { event: number; pri: number; gerror: number; sync: number };
        proximityDomain?: number;
        deviceIdMapping?: number;
      }
    | { type: 'pmcg'; counts: string }
    | { type: 'rmr'; flags?: number; regions: { start: number; length: number }[] }
    | { type: 'iwb'; base: number; path: string }
    | { type: 'unknown'; nodeType: number; body?: Uint8Array }
  );

export interface IortWriterOptions {
  /** Of the table; 6 (E.e) by default. */
  revision?: number;
}

/** [DEN0049] E.e: the type byte and the node revision of each node type. */
const NODE_TYPES: Record<Exclude<IortNodeSpec['type'], 'unknown'>, readonly [type: number, rev: number]> = {
  'its-group': [IORT_NODE.ITS_GROUP, 1],
  'named-component': [IORT_NODE.NAMED_COMPONENT, 4],
  'root-complex': [IORT_NODE.ROOT_COMPLEX, 4],
  smmu: [IORT_NODE.SMMU, 3],
  smmuv3: [IORT_NODE.SMMUV3, 5],
  pmcg: [IORT_NODE.PMCG, 2],
  rmr: [IORT_NODE.RMR, 3],
  iwb: [IORT_NODE.IWB, 0],
};

/** Bytes of a node in the making; little-endian, as all of ACPI. */
class Bytes {
  readonly out: number[] = [];

  uint(lenBytes: number, value: number): this {
    for (let rest = value, i = 0; i < lenBytes; i++, rest = Math.floor(rest / 256)) this.out.push(rest % 256);
    return this;
  }

  /** A NUL-terminated string, padded to a multiple of four bytes of the node. */
  path(text: string): this {
    for (const char of text) this.out.push(char.charCodeAt(0) & 0xff);
    do this.out.push(0);
    while (this.out.length % 4 !== 0);
    return this;
  }
}

const CACHE_COHERENT = 1;
/** Coherent path to memory, and device attributes are cacheable and shareable. */
const MEMORY_FLAGS = 3;

function memoryAccess(bytes: Bytes): Bytes {
  return bytes.uint(4, CACHE_COHERENT).uint(1, 0).uint(2, 0).uint(1, MEMORY_FLAGS);
}

/** The fields and arrays of a node but its mappings, from the node's first byte on; the header is left 0. */
function body(spec: IortNodeSpec, offsets: ReadonlyMap<string, number>): number[] {
  const bytes = new Bytes().uint(NODE_HEADER_BYTES, 0);
  switch (spec.type) {
    case 'its-group': {
      const identifiers = spec.identifiers ?? [0];
      bytes.uint(4, identifiers.length);
      for (const each of identifiers) bytes.uint(4, each);
      break;
    }
    case 'named-component':
      memoryAccess(bytes.uint(4, 0)).uint(1, spec.memoryAddressSize ?? 64);
      bytes.path(spec.path);
      break;
    case 'root-complex':
      memoryAccess(bytes)
        .uint(4, spec.ats ? 1 : 0)
        .uint(4, spec.segment);
      bytes.uint(1, spec.memoryAddressSize ?? 64).uint(3, 0);
      bytes.uint(4, 0);
      break;
    case 'smmu': {
      const context = spec.contextInterrupts ?? [];
      bytes.uint(8, spec.base).uint(8, 0x10000).uint(4, spec.model).uint(4, 0);
      bytes.uint(4, 0x3c).uint(4, context.length).uint(4, 0x4c).uint(4, 0).uint(4, 0);
      bytes.uint(16, 0);
      for (const gsiv of context) bytes.uint(4, gsiv).uint(4, 0);
      break;
    }
    case 'smmuv3': {
      const { event, pri, gerror, sync } = spec.interrupts ?? { event: 0, pri: 0, gerror: 0, sync: 0 };
      const pxm = spec.proximityDomain === undefined ? 0 : 1 << 3;
      const own = spec.deviceIdMapping === undefined ? 0 : 1 << 4;
      bytes
        .uint(8, spec.base)
        .uint(4, (spec.coherent ? 1 : 0) | pxm | own)
        .uint(4, 0)
        .uint(8, 0)
        .uint(4, spec.model ?? 0);
      bytes.uint(4, event).uint(4, pri).uint(4, gerror).uint(4, sync);
      bytes.uint(4, spec.proximityDomain ?? 0).uint(4, spec.deviceIdMapping ?? 0);
      break;
    }
    case 'pmcg':
      bytes
        .uint(8, 0)
        .uint(4, 0)
        .uint(4, offsets.get(spec.counts) ?? 0)
        .uint(8, 0);
      break;
    case 'rmr':
      bytes
        .uint(4, spec.flags ?? 0)
        .uint(4, spec.regions.length)
        .uint(4, 0x1c);
      for (const { start, length } of spec.regions) bytes.uint(8, start).uint(8, length).uint(4, 0);
      break;
    case 'iwb':
      bytes.uint(8, spec.base).uint(2, 0).path(spec.path);
      break;
    case 'unknown':
      for (const each of spec.body ?? []) bytes.out.push(each);
      break;
  }
  return bytes.out;
}

/** Where each node will lie, by its label or, without one, by `#` and its index; in table order. */
export function iortOffsets(nodes: readonly IortNodeSpec[]): Map<string, number> {
  const offsets = new Map<string, number>();
  let at = IORT_FIXED_BYTES;
  for (const [index, spec] of nodes.entries()) {
    offsets.set(spec.label ?? `#${index}`, at);
    at += body(spec, offsets).length + (spec.mappings?.length ?? 0) * MAPPING_BYTES;
  }
  return offsets;
}

/**
 * Write a table. Nodes lie in the order given, each one's mappings at its end.
 * @throws Error for a label that no node has, or a node of more than 65535 bytes
 */
export function writeIort(nodes: readonly IortNodeSpec[], options: IortWriterOptions = {}): Uint8Array {
  const offsets = iortOffsets(nodes);
  const starts = [...offsets.values()];
  const parts = nodes.map((spec) => body(spec, offsets));
  const lengths = nodes.map((spec, i) => parts[i]!.length + (spec.mappings?.length ?? 0) * MAPPING_BYTES);
  const table = new Uint8Array(lengths.reduce((sum, each) => sum + each, IORT_FIXED_BYTES));
  const view = new DataView(table.buffer);
  view.setUint32(0x24, nodes.length, true);
  view.setUint32(0x28, IORT_FIXED_BYTES, true);
  for (const [i, spec] of nodes.entries()) {
    const at = starts[i]!;
    const mappings = spec.mappings ?? [];
    if (lengths[i]! > 0xffff) throw new Error(`IORT node ${i} of ${lengths[i]} bytes is too long`);
    table.set(parts[i]!, at);
    const [type, revision] = spec.type === 'unknown' ? [spec.nodeType, 0] : NODE_TYPES[spec.type];
    view.setUint8(at, type);
    view.setUint16(at + NODE_LENGTH_AT, lengths[i]!, true);
    view.setUint8(at + NODE_REVISION_AT, spec.revision ?? revision);
    view.setUint32(at + NODE_IDENTIFIER_AT, i, true);
    view.setUint32(at + NODE_MAPPING_COUNT_AT, mappings.length, true);
    view.setUint32(at + NODE_MAPPING_OFFSET_AT, mappings.length > 0 ? parts[i]!.length : 0, true);
    for (const [j, mapping] of mappings.entries()) {
      const to = offsets.get(mapping.to);
      if (to === undefined) throw new Error(`IORT node ${i} maps to ${mapping.to}, which no node is called`);
      const entry = at + parts[i]!.length + j * MAPPING_BYTES;
      view.setUint32(entry, mapping.inputBase ?? 0, true);
      view.setUint32(entry + 4, (mapping.count ?? 1) - 1, true);
      view.setUint32(entry + 8, mapping.outputBase, true);
      view.setUint32(entry + MAPPING_REFERENCE_AT, to, true);
      view.setUint32(entry + 16, mapping.single ? MAPPING_SINGLE : 0, true);
    }
  }
  writeSdtHeader(table, {
    signature: 'IORT',
    revision: options.revision ?? 6,
    oemId: 'IOMMUF',
    oemTableId: 'IOMMUFD',
  });
  return table;
}
