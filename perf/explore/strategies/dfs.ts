/**
 * Depth-first search of all schedules with few preemptions: a preemption is that another thread is chosen although
 * the one that ran could go on. Most races need one or two (Musuvathi and Qadeer, "Iterative Context Bounding for
 * Systematic Testing of Multithreaded Programs", PLDI 2007). Who begins, who follows a thread that sleeps or is
 * through, and when a kept store becomes visible are choices that cost nothing.
 *
 * The bound grows from 0, so that the first failure found has the fewest preemptions. No schedule runs twice: where a
 * choice would be one preemption too many, its prefix is put off, and the next bound begins from those prefixes. A
 * schedule with b preemptions has one b-th preemption, hence is found under one prefix; there, what is left is free.
 *
 * Reduction, of kept stores only, and on unless `reduce` is false. When a store of thread t becomes visible is seen by
 * nobody while t alone runs on, as t reads its own store either way, so that
 *   - the next to be chosen after a store of t is not t: it could have become visible after t's step as well, or be
 *     drained by it;
 *   - of stores of t that become visible together the older goes first: they are to different words, or would have
 *     been in that order anyway.
 * (A run is needed to see what may follow a store, and its thread is what goes on in it: such a run is one too many,
 * but nothing is searched below it.) Each step towards such a schedule moves a store later or swaps two, changes no thread's choice, no preemption and
 * no value that is read, and there are finitely many: every schedule has one of its kind that is searched. It takes
 * for granted that the scenario looks at RAM with kept stores through Words. Threads are not reduced: a step takes
 * along whatever its thread then does to ghost words and clock, so that steps on different words do not commute; and
 * sleep sets are not sound under a bound of preemptions (Coons, Musuvathi, McKinley, OOPSLA 2013).
 *
 * A search is one only while what a prefix leads to is always the same: each run is compared with the one that showed
 * its last choice, up to there. Code that went otherwise has diverged, and nothing is exhausted.
 *
 * Shards: a schedule descends from the one whose run showed the choice it begins with. One or two generations below
 * the first schedule of all, prefixes are dealt out by a hash, and all that descend from them go along. What lies
 * above has one owner too; the others run it only to see what there is (`scouts`).
 */
import { NTH_STORE } from '../engine/chooser.js';
import { OP_FLUSH } from '../engine/control.js';
import { IntQueue, ROOT, ScheduleTree } from './schedule-tree.js';
import type { Plan, Run, Strategy, StrategyOptions } from './strategy.js';

/** A choice still to be made instead of the one at `depth` of the schedule that ran last. */
interface Alternative {
  readonly depth: number;
  readonly choice: number;
  readonly generation: number;
  /** Hash of the run up to that choice. */
  readonly before: number;
}

export class DfsStrategy implements Strategy {
  readonly name = 'dfs';
  scouts = false;
  diverged = false;
  readonly #options: StrategyOptions;
  readonly #reduce: boolean;
  /** Generation that decides whose a schedule is. */
  readonly #dealtAt: number;
  readonly #tree = new ScheduleTree();
  /** Prefixes to begin from within this bound and the next, and their generations. */
  #roots = new IntQueue();
  #rootGenerations = new IntQueue();
  #rootBefore = new IntQueue();
  #putOff = new IntQueue();
  #putOffGenerations = new IntQueue();
  #putOffBefore = new IntQueue();
  #bound = 0;
  /** Schedules of each bound. */
  readonly #counts: number[] = [0];
  #alternatives: Alternative[] = [];
  /** The schedule that ran last, and of each of its first decisions the node in the tree. */
  #path: number[] = [];
  #nodes: number[] = [];
  #generation = 0;
  #planned = 0;
  /** What the run must come to before the last choice that is planned. */
  #before = 0;
  #exhausted = false;
  #sawStores = false;

  constructor(options: StrategyOptions) {
    this.#options = options;
    this.#reduce = options.reduce !== false;
    this.#dealtAt = Math.max(1, Math.min(2, options.preemptions));
    this.#roots.push(ROOT);
    this.#rootGenerations.push(0);
    this.#rootBefore.push(0);
  }

