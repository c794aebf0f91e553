/**
 * The part of each IORT node behind the common header. [DEN0049] E.f, 3.1.1.1 to 3.1.1.8.
 *
 * Layouts grew with the node revision. Only the fields that a revision promises are demanded, because real
 * firmware labels new layouts with old revisions and the other way round: what counts is whether the bytes
 * are there.
 */
import { hex, IortError } from './iort-error.js';
import type { IortNode, IortNodeHeader, RmrDescriptor, Smmuv3 } from './iort-nodes.js';
import { IORT_NODE, MAPPING_BYTES, NODE_LENGTH_AT, NODE_MAPPING_OFFSET_AT } from './iort-nodes.js';
import type { IortReader } from './iort-reader.js';

const PXM_VALID = 1 << 3;
const DEVICEID_VALID = 1 << 4;

const RMR_DESCRIPTOR_BYTES = 20;
const SMMU_INTERRUPT_BYTES = 8;

/** Where the fields of a node end and its arrays may begin. */
function fixedBytes(type: number, revision: number): number {
  switch (type) {
    case IORT_NODE.ITS_GROUP:
      return 0x14;
    case IORT_NODE.NAMED_COMPONENT:
      return 0x1d; // the path follows
    case IORT_NODE.ROOT_COMPLEX:
      return revision >= 1 ? 0x24 : 0x20; // revision 1 adds the memory address size
    case IORT_NODE.SMMU:
      return 0x3c;
    case IORT_NODE.SMMUV3:
      return revision >= 1 ? 0x44 : 0x3c; // revision 1 adds proximity domain and DeviceID mapping index
    case IORT_NODE.PMCG:
      return revision >= 1 ? 0x28 : 0x20; // revision 1 adds page 1
    case IORT_NODE.RMR:
      return 0x1c;
    case IORT_NODE.IWB:
      return 0x1a; // the path follows
    default:
      return 0x10;
  }
}

/**
 * Which mapping, if any, is the SMMU's own. Up to node revision 4 the index counts unless every interrupt is
 * wired; from 5 on a flag says so. An index past the mappings is common firmware sloppiness on SMMUs without
 * PRI and means none.
 */
function deviceIdMapping(node: IortReader, header: IortNodeHeader, smmu: Smmuv3): number | undefined {
  if (header.revision < 1) return undefined;
  const wired = smmu.eventGsiv && smmu.priGsiv && smmu.gerrGsiv && smmu.syncGsiv;
  const valid = header.revision >= 5 ? (smmu.flags & DEVICEID_VALID) !== 0 : !wired;
  const index = node.u32(0x40);
  return valid && index < header.mappings.length ? index : undefined;
}

function readSmmuv3(node: IortReader, header: IortNodeHeader): Smmuv3 {
  const smmu: Smmuv3 = {
    ...header,
    type: 'smmuv3',
    base: node.address(0x10, 'SMMUv3 base'),
    flags: node.u32(0x18),
    model: node.u32(0x28),
    eventGsiv: node.u32(0x2c),
    priGsiv: node.u32(0x30),
    gerrGsiv: node.u32(0x34),
    syncGsiv: node.u32(0x38),
  };
  if ((smmu.flags & PXM_VALID) !== 0) smmu.proximityDomain = node.u32(0x3c);
  const own = deviceIdMapping(node, header, smmu);
  if (own !== undefined) smmu.deviceIdMapping = own;
  return smmu;
}

function readSmmu(node: IortReader, header: IortNodeHeader, fixed: number): IortNode {
  // The lists are not needed, but a table whose lists overrun their node is broken.
  node.array(0x28, 'global interrupts', node.u32(0x28), node.u32(0x28) === 0 ? 0 : 2, 8, fixed);
  node.array(0x30, 'context interrupts', node.u32(0x30), node.u32(0x2c), SMMU_INTERRUPT_BYTES, fixed);
  node.array(0x38, 'PMU interrupts', node.u32(0x38), node.u32(0x34), SMMU_INTERRUPT_BYTES, fixed);
  return {
    ...header,
    type: 'smmu',
    base: node.address(0x10, 'SMMU base'),
    span: node.address(0x18, 'SMMU span'),
    model: node.u32(0x20),
  };
}

