/**
 * From an IORT to a machine description: which of its nodes are IOMMUs we model, which IDs reach them.
 * [DEN0049] E.f, 3.1.1.
 *
 * Only mappings that end in an SMMUv3 become stream mappings. A mapping to an ITS group carries interrupts;
 * one to an SMMUv1 or SMMUv2 makes its owner stand in that SMMU's `unsupported` entry.
 */
import type {
  IommuDescription,
  MachineDescription,
  MasterDescription,
  ReservedRegion,
  StreamIdRange,
  StreamMapping,
  TopologyNote,
  UnsupportedPart,
} from './description.js';
import { canonicalPath } from './description.js';
import { parseIort } from './iort.js';
import { hex, IortError } from './iort-error.js';
import type { TableRange } from './iort-graph.js';
import { rejectOverlap } from './iort-graph.js';
import type { Iort, IortNode, NamedComponent, Rmr, RootComplex, Smmu, Smmuv3 } from './iort-nodes.js';

const COHACC_OVERRIDE = 1 << 0;
const ATS_SUPPORTED = 1 << 0;
const RMR_REMAP_PERMITTED = 1 << 0;
const RMR_PRIVILEGED = 1 << 1;
const RMR_ATTRIBUTES_SHIFT = 2;

/** Table revision of issue E.d, the first whose RMR nodes are to be honoured; Linux ignores earlier ones. */
const REVISION_E_D = 5;

const RID_COUNT = 0x1_0000;

/** One RMR node can stand for (SMMUs x descriptors) regions: past this a table is made to exhaust memory. */
const MAX_RESERVED_REGIONS = 0x1_0000;

/** [DEN0049] 3.1.1.3, field "Model": the architecture behind each model and its product name. */
const SMMU_MODELS: readonly (readonly [name: string, product: string])[] = [
  ['SMMUv1', 'generic'],
  ['SMMUv2', 'generic'],
  ['SMMUv1', 'CoreLink MMU-400'],
  ['SMMUv2', 'CoreLink MMU-500'],
  ['SMMUv1', 'CoreLink MMU-401'],
  ['SMMUv2', 'Cavium ThunderX'],
];

/** [DEN0049] 3.1.1.4: models that are an SMMUv3 with errata, by number. */
const SMMUV3_MODELS = ['generic', 'HiSilicon Hi161x', 'Cavium CN99xx'];

const NOTE_TEXT: Record<string, string> = {
  'ITS group': 'translates interrupts, not DMA',
  PMCG: 'counts events, translates nothing',
  'GICv5 IWB': 'carries wired interrupts, not DMA',
  'SMMUv3 errata': 'a model with known errata, treated as a generic SMMUv3',
  'trailing bytes': 'behind the last node, not read',
};

/** 0 is firmware for "left out", and more than 64 bits of address there are not. */
function addressSize(bits: number): number {
  return bits === 0 || bits > 64 ? 64 : bits;
}

/** Holds what the parts of a description need of each other while it is being made. */
interface Describing {
  iort: Iort;
  iommuNames: Map<IortNode, string>;
  unsupported: Map<IortNode, UnsupportedPart>;
  notes: Map<string, TopologyNote>;
}

function note(state: Describing, name: string, count = 1): void {
  const known = state.notes.get(name);
  if (known === undefined) state.notes.set(name, { name, count, text: NOTE_TEXT[name] ?? '' });
  else known.count += count;
}

function describeSmmuv3(node: Smmuv3, name: string): IommuDescription {
  const iommu: IommuDescription = {
    name,
    model: 'smmuv3',
    base: node.base,
    coherent: (node.flags & COHACC_OVERRIDE) !== 0,
    interrupts: { event: node.eventGsiv, pri: node.priGsiv, gerror: node.gerrGsiv, sync: node.syncGsiv },
  };
  if (node.proximityDomain !== undefined) iommu.proximityDomain = node.proximityDomain;
  return iommu;
}

function describeOldSmmu(node: Smmu): UnsupportedPart {
  const [name, product] = SMMU_MODELS[node.model] ?? ['SMMU', `unknown model ${node.model}`];
  return {
    name,
    offset: node.offset,
    reason: `${name} (${product}) at ${hex(node.base)}: only SMMUv3 is modelled`,
  };
}

/**
 * The input ID each single mapping of a named component goes by: the lowest ones that no range of it covers.
 * @param ranges the component's ranges, lowest first
 */
function* freeInputs(ranges: readonly StreamMapping[]): Generator<number> {
  let input = 0;
  let next = 0;
  for (;;) {
    const range = ranges[next];
    if (range !== undefined && input >= range.inputBase) {
      input = range.inputBase + range.count;
      next++;
    } else {
      yield input++;
    }
  }
}

/** A master's mappings into modelled IOMMUs; those into unsupported ones are entered there under `label`. */
function streamMappings(state: Describing, node: NamedComponent | RootComplex, label: string) {
  const mappings: StreamMapping[] = [];
  const ranges: TableRange[] = [];
  for (const mapping of node.mappings) {
    const to = state.iort.byOffset.get(mapping.outputReference);
    if (to === undefined) continue; // parseIort has refused such a table
    const part = state.unsupported.get(to);
    if (part !== undefined) {
      part.masters ??= [];
      if (part.masters[part.masters.length - 1] !== label) part.masters.push(label);
      continue;
    }
    const iommu = state.iommuNames.get(to);
    if (iommu === undefined) continue; // an ITS group or an IWB: interrupts
    const { outputBase } = mapping;
    if (!mapping.single) {
      mappings.push({ inputBase: mapping.inputBase, count: mapping.count, outputBase, iommu });
    } else if (node.type === 'root-complex') {
      mappings.push({ inputBase: 0, count: RID_COUNT, outputBase, iommu, single: true });
    } else {
      mappings.push({ inputBase: 0, count: 1, outputBase, iommu, single: true });
    }
    const made = mappings[mappings.length - 1]!;
    if (node.type === 'root-complex') {
      ranges.push({
        first: made.inputBase,
        last: made.inputBase + made.count - 1,
        offset: mapping.offset,
      });
    }
  }
  if (node.type === 'named-component') {
    const taken = mappings.filter((m) => !m.single).sort((a, b) => a.inputBase - b.inputBase);
    const inputs = freeInputs(taken);
    for (const mapping of mappings) if (mapping.single) mapping.inputBase = inputs.next().value as number;
  }
  return { mappings, ranges };
}

