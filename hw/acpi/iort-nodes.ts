/**
 * The nodes of an IORT as read, one interface per node type. [DEN0049] E.f, 3.1.1.
 *
 * Offsets are kept so that whoever refuses a node can name it. Fields that nothing here uses (OEM data, memory
 * access hints, SMMUv2 interrupt lists) are bounds-checked when read and then dropped.
 */

/** The type byte of each node. */
export const IORT_NODE = {
  ITS_GROUP: 0,
  NAMED_COMPONENT: 1,
  ROOT_COMPLEX: 2,
  SMMU: 3,
  SMMUV3: 4,
  PMCG: 5,
  RMR: 6,
  IWB: 7,
} as const;

/** Common node header: type u8, length u16, revision u8, identifier u32, mapping count u32 and offset u32. */
export const NODE_HEADER_BYTES = 16;
export const NODE_LENGTH_AT = 1;
export const NODE_REVISION_AT = 3;
export const NODE_IDENTIFIER_AT = 4;
export const NODE_MAPPING_COUNT_AT = 8;
export const NODE_MAPPING_OFFSET_AT = 12;

/** One ID mapping: input base, number of IDs minus one, output base, output reference, flags; five u32. */
export const MAPPING_BYTES = 20;
export const MAPPING_REFERENCE_AT = 12;
export const MAPPING_SINGLE = 1 << 0;

export interface IortIdMapping {
  /** Of this mapping in the table. */
  offset: number;
  inputBase: number;
  /** The number of IDs: what the table holds plus one, so 1 to 2^32. */
  count: number;
  outputBase: number;
  /** Table offset of the node that takes the output IDs. */
  outputReference: number;
  /** The input side is to be ignored: the node has one ID, `outputBase`. */
  single: boolean;
}

export interface IortNodeHeader {
  /** Of the node in the table. */
  offset: number;
  revision: number;
  identifier: number;
  mappings: IortIdMapping[];
}

export interface ItsGroup extends IortNodeHeader {
  type: 'its-group';
  /** GIC ITS identifiers, as in the MADT. */
  identifiers: number[];
}

export interface NamedComponent extends IortNodeHeader {
  type: 'named-component';
  /** Bit 0 stall supported, bits 5:1 PASID bits. */
  flags: number;
  /** Address bits the component drives; 0 when the firmware left it out. */
  memoryAddressSize: number;
  path: string;
}

export interface RootComplex extends IortNodeHeader {
  type: 'root-complex';
  /** Bit 0 ATS, bit 1 PRI, bit 2 PASID forwarding. */
  atsAttribute: number;
  segment: number;
  /** Address bits; 0 when the revision has no such field (0) or the firmware left it out. */
  memoryAddressSize: number;
}

/** An SMMUv1 or SMMUv2: `model` tells which. */
export interface Smmu extends IortNodeHeader {
  type: 'smmu';
  base: number;
  span: number;
  model: number;
}

export interface Smmuv3 extends IortNodeHeader {
  type: 'smmuv3';
  base: number;
  flags: number;
  model: number;
  /** Wired interrupts (GSIVs); 0 where there is none. */
  eventGsiv: number;
  priGsiv: number;
  gerrGsiv: number;
  syncGsiv: number;
  proximityDomain?: number;
  /** Index of the mapping that gives the SMMU's own DeviceID for its MSIs, when it has one. */
  deviceIdMapping?: number;
}

export interface Pmcg extends IortNodeHeader {
  type: 'pmcg';
  /** Table offset of the node whose events are counted. */
  nodeReference: number;
}

export interface RmrDescriptor {
  offset: number;
  start: number;
  length: number;
}

export interface Rmr extends IortNodeHeader {
  type: 'rmr';
  /** Bit 0 remap permitted, bit 1 privileged, bits 9:2 memory attributes. */
  flags: number;
  descriptors: RmrDescriptor[];
}

/** GICv5 interrupt wire bridge. */
export interface Iwb extends IortNodeHeader {
  type: 'iwb';
  base: number;
  path: string;
}

/** A type this reader does not know. Its header and mappings are read like any other's. */
export interface UnknownNode extends IortNodeHeader {
  type: 'unknown';
  nodeType: number;
}

export type IortNode =
  | ItsGroup
  | NamedComponent
  | RootComplex
  | Smmu
  | Smmuv3
  | Pmcg
  | Rmr
  | Iwb
  | UnknownNode;

export interface Iort {
  /** Of the table: 0 up to issue D, 1 for E, 3 for E.b, 5 for E.d, 6 for E.e. */
  revision: number;
  /** In table order. */
  nodes: IortNode[];
  /** The nodes by the table offset that references use. */
  byOffset: Map<number, IortNode>;
  /** Bytes between the last node and the table's end. */
  trailingBytes: number;
}
