/**
 * Every way in which a fetch of a table entry can meet a sequence of stores.
 *
 *   writer     stores | barriers | syncs, in program order
 *   memory     a store becomes visible some time after it is made. Those between two barriers in any order, those to
 *              one word in their own order; a sync waits for all before it
 *   fetch      each word once, a single 64-bit read, in any order; a later phase (what a pointer leads to) only after
 *              the phase before. It may begin and end anywhere, and what it read may be cached and used; but a sync
 *              completes only when no fetch that began before it is under way and nothing that it read is left
 *
 * So a fetch belongs to one *epoch*, the time between the completions of two syncs, and the stores of that epoch alone
 * happen beside it. Epochs are explored one by one: every order of its stores becoming visible and of the reads. Reads
 * of words that nothing stores to in the epoch commute with everything; they are counted, not tried. Stores of the value
 * that is there already are left out.
 *
 * [IHI0070] 3.21.1 (64-bit atomicity, any order of fetches), 4.6.3 and 4.8 (completion of CFGI and SYNC).
 */
export interface EntryStore {
  readonly word: number;
  readonly value: bigint;
}

export type WriterEvent = EntryStore | 'barrier' | 'sync';

/** Words that a fetch reads, phase by phase. */
export type FetchPhases = readonly (readonly number[])[];

/** The eight words of an STE or a CD. */
export const ENTRY_FETCH: FetchPhases = [[0, 1, 2, 3, 4, 5, 6, 7]];

/** What a fetch can have read, all words. */
export interface FetchedImage {
  readonly words: readonly bigint[];
  /** The first epoch in which it can be read: 0 is before the first sync. */
  readonly epoch: number;
}

export interface Exploration {
  /** Different images. */
  readonly images: readonly FetchedImage[];
  /** Orders of stores becoming visible and of reads, over all epochs. */
  readonly interleavings: bigint;
  /** What memory holds at the end. */
  readonly final: readonly bigint[];
}

interface EpochStore extends EntryStore {
  /** Barriers of the epoch before it. */
  readonly group: number;
}

function epochsOf(events: readonly WriterEvent[]): EpochStore[][] {
  const epochs: EpochStore[][] = [[]];
  let group = 0;
  for (const event of events) {
    if (event === 'sync') {
      epochs.push([]);
      group = 0;
    } else if (event === 'barrier') group++;
    else epochs.at(-1)!.push({ ...event, group });
  }
  return epochs;
}

function withoutSilent(memory: readonly bigint[], stores: readonly EpochStore[]): EpochStore[] {
  const now = [...memory];
  return stores.filter(({ word, value }) => {
    const changes = now[word] !== value;
    now[word] = value;
    return changes;
  });
}

/** @param before  memory when the writer begins: all words that the fetch reads */
export function exploreFetch(
  before: readonly bigint[],
  events: readonly WriterEvent[],
  phases: FetchPhases = ENTRY_FETCH,
): Exploration {
  const memory = [...before];
  const images = new Map<string, FetchedImage>();
  let interleavings = 0n;
  epochsOf(events).forEach((stores, epoch) => {
    const changing = withoutSilent(memory, stores);
    const explored = new Epoch(memory, changing, phases, (words) => {
      const key = words.join();
      if (!images.has(key)) images.set(key, { words, epoch });
    });
    interleavings += explored.run();
    for (const { word, value } of stores) memory[word] = value;
  });
  return { images: [...images.values()], interleavings, final: memory };
}

const UNREAD = -1;

class Epoch {
  readonly #before: readonly bigint[];
  readonly #stores: readonly EpochStore[];
  readonly #emit: (words: bigint[]) => void;
  /** Words that are stored to, by phase; and how many others there are in it. */
  readonly #racing: readonly (readonly number[])[];
  readonly #others: readonly number[];
  readonly #memo = new Map<string, bigint>();

  constructor(
    before: readonly bigint[],
    stores: readonly EpochStore[],
    phases: FetchPhases,
    emit: (words: bigint[]) => void,
  ) {
    this.#before = [...before];
    this.#stores = stores;
    this.#emit = emit;
    const stored = new Set(stores.map(({ word }) => word));
    this.#racing = phases.map((words) => words.filter((word) => stored.has(word)));
    this.#others = phases.map((words, i) => words.length - this.#racing[i]!.length);
  }

  /** @returns how many interleavings there are */
  run(): bigint {
    return this.#orders(0, new Array<number>(this.#before.length).fill(UNREAD), [...this.#others]);
  }

  /**
   * @param visible  a bit for each store
   * @param read     by word: how many stores to it were visible when it was read, or UNREAD
   * @param others   by phase: reads still to be made that race with nothing
   */
  #orders(visible: number, read: number[], others: number[]): bigint {
    const key = `${visible}/${read.join()}/${others.join()}`;
    const known = this.#memo.get(key);
    if (known !== undefined) return known;
    let orders = 0n;
    const phase = this.#racing.findIndex(
      (words, i) => others[i]! > 0 || words.some((word) => read[word] === UNREAD),
    );
    if (phase < 0) this.#emit(this.#image(read));
    else {
      if (others[phase]! > 0)
        orders +=
          BigInt(others[phase]!) * this.#orders(visible, read, replaced(others, phase, others[phase]! - 1));
      for (const word of this.#racing[phase]!)
        if (read[word] === UNREAD)
          orders += this.#orders(visible, replaced(read, word, this.#versions(word, visible)), others);
    }
    const all = 2 ** this.#stores.length - 1;
    for (let i = 0; i < this.#stores.length; i++)
      if (this.#canShow(i, visible)) orders += this.#orders(visible | (1 << i), read, others);
    if (phase < 0 && visible === all) orders = 1n;
    this.#memo.set(key, orders);
    return orders;
  }

  /** Whether store `i` is the next to become visible, or one of those. */
  #canShow(i: number, visible: number): boolean {
    if ((visible & (1 << i)) !== 0) return false;
    const { word, group } = this.#stores[i]!;
    return this.#stores.every(
      (other, j) =>
        (visible & (1 << j)) !== 0 || j === i || !(other.group < group || (other.word === word && j < i)),
    );
  }

  /** How many stores to a word are visible. */
  #versions(word: number, visible: number): number {
    return this.#stores.filter((store, i) => store.word === word && (visible & (1 << i)) !== 0).length;
  }

  #image(read: readonly number[]): bigint[] {
    return this.#before.map((value, word) => {
      const version = read[word]!;
      return version <= 0 ? value : this.#stores.filter((store) => store.word === word)[version - 1]!.value;
    });
  }
}

function replaced(list: readonly number[], at: number, value: number): number[] {
  const copy = [...list];
  copy[at] = value;
  return copy;
}
