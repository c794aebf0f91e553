/**
 * Stress runs in which one thread is ended at a random moment, one after the other, each a process of its own, as a
 * user would start it. Of each must hold: it ends, in time and by itself; its exit code says that something is
 * wrong; its report is there, has results, and names a thread of the kind that was ended; and nothing that the end
 * of a thread leaves behind is taken for a violation.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { KILLABLE_KINDS, type KillableKind } from '../../workers/protocol/messages.js';
import { Random } from '../stress/random.js';

export interface ChaosOptions {
  readonly count: number;
  readonly seed: number;
  readonly kinds: readonly KillableKind[];
  /** The stress command: program and first arguments. */
  readonly command: readonly string[];
}

export interface ChaosRun {
  readonly kind: KillableKind;
  readonly afterMs: number;
  readonly seed: number;
  readonly exitCode: number | null;
  readonly seconds: number;
  /** What did not hold; null: all did. */
  readonly problem: string | null;
}

/** Ended later than this, a run hangs: a SYNC that nobody completes gives up after five seconds. */
const HANG_MS = 45_000;
/** A thread is ended this long after the first DMA at the latest. */
const LATEST_MS = 1200;
/** Violations that a problem tells. */
const TOLD = 3;
/** Seconds of traffic, had nobody died. */
const DURATION_S = 20;
const TOPOLOGIES = ['server-4', 'cix-p1'] as const;
const EXIT_FOUND = 1;

const reportSchema = z.object({
  runs: z
    .array(
      z.object({
        final: z.object({ checks: z.number(), violations: z.number() }),
        deaths: z.array(z.object({ worker: z.string(), reason: z.string() })),
        violations: z.array(
          z.object({ rule: z.string(), summary: z.string(), details: z.array(z.string()) }),
        ),
      }),
    )
    .length(1),
});

/** What a thread of each kind is called in a report. */
const NAMES: Record<KillableKind, RegExp> = {
  piommu: /^pIOMMU /,
  device: /^(nic|nvme|gpu|nested) /,
  guest: /^guest /,
  supervisor: /^supervisor$/,
};

/** @param listener  told of each run as it ends */
export async function runChaos(
  options: ChaosOptions,
  listener: (run: ChaosRun, done: number) => void,
  signal: AbortSignal,
): Promise<ChaosRun[]> {
  const random = new Random(options.seed);
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-chaos-'));
  const runs: ChaosRun[] = [];
  try {
    for (let i = 0; i < options.count && !signal.aborted; i++) {
      const kind = options.kinds[i % options.kinds.length]!;
      const run = await once(options.command, kind, random, join(folder, 'report.json'), signal);
      if (run === null) break;
      runs.push(run);
      listener(run, runs.length);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return runs;
}

/** @returns null when it was interrupted */
async function once(
  command: readonly string[],
  kind: KillableKind,
  random: Random,
  report: string,
  signal: AbortSignal,
): Promise<ChaosRun | null> {
  const afterMs = random.below(LATEST_MS);
  const seed = random.next();
  const topology = TOPOLOGIES[random.below(TOPOLOGIES.length)]!;
  const [program, ...first] = command;
  const args = [
    ...first,
    ...['--topology', topology, '--duration', String(DURATION_S), '--seed', String(seed)],
    ...['--kill', `${kind}:${afterMs}`, '--report', report],
  ];
  rmSync(report, { force: true });
  const began = performance.now();
  const { exitCode, hung, said } = await ended(program!, args, signal);
  if (signal.aborted) return null;
  const seconds = (performance.now() - began) / 1000;
  const problem = hung
    ? `it did not end within ${HANG_MS / 1000} s: ${said}`
    : exitCode !== EXIT_FOUND
      ? `exit code ${exitCode}: ${said}`
      : reportProblem(report, kind);
  return { kind, afterMs, seed, exitCode, seconds, problem };
}

function ended(
  program: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<{ exitCode: number | null; hung: boolean; said: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    let hung = false;
    const hear = (bytes: Buffer): void => {
      said = (said + bytes.toString()).slice(-2000);
    };
    child.stdout.on('data', hear);
    child.stderr.on('data', hear);
    const timer = setTimeout(() => {
      hung = true;
      child.kill('SIGKILL');
    }, HANG_MS);
    const abort = (): void => void child.kill('SIGKILL');
    signal.addEventListener('abort', abort, { once: true });
    child.on('error', reject);
    child.on('close', (exitCode) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      resolve({ exitCode, hung, said });
    });
  });
}

function reportProblem(file: string, kind: KillableKind): string | null {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    return `no report: ${(error as Error).message}`;
  }
  const parsed = reportSchema.safeParse(JSON.parse(text));
  if (!parsed.success) return `the report is not whole: ${parsed.error.message}`;
  const { final, deaths, violations } = parsed.data.runs[0]!;
  if (!deaths.some(({ worker }) => NAMES[kind].test(worker)))
    return `no ${kind} is reported dead, only ${deaths.map(({ worker }) => worker).join(', ') || 'nobody'}`;
  if (final.violations > 0)
    return `${final.violations} violations: ${violations
      .slice(0, TOLD)
      .map(({ rule, summary, details }) => [rule, summary, ...details].join('; '))
      .join(' | ')}`;
  return null;
}

/** All kinds, in the order in which they are tried. */
export const CHAOS_KINDS: readonly KillableKind[] = KILLABLE_KINDS;
