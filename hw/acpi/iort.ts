/**
 * Reading an IORT, Arm's I/O remapping table. [DEN0049] issues A to E.f.
 *
 *   0x00 table header (sdt.ts)   0x24 node count   0x28 offset of the first node   0x2c reserved
 *   node, node, ...              each: 16-byte header, fields by type, then arrays at offsets from its start
 *
 * The table comes from firmware or a file and is not trusted: every count, length, offset and reference is
 * checked before it is followed. Nodes follow each other by their lengths, so nodes that overlap show as an
 * array that leaves its node or as a reference that hits no node's start.
 */

import { readNodeBody } from './iort-body.js';
import { hex, IortError } from './iort-error.js';
import { checkGraph } from './iort-graph.js';
import type { Iort, IortIdMapping, IortNode } from './iort-nodes.js';
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
import { IortReader } from './iort-reader.js';
import { parseSdtHeader } from './sdt.js';

/** Where the table's own fields stand, and where they end. */
const NODE_COUNT_AT = 0x24;
const NODE_OFFSET_AT = 0x28;
export const IORT_FIXED_BYTES = 0x30;

const ID_SPACE = 2 ** 32;

function readMapping(node: IortReader, type: number, at: number): IortIdMapping {
  const offset = node.start + at;
  const mapping: IortIdMapping = {
    offset,
    inputBase: node.u32(at),
    count: node.u32(at + 4) + 1,
    outputBase: node.u32(at + 8),
    outputReference: node.u32(at + MAPPING_REFERENCE_AT),
    single: (node.u32(at + 16) & MAPPING_SINGLE) !== 0,
  };
  // The flag says to ignore the count, except in an RMR, where Linux takes the count whatever the flag.
  const ranged = !mapping.single || type === IORT_NODE.RMR;
  if (!mapping.single && type !== IORT_NODE.RMR && mapping.inputBase + mapping.count > ID_SPACE) {
    throw new IortError(offset, `ID mapping input of ${mapping.count} IDs wraps past 32 bits`);
  }
  if (ranged && mapping.outputBase + mapping.count > ID_SPACE) {
    throw new IortError(offset + 8, `ID mapping output of ${mapping.count} IDs wraps past 32 bits`);
  }
  return mapping;
}

function readMappings(node: IortReader, type: number): IortIdMapping[] {
  const count = node.u32(NODE_MAPPING_COUNT_AT);
  const at = node.u32(NODE_MAPPING_OFFSET_AT);
  node.array(NODE_MAPPING_OFFSET_AT, 'ID mappings', at, count, MAPPING_BYTES, NODE_HEADER_BYTES);
  return Array.from({ length: count }, (_, i) => readMapping(node, type, at + i * MAPPING_BYTES));
}

/** The window of the node at a table offset; it holds at least the header and ends inside the table. */
function nodeWindow(table: IortReader, offset: number, index: number, count: number): IortReader {
  if (offset + NODE_HEADER_BYTES > table.lenBytes) {
    throw new IortError(
      offset,
      `truncated: node ${index} of ${count} does not fit before the table's end at ${hex(table.lenBytes)}`,
    );
  }
  const lenBytes = table.u16(offset + NODE_LENGTH_AT);
  if (lenBytes < NODE_HEADER_BYTES) {
    throw new IortError(
      offset + NODE_LENGTH_AT,
      `node length ${lenBytes} is less than a node header: the list would not advance`,
    );
  }
  if (offset + lenBytes > table.lenBytes) {
    throw new IortError(
      offset + NODE_LENGTH_AT,
      `truncated: node of ${lenBytes} bytes ends past the table's end at ${hex(table.lenBytes)}`,
    );
  }
  return table.window(offset, lenBytes);
}

/**
 * Read and check a whole table.
 * @param bytes  the table, checksum and all; bytes past its length are ignored, bytes before never touched
 * @returns its nodes, in table order; every reference in them names a node
 * @throws IortError, and nothing else, when the table is truncated, looped, overlapping or damaged
 */
export function parseIort(bytes: Uint8Array): Iort {
  const header = parseSdtHeader(bytes, 'IORT');
  if ('problem' in header) throw new IortError(header.offset, header.problem);
  if (header.length < IORT_FIXED_BYTES) {
    throw new IortError(4, `truncated: table length ${header.length} cannot hold the node count and offset`);
  }
  const table = new IortReader(bytes.subarray(0, header.length), 0, header.length);
  const count = table.u32(NODE_COUNT_AT);
  const firstAt = table.u32(NODE_OFFSET_AT);
  if (count > 0 && firstAt < IORT_FIXED_BYTES) {
    throw new IortError(NODE_OFFSET_AT, `the first node at ${hex(firstAt)} overlaps the table's header`);
  }

  const nodes: IortNode[] = [];
  let offset = firstAt;
  for (let index = 0; index < count; index++) {
    const window = nodeWindow(table, offset, index, count);
    const type = window.u8(0);
    const node = readNodeBody(window, type, {
      offset,
      revision: window.u8(NODE_REVISION_AT),
      identifier: window.u32(NODE_IDENTIFIER_AT),
      mappings: readMappings(window, type),
    });
    nodes.push(node);
    offset += window.lenBytes;
  }
  const iort: Iort = {
    revision: header.revision,
    nodes,
    byOffset: new Map(nodes.map((node) => [node.offset, node])),
    trailingBytes: count > 0 ? header.length - offset : 0,
  };
  checkGraph(iort);
  return iort;
}
