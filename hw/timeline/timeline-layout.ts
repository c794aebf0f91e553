/**
 * What one thread did and when, for a picture of a run: a ring of the last so many events, key
 * `timeline:<track>`. Of use only to people, and only there when a machine is asked for it; what a model
 * decides never depends on it.
 *
 * Sole writer: the thread of the track. Readers come when it has stopped, so a record needs no protocol.
 */
import { array, type Field, type Layout, layout, line, raw, u32 } from '../memory/layout.js';

export const ARGS = 8;

export const TimelineRecord = layout('timeline-record', 1, {
  /** When it began, ns on a clock that all threads share: low and high word. */
  startLo: u32(),
  startHi: u32(),
  /** How long it took, ns; what is longer than 2^32 - 1 counts as that. */
  durationNs: u32(),
  /** TIMELINE_* for a model; from TIMELINE_FIRST_FREE on, whatever the program on the track says. */
  kind: u32(),
  args: array(u32(), ARGS),
});

/** @param events  how many the ring keeps, at least 1 */
export const timelineLayout = (events: number): Layout<{ count: Field; records: Field }> =>
  layout('timeline', 1, {
    /** Events recorded so far, modulo 2^32; record n is in slot n modulo `events`. */
    count: line(u32()),
    records: raw(TimelineRecord.size * events),
  });

/** Key `timelines`: how many events each ring of the machine keeps. Written once, before any thread attaches. */
export const TimelinesLayout = layout('timelines', 1, { events: u32() });
export const TIMELINES_KEY = 'timelines';

export const smmuTrack = (index: number): string => `smmu:${index}`;
export const timelineKey = (track: string): string => `timeline:${track}`;

/** Requests of one stream were translated. Args: how many, how many were walked, how many faulted, SID. */
export const TIMELINE_SERVE = 1;
/** One of the walks of the TIMELINE_SERVE that follows. Args: fillSeq, SID, IOVA page low and high, IPA page low
 *  and high, IOTLB tag (VMID | ASID << 16), log2 of the size | CONTEXT_* kind << 8. Pages are 4 KiB units. */
export const TIMELINE_WALK = 2;
/** A command was executed; a CMD_SYNC was fetched. Args: its four words, CMDQ_CONS.RD. */
export const TIMELINE_COMMAND = 3;
/** A CMD_SYNC completed. Args: syncSeq, CMDQ_CONS.RD, generation. */
export const TIMELINE_SYNC = 4;
export const TIMELINE_FIRST_FREE = 16;
