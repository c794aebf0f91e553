/**
 * A machine's DMA topology as plain data: which IOMMUs there are and which IDs of which devices reach them.
 *
 * It is what a machine is built from, whether it came from firmware (describe-iort.ts) or was written by hand
 * (presets.ts). JSON in, JSON out: no undefined, no class, no bigint. IOMMUs are called `smmu0`, `smmu1`, ...
 * in table order.
 */

export interface IommuDescription {
  name: string;
  model: 'smmuv3';
  /** Physical address of register page 0. */
  base: number;
  /** Table walks and queue accesses are cache-coherent. */
  coherent: boolean;
  /** Wired interrupts (GSIVs). 0 where there is none: then the SMMU signals by MSI, or lacks the function. */
  interrupts: { event: number; pri: number; gerror: number; sync: number };
  /** NUMA node, when the firmware says. */
  proximityDomain?: number;
}

/** Input IDs `inputBase` .. `inputBase + count - 1` are streams of `iommu`. */
export interface StreamMapping {
  inputBase: number;
  /** How many IDs, at least 1. */
  count: number;
  outputBase: number;
  iommu: string;
  /**
   * A single mapping: every input ID in the range is the one stream `outputBase`. The table gives a single
   * mapping no input, so it gets one here: for a root complex all 64 Ki RIDs, for a named component the lowest
   * free ID. A component with n single mappings and nothing else is thus addressed as inputs 0 to n-1.
   */
  single?: true;
}

export interface PciRootComplexDescription {
  kind: 'pci-root-complex';
  /** PCI segment; inputs are 16-bit RIDs (bus, device, function). */
  segment: number;
  ats: boolean;
  /** Bits of address the root complex passes on; 64 when the firmware sets no limit. */
  memoryAddressSize: number;
  /** Empty: its DMA goes untranslated, or through something in `unsupported`. */
  idMappings: StreamMapping[];
}

export interface NamedComponentDescription {
  kind: 'named-component';
  /** ACPI path as the table spells it, for example `\_SB_.NPU0`. */
  path: string;
  memoryAddressSize: number;
  idMappings: StreamMapping[];
}

export type MasterDescription = PciRootComplexDescription | NamedComponentDescription;

export interface StreamIdRange {
  base: number;
  /** How many, at least 1. A range, because firmware may reserve for 2^32 streams in 20 bytes. */
  count: number;
}

/** Memory that streams use from before the operating system, to be kept mapped one to one. */
export interface ReservedRegion {
  iommu: string;
  streamIds: StreamIdRange[];
  /** Physical address, and by the one-to-one rule IOVA. */
  start: number;
  /** Bytes, at least 1. */
  length: number;
  flags: {
    /** The region may move once a driver owns the device. */
    remapPermitted: boolean;
    privileged: boolean;
    /** [DEN0049] access attributes: 0 to 3 Device-nGnRnE, nGnRE, nGRE, GRE; 4 Normal-NC; 5 Normal-WB. */
    attributes: number;
  };
}

/** Something that this machine has and we do not model. Never dropped in silence. */
export interface UnsupportedPart {
  /** `SMMUv1`, `SMMUv2`, `RMR`, or `node type 0x..`. */
  name: string;
  /** Of the node in the table it was read from. */
  offset?: number;
  reason: string;
  /** What it would serve: paths, and `segment N`. Those masters have no stream mapping through it. */
  masters?: string[];
}

/** Parts of a kind that need nothing of us. */
export interface TopologyNote {
  name: string;
  count: number;
  text: string;
}

export interface MachineDescription {
  iommus: IommuDescription[];
  masters: MasterDescription[];
  reserved: ReservedRegion[];
  unsupported: UnsupportedPart[];
  notes: TopologyNote[];
}

/** How a device names itself: by PCI segment and RID, or by ACPI path and input ID. */
export type StreamQuery = { segment: number; rid: number } | { path: string; inputId: number };

/** `\_SB.GPU0` and `\_SB_.GPU0` are one path: ACPI pads a name segment to four characters with `_`. */
export function canonicalPath(path: string): string {
  return path.replace(/[A-Za-z0-9_]+/g, (segment) => segment.padEnd(4, '_'));
}

/**
 * The stream a device's DMA arrives on. One mapping is applied, once: what an SMMU does with stream IDs
 * towards an ITS is for interrupts and plays no part.
 * @returns the one stream, or undefined when no mapping covers the ID, or, in a description that did not
 *   come from a table (where this is refused), when several do
 */
export function streamIdFor(
  description: MachineDescription,
  query: StreamQuery,
): { iommu: string; streamId: number } | undefined {
  const input = 'path' in query ? query.inputId : query.rid;
  const path = 'path' in query ? canonicalPath(query.path) : undefined;
  let found: StreamMapping | undefined;
  for (const master of description.masters) {
    const mine =
      master.kind === 'pci-root-complex'
        ? 'segment' in query && master.segment === query.segment
        : path !== undefined && canonicalPath(master.path) === path;
    if (!mine) continue;
    for (const mapping of master.idMappings) {
      if (!(input >= mapping.inputBase && input < mapping.inputBase + mapping.count)) continue;
      if (found !== undefined) return undefined;
      found = mapping;
    }
  }
  if (found === undefined) return undefined;
  const streamId = found.single ? found.outputBase : found.outputBase + (input - found.inputBase);
  return { iommu: found.iommu, streamId };
}

/** The regions to keep mapped for one stream. */
export function reservedFor(
  description: MachineDescription,
  stream: { iommu: string; streamId: number },
): ReservedRegion[] {
  return description.reserved.filter(
    (region) =>
      region.iommu === stream.iommu &&
      region.streamIds.some((ids) => stream.streamId >= ids.base && stream.streamId < ids.base + ids.count),
  );
}
