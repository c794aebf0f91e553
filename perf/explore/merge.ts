/** The parts of a campaign, run as shards by processes that know nothing of each other, as one. */
import type { CampaignResult, Failure } from './engine/messages.js';
import { type ExploreReport, perSecond } from './report.js';
import { sumOfDigests } from './strategies/digest.js';

/**
 * @returns schedules, steps, seconds and checks added up; exhausted when all are, diverged when one is; the failure of
 *   the lowest schedule number within its shard
 * @throws RangeError none are given
 */
export function mergeResults(results: readonly CampaignResult[]): CampaignResult {
  if (results.length === 0) throw new RangeError('nothing to merge');
  const sum = (of: (result: CampaignResult) => number): number =>
    results.reduce((total, result) => total + of(result), 0);
  const checks: Record<string, number> = {};
  for (const result of results)
    for (const [name, n] of Object.entries(result.checks)) checks[name] = (checks[name] ?? 0) + n;
  return {
    schedules: sum(({ schedules }) => schedules),
    steps: sum(({ steps }) => steps),
    seconds: sum(({ seconds }) => seconds),
    checks,
    exhausted: results.every(({ exhausted }) => exhausted),
    diverged: results.some(({ diverged }) => diverged),
    digest: results.map(({ digest }) => digest).reduce(sumOfDigests),
    summary: results.map(({ summary }) => summary).join('\n'),
    failure: results.map(({ failure }) => failure).reduce(earlier),
  };
}

/**
 * The reports of shards as one. It is exhausted only when none of the shards is missing.
 * @throws RangeError they are not of one campaign, or one shard is there twice
 */
export function mergeReports(reports: readonly ExploreReport[]): ExploreReport {
  const [first] = reports;
  if (first === undefined) throw new RangeError('nothing to merge');
  const shards = reports.map(({ shard }) => parseShards(shard));
  for (const report of reports)
    for (const key of [
      'version',
      'iommufd',
      'node',
      'scenario',
      'strategy',
      'seed',
      'bugs',
      'bounds',
    ] as const)
      if (JSON.stringify(report[key]) !== JSON.stringify(first[key]))
        throw new RangeError(
          `not of one campaign: ${key} is ${JSON.stringify(report[key])}, and ${JSON.stringify(first[key])}` +
            (key === 'seed' ? '; give --seed to every shard' : ''),
        );
  const { count } = shards[0]!;
  const indices = shards.flatMap((shard) => shard.indices).sort((a, b) => a - b);
  if (shards.some((shard) => shard.count !== count))
    throw new RangeError('not shards of one number of shards');
  const beyond = indices.find((index) => index >= count);
  if (beyond !== undefined) throw new RangeError(`there is no shard ${beyond}/${count}`);
  const twice = indices.find((index, i) => indices[i + 1] === index);
  if (twice !== undefined) throw new RangeError(`shard ${twice}/${count} is there twice`);
  const merged = mergeResults(reports);
  return {
    ...first,
    ...merged,
    shard: `${indices.join(',')}/${count}`,
    schedulesPerSecond: perSecond(merged.schedules, merged.seconds),
    stepsPerSecond: perSecond(merged.steps, merged.seconds),
    exhausted: merged.exhausted && indices.length === count,
  };
}

function parseShards(text: string): { readonly indices: readonly number[]; readonly count: number } {
  const [, indices, count] = /^(\d{1,6}(?:,\d{1,6})*)\/(\d{1,6})$/.exec(text) ?? [];
  if (indices === undefined) throw new RangeError(`'${text}' names no shards`);
  return { indices: indices.split(',').map(Number), count: Number(count) };
}

function earlier(a: Failure | null, b: Failure | null): Failure | null {
  if (a === null || b === null) return a ?? b;
  return b.schedule < a.schedule ? b : a;
}
