/**
 * What a physical address of RAM is called: an SMMU's queues, stream table entries, and context descriptors, as its
 * registers and tables say when the schedule is over. What they lead to no more is an address.
 */
import type { Ram } from '../../../hw/memory/machine-memory.js';
import { CD_BYTES } from '../../../hw/smmuv3/cd.js';
import { COMMAND_BYTES } from '../../../hw/smmuv3/command.js';
import { EVENT_BYTES } from '../../../hw/smmuv3/event.js';
import { PAGE_REQUEST_BYTES } from '../../../hw/smmuv3/page-request.js';
import {
  CMDQ_BASE,
  EVENTQ_BASE,
  PRIQ_BASE,
  STRTAB_BASE,
  STRTAB_BASE_CFG,
  STRTAB_FMT_2LVL,
} from '../../../hw/smmuv3/registers.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { L1STD, L1STD_BYTES, STE, STE_BYTES } from '../../../hw/smmuv3/ste.js';

interface Range {
  readonly start: number;
  readonly bytes: number;
  /** Of each entry. */
  readonly entryBytes: number;
  readonly nameOf: (entry: number) => string;
}

const { at } = Smmuv3Layout;
const QUEUES = [
  ['cmdq', at.cmdqBase, CMDQ_BASE, COMMAND_BYTES],
  ['evtq', at.eventqBase, EVENTQ_BASE, EVENT_BYTES],
  ['priq', at.priqBase, PRIQ_BASE, PAGE_REQUEST_BYTES],
] as const;
/** Streams that are looked at for context descriptors, and those of one stream. */
const MOST_STREAMS = 4096;
const MOST_CDS_LG2 = 10;

/** @param smmus  linear offsets of their regions, each with the number of its SMMU */
export function ramNames(
  memory: Int32Array,
  ram: Ram,
  smmus: readonly { readonly number: string; readonly base: number }[],
): (pa: number) => string | null {
  const ranges = smmus.flatMap(({ number, base }) => [
    ...queueRanges(memory, number, base),
    ...streamRanges(memory, ram, number, base),
  ]);
  return (pa) => {
    const range = ranges.find(({ start, bytes }) => pa >= start && pa < start + bytes);
    if (range === undefined) return null;
    const { start, entryBytes, nameOf } = range;
    const inEntry = (pa - start) % entryBytes;
    return `${nameOf(Math.floor((pa - start) / entryBytes))}${inEntry === 0 ? '' : ` +${inEntry}`}`;
  };
}

function queueRanges(memory: Int32Array, number: string, base: number): Range[] {
  return QUEUES.map(([name, offset, register, entryBytes]) => {
    const value = quad(memory, base + offset);
    const entries = 2 ** Number(register.LOG2SIZE.get(value));
    return {
      start: Number(register.ADDR.get(value)),
      bytes: entries * entryBytes,
      entryBytes,
      nameOf: (entry) => `${name}:${number}[${entry}]`,
    };
  });
}

function streamRanges(memory: Int32Array, ram: Ram, number: string, base: number): Range[] {
  const table = Number(STRTAB_BASE.ADDR.get(quad(memory, base + at.strtabBase)));
  const cfg = memory[(base + at.strtabBaseCfg) >>> 2]!;
  const log2 = STRTAB_BASE_CFG.LOG2SIZE.get(cfg);
  if (table === 0) return [];
  const stes = (first: number, start: number, count: number): Range[] => [
    {
      start,
      bytes: count * STE_BYTES,
      entryBytes: STE_BYTES,
      nameOf: (entry) => `STE ${first + entry}`,
    },
    ...contextRanges(memory, ram, first, start, count),
  ];
  if (STRTAB_BASE_CFG.FMT.get(cfg) !== STRTAB_FMT_2LVL)
    return stes(0, table, Math.min(2 ** log2, MOST_STREAMS));
  const split = STRTAB_BASE_CFG.SPLIT.get(cfg);
  const count = 2 ** Math.max(0, log2 - split);
  const ranges: Range[] = [
    {
      start: table,
      bytes: count * L1STD_BYTES,
      entryBytes: L1STD_BYTES,
      nameOf: (entry) => `L1STD:${number}[${entry}]`,
    },
  ];
  for (let entry = 0; entry < count && ranges.length < MOST_STREAMS; entry++) {
    const words = wordsAt(memory, ram, table + entry * L1STD_BYTES, L1STD_BYTES);
    if (words === null) break;
    const span = L1STD.Span.get(words);
    if (span > 0 && span <= split + 1)
      ranges.push(...stes(entry * 2 ** split, L1STD.L2Ptr.get(words), 2 ** (span - 1)));
  }
  return ranges;
}

/** Context descriptors of streams that have any: linear tables, and the first level of others. */
function contextRanges(memory: Int32Array, ram: Ram, first: number, start: number, count: number): Range[] {
  const ranges: Range[] = [];
  for (let entry = 0; entry < count; entry++) {
    const ste = wordsAt(memory, ram, start + entry * STE_BYTES, STE_BYTES);
    if (ste === null || STE.V.get(ste) === 0 || (STE.Config.get(ste) & 1) === 0) continue;
    const table = STE.S1ContextPtr.get(ste);
    const log2 = STE.S1CDMax.get(ste);
    if (table === 0 || log2 > MOST_CDS_LG2 || STE.S1Fmt.get(ste) !== 0) continue;
    ranges.push({
      start: table,
      bytes: 2 ** log2 * CD_BYTES,
      entryBytes: CD_BYTES,
      nameOf: (ssid) => (log2 === 0 ? `CD of ${first + entry}` : `CD ${ssid} of ${first + entry}`),
    });
  }
  return ranges;
}

/** @returns null where not all of it is RAM */
function wordsAt(memory: Int32Array, ram: Ram, pa: number, bytes: number): Uint32Array | null {
  const offset = pa - ram.basePa;
  if (offset < 0 || offset + bytes > ram.bytes) return null;
  const word = (ram.linear + offset) >>> 2;
  return Uint32Array.from(memory.subarray(word, word + bytes / 4), (value) => value >>> 0);
}

const quad = (memory: Int32Array, offset: number): bigint =>
  (BigInt(memory[(offset >>> 2) + 1]! >>> 0) << 32n) | BigInt(memory[offset >>> 2]! >>> 0);
