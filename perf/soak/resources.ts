/** What a process holds, and whether it holds more and more. */
import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export interface Resources {
  /** Seconds since the soak began. */
  readonly atS: number;
  readonly rssMiB: number;
  /** JavaScript objects alive after a collection; buffers outside the heap. */
  readonly heapMiB: number;
  readonly externalMiB: number;
  /** Open file descriptors, threads, and what keeps the event loop awake. */
  readonly descriptors: number;
  readonly threads: number;
  readonly handles: number;
}

const MIB = 2 ** 20;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Linux only, as is what is counted. @param collectFirst  costs some ten milliseconds */
export function resources(atS: number, collectFirst: boolean): Resources {
  if (collectFirst) for (let i = 0; i < 3; i++) collect();
  const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage();
  return {
    atS,
    rssMiB: rss / MIB,
    heapMiB: heapUsed / MIB,
    externalMiB: (external + arrayBuffers) / MIB,
    descriptors: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    handles: process.getActiveResourcesInfo().length,
  };
}

/** How much may be gained from the first reading to the last by what no leak explains: caches, fragments. */
export const TOLERANCE = {
  rssMiB: 48,
  heapMiB: 8,
  externalMiB: 8,
  descriptors: 0,
  threads: 0,
  handles: 0,
} as const;

type Kind = keyof typeof TOLERANCE;

/**
 * Fits a line through the readings (least squares; the median of the slopes between all pairs would do as well).
 * @param readings  all taken in the same situation, warm
 * @returns what grows: growth over the whole time, beyond the tolerance
 */
export function growing(readings: readonly Resources[]): string[] {
  if (readings.length < 2) return [];
  const first = readings[0]!;
  const last = readings.at(-1)!;
  return (Object.keys(TOLERANCE) as Kind[]).flatMap((kind) => {
    const grown = slope(readings, kind) * (last.atS - first.atS);
    return grown > TOLERANCE[kind] + 0.5 && last[kind] - first[kind] > TOLERANCE[kind]
      ? [`${kind} grew by ${grown.toFixed(1)} in ${(last.atS - first.atS).toFixed(0)} s`]
      : [];
  });
}

function slope(readings: readonly Resources[], kind: Kind): number {
  const n = readings.length;
  const meanX = readings.reduce((sum, { atS }) => sum + atS, 0) / n;
  const meanY = readings.reduce((sum, reading) => sum + reading[kind], 0) / n;
  let above = 0;
  let below = 0;
  for (const reading of readings) {
    above += (reading.atS - meanX) * (reading[kind] - meanY);
    below += (reading.atS - meanX) ** 2;
  }
  return below === 0 ? 0 : above / below;
}
