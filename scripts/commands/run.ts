/**
 * `iommufd run -- program args`: a machine of its own for one program, which is given our stdio and signals, and whose
 * exit code becomes ours.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { Command } from 'commander';
import { buildPreload } from '../../runtime/serve/preload-library.js';
import type { Surroundings } from '../surroundings.js';
import { serveError } from './serve.js';
import { addServeOptions, type ServeFlags, startServing } from './serve-options.js';

/** As shells have it. */
const EXIT_NOT_FOUND = 127;
const EXIT_NOT_EXECUTABLE = 126;
const EXIT_SIGNAL = 128;
/** Handed on. A terminal's reach the program by themselves, and are ignored here until it has ended. */
const FORWARDED: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGCONT'];
const IGNORED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];

export function addRun(program: Command, around: Surroundings, done: (code: number) => void): void {
  addServeOptions(program.command('run'))
    .description('run a program on a machine of its own: its /dev/iommu and /dev/vfio are the simulated ones')
    .argument('<program>')
    .argument('[args...]')
    .passThroughOptions()
    .action(async (file: string, args: readonly string[], flags: ServeFlags) => {
      try {
        const library = buildPreload();
        const serving = await startServing(flags, around.stderr);
        try {
          done(await runProgram(file, args, library, serving.served.socket, around));
        } finally {
          await serving.close();
        }
      } catch (error) {
        const code = serveError('run', error, around);
        if (code === null) throw error;
        done(code);
      }
    });
}

function runProgram(
  file: string,
  args: readonly string[],
  library: string,
  socket: string,
  around: Surroundings,
): Promise<number> {
  const before = process.env.LD_PRELOAD;
  const preload = before === undefined || before === '' ? library : `${library}:${before}`;
  // Before the program begins, which may be signalled as soon as it has. Handlers run when this has returned.
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  const ignore = () => undefined;
  for (const signal of FORWARDED) process.on(signal, forward);
  for (const signal of IGNORED) process.on(signal, ignore);
  const child = spawn(file, args, {
    stdio: 'inherit',
    env: { ...process.env, LD_PRELOAD: preload, IOMMUFD_SOCKET: socket },
  });
  return new Promise<number>((done) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      around.stderr.write(`iommufd run: ${file}: ${error.message}\n`);
      done(error.code === 'ENOENT' ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
    });
    child.on('exit', (code, signal) => {
      done(code ?? EXIT_SIGNAL + (signal === null ? 0 : constants.signals[signal]));
    });
  }).finally(() => {
    for (const signal of FORWARDED) process.off(signal, forward);
    for (const signal of IGNORED) process.off(signal, ignore);
  });
}
