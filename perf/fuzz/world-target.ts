/** A target whose state is one world after the other: what the targets above the hardware have in common. */
import type { Random } from '../stress/random.js';
import type { Target } from './target.js';

/** A machine and what was opened on it, for one episode. */
export interface FuzzWorld {
  /** As Target has them. */
  apply(ops: Uint32Array, at: number): number;
  check(): string | null;
  close(): void;
}

export abstract class WorldTarget<W extends FuzzWorld> implements Target {
  abstract readonly name: string;
  abstract readonly kinds: readonly string[];
  readonly episodeOps = 16_384;
  readonly #make: () => W;
  #world: W | null = null;

  constructor(make: () => W) {
    this.#make = make;
  }

  /** Of this episode; for the tests of the checks. */
  get world(): W {
    return this.#world!;
  }

  /** Linux keeps what a file holds in many objects; the one way to have them as they were is to make them anew. */
  reset(): void {
    this.close();
    this.#world = this.#make();
  }

  abstract fresh(random: Random, ops: Uint32Array, at: number): void;

  apply(ops: Uint32Array, at: number): number {
    return this.#world!.apply(ops, at);
  }

  check(): string | null {
    return this.#world!.check();
  }

  close(): void {
    this.#world?.close();
    this.#world = null;
  }
}

/** @param counts  by what is counted, 0 when it is as it was. @returns what check() is to say of them */
export function leftAfterClose(counts: Readonly<Record<string, number>>): string | null {
  const wrong = Object.entries(counts).filter(([, count]) => count !== 0);
  if (wrong.length === 0) return null;
  return `left after the last close: ${wrong.map(([what, count]) => `${count} ${what}`).join(', ')}`;
}
