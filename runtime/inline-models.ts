/**
 * The models that a machine hosts inline, stepped a turn at a time by whoever waits for them. The one that worked
 * last goes first, and while it has work the others wait: a SYNC of one SMMU of 64 must not step the other 63.
 * Every so often all of them get their turn, so that one that is always busy holds nobody up for long.
 */
export interface InlineModel {
  /** Does a bounded amount of work. @returns whether there was any */
  step(): boolean;
}

/** Turns, one of which goes to all. */
const ALL_EVERY = 16;

export class InlineModels {
  readonly #models: readonly InlineModel[];
  /** Who worked last. */
  #hot = 0;
  #turn = 0;

  constructor(models: readonly InlineModel[]) {
    this.#models = models;
  }

  /** @returns whether any of them had work; false is said only after all were asked */
  step(): boolean {
    const models = this.#models;
    this.#turn = (this.#turn + 1) % ALL_EVERY;
    if (this.#turn !== 0 && models.length > 1 && models[this.#hot]!.step()) return true;
    let worked = false;
    for (let i = 0; i < models.length; i++) {
      if (!models[i]!.step()) continue;
      worked = true;
      this.#hot = i;
    }
    return worked;
  }
}
