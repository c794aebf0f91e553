/**
 * A command in a real process: Ctrl-C, closed pipes, the exit code.
 *
 * Ctrl-C on a terminal reaches the whole process group, and npm passes it on to its child once more, so one
 * press may arrive twice: a second signal counts as a second press only after a moment.
 */
import { main } from './cli.js';
import type { RunStress, Surroundings } from './surroundings.js';

const SAME_PRESS_MS = 300;
const EXIT_INTERRUPTED = 130;
/** Not everything that was to be said could be. */
const EXIT_UNWRITTEN = 1;

/** Runs the command and ends the process. */
export async function runCommand(args: readonly string[]): Promise<never> {
  const abort = new AbortController();
  // Under `run` they are the program's.
  if (args[0] !== 'run') onInterrupts(abort);
  let unwritten: NodeJS.ErrnoException | null = null;
  // Who pipes into `head` has seen enough: end cleanly, with the exit code of what was found. Any other error
  // ends a run early too, with its report, and is told once.
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      abort.abort();
      if (error.code === 'EPIPE' || unwritten !== null) return;
      unwritten = error;
      if (stream === process.stdout) process.stderr.write(`iommufd: stdout: ${error.message}\n`);
    });
  const surroundings: Surroundings = {
    stdout: process.stdout,
    stderr: process.stderr,
    signal: abort.signal,
    loadStress,
  };
  const code = await main(args, surroundings);
  // Exits outright, so that a thread that will not end cannot keep the process; but not before stdout is out.
  await new Promise<void>((resolve) => process.stdout.write('', () => resolve()));
  process.exit(unwritten !== null && code === 0 ? EXIT_UNWRITTEN : code);
}

function onInterrupts(abort: AbortController): void {
  let firstMs: number | null = null;
  const press = (): void => {
    const nowMs = performance.now();
    if (firstMs === null) {
      firstMs = nowMs;
      abort.abort();
    } else if (nowMs - firstMs > SAME_PRESS_MS) process.exit(EXIT_INTERRUPTED);
  };
  process.on('SIGINT', press);
  process.on('SIGTERM', press);
}

async function loadStress(): Promise<RunStress> {
  // The experiment starts threads; everything that can be refused has been refused by now.
  const { runStress } = await import('../perf/stress/run.js');
  return runStress;
}
