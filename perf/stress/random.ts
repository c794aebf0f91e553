/** Marsaglia's xorshift32, seeded: the one source of chance in a stress run, one instance a thread. */
export class Random {
  #state: number;

  constructor(seed: number) {
    // Spread small seeds over the whole word, and keep clear of 0, the generator's fixed point.
    let x = (seed ^ 0x9e3779b9) >>> 0;
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b) >>> 0;
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35) >>> 0;
    this.#state = (x ^ (x >>> 16)) >>> 0 || 1;
  }

  /** 32 random bits. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** 0 <= n < bound. */
  below(bound: number): number {
    return Math.floor((this.next() / 2 ** 32) * bound);
  }

  /** True `percent` times in a hundred. */
  chance(percent: number): boolean {
    return this.next() < percent * 42_949_672.96;
  }
}
