/**
 * Which orderings of accesses have been seen: pairs (site of the access to a word that another thread made last, site
 * of this access), where at least one of the two is not a load. As much of a schedule as its outcome can depend on
 * from one access to the next.
 */
import { OP_LOAD } from '../../../hw/sync/words.js';
import { OP_FLUSH, OP_START } from '../engine/control.js';
import type { Run } from './strategy.js';

/** Stands for the site of a store that becomes visible. Sites have 20 bits. */
const FLUSH_SITE = 0xf_ffff;
const SITES = 2 ** 20;

/** The last access to a word, and the last one by another thread than that. */
interface Accesses {
  run: number;
  thread: number;
  site: number;
  loads: boolean;
  otherThread: number;
  otherSite: number;
  otherLoads: boolean;
}

export class Orderings {
  readonly #seen = new Set<number>();
  readonly #words = new Map<number, Accesses>();
  #runs = 0;

  get count(): number {
    return this.#seen.size;
  }

  /** @returns how many of the run's orderings are new */
  add(run: Run): number {
    const before = this.#seen.size;
    this.#runs++;
    for (let i = 0; i < run.length; i++) {
      const op = run.op(i);
      if (op === OP_START) continue;
      const site = op === OP_FLUSH ? FLUSH_SITE : run.site(i);
      this.#access(run.offset(i) >>> 2, run.choice(i) & 255, site, op === OP_LOAD);
    }
    return this.#seen.size - before;
  }

  #access(word: number, thread: number, site: number, loads: boolean): void {
    let last = this.#words.get(word);
    if (last === undefined) {
      last = { run: 0, thread: -1, site: 0, loads: true, otherThread: -1, otherSite: 0, otherLoads: true };
      this.#words.set(word, last);
    }
    if (last.run !== this.#runs) {
      last.run = this.#runs;
      last.thread = -1;
      last.otherThread = -1;
    }
    if (last.thread !== thread) {
      last.otherThread = last.thread;
      last.otherSite = last.site;
      last.otherLoads = last.loads;
      last.thread = thread;
    }
    if (last.otherThread >= 0 && !(loads && last.otherLoads)) this.#seen.add(last.otherSite * SITES + site);
    last.site = site;
    last.loads = loads;
  }
}
