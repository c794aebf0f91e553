/** A seeded generator for random tests (mulberry32), and the seed of this run: `SEED` from the environment, or new. */
export const SEED = Number(process.env.SEED ?? Date.now() % 0x7fff_ffff) >>> 0;

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** 0 <= result < n, n at most 2^32 */
  below(n: number): number {
    return Math.floor((this.u32() / 2 ** 32) * n);
  }

  chance(p: number): boolean {
    return this.u32() / 2 ** 32 < p;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  /** `bits` random bits. */
  big(bits: number): bigint {
    return ((BigInt(this.u32()) << 32n) | BigInt(this.u32())) & ((1n << BigInt(bits)) - 1n);
  }
}
