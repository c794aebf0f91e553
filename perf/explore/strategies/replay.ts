/** The same schedule again: choice by choice. Where the choices end, whoever runs goes on. */
import type { Plan, Run, Strategy, StrategyOptions } from './strategy.js';

export class ReplayStrategy implements Strategy {
  readonly name = 'replay';
  readonly #choices: readonly number[];
  #done = false;
  #diverged = false;

  constructor(options: StrategyOptions) {
    this.#choices = options.choices ?? [];
  }

  next(plan: Plan): boolean {
    if (this.#done) return false;
    this.#done = true;
    plan.policy = 'continue';
    plan.choices = this.#choices;
    return true;
  }

  learn(run: Run): void {
    this.#diverged = run.diverged;
  }

  summary(): string {
    return this.#diverged
      ? 'a choice of the schedule was not possible: the code is not what it was recorded from'
      : `the schedule as recorded, ${this.#choices.length} choices`;
  }
}
