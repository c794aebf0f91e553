/** Reports as `iommufd explore --json` prints them, read back to be merged: one JSON object a line, others left out. */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { OptionError } from '../stress/option-error.js';
import { mergeReports } from './merge.js';
import { regularFile } from './regular-file.js';
import { type ExploreReport, REPORT_VERSION } from './report.js';

/** Far more than a shard's reports and stories come to. */
const MAX_BYTES = 256 * 2 ** 20;

const whole = z.number().int().min(0);
const figure = z.number().min(0);

const ReportSchema = z.object({
  version: z.literal(REPORT_VERSION),
  iommufd: z.string(),
  node: z.string(),
  scenario: z.string(),
  bugs: z.array(z.string()),
  strategy: z.string(),
  seed: whole,
  bounds: z.object({ depth: whole, preemptions: whole }),
  shard: z.string(),
  schedules: whole,
  steps: whole,
  seconds: figure,
  schedulesPerSecond: figure,
  stepsPerSecond: figure,
  checks: z.record(z.string(), whole),
  exhausted: z.boolean(),
  diverged: z.boolean(),
  digest: z.string().regex(/^[0-9a-f]{16}$/),
  summary: z.string(),
  failure: z
    .object({
      invariant: z.string(),
      detail: z.string(),
      thread: z.string(),
      schedule: whole,
      choices: z.array(whole),
      preemptions: whole,
      steps: whole,
    })
    .nullable(),
});

/** @returns those of each scenario as one. @throws OptionError a file is none, or they are not parts of one campaign */
export function mergeFiles(files: readonly string[]): ExploreReport[] {
  const byScenario = new Map<string, ExploreReport[]>();
  for (const report of files.flatMap(readReports)) {
    const of = byScenario.get(report.scenario);
    if (of === undefined) byScenario.set(report.scenario, [report]);
    else of.push(report);
  }
  return [...byScenario.values()].map((reports) => {
    try {
      return mergeReports(reports);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new OptionError('merge', `${reports[0]!.scenario}: ${error.message}`);
    }
  });
}

function readReports(file: string): ExploreReport[] {
  let lines: string[];
  try {
    const { size } = regularFile(file);
    if (size > MAX_BYTES) throw new Error(`${size} bytes are more than ${MAX_BYTES}`);
    lines = readFileSync(file, 'utf8').split('\n');
  } catch (error) {
    throw new OptionError('merge', `'${file}' cannot be read: ${(error as Error).message}`);
  }
  const reports: ExploreReport[] = [];
  for (const [n, line] of lines.entries()) {
    if (line.trim() === '') continue;
    const refuse = (problem: string): never => {
      throw new OptionError('merge', `'${file}', line ${n + 1}: ${problem}`);
    };
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      refuse((error as Error).message);
    }
    if ((value as { type?: unknown } | null)?.type !== 'report') continue;
    const checked = ReportSchema.safeParse(value);
    if (checked.success) reports.push(checked.data);
    else {
      const { path, message } = checked.error.issues[0]!;
      refuse(`no report of this version: ${path.join('.')}: ${message}`);
    }
  }
  if (reports.length === 0) throw new OptionError('merge', `'${file}' has no report; --json prints them`);
  return reports;
}
