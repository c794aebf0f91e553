/**
 * A piscina task: one measurement, in a process that this thread starts and waits for. Points share no heap, no
 * compiled code and no leftover thread with each other, and one that crashes takes nobody with it.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ScaleRepeat } from '../report/scale-data.js';
import type { PointTask } from './point.js';

const PROGRAM = fileURLToPath(new URL('./point-once.js', import.meta.url));
/** Set-up and stopping included. */
const LEAST_TIMEOUT_MS = 120_000;

export interface PoolTask extends PointTask {
  /** Told something: the measurement is not wanted any more. */
  readonly cancel: { on(event: 'message', listener: () => void): void; close(): void };
}

export type PointOutcome = ScaleRepeat | { readonly error: string };

/** Never rejects. */
export default function run({ cancel, ...task }: PoolTask): Promise<PointOutcome> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [PROGRAM], { stdio: ['pipe', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    let why = '';
    const kill = (reason: string): void => {
      why = reason;
      child.kill('SIGKILL');
    };
    const timer = setTimeout(() => kill('took too long'), LEAST_TIMEOUT_MS + 4000 * task.durationS);
    cancel.on('message', () => kill('interrupted'));
    child.stdout.on('data', (text) => {
      stdout += text;
    });
    child.stderr.on('data', (text) => {
      stderr += text;
    });
    child.stdin.on('error', () => undefined);
    child.stdin.write(`${JSON.stringify(task)}\n`);
    const end = (outcome: PointOutcome): void => {
      clearTimeout(timer);
      cancel.close();
      resolve(outcome);
    };
    child.on('error', (error) => end({ error: error.message }));
    child.on('close', (code, signal) => {
      if (code === 0 && why === '') end(JSON.parse(stdout) as ScaleRepeat);
      else end({ error: why || stderr.trim().split('\n')[0] || `ended by ${signal ?? `exit code ${code}`}` });
    });
  });
}
