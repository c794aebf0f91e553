/**
 * What led to what on one SMMU, from its timeline and those of its devices: the DMA batch whose miss made the
 * SMMU walk, the walk, the first invalidation that named what it had made, and the SYNC that completed it.
 *
 * Whether a command names a translation is asked as the checker asks it (checker/consumed-command.ts); entries
 * marked global are taken for private ones, which Linux's SMMU driver makes all of its own.
 */
import { CONTEXT_NESTED, CONTEXT_S1, CONTEXT_S2 } from '../../hw/iotlb/unit-layout.js';
import { CMD_SYNC } from '../../hw/smmuv3/command.js';
import type { TimelineEvent } from '../../hw/timeline/timeline.js';
import {
  TIMELINE_COMMAND,
  TIMELINE_SERVE,
  TIMELINE_SYNC,
  TIMELINE_WALK,
} from '../../hw/timeline/timeline-layout.js';
import { covers, type EntryTag, type TlbiFields, tlbiOf } from './checker/consumed-command.js';

/** A stretch of time on a track. */
export interface Slice {
  readonly startNs: number;
  readonly endNs: number;
}

export interface CommandSlice extends Slice {
  readonly words: readonly number[];
  readonly index: number;
}

export interface WalkSlice extends Slice {
  readonly fillSeq: number;
  readonly sid: number;
  readonly iovaPage: number;
  readonly ipaPage: number;
  readonly tag: EntryTag;
}

export interface ServeSlice extends Slice {
  readonly requests: number;
  readonly faults: number;
  readonly sid: number;
  readonly walks: readonly WalkSlice[];
}

export interface SmmuTrack {
  readonly serves: readonly ServeSlice[];
  readonly commands: readonly CommandSlice[];
  /** From the fetch of a CMD_SYNC to its completion. */
  readonly syncs: readonly (Slice & {
    readonly index: number;
    readonly seq: number;
    readonly command: number;
  })[];
}

export interface Chain {
  readonly walk: WalkSlice;
  readonly serve: ServeSlice;
  readonly dma: Slice;
  readonly invalidation: CommandSlice;
  readonly sync: Slice;
}

/** An SMMU's events put together: walks with the batch they belong to, SYNCs with their fetch. */
export function smmuTrackOf(events: Iterable<TimelineEvent>): SmmuTrack {
  const serves: ServeSlice[] = [];
  const commands: CommandSlice[] = [];
  const syncs: SmmuTrack['syncs'][number][] = [];
  let walks: TimelineEvent[] = [];
  let fetched = -1;
  for (const { startNs, durationNs, kind, args } of events) {
    const endNs = startNs + durationNs;
    switch (kind) {
      case TIMELINE_WALK:
        walks.push({ startNs, durationNs, kind, args });
        break;
      case TIMELINE_SERVE:
        serves.push({
          startNs,
          endNs,
          requests: args[0]!,
          faults: args[2]!,
          sid: args[3]!,
          // Of the oldest batch in the ring, some walks may be gone.
          walks: walks.filter((walk) => walk.startNs === startNs).map((walk) => walkOf(walk, endNs)),
        });
        walks = [];
        break;
      case TIMELINE_COMMAND:
        if ((args[0]! & 0xff) === CMD_SYNC) fetched = commands.length;
        commands.push({ startNs, endNs, words: [...args.subarray(0, 4)], index: args[4]! });
        break;
      case TIMELINE_SYNC:
        // One is under way at a time, so it is the last that was fetched.
        if (fetched >= 0)
          syncs.push({
            startNs: commands[fetched]!.startNs,
            endNs,
            seq: args[0]!,
            index: args[1]!,
            command: fetched,
          });
        fetched = -1;
        break;
    }
  }
  return { serves, commands, syncs };
}

function walkOf({ startNs, args }: TimelineEvent, endNs: number): WalkSlice {
  const kind = args[7]! >>> 8;
  const iovaPage = args[2]! + args[3]! * 2 ** 32;
  return {
    startNs,
    endNs,
    fillSeq: args[0]!,
    sid: args[1]!,
    iovaPage,
    ipaPage: args[4]! + args[5]! * 2 ** 32,
    tag: {
      vmid: args[6]! & 0xffff,
      asid: args[6]! >>> 16,
      page: iovaPage,
      sizeLg2: args[7]! & 0xff,
      global: false,
      stage1: kind === CONTEXT_S1 || kind === CONTEXT_NESTED,
      stage2: kind === CONTEXT_S2 || kind === CONTEXT_NESTED,
    },
  };
}

interface Live {
  readonly walk: WalkSlice;
  readonly serve: ServeSlice;
}

/**
 * The chains of which every link is known, in the order of their ends.
 * @param dmasOf  DMA batches of a stream, in order of time; none for a stream without a device
 * @param limit   at most so many, the last ones
 */
export function chainsOf(
  { serves, commands, syncs }: SmmuTrack,
  dmasOf: (sid: number) => readonly Slice[],
  limit: number,
): Chain[] {
  const chains: Chain[] = [];
  /** What the walks made and no command has taken away: by VMID, ASID and page, and of those the last. */
  const live = new Map<string, Live>();
  let serve = 0;
  let sync = 0;
  for (const [number, command] of commands.entries()) {
    for (; serve < serves.length && serves[serve]!.endNs <= command.startNs; serve++)
      for (const walk of serves[serve]!.walks) live.set(keyOf(walk.tag), { walk, serve: serves[serve]! });
    const tlbi = tlbiOf({ opcode: command.words[0]! & 0xff, words: command.words });
    if (tlbi === null) continue;
    while (sync < syncs.length && syncs[sync]!.command < number) sync++;
    const completion = syncs[sync];
    if (completion === undefined) break;
    for (const [key, ended] of endedBy(tlbi, live)) {
      live.delete(key);
      const dma = during(dmasOf(ended.walk.sid), ended.serve);
      if (dma === null) continue;
      chains.push({ ...ended, dma, invalidation: command, sync: completion });
      if (chains.length > 2 * limit) chains.splice(0, limit);
    }
  }
  return chains.slice(-limit);
}

const keyOf = ({ vmid, asid, page }: Pick<EntryTag, 'vmid' | 'asid' | 'page'>): string =>
  `${vmid}:${asid}:${page}`;

/** Pages that are looked up one by one; past that, all that live are looked through. */
const FEW_PAGES = 32;

function endedBy(tlbi: TlbiFields, live: ReadonlyMap<string, Live>): [string, Live][] {
  const { vmid, asid, page, pages } = tlbi;
  if (vmid !== null && asid !== null && page !== null && pages <= FEW_PAGES) {
    const ended: [string, Live][] = [];
    for (let i = 0; i < pages; i++) {
      const key = keyOf({ vmid, asid, page: page + i });
      const found = live.get(key);
      if (found !== undefined && covers(tlbi, found.walk.tag)) ended.push([key, found]);
    }
    return ended;
  }
  return [...live].filter(([, { walk }]) => covers(tlbi, walk.tag));
}

/** The batch that was under way while the SMMU served it: a device sends one at a time. */
function during(dmas: readonly Slice[], { startNs, endNs }: Slice): Slice | null {
  let low = 0;
  let high = dmas.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (dmas[middle]!.endNs < endNs) low = middle + 1;
    else high = middle;
  }
  const found = dmas[low];
  return found !== undefined && found.startNs <= startNs ? found : null;
}
