/**
 * What `iommufd stress` prints: for people (progress, summary, the tally as the last line), or for programs
 * (one JSON object a line and nothing else on stdout).
 */
import pc from 'picocolors';
import { fold } from '../../perf/report/layout.js';
import { renderSummary, tallyLine } from '../../perf/report/summary.js';
import { bytes, plural } from '../../perf/report/units.js';
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
  /** Path of the page, null when there is none. */
  readonly html: string | null;
  /** Path of the machine that was kept, null when none was. */
  readonly kept: string | null;
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
      say('result', { ...tally, runs: tally.runs.map(({ samples: _, latencies: __, ...run }) => run) });
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
      say(fold(headline(options, paint), stdout.columns));
      if (options.inject !== null)
        say('  with an injected bug, the run ends soon after its first violations');
      for (const { name, reason } of options.topology.unsupported)
        say(fold(`  not modelled: ${name}: ${reason}`, stdout.columns));
      let told = 0;
      const progress = createProgress(stdout, options.durationS);
      return {
        started: ({ machineMs, workersMs, devices }) =>
          progress.say(`  up in ${(machineMs + workersMs).toFixed(0)} ms: ${countKinds(devices)}`),
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
          if (result === null) return;
          say(`\n${renderSummary(result, stdout.columns)}\n`);
          const { trace } = result;
          if (trace && trace.problem === null)
            say(
              `trace: ${trace.file} (last ${(trace.windowMs / 1000).toFixed(2)} s, ` +
                `${plural(trace.events, 'event')}, for ui.perfetto.dev)\n`,
            );
        },
      };
    },
    result({ checks, violations, missed, interrupted, skipped, report, html, kept }) {
      if (missed > 0) say(paint.red(`the injected bug was NOT caught in ${missed} of the runs`));
      if (interrupted) say(`interrupted${skipped > 0 ? `; topologies without a result: ${skipped}` : ''}`);
      if (report !== null) say(`report: ${report}`);
      if (html !== null) say(`page: ${html}`);
      if (kept !== null) say(`machine: ${kept} (iommufd inspect)`);
      say(tallyLine(checks, violations));
    },
  };
}

/** The first word of a traffic program's name, and what several are called. */
const KINDS: Record<string, readonly [one: string, many: string]> = {
  guest: ['guest', 'guests'],
  nested: ['nested device', 'nested devices'],
  nic: ['NIC', 'NICs'],
  nvme: ['NVMe disk', 'NVMe disks'],
  gpu: ['GPU', 'GPUs'],
};

/** `2 guests, 2 nested devices, 1 NIC`: the traffic programs by kind, in the order they were started. */
function countKinds(programs: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const program of programs) {
    const kind = program.split(' ', 1)[0]!;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return [...counts].map(([kind, count]) => plural(count, ...(KINDS[kind] ?? [kind, kind]))).join(', ');
}

function headline(options: StressOptions, paint: ReturnType<typeof pc.createColors>): string {
  const { topologyName, topology, devices, guests, durationS, seed, mix, hostilePercent } = options;
  return (
    `${paint.bold(topologyName)}: ${plural(topology.iommus.length, 'SMMU')}, ${plural(devices, 'device')}, ` +
    `${plural(guests, 'guest')}, ` +
    `${durationS} s, mix ${mixText(mix)}, hostile ${hostilePercent} %, ${bytes(options.memoryBytes)}, ` +
    `stage 2 ${options.s2Sharing}, seed ${seed}` +
    (options.inject === null ? '' : paint.yellow(`, injected bug: ${options.inject}`))
  );
}