function describeMasters(state: Describing): MasterDescription[] {
  const masters: MasterDescription[] = [];
  const segments = new Map<number, TableRange[]>();
  const paths = new Map<string, number>();
  for (const node of state.iort.nodes) {
    if (node.type === 'root-complex') {
      const { mappings, ranges } = streamMappings(state, node, `segment ${node.segment}`);
      const known = segments.get(node.segment);
      if (known === undefined) segments.set(node.segment, ranges);
      else for (const range of ranges) known.push(range);
      masters.push({
        kind: 'pci-root-complex',
        segment: node.segment,
        ats: (node.atsAttribute & ATS_SUPPORTED) !== 0,
        memoryAddressSize: addressSize(node.memoryAddressSize),
        idMappings: mappings,
      });
    } else if (node.type === 'named-component') {
      const path = canonicalPath(node.path);
      const first = paths.get(path);
      if (first !== undefined) {
        throw new IortError(node.offset, `${node.path} is already described by the node at ${hex(first)}`);
      }
      paths.set(path, node.offset);
      masters.push({
        kind: 'named-component',
        path: node.path,
        memoryAddressSize: addressSize(node.memoryAddressSize),
        idMappings: streamMappings(state, node, node.path).mappings,
      });
    }
  }
  // Several root complexes may share a segment, but not a RID.
  for (const [segment, ranges] of segments) rejectOverlap(ranges, `segment ${segment} RIDs`);
  return masters;
}

/** Append one region for each SMMUv3 and each descriptor of the node. */
function describeRmr(state: Describing, node: Rmr, reserved: ReservedRegion[]): void {
  const streams = new Map<string, StreamIdRange[]>();
  for (const mapping of node.mappings) {
    const to = state.iort.byOffset.get(mapping.outputReference);
    const iommu = to && state.iommuNames.get(to);
    if (iommu === undefined) continue; // behind an SMMU reported as unsupported
    const ids = streams.get(iommu) ?? [];
    ids.push({ base: mapping.outputBase, count: mapping.count });
    streams.set(iommu, ids);
  }
  if (reserved.length + streams.size * node.descriptors.length > MAX_RESERVED_REGIONS) {
    throw new IortError(node.offset, `more than ${MAX_RESERVED_REGIONS} reserved regions with this RMR node`);
  }
  const flags = {
    remapPermitted: (node.flags & RMR_REMAP_PERMITTED) !== 0,
    privileged: (node.flags & RMR_PRIVILEGED) !== 0,
    attributes: (node.flags >>> RMR_ATTRIBUTES_SHIFT) & 0xff,
  };
  for (const [iommu, streamIds] of streams) {
    for (const { start, length } of node.descriptors) {
      reserved.push({ iommu, streamIds, start, length, flags });
    }
  }
}

/**
 * Build the machine description of a firmware table.
 * @param bytes  a whole IORT, from firmware or a file
 * @throws IortError, and nothing else, when the table is truncated, looped, overlapping or damaged
 */
export function describeIort(bytes: Uint8Array): MachineDescription {
  const iort = parseIort(bytes);
  const state: Describing = { iort, iommuNames: new Map(), unsupported: new Map(), notes: new Map() };
  const iommus: IommuDescription[] = [];
  const reserved: ReservedRegion[] = [];
  for (const node of iort.nodes) {
    switch (node.type) {
      case 'smmuv3': {
        const name = `smmu${iommus.length}`;
        state.iommuNames.set(node, name);
        iommus.push(describeSmmuv3(node, name));
        if (node.model > 0 && node.model < SMMUV3_MODELS.length) note(state, 'SMMUv3 errata');
        break;
      }
      case 'smmu':
        state.unsupported.set(node, describeOldSmmu(node));
        break;
      case 'unknown':
        state.unsupported.set(node, {
          name: `node type ${hex(node.nodeType)}`,
          offset: node.offset,
          reason: 'not a node type of IORT issue E.f',
        });
        break;
      case 'its-group':
        note(state, 'ITS group');
        break;
      case 'pmcg':
        note(state, 'PMCG');
        break;
      case 'iwb':
        note(state, 'GICv5 IWB');
        break;
    }
  }
  // IOMMUs first: a table may put them behind the nodes that map to them.
  const masters = describeMasters(state);
  for (const node of iort.nodes) {
    if (node.type !== 'rmr') continue;
    if (iort.revision >= REVISION_E_D) describeRmr(state, node, reserved);
    else {
      state.unsupported.set(node, {
        name: 'RMR',
        offset: node.offset,
        reason: `in a table of revision ${iort.revision}; reserved memory is honoured from revision 5 (E.d) on`,
      });
    }
  }
  if (iort.trailingBytes > 0) note(state, 'trailing bytes', iort.trailingBytes);
  return {
    iommus,
    masters,
    reserved,
    unsupported: [...state.unsupported.values()],
    notes: [...state.notes.values()],
  };
}