function readRmr(node: IortReader, header: IortNodeHeader, fixed: number): IortNode {
  const count = node.u32(0x14);
  const at = node.u32(0x18);
  node.array(0x18, 'RMR descriptors', at, count, RMR_DESCRIPTOR_BYTES, fixed);
  const descriptors: RmrDescriptor[] = [];
  for (let i = 0; i < count; i++) {
    const each = at + i * RMR_DESCRIPTOR_BYTES;
    const offset = header.offset + each;
    const start = node.address(each, 'RMR base');
    const length = node.address(each + 8, 'RMR length');
    if (length === 0) throw new IortError(offset + 8, 'RMR descriptor of length 0');
    if (!Number.isSafeInteger(start + length)) {
      throw new IortError(offset, `RMR ${hex(start)} of length ${hex(length)} is past any physical address`);
    }
    descriptors.push({ offset, start, length });
  }
  return { ...header, type: 'rmr', flags: node.u32(0x10), descriptors };
}

/** Two arrays of an RMR node must lie apart; elsewhere there is one array only. */
function rejectSharedBytes(node: IortReader, header: IortNodeHeader, rmr: RmrDescriptor[]): void {
  const mappingsAt = header.mappings[0]?.offset;
  const descriptorsAt = rmr[0]?.offset;
  if (mappingsAt === undefined || descriptorsAt === undefined) return;
  const mappingsEnd = mappingsAt + header.mappings.length * MAPPING_BYTES;
  const descriptorsEnd = descriptorsAt + rmr.length * RMR_DESCRIPTOR_BYTES;
  if (mappingsAt < descriptorsEnd && descriptorsAt < mappingsEnd) {
    throw new IortError(node.start + 0x18, 'RMR descriptors and ID mappings overlap');
  }
}

/**
 * Decode one node.
 * @param node    the node's bytes, header included
 * @param type    its type byte
 * @param header  its header, mappings already read
 * @throws IortError when the node is too short for its type and revision, or a field makes no sense
 */
export function readNodeBody(node: IortReader, type: number, header: IortNodeHeader): IortNode {
  const fixed = fixedBytes(type, header.revision);
  if (node.lenBytes < fixed) {
    throw new IortError(
      node.start + NODE_LENGTH_AT,
      `truncated: node of ${node.lenBytes} bytes, type ${type} revision ${header.revision} needs ${fixed}`,
    );
  }
  // A path may run up to the mappings, which come behind it.
  const arraysAt = header.mappings.length > 0 ? header.mappings[0]!.offset - node.start : node.lenBytes;
  if (arraysAt < fixed) {
    throw new IortError(
      node.start + NODE_MAPPING_OFFSET_AT,
      `ID mappings at node offset ${hex(arraysAt)} overlap the node's own fields, which end at ${hex(fixed)}`,
    );
  }
  switch (type) {
    case IORT_NODE.ITS_GROUP: {
      const count = node.u32(0x10);
      node.array(0x10, 'ITS identifiers', fixed, count, 4, fixed);
      const identifiers = Array.from({ length: count }, (_, i) => node.u32(fixed + 4 * i));
      return { ...header, type: 'its-group', identifiers };
    }
    case IORT_NODE.NAMED_COMPONENT:
      return {
        ...header,
        type: 'named-component',
        flags: node.u32(0x10),
        memoryAddressSize: node.u8(0x1c),
        path: node.path(fixed, arraysAt),
      };
    case IORT_NODE.ROOT_COMPLEX:
      return {
        ...header,
        type: 'root-complex',
        atsAttribute: node.u32(0x18),
        segment: node.u32(0x1c),
        memoryAddressSize: header.revision >= 1 ? node.u8(0x20) : 0,
      };
    case IORT_NODE.SMMU:
      return readSmmu(node, header, fixed);
    case IORT_NODE.SMMUV3:
      return readSmmuv3(node, header);
    case IORT_NODE.PMCG:
      return { ...header, type: 'pmcg', nodeReference: node.u32(0x1c) };
    case IORT_NODE.RMR: {
      const rmr = readRmr(node, header, fixed);
      if (rmr.type === 'rmr') rejectSharedBytes(node, header, rmr.descriptors);
      return rmr;
    }
    case IORT_NODE.IWB:
      return {
        ...header,
        type: 'iwb',
        base: node.address(0x10, 'IWB base'),
        path: node.path(fixed, arraysAt),
      };
    default:
      return { ...header, type: 'unknown', nodeType: type };
  }
}
