/**
 * A soak: stress runs one after the other in one process, machines made and closed again, for as long as asked. At
 * the end of each, when everything is closed and collected, the process must hold what it held before; and within
 * each, once warm, its memory must be flat.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { runStress } from '../stress/run.js';
import type { StressListener, StressOptions } from '../stress/types.js';
import { growing, type Resources, resources } from './resources.js';

export interface SoakOptions {
  readonly durationS: number;
  /** Length of one stress run. */
  readonly segmentS: number;
  /** Taken in turn, with a seed of their own each. */
  readonly runs: readonly StressOptions[];
}

export interface SoakSegment {
  readonly topology: string;
  readonly seed: number;
  readonly checks: number;
  readonly violations: number;
  readonly deaths: readonly string[];
  /** While it ran: every few seconds. */
  readonly during: readonly Resources[];
  /** After it was over. */
  readonly after: Resources;
}

export interface SoakResult {
  readonly segments: readonly SoakSegment[];
  readonly checks: number;
  /** Violations, dead workers, and what grew. */
  readonly problems: readonly string[];
  readonly interrupted: boolean;
}

const LOOK_S = 5;
/** The first runs fill caches, compile code and start what is started once. */
const WARM_SEGMENTS = 2;
/** Of a run, until its programs are compiled and its buffers made. */
const WARM_SHARE = 0.5;
const SETTLE_MS = 500;

export async function runSoak(
  options: SoakOptions,
  listener: (segment: SoakSegment, atS: number) => void,
  signal: AbortSignal,
): Promise<SoakResult> {
  const began = performance.now();
  const atS = (): number => (performance.now() - began) / 1000;
  const segments: SoakSegment[] = [];
  const problems: string[] = [];
  while (atS() < options.durationS && !signal.aborted && problems.length === 0) {
    const n = segments.length;
    const base = options.runs[n % options.runs.length]!;
    const run = {
      ...base,
      seed: (base.seed + n * 0x9e37_79b1) >>> 0,
      durationS: Math.min(options.segmentS, Math.max(options.durationS - atS(), 1)),
    };
    const segment = await oneSegment(run, atS, signal);
    segments.push(segment);
    problems.push(...problemsOf(segment));
    listener(segment, atS());
  }
  const warm = segments.slice(WARM_SEGMENTS).map(({ after }) => after);
  problems.push(...growing(warm).map((what) => `from run to run, ${what}`));
  return {
    segments,
    checks: segments.reduce((sum, { checks }) => sum + checks, 0),
    problems,
    interrupted: signal.aborted,
  };
}

async function oneSegment(run: StressOptions, atS: () => number, signal: AbortSignal): Promise<SoakSegment> {
  const during: Resources[] = [];
  let nextLook = 0;
  const listener: StressListener = {
    started: () => undefined,
    sample(sample) {
      if (sample.atS < nextLook) return;
      nextLook = sample.atS + LOOK_S;
      during.push(resources(atS(), true));
    },
    violation: () => undefined,
    death: () => undefined,
  };
  const { final, deaths } = await runStress(run, listener, signal);
  // The last of what was stopped ends in turns of its own.
  await sleep(SETTLE_MS);
  return {
    topology: run.topologyName,
    seed: run.seed,
    checks: final.checks,
    violations: final.violations,
    deaths: deaths.map(({ worker, reason }) => `${worker}: ${reason}`),
    during,
    after: resources(atS(), true),
  };
}

function problemsOf({ topology, seed, violations, deaths, during }: SoakSegment): string[] {
  const where = `${topology}, seed ${seed}`;
  const problems = deaths.map((death) => `${where}: ${death}`);
  if (violations > 0) problems.push(`${where}: ${violations} violations`);
  const warm = during.slice(Math.floor(during.length * WARM_SHARE));
  return [...problems, ...growing(warm).map((what) => `${where}: within the run, ${what}`)];
}
