/**
 * Replacing an STE or a CD while the SMMU may be reading it, without ever showing it a mixture. [IHI0070] 3.21:
 * the SMMU fetches an entry in single 64-bit reads, in any order, and may cache it.
 *
 * Only bits that a configuration *uses* matter. Bits that the present configuration ignores can be given
 * their new values at any time; then, if just one 64-bit word still differs in used bits, storing it switches
 * from old to new at once (hitless). If two or more differ the entry has to be invalid in between (breaking).
 * After every step the SMMU is told to forget its copy, and that is waited for, before the next step.
 *
 *   hitless    fill unused -> sync -> the critical word -> sync -> clear what is unused now -> sync
 *   breaking   word 0 := 0 -> sync -> words 1..7 -> sync -> word 0 -> sync
 *
 * A barrier comes first: an entry leads to tables, and whoever changes them learns from the domain's invalidation array
 * that this stream has to hear of it; both are to be seen before any word of the entry. Between the words of a step
 * there is none, and it would not help: a fetch may have read a word before the step and read another after it. Only a
 * sync, which no fetch outlives, parts two steps; CMD_SYNC has its own barrier before the command shows.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_write_entry
 */
import { bug } from '../../../hw/memory/bug.js';

/** STEs and CDs alike: eight 64-bit words. */
export const ENTRY_QUADS = 8;

/** An entry, or a mask over one: ENTRY_QUADS words. */
export type Entry = readonly bigint[];

/** The entry in memory, and what the hardware makes of it. */
export interface EntryWriter {
  load(word: number): bigint;
  /** One 64-bit store. */
  store(word: number, value: bigint): void;
  /** Bits that the hardware looks at in this configuration. */
  used(entry: Entry): Entry;
  /** Used bits whose order of update does not matter. */
  updateSafe?(current: Entry, target: Entry): Entry;
  /** What was stored before is seen before what is stored from here on. */
  barrier(): void;
  /** Invalidates the hardware's copy and waits. @returns 0 | -ETIMEDOUT */
  sync(): number;
  /** Known bug: no barrier. */
  readonly unfenced?: boolean;
  /** Known bug: the words are replaced in one step, whatever they mean together. */
  readonly torn?: boolean;
}

const ALL = 0xffff_ffff_ffff_ffffn;

/**
 * @returns 0 | -ETIMEDOUT when a sync failed; the entry holds `target` all the same
 */
export function writeEntry(writer: EntryWriter, target: Entry): number {
  if (writer.unfenced !== true) writer.barrier();
  const current = Array.from({ length: ENTRY_QUADS }, (_, i) => writer.load(i));
  const used = writer.used(current);
  const targetUsed = writer.used(target);
  const safe = writer.updateSafe?.(current, target);

  const filled: bigint[] = [];
  const critical: number[] = [];
  for (let i = 0; i < ENTRY_QUADS; i++) {
    if ((target[i]! & ~targetUsed[i]!) !== 0n) bug(`entry sets bits in word ${i} that it does not use`);
    const relaxed = safe === undefined ? 0n : safe[i]! & targetUsed[i]! & used[i]!;
    const keep = used[i]! & ~relaxed;
    filled[i] = (current[i]! & keep) | (target[i]! & ~keep & ALL);
    if ((filled[i]! & targetUsed[i]!) !== target[i]!) critical.push(i);
  }

  const step = new Stepper(writer, current);
  if (writer.torn === true) step.to(target, 0, ENTRY_QUADS);
  else if (critical.length === 1) {
    const word = critical[0]!;
    // The next step writes this word whole: saves a sync when nothing else changes.
    filled[word] = current[word]!;
    step.to(filled, 0, ENTRY_QUADS);
    step.to(target, word, 1);
    step.to(target, 0, ENTRY_QUADS);
  } else if (critical.length > 1) {
    filled[0] = 0n;
    step.to(filled, 0, 1);
    step.to(target, 1, ENTRY_QUADS - 1);
    step.to(target, 0, 1);
  } else step.to(target, 0, ENTRY_QUADS);
  return step.status;
}

class Stepper {
  status = 0;
  readonly #writer: EntryWriter;
  readonly #now: bigint[];

  constructor(writer: EntryWriter, now: bigint[]) {
    this.#writer = writer;
    this.#now = now;
  }

  /** Stores the words that differ, then syncs; nothing when none does. */
  to(image: Entry, first: number, count: number): void {
    let changed = false;
    for (let i = first; i < first + count; i++) {
      if (this.#now[i] === image[i]) continue;
      this.#writer.store(i, image[i]!);
      this.#now[i] = image[i]!;
      changed = true;
    }
    if (!changed) return;
    const status = this.#writer.sync();
    if (this.status === 0) this.status = status;
  }
}

/** The mask that covers some fields of an entry; bit 70 is bit 6 of word 1. */
export function maskOf(...fields: readonly { readonly hi: number; readonly lo: number }[]): Entry {
  const mask = new Array<bigint>(ENTRY_QUADS).fill(0n);
  for (const { hi, lo } of fields) {
    const word = lo >> 6;
    mask[word]! |= ((1n << BigInt(hi - lo + 1)) - 1n) << BigInt(lo & 63);
  }
  return mask;
}

export const union = (...masks: readonly Entry[]): Entry =>
  Array.from({ length: ENTRY_QUADS }, (_, i) => masks.reduce((all, mask) => all | mask[i]!, 0n));
