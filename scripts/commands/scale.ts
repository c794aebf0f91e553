/** `iommufd scale`: what more SMMUs, devices, guests, queues and shared stage 2 cost, point by point. */

import { type Command, InvalidArgumentError } from 'commander';
import { folderProblem } from '../../perf/report/folder.js';
import type { ScaleData, ScaleParams } from '../../perf/report/scale-data.js';
import { spreadOf } from '../../perf/report/scale-page.js';
import { compact, micros, plural } from '../../perf/report/units.js';
import { writeScaleFiles } from '../../perf/scale/files.js';
import { SCALE_DEFAULTS, type ScaleInput, scaleOptions } from '../../perf/scale/options.js';
import { OptionError } from '../../perf/stress/option-error.js';
import { EXIT_CLEAN, EXIT_FOUND, type Surroundings } from '../surroundings.js';
import { usageError } from './usage.js';

interface Flags extends ScaleInput {
  readonly out: string;
  readonly json?: boolean;
}

export function addScale(program: Command, around: Surroundings, done: (code: number) => void): void {
  const d = SCALE_DEFAULTS;
  program
    .command('scale')
    .description('sweep SMMUs, devices, guests and more: throughput and SYNC latency of each point')
    .option('--iommus <list>', `SMMUs, as 1,2,4 or 1-8 or 1-64x2 (default: ${d.iommus})`)
    .option('--devices <list>', `devices behind each SMMU (default: ${d.devices})`)
    .option('--guests <list>', `VMs that all the devices belong to; 0: the host's (default: ${d.guests})`)
    .option('--s2-sharing <list>', `of guests: shared, per-psmmu (default: ${d.s2Sharing})`)
    .option('--batch <list>', `transactions that a device sends at a time, 1 to 64 (default: ${d.batch})`)
    .option(
      '--queues <list>',
      `command queues of a guest: 1, or per-psmmu, a virtual SMMU for each (default: ${d.queues})`,
    )
    .option('--repeats <n>', `measurements of each point (default: ${d.repeats})`)
    .option('--duration <s>', `seconds measured each time (default: ${d.duration})`)
    .option('--seed <n>', 'order of the measurements and choices within them (default: drawn)')
    .option('--out <folder>', 'where scale.csv, scale.json and scale.html go', nonEmpty, '.')
    .option('--json', 'one JSON object on stdout: what scale.json has')
    .addHelpText(
      'after',
      '\nEach measurement is a process of its own, and they are taken one at a time in a random order.' +
        '\nCtrl-C writes what there is. Exit codes: 0 complete or interrupted, 1 a point failed, 2 wrong usage.',
    )
    .action(async (flags: Flags) => {
      try {
        done(await scale(flags, around));
      } catch (error) {
        const code = usageError('scale', error, around.stderr);
        if (code === null) throw error;
        done(code);
      }
    });
}

function nonEmpty(value: string): string {
  if (value === '') throw new InvalidArgumentError('needs a folder.');
  return value;
}

async function scale({ out, json, ...input }: Flags, around: Surroundings): Promise<number> {
  const { stdout, stderr, signal } = around;
  const options = scaleOptions(input);
  const problem = folderProblem(out);
  if (problem !== null) throw new OptionError('out', problem);
  const { runScale } = await import('../../perf/scale/run.js');
  stderr.write(
    `${plural(options.points.length, 'point')}, ${plural(options.repeats, 'time')} each, ${options.durationS} s, seed ${options.seed}\n`,
  );
  const data = await runScale(
    options,
    ({ done, of, params, outcome }) => {
      const told =
        'error' in outcome
          ? outcome.error
          : `${compact(outcome.throughput)}/s, SYNC p50 ${micros(outcome.syncP50Us, 1)} us`;
      stderr.write(`${done}/${of}  ${pointText(params)}: ${told}\n`);
    },
    signal,
  );
  const paths = writeScaleFiles(out, data);
  if (json) stdout.write(`${JSON.stringify(data)}\n`);
  else stdout.write(`${summary(data)}\n${paths.join('\n')}\n`);
  if (signal.aborted) stderr.write('interrupted: these are the points there are\n');
  return data.points.some(({ error }) => error !== undefined) ? EXIT_FOUND : EXIT_CLEAN;
}

function pointText({ psmmus, devices, guests, s2Sharing, batch, queues }: ScaleParams): string {
  const nested =
    guests === 0
      ? ''
      : `, ${plural(guests, 'guest')} (stage 2 ${s2Sharing}, ${queues === 1 ? '1 queue' : `${queues} queues`})`;
  return `${plural(psmmus, 'SMMU')}, ${plural(devices, 'device')}${nested}, batch ${batch}`;
}

function summary({ points }: ScaleData): string {
  return points
    .map(({ params, repeats, error }) => {
      const rate = spreadOf(repeats, 'throughput');
      const sync = spreadOf(repeats, 'syncP50Us');
      const told =
        rate === null || sync === null
          ? ''
          : `${compact(rate.median)}/s (${compact(rate.low)} to ${compact(rate.high)}), SYNC p50 ` +
            `${micros(sync.median, 1)} us (${micros(sync.low, 1)} to ${micros(sync.high, 1)})`;
      return `${pointText(params)}: ${[told, error].filter(Boolean).join('; ')}`;
    })
    .join('\n');
}
