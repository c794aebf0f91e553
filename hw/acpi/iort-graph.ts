/**
 * What must hold between the nodes of an IORT: input ranges that do not overlap, references that hit nodes, no
 * way back. [DEN0049] E.f, 3.1.1 "ID mapping".
 *
 *   root complex ──┐
 *   named comp.  ──┼──► SMMU ──► ITS group          an edge is an ID mapping
 *   RMR          ──┘     (root complex, named component ──► ITS group directly: DMA untranslated)
 */
import { hex, IortError } from './iort-error.js';
import type { Iort, IortIdMapping, IortNode } from './iort-nodes.js';
import { MAPPING_REFERENCE_AT } from './iort-nodes.js';

/** A range of IDs or addresses, both ends in it, and the table offset to blame. */
export interface TableRange {
  first: number;
  last: number;
  offset: number;
}

/**
 * Refuse two ranges that share a value; of the two, the one that stands later in the table is to blame.
 * @throws IortError
 */
export function rejectOverlap(ranges: readonly TableRange[], what: string, hint = ''): void {
  const sorted = [...ranges].sort((a, b) => a.first - b.first);
  for (let i = 1; i < sorted.length; i++) {
    const [below, above] = [sorted[i - 1]!, sorted[i]!];
    if (above.first > below.last) continue;
    const [earlier, later] = below.offset < above.offset ? [below, above] : [above, below];
    throw new IortError(
      later.offset,
      `${what} ${hex(later.first)}-${hex(later.last)} overlaps ${hex(earlier.first)}-${hex(earlier.last)} of the entry at ${hex(earlier.offset)}${hint}`,
    );
  }
}

/** Linux tolerates ranges that share one ID; we do not, but say what the firmware's author probably meant. */
const OFF_BY_ONE = ' (ID Count holds the number of IDs minus one)';

/**
 * Input ranges within one node. Single mappings have no input range, nor does the mapping for an SMMUv3's own
 * DeviceID; of an RMR only the output side has a meaning.
 */
function rejectInputOverlap(node: IortNode): void {
  if (node.type === 'rmr') return;
  const ownIndex = node.type === 'smmuv3' ? node.deviceIdMapping : undefined;
  const ranges = node.mappings
    .filter((mapping, index) => !mapping.single && index !== ownIndex)
    .map((m) => ({ first: m.inputBase, last: m.inputBase + m.count - 1, offset: m.offset }));
  rejectOverlap(ranges, 'ID mapping input', OFF_BY_ONE);
}

function target(iort: Iort, mapping: IortIdMapping): IortNode {
  const node = iort.byOffset.get(mapping.outputReference);
  if (node === undefined) {
    throw new IortError(
      mapping.offset + MAPPING_REFERENCE_AT,
      `output reference ${hex(mapping.outputReference)} is not the start of a node`,
    );
  }
  return node;
}

/**
 * Walk the graph depth first. On a stack of our own: a table may chain more nodes than a call stack holds.
 * @throws IortError at the mapping that closes a cycle
 */
function rejectCycles(iort: Iort): void {
  const done = new Set<IortNode>();
  const open = new Set<IortNode>();
  for (const root of iort.nodes) {
    if (done.has(root)) continue;
    const path: { node: IortNode; next: number }[] = [{ node: root, next: 0 }];
    open.add(root);
    while (path.length > 0) {
      const step = path[path.length - 1]!;
      const mapping = step.node.mappings[step.next++];
      if (mapping === undefined) {
        path.pop();
        open.delete(step.node);
        done.add(step.node);
        continue;
      }
      const to = target(iort, mapping);
      if (open.has(to)) {
        throw new IortError(
          mapping.offset + MAPPING_REFERENCE_AT,
          `ID mapping cycle: node ${hex(step.node.offset)} maps back to node ${hex(to.offset)}`,
        );
      }
      if (done.has(to)) continue;
      open.add(to);
      path.push({ node: to, next: 0 });
    }
  }
}

/** Which types may take IDs from which: interrupts end in an ITS, DMA in an SMMU, nothing leaves the two. */
function rejectWrongTarget(from: IortNode, mapping: IortIdMapping, to: IortNode): void {
  if (to.type === 'its-group' || to.type === 'iwb' || to.type === 'unknown' || from.type === 'unknown')
    return;
  const isIommu = to.type === 'smmu' || to.type === 'smmuv3';
  if (isIommu && from.type !== 'smmu' && from.type !== 'smmuv3') return;
  throw new IortError(
    mapping.offset + MAPPING_REFERENCE_AT,
    `a ${from.type} node cannot map to the ${to.type} node at ${hex(to.offset)}`,
  );
}

/**
 * Check every relation between nodes.
 * @throws IortError naming the mapping, descriptor or reference that breaks a rule
 */
export function checkGraph(iort: Iort): void {
  for (const node of iort.nodes) {
    rejectInputOverlap(node);
    if (node.type === 'rmr') {
      const regions = node.descriptors.map((d) => ({
        first: d.start,
        last: d.start + d.length - 1,
        offset: d.offset,
      }));
      rejectOverlap(regions, 'RMR region');
    }
    if (node.type === 'pmcg' && !iort.byOffset.has(node.nodeReference)) {
      throw new IortError(
        node.offset + 0x1c,
        `PMCG node reference ${hex(node.nodeReference)} is not the start of a node`,
      );
    }
  }
  rejectCycles(iort);
  for (const node of iort.nodes) {
    for (const mapping of node.mappings) rejectWrongTarget(node, mapping, target(iort, mapping));
  }
}
