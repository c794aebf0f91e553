/**
 * What a strategy is: before each schedule it writes the plan, after it it may look at the log. The choices
 * themselves are made step by step in whichever thread runs (engine/chooser.ts), from the plan.
 */
import {
  type ControlMemory,
  D,
  H,
  MAX_PLAN,
  POLICY_CONTINUE,
  POLICY_PCT,
  POLICY_RANDOM,
  T,
} from '../engine/control.js';

export const POLICIES = { continue: POLICY_CONTINUE, random: POLICY_RANDOM, pct: POLICY_PCT } as const;

/** What a strategy may decide of the next schedule. */
export class Plan {
  readonly #control: ControlMemory;

  constructor(control: ControlMemory) {
    this.#control = control;
  }

  /** Of the scenario. */
  get threads(): number {
    return this.#control.i32[H.threads]!;
  }

  /** What chooses where the choices given here end. */
  set policy(policy: keyof typeof POLICIES) {
    this.#control.i32[H.policy] = POLICIES[policy];
  }

  /** Of POLICY random, and of what PCT leaves to chance; not 0. */
  set seed(seed: number) {
    this.#control.i32[H.random] = seed | 0 || 1;
  }

  /**
   * The first choices, one a decision; -1 leaves one to the policy. A run to which they do not fit is diverged.
   * @throws RangeError too many
   */
  set choices(choices: ArrayLike<number>) {
    this.#set(choices, true);
  }

  /** The same, but what does not fit is left to the policy. */
  set hints(choices: ArrayLike<number>) {
    this.#set(choices, false);
  }

  #set(choices: ArrayLike<number>, strict: boolean): void {
    if (choices.length > MAX_PLAN) throw new RangeError(`${choices.length} choices are too many`);
    for (let i = 0; i < choices.length; i++) this.#control.i32[this.#control.plan(i)] = choices[i]!;
    this.#control.i32[H.planLength] = choices.length;
    this.#control.i32[H.planStrict] = strict ? 1 : 0;
  }

  /** PCT: priorities (higher runs first, all at least 0), and decisions at which whoever runs falls behind all. */
  setPriorities(priorities: readonly number[], changePoints: readonly number[]): void {
    const { i32 } = this.#control;
    priorities.forEach((priority, thread) => {
      i32[this.#control.thread(thread) + T.priority] = priority;
    });
    changePoints.forEach((decision, k) => {
      i32[this.#control.plan(k)] = decision;
    });
    i32[H.changePoints] = changePoints.length;
    // They lie where planned choices would.
    i32[H.planLength] = 0;
    i32[H.planStrict] = 0;
  }
}

/** One schedule as it went. */
export class Run {
  readonly #control: ControlMemory;

  constructor(control: ControlMemory) {
    this.#control = control;
  }

  /** Decisions made. */
  get length(): number {
    return this.#control.i32[H.decisions]!;
  }

  get steps(): number {
    return this.#control.i32[H.steps]!;
  }

  /** A planned choice was not possible. */
  get diverged(): boolean {
    return this.#control.i32[H.diverged] !== 0;
  }

  /** A thread, or thread | (entry + 1) << 8: that store of its buffer became visible. */
  choice(decision: number): number {
    return this.#control.i32[this.#control.decision(decision) + D.choice]!;
  }

  /** Of the access that was chosen: where, and OP_*. */
  offset(decision: number): number {
    return this.#control.i32[this.#control.decision(decision) + D.offset]! >>> 0;
  }

  op(decision: number): number {
    return this.#control.i32[this.#control.decision(decision) + D.info]! & 255;
  }

  /** The thread that ran before the decision. */
  current(decision: number): number {
    return this.#control.i32[this.#control.decision(decision) + D.info]! >>> 8;
  }

  /** Threads that could have been chosen, as bits. */
  enabled(decision: number): number {
    return this.#control.i32[this.#control.decision(decision) + D.enabled]! & 0xfff;
  }

  /** Stores that could have become visible instead. */
  stores(decision: number): number {
    return this.#control.i32[this.#control.decision(decision) + D.stores]! & 1023;
  }

  /** Which of them was chosen, where one was; and which is the first of the same thread. */
  store(decision: number): number {
    return (this.#control.i32[this.#control.decision(decision) + D.stores]! >>> 10) & 1023;
  }

  firstStore(decision: number): number {
    return this.#control.i32[this.#control.decision(decision) + D.stores]! >>> 20;
  }

  /** Whether a thread could have gone on that ran before: another one is then a preemption. Who begins is not. */
  couldGoOn(decision: number): boolean {
    return decision > 0 && (this.enabled(decision) & (1 << this.current(decision))) !== 0;
  }

  /** Site of the chosen access, 20 bits, where sites are recorded. */
  site(decision: number): number {
    return this.#control.i32[this.#control.decision(decision) + D.enabled]! >>> 12;
  }

  choices(): Int32Array {
    return Int32Array.from({ length: this.length }, (_, i) => this.choice(i));
  }

  /** Decisions at which somebody else than the thread that could have gone on was chosen. */
  get preemptions(): number {
    let n = 0;
    for (let i = 0; i < this.length; i++) {
      const choice = this.choice(i);
      if (choice < 256 && choice !== this.current(i) && this.couldGoOn(i)) n++;
    }
    return n;
  }
}

export interface StrategyOptions {
  readonly threads: number;
  readonly seed: number;
  /** PCT: depth of the bug looked for, and how many steps a schedule has, about. */
  readonly depth: number;
  /** Bounded DFS: preemptions at most. */
  readonly preemptions: number;
  /** DFS: leaves out what provably leads to the same. Default true. */
  readonly reduce?: boolean;
  /** Of a replay. */
  readonly choices?: readonly number[];
  /** Part i of n of a campaign, from 0. */
  readonly shard: { readonly index: number; readonly count: number };
}

export interface Strategy {
  readonly name: string;
  /** Whether the sites of accesses are to be recorded: costs a few microseconds a step. */
  readonly wantsSites?: boolean;
  /** The schedule planned last is only to see what there is: it is another shard's, and not counted. */
  readonly scouts?: boolean;
  /** The code did not go as it went before under the same choices. */
  readonly diverged?: boolean;
  /** Plans the next schedule. @returns false when there is none left */
  next(plan: Plan): boolean;
  /** Sees how it went. */
  learn?(run: Run, failed: boolean): void;
  /** For the report, in words: what was covered, with what probability a bug would have been seen. */
  summary(): string;
}