  next(plan: Plan): boolean {
    for (;;) {
      if (!this.#advance()) {
        this.#exhausted = true;
        return false;
      }
      const { shard } = this.#options;
      const mine = shard.count === 1 || this.#generation > this.#dealtAt || this.#isMine();
      if (!mine && this.#generation === this.#dealtAt) continue;
      this.scouts = !mine;
      break;
    }
    plan.policy = 'continue';
    plan.choices = this.#path;
    this.#planned = this.#path.length;
    return true;
  }

  learn(run: Run): void {
    if (!this.scouts) this.#counts[this.#bound]!++;
    // An alternative names a store by its place; the log has which one it is.
    const from = this.#planned;
    for (let d = Math.max(0, from - 1); d < run.length; d++) this.#path[d] = run.choice(d);
    this.#path.length = run.length;
    let before = 0;
    for (let d = 0; d < run.length; d++) {
      before = runHash(before, run.current(d), run.enabled(d), run.stores(d));
      if (d === from - 1 && before !== this.#before) this.diverged = true;
      if (d >= from && !this.#open(run, d, before)) break;
      before = runHash(before, run.choice(d), run.op(d), run.offset(d));
    }
  }

  summary(): string {
    if (this.diverged) return 'not exhaustive: what a prefix of choices led to was not always the same';
    const total = this.#counts.reduce((sum, n) => sum + n, 0);
    const each = this.#counts.map((n, bound) => `${n} with ${bound}`).join(', ');
    const { preemptions, shard } = this.#options;
    const part = shard.count === 1 ? '' : ` of shard ${shard.index}/${shard.count}`;
    const reduced = this.#reduce && this.#sawStores ? '; kept stores reduced' : '';
    if (this.#exhausted)
      return `exhaustive up to ${preemptions} preemptions: ${total} schedules${part} (${each}${reduced})`;
    const open = this.#alternatives.length + this.#roots.length;
    return `not exhaustive: ${total} schedules${part} (${each}${reduced}), at least ${open} left with ${this.#bound} preemptions`;
  }

  /** Makes the next prefix #path. @returns false when there is none */
  #advance(): boolean {
    const alternative = this.#alternatives.pop();
    if (alternative !== undefined) {
      this.#path.length = alternative.depth;
      this.#nodes.length = Math.min(this.#nodes.length, alternative.depth);
      this.#path.push(alternative.choice);
      this.#generation = alternative.generation;
      this.#before = alternative.before;
      return true;
    }
    if (this.#roots.length === 0) {
      if (this.#bound === this.#options.preemptions) return false;
      this.#bound++;
      this.#counts.push(0);
      this.#roots = this.#putOff;
      this.#rootGenerations = this.#putOffGenerations;
      this.#rootBefore = this.#putOffBefore;
      this.#putOff = new IntQueue();
      this.#putOffGenerations = new IntQueue();
      this.#putOffBefore = new IntQueue();
    }
    const root = this.#roots.shift();
    if (root === undefined) return this.#bound === this.#options.preemptions ? false : this.#advance();
    this.#nodes = this.#tree.path(root);
    this.#path = this.#nodes.map((node) => this.#tree.choice(node));
    this.#generation = this.#rootGenerations.shift()!;
    this.#before = this.#rootBefore.shift()!;
    return true;
  }

  /** What else could have been chosen at a decision of the run. @returns whether to look at what comes after it */
  #open(run: Run, depth: number, before: number): boolean {
    const chosen = run.choice(depth);
    const generation = Math.min(this.#generation + 1, this.#dealtAt + 1);
    const afterStore = depth > 0 && run.op(depth - 1) === OP_FLUSH;
    const current = run.current(depth);
    const preempts = run.couldGoOn(depth);
    const enabled = run.enabled(depth);
    let firstStore = 0;
    let lastStore = 0;
    let storer = -1;
    if (this.#reduce && afterStore) {
      storer = run.choice(depth - 1) & 255;
      firstStore = run.firstStore(depth - 1);
      lastStore = run.store(depth - 1);
    }
    if (run.stores(depth) > 0) this.#sawStores = true;
    for (let n = run.stores(depth) - 1; n >= 0; n--)
      // Places of the same thread's older stores are as they were before.
      if (n < firstStore || n >= lastStore) this.#later({ depth, choice: NTH_STORE + n, generation, before });
    for (let thread = 31; thread >= 0; thread--) {
      if ((enabled & (1 << thread)) === 0 || thread === chosen || thread === storer) continue;
      if (!preempts || thread === current) this.#later({ depth, choice: thread, generation, before });
      else this.#putOffTo({ depth, choice: thread, generation, before });
    }
    return chosen !== storer;
  }

  #later(alternative: Alternative): void {
    this.#alternatives.push(alternative);
  }

  #putOffTo({ depth, choice, generation, before }: Alternative): void {
    if (this.#bound === this.#options.preemptions) return;
    for (let d = this.#nodes.length; d < depth; d++)
      this.#nodes.push(this.#tree.add(d === 0 ? ROOT : this.#nodes[d - 1]!, this.#path[d]!));
    this.#putOff.push(this.#tree.add(depth === 0 ? ROOT : this.#nodes[depth - 1]!, choice));
    this.#putOffGenerations.push(generation);
    this.#putOffBefore.push(before);
  }

  #isMine(): boolean {
    const { index, count } = this.#options.shard;
    let hash = 0x811c9dc5;
    for (const choice of this.#path) hash = Math.imul(hash ^ choice, 0x01000193);
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    return ((hash ^ (hash >>> 16)) >>> 0) % count === index;
  }
}

function runHash(hash: number, a: number, b: number, c: number): number {
  let x = Math.imul(hash ^ a, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13) ^ b, 0xc2b2ae35);
  x = Math.imul(x ^ (x >>> 15) ^ c, 0x01000193);
  return x ^ (x >>> 16);
}
