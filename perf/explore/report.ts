/** What a campaign has to say, as JSON: one process's part of it, or several merged (merge.ts). */
import { readFileSync } from 'node:fs';
import type { CampaignResult, Failure } from './engine/messages.js';

export const REPORT_VERSION = 1;

/** A campaign's report, or that of merged shards; JSON as it is. */
export interface ExploreReport {
  readonly version: typeof REPORT_VERSION;
  /** Versions of this package and of Node. */
  readonly iommufd: string;
  readonly node: string;
  readonly scenario: string;
  readonly bugs: readonly string[];
  readonly strategy: string;
  readonly seed: number;
  /** What the strategy was held to: PCT its depth, DFS its preemptions. */
  readonly bounds: { readonly depth: number; readonly preemptions: number };
  /** 'i/n', i from 0; of merged ones 'i,j/n'. */
  readonly shard: string;
  readonly schedules: number;
  readonly steps: number;
  /** Of merged shards, the sum: rates are those of one process. */
  readonly seconds: number;
  readonly schedulesPerSecond: number;
  readonly stepsPerSecond: number;
  /** Evaluations of each check. */
  readonly checks: Readonly<Record<string, number>>;
  readonly exhausted: boolean;
  /** The code did not follow its plan: nothing was proved, whatever the rest says. */
  readonly diverged: boolean;
  /** Of the set of schedules that ran: of shards, the sum is that of the whole. */
  readonly digest: string;
  readonly summary: string;
  readonly failure: Failure | null;
}

/** What a report says of its campaign that the result does not. */
export interface ReportHead {
  readonly scenario: string;
  readonly bugs: readonly string[];
  readonly strategy: string;
  readonly seed: number;
  readonly bounds: ExploreReport['bounds'];
  readonly shard: { readonly index: number; readonly count: number };
}

export function exploreReport(head: ReportHead, result: CampaignResult): ExploreReport {
  const { schedules, steps, seconds, checks, exhausted, diverged, digest, summary, failure } = result;
  return {
    version: REPORT_VERSION,
    iommufd: packageVersion(),
    node: process.version,
    scenario: head.scenario,
    bugs: [...head.bugs],
    strategy: head.strategy,
    seed: head.seed,
    bounds: head.bounds,
    shard: `${head.shard.index}/${head.shard.count}`,
    schedules,
    steps,
    seconds,
    schedulesPerSecond: perSecond(schedules, seconds),
    stepsPerSecond: perSecond(steps, seconds),
    checks,
    exhausted,
    diverged,
    digest,
    summary,
    failure,
  };
}

export const perSecond = (n: number, seconds: number): number => (seconds > 0 ? Math.round(n / seconds) : 0);

function packageVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
