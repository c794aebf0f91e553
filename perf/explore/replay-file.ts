/**
 * A failing schedule in a file: everything that running it again takes, and what it must come to. Choices are written
 * as runs, [choice, times]. What a file of another version or of other sources says may not happen here; it is
 * tried and told, not refused.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { z } from 'zod';
import { BUG_NAMES, type BugName } from '../../hw/bugs/bug-switches.js';
import { writeWhole } from '../report/report-json.js';
import { OptionError } from '../stress/option-error.js';
import { runVersions } from '../stress/versions.js';
import { MAX_PLAN } from './engine/control.js';
import type { Failure, ScenarioSource } from './engine/messages.js';
import { regularFile } from './regular-file.js';

const VERSION = 1;
/** Larger than any that is written: the plan's 65 536 runs, and a story. */
const MAX_BYTES = 4 * 2 ** 20;
const DIST = fileURLToPath(new URL('../../', import.meta.url));
/** What runs in a schedule; commands and reports change nothing. */
const CODE = ['uapi', 'hw', 'runtime', 'workers', 'perf/explore'];

const text = z.string().max(4096);
const count = z
  .number()
  .int()
  .min(0)
  .max(2 ** 32);

const ReplaySchema = z.strictObject({
  replay: z.literal('iommufd-explore'),
  version: z.literal(VERSION),
  iommufd: text,
  node: text,
  /** Its name; and of one that is not this package's, the module's path and the export. */
  scenario: text,
  module: z.strictObject({ path: text, export: text }).nullable(),
  bugs: z.array(text).max(256),
  seed: count,
  strategy: text,
  /** SHA-256 over the compiled code, and over the module. */
  sources: z.strictObject({ iommufd: text, module: text.nullable() }),
  threads: z.array(text).min(1).max(12),
  violation: z.strictObject({
    invariant: text,
    thread: text,
    detail: z.string().max(2 ** 20),
  }),
  steps: count,
  preemptions: count,
  choices: z
    .array(
      z.tuple([
        z
          .number()
          .int()
          .min(0)
          .max(2 ** 15),
        z.number().int().min(1).max(MAX_PLAN),
      ]),
    )
    .max(MAX_PLAN),
});

export type ReplayFile = Omit<z.infer<typeof ReplaySchema>, 'bugs'> & { readonly bugs: readonly BugName[] };

export interface FailureOf {
  readonly scenario: string;
  readonly threads: readonly string[];
  readonly source: ScenarioSource;
  readonly bugs: readonly BugName[];
  readonly seed: number;
  readonly strategy: string;
}

/** `explore-mutex-2-mutex-wakes-before-release-42.json` */
export const replayFileName = ({ scenario, bugs, seed }: FailureOf): string =>
  `explore-${[scenario, ...bugs, seed].join('-').replace(/[^\w.-]+/g, '_')}.json`;

/** @returns the path written. @throws what the file system says */
export function writeReplay(file: string, of: FailureOf, failure: Failure): string {
  const module = foreignModule(of.source);
  const { invariant, thread, detail } = failure;
  const content: ReplayFile = {
    replay: 'iommufd-explore',
    version: VERSION,
    iommufd: runVersions().iommufd,
    node: process.version,
    scenario: of.scenario,
    module,
    bugs: [...of.bugs],
    seed: of.seed,
    strategy: of.strategy,
    sources: { iommufd: codeHash(), module: module && fileHash(module.path) },
    threads: [...of.threads],
    violation: { invariant, thread, detail },
    steps: failure.steps,
    preemptions: failure.preemptions,
    choices: runsOf(failure.choices),
  };
  return writeWhole(file, `${JSON.stringify(content)}\n`);
}

/** @throws OptionError what is wrong with it */
export function readReplay(file: string): ReplayFile {
  const refuse = (problem: string): never => {
    throw new OptionError('replay', `'${file}' ${problem}`);
  };
  let content: unknown;
  try {
    const stat = statSync(file);
    if (!stat.isFile()) refuse('is not a file');
    if (stat.size > MAX_BYTES) refuse(`has ${stat.size} bytes; a replay has at most ${MAX_BYTES}`);
    content = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if (error instanceof OptionError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    return refuse(code === 'ENOENT' ? 'is not there' : `cannot be read: ${message}`);
  }
  const checked = ReplaySchema.safeParse(content);
  if (!checked.success) {
    const { path, message } = checked.error.issues[0]!;
    return refuse(`is no replay of this version: ${path.join('.') || 'all of it'}: ${message}`);
  }
  const { data } = checked;
  const unknown = data.bugs.find((name) => !BUG_NAMES.includes(name as BugName));
  if (unknown !== undefined) return refuse(`has the bug '${unknown}', which is not known here`);
  if (data.module !== null) {
    const { path } = data.module;
    try {
      // Importing a device or a pipe would not end.
      regularFile(path);
    } catch (error) {
      return refuse(`has its scenario in '${path}': ${(error as Error).message}`);
    }
  }
  const length = data.choices.reduce((sum, [, times]) => sum + times, 0);
  if (length > MAX_PLAN) return refuse(`has ${length} choices; at most ${MAX_PLAN} fit`);
  return { ...data, bugs: data.bugs as BugName[] };
}

export const choicesOf = ({ choices }: ReplayFile): number[] =>
  choices.flatMap(([choice, times]) => Array<number>(times).fill(choice));

/** Where the scenario of a file is, when it is not one of this package. @returns null for one of this package */
export function sourceOf({ module }: ReplayFile): ScenarioSource | null {
  return module && { url: pathToFileURL(resolve(module.path)).href, export: module.export };
}

/** Why the schedule may not happen here as it did there; for the user to know. */
export function differencesFrom(file: ReplayFile): string[] {
  const told: string[] = [];
  const version = runVersions().iommufd;
  if (file.iommufd !== version) told.push(`it was written by iommufd ${file.iommufd}, this is ${version}`);
  if (file.node !== process.version)
    told.push(`it was written under Node ${file.node}, this is ${process.version}`);
  if (file.sources.iommufd !== codeHash()) told.push('the code of iommufd is not what it was');
  if (file.module !== null && file.sources.module !== fileHash(file.module.path))
    told.push(`${file.module.path} is not what it was`);
  return told;
}

function foreignModule({ url, export: name }: ScenarioSource): ReplayFile['module'] {
  const path = fileURLToPath(url);
  const scenarios = fileURLToPath(new URL('./scenarios/', import.meta.url));
  return path.startsWith(scenarios) ? null : { path, export: name };
}

function runsOf(choices: readonly number[]): [number, number][] {
  const runs: [number, number][] = [];
  for (const choice of choices) {
    const last = runs.at(-1);
    if (last?.[0] === choice) last[1]++;
    else runs.push([choice, 1]);
  }
  return runs;
}

let ownHash: string | undefined;

function codeHash(): string {
  ownHash ??= hashOf(
    CODE.flatMap((folder) => readdirSync(join(DIST, folder), { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile() && /\.(js|wasm)$/.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name))
      .sort(),
  );
  return ownHash;
}

const fileHash = (path: string): string | null => {
  try {
    return createHash('sha256').update(readFileSync(path)).digest('hex');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return null;
  }
};

function hashOf(files: readonly string[]): string {
  const hash = createHash('sha256');
  for (const file of files) hash.update(relative(DIST, file)).update('\0').update(readFileSync(file));
  return hash.digest('hex');
}
