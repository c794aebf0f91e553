/** A sweep: every point several times, in an order that a seed decides, one at a time on a pool of one thread. */
import { MessageChannel } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { ScaleData, ScaleParams, ScaleRepeat } from '../report/scale-data.js';
import { Random } from '../stress/random.js';
import { runVersions } from '../stress/versions.js';
import type { ScaleOptions } from './options.js';
import type { PointOutcome } from './point-task.js';

export interface ScaleProgress {
  readonly done: number;
  readonly of: number;
  readonly params: ScaleParams;
  readonly outcome: PointOutcome;
}

/**
 * @param listener  told after each measurement
 * @param signal    ends the measurement under way, which then does not count
 */
export async function runScale(
  { points, repeats, durationS, seed, told }: ScaleOptions,
  listener: (progress: ScaleProgress) => void,
  signal: AbortSignal,
): Promise<ScaleData> {
  const versions = runVersions();
  const taken = points.map((): { repeats: ScaleRepeat[]; error?: string } => ({ repeats: [] }));
  const order = shuffled(points.length * repeats, seed);
  const pool = new Piscina({
    filename: new URL('./point-task.js', import.meta.url).href,
    minThreads: 1,
    maxThreads: 1,
  });
  try {
    for (const [done, turn] of order.entries()) {
      if (signal.aborted) break;
      const index = turn % points.length;
      const params = points[index]!;
      const outcome = await measure(pool, { params, durationS, seed: (seed + turn) >>> 0 }, signal);
      if (signal.aborted) break;
      if ('error' in outcome) taken[index]!.error = outcome.error;
      else taken[index]!.repeats.push(outcome);
      listener({ done: done + 1, of: order.length, params, outcome });
    }
  } finally {
    await pool.destroy();
  }
  return {
    report: 'iommufd-scale',
    version: 1,
    versions,
    options: told,
    points: points.flatMap((params, i) => {
      const point = { params, ...taken[i]! };
      // Interrupted before its first turn: nothing to tell.
      return point.repeats.length === 0 && point.error === undefined ? [] : [point];
    }),
  };
}

async function measure(
  pool: Piscina,
  task: { params: ScaleParams; durationS: number; seed: number },
  signal: AbortSignal,
): Promise<PointOutcome> {
  const { port1, port2 } = new MessageChannel();
  const cancel = (): void => port1.postMessage('cancel');
  signal.addEventListener('abort', cancel, { once: true });
  try {
    return (await pool.run({ ...task, cancel: port2 }, { transferList: [port2] })) as PointOutcome;
  } finally {
    signal.removeEventListener('abort', cancel);
    port1.close();
  }
}

/** The numbers below n, in an order that a seed decides. */
function shuffled(n: number, seed: number): number[] {
  const random = new Random(seed);
  const numbers = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [numbers[i], numbers[j]] = [numbers[j]!, numbers[i]!];
  }
  return numbers;
}
