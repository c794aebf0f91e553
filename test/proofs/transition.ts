/**
 * One entry replaced by another: the driver's own writer runs under a hook that notes its stores, barriers and syncs;
 * then every fetch that can meet them is judged by what the SMMU would do with it.
 */
import { Words } from '../../hw/sync/words.js';
import { cdWriter } from '../../runtime/drivers/smmuv3/cd.js';
import { type EntryWriter, writeEntry } from '../../runtime/drivers/smmuv3/entry-writer.js';
import { steWriter } from '../../runtime/drivers/smmuv3/ste-writer.js';
import { recordStores } from '../kit/store-recorder.js';
import { exploreFetch, type FetchedImage, type WriterEvent } from './fetch-interleavings.js';
import { type Behaviour, cdBehaviour, type Image, steBehaviour } from './ste-behaviour.js';

export type EntryKind = 'ste' | 'cd';

/** Replaces the entry by `target`; writeEntry, or a defective one. */
export type WriteEntry = (writer: EntryWriter, target: Image) => number;

export interface Mixture {
  readonly image: FetchedImage;
  readonly behaviour: Behaviour;
}

export interface Verdict {
  readonly syncs: number;
  /** At some sync word 0 was zero: what Linux's KUnit cases call not hitless. */
  readonly zeroed: boolean;
  readonly interleavings: bigint;
  /** Different images, and how many of them act as the old entry, as the new one, or are V = 0 between the two. */
  readonly images: number;
  readonly old: number;
  readonly fresh: number;
  readonly invalid: number;
  /** Of old and fresh: but for EATS or MEV, which are those of the other entry. */
  readonly relaxed: number;
  /** Anything else, which nobody asked for. */
  readonly mixtures: readonly Mixture[];
  readonly arrives: boolean;
  /** How the writer went: words by number. */
  readonly steps: string;
}

const AT = 64;

/** What the writer does, in order. */
export function recordWriter(
  kind: EntryKind,
  from: Image,
  to: Image,
  write: WriteEntry = writeEntry,
): WriterEvent[] {
  const words = new Words(new SharedArrayBuffer(256));
  from.forEach((value, i) => {
    words.store64(AT + i * 8, value);
  });
  const events: WriterEvent[] = [];
  const sync = (): number => {
    events.push('sync');
    return 0;
  };
  const writer = kind === 'ste' ? steWriter(words, AT, sync) : cdWriter(words, AT, sync);
  recordStores(
    [AT, AT + 64],
    () => write(writer, to),
    (stored) => {
      events.push(stored === 'barrier' ? stored : { word: (stored.offset - AT) / 8, value: stored.value });
    },
  );
  return events;
}

/** EATS may change by itself: ATS is off at the device meanwhile. Not with S1CHK, nor beside S2S. [IHI0070] 5.2 */
function atsIsFree(from: Image, to: Image): boolean {
  const s1chk = ((from[1]! | to[1]!) >> 29n) & 1n;
  const s2s = ((from[2]! | to[2]!) >> 57n) & 1n;
  return s1chk === 0n && s2s === 0n;
}

export function judge(kind: EntryKind, from: Image, to: Image, write: WriteEntry = writeEntry): Verdict {
  const events = recordWriter(kind, from, to, write);
  const { images, interleavings, final } = exploreFetch(from, events);
  const behave = kind === 'ste' ? steBehaviour : cdBehaviour;
  const old = behave(from);
  const fresh = behave(to);
  const free = kind === 'cd' || atsIsFree(from, to);
  const acts = (seen: Behaviour, as: Behaviour): boolean =>
    seen.does === as.does &&
    (seen.ats === as.ats || (free && (seen.ats === old.ats || seen.ats === fresh.ats)));
  const counts = { old: 0, fresh: 0, invalid: 0, relaxed: 0 };
  const mixtures: Mixture[] = [];
  for (const image of images) {
    const seen = behave(image.words);
    const as = acts(seen, fresh) ? fresh : acts(seen, old) ? old : null;
    if (as === null) {
      if (seen.invalid) counts.invalid++;
      else mixtures.push({ image, behaviour: seen });
      continue;
    }
    if (as === fresh) counts.fresh++;
    else counts.old++;
    if (seen.ats !== as.ats || seen.mev !== as.mev) counts.relaxed++;
  }
  return {
    ...counts,
    syncs: events.filter((event) => event === 'sync').length,
    zeroed: zeroAtSync(from, events),
    interleavings,
    images: images.length,
    mixtures,
    arrives: final.every((word, i) => word === to[i]),
    steps: stepsOf(events),
  };
}

function zeroAtSync(from: Image, events: readonly WriterEvent[]): boolean {
  let word0 = from[0];
  for (const event of events) {
    if (event === 'sync' && word0 === 0n) return true;
    if (typeof event === 'object' && event.word === 0) word0 = event.value;
  }
  return false;
}

const stepsOf = (events: readonly WriterEvent[]): string =>
  events
    .filter((event) => event !== 'barrier')
    .map((event) => (event === 'sync' ? ';' : String(event.word)))
    .join(' ')
    .replaceAll(' ;', ';')
    .replace(/;$/, '');
