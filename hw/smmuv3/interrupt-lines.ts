/**
 * The wired interrupt outputs of one SMMU, as an observer on any thread sees them. [IHI0070] 3.18.2. Edges: each
 * observer keeps its own count of them, so several may look and none takes anything from another.
 */
import type { SyncEnv } from '../sync/thread.js';
import { NEVER, waitUntil } from '../sync/wait.js';
import type { Smmuv3Regions } from './regions.js';
import { Smmuv3Layout } from './smmuv3-layout.js';

export type InterruptSource = 'eventq' | 'priq' | 'gerror' | 'cmd-sync' | 'companion';

const at = Smmuv3Layout.at;
const COUNTERS: ReadonlyArray<readonly [InterruptSource, number]> = [
  ['eventq', at.irqEventq],
  ['priq', at.irqPriq],
  ['gerror', at.irqGerror],
  ['cmd-sync', at.irqCmdSync],
  ['companion', at.irqCompanion],
];

export class InterruptLines {
  readonly #env: SyncEnv;
  readonly #base: number;
  readonly #seen: number[];

  /** Edges from here on are reported. */
  constructor(env: SyncEnv, regions: Pick<Smmuv3Regions, 'smmu'>) {
    this.#env = env;
    this.#base = regions.smmu;
    this.#seen = COUNTERS.map(([, counter]) => env.words.load(this.#base + counter));
  }

  /** Which lines fired since the last call, each once however often it fired. */
  take(): InterruptSource[] {
    const fired: InterruptSource[] = [];
    COUNTERS.forEach(([source, counter], i) => {
      const now = this.#env.words.load(this.#base + counter);
      if (now === this.#seen[i]) return;
      this.#seen[i] = now;
      fired.push(source);
    });
    return fired;
  }

  /** Whether take() would report any. */
  pending(): boolean {
    return COUNTERS.some(([, counter], i) => this.#env.words.load(this.#base + counter) !== this.#seen[i]);
  }

  /**
   * Sleeps until a line fires; for a thread of its own.
   * @param owner  thread that hosts the model, so that its death ends the wait
   * @returns 0 | -ETIMEDOUT | -EOWNERDEAD
   */
  wait(deadlineNs = NEVER, owner?: () => number): number {
    const { words } = this.#env;
    return waitUntil(
      this.#env,
      this.#base + at.irq,
      () => this.pending(),
      deadlineNs,
      owner,
      (delta) => words.add(this.#base + at.irqParked, delta),
    );
  }
}
