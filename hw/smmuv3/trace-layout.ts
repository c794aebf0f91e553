/**
 * What a report needs to tell how a translation came about: the last walks, the last commands and the last
 * SYNC completions of one unit (key `trace:N`, optional), and the machine-wide logical clock that orders them
 * over all units (key `clock`).
 *
 * Sole writer: the pIOMMU. A record's first word is its number, set to 0 before the record is rewritten and
 * to the new number after; a reader takes the record only when the number is what it looked for, before and
 * after copying.
 */
import { layout, line, raw, u32 } from '../memory/layout.js';

/** tick: any thread adds one and owns the value it saw; never read as a time. */
export const ClockLayout = layout('clock', 1, { tick: line(u32()) });

export const WALK_RECORDS = 65_536;
export const COMMAND_RECORDS = 16_384;
export const SYNC_RECORDS = 4_096;

/** One successful walk; its slot is seq modulo WALK_RECORDS. Pages are 4 KiB units. */
export const WalkRecord = layout('walk-record', 1, {
  /** fillSeq of the walk. */
  seq: u32(),
  sid: u32(),
  iovaPageLo: u32(),
  iovaPageHi: u32(),
  ipaPageLo: u32(),
  ipaPageHi: u32(),
  paPageLo: u32(),
  paPageHi: u32(),
  tick: u32(),
});

/** One consumed command; its slot is (seq - 1) modulo COMMAND_RECORDS, seq counts from 1. */
export const CommandRecord = layout('command-record', 1, {
  seq: u32(),
  word0: u32(),
  word1: u32(),
  word2: u32(),
  word3: u32(),
  /** CMDQ_CONS.RD at the command. */
  index: u32(),
  /** When it was consumed; for a SYNC, when it was fetched. */
  tick: u32(),
});

/** One completed SYNC; its slot is (seq - 1) modulo SYNC_RECORDS, seq is syncSeq after it. */
export const SyncRecord = layout('sync-record', 1, {
  seq: u32(),
  index: u32(),
  gen: u32(),
  /** When it completed. */
  tick: u32(),
});

export const TraceLayout = layout('trace', 1, {
  /** Number of the last command. */
  commandSeq: line(u32()),
  walks: raw(WalkRecord.size * WALK_RECORDS),
  commands: raw(CommandRecord.size * COMMAND_RECORDS),
  syncs: raw(SyncRecord.size * SYNC_RECORDS),
});
