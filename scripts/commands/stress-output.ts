/**
 * What `iommufd stress` prints: for people (progress, summary, the tally as the last line), or for programs
 * (one JSON object a line and nothing else on stdout).
 */
import pc from 'picocolors';
import { renderSummary, tallyLine } from '../../perf/report/summary.js';
import { bytes } from '../../perf/report/units.js';
import { mixText } from '../../perf/stress/options.js';
import { createProgress } from '../../perf/stress/progress.js';
import type { StressListener, StressOptions, StressResult } from '../../perf/stress/types.js';
import type { Output } from '../surroundings.js';

export interface RunListener extends StressListener {
  /** The run is over; null when it threw. */
  ended(result: StressResult | null): void;
}

/** All runs together. */
export interface StressTally {
  readonly checks: number;
  readonly violations: number;
  readonly deaths: number;
  /** Runs with an injected bug that the checker did not see: too short, or no traffic that meets it. */
  readonly missed: number;
  readonly interrupted: boolean;
  /** Topologies that have no result, because of a Ctrl-C or a death. */
  readonly skipped: number;
  /** Path of the report, null when there is none. */
  readonly report: string | null;
  readonly runs: readonly StressResult[];
}

export interface StressOutput {
  listen(options: StressOptions): RunListener;
  result(tally: StressTally): void;
}

/**
 *   {"type":"started","topology":"cix-p1",...} {"type":"sample",...} {"type":"violation",...}
 *   {"type":"death",...}, and once, last, {"type":"result","checks":N,"violations":M,...,"runs":[...]}
 */
export function jsonOutput(stdout: Output): StressOutput {
  const say = (type: string, fields: object) => stdout.write(`${JSON.stringify({ type, ...fields })}\n`);
  return {
    listen(options) {
      const { topologyName: topology, topology: _, ...rest } = options;
      return {
        started: (info) =>
          say('started', { topology, options: { topologyName: topology, ...rest }, ...info }),
        sample: (sample) => say('sample', { topology, ...sample }),
        violation: (story) => say('violation', { topology, ...story }),
        death: (death) => say('death', { topology, ...death }),
        ended: () => undefined,
      };
    },
    result(tally) {
      // The samples have been said one by one; the report has them too.
      say('result', { ...tally, runs: tally.runs.map(({ samples: _, ...run }) => run) });
    },
  };
}

/** Violations told in a line as they happen; the summary tells the whole stories. */
const TOLD_LIVE = 5;

export function textOutput(stdout: Output): StressOutput {
  const say = (text: string) => stdout.write(`${text}\n`);
  // Never where it would be read as text: picocolors alone also colours a CI's log.
  const paint = pc.createColors(stdout.isTTY === true && pc.isColorSupported);
  return {
    listen(options) {
      say(headline(options, paint));
      for (const { name, reason } of options.topology.unsupported) say(`  not modelled: ${name}: ${reason}`);
      let told = 0;
      const progress = createProgress(stdout, options.durationS);
      return {
        started: ({ machineMs, workersMs, devices }) =>
          progress.say(`  up in ${(machineMs + workersMs).toFixed(0)} ms: ${devices.join(', ')}`),
        sample: (sample) => progress.sample(sample),
        violation({ rule, device, iommu, summary }) {
          told++;
          if (told > TOLD_LIVE) return;
          progress.say(paint.red(`VIOLATION ${rule}: ${device ?? iommu}: ${summary}`));
          if (told === TOLD_LIVE) progress.say('further violations are told at the end');
        },
        death: ({ worker, reason }) => progress.say(paint.red(`worker ${worker} died: ${reason}`)),
        ended(result) {
          progress.end();
          if (result !== null) say(`\n${renderSummary(result)}\n`);
        },
      };
    },
    result({ checks, violations, missed, interrupted, skipped, report }) {
      if (missed > 0) say(paint.red(`the injected bug was NOT caught in ${missed} of the runs`));
      if (interrupted) say(`interrupted${skipped > 0 ? `; topologies without a result: ${skipped}` : ''}`);
      if (report !== null) say(`report: ${report}`);
      say(tallyLine(checks, violations));
    },
  };
}

function headline(options: StressOptions, paint: ReturnType<typeof pc.createColors>): string {
  const { topologyName, topology, devices, guests, durationS, seed, mix, hostilePercent } = options;
  return (
    `${paint.bold(topologyName)}: ${topology.iommus.length} SMMUs, ${devices} devices, ${guests} guests, ` +
    `${durationS} s, mix ${mixText(mix)}, hostile ${hostilePercent} %, ${bytes(options.memoryBytes)}, ` +
    `stage 2 ${options.s2Sharing}, seed ${seed}` +
    (options.inject === null ? '' : paint.yellow(`, injected bug: ${options.inject}`))
  );
}
