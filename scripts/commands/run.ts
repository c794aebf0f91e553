/**
 * `iommufd run -- program args`: a machine of its own for one program, which is given our stdio and signals, and whose
 * exit code becomes ours.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import type { Command } from 'commander';
import type { Surroundings } from '../surroundings.js';
import { findProgram, isStatic } from './program-file.js';
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
    .addHelpText(
      'after',
      '\nIts exit code becomes ours: 128 and the signal that ended it, 126 and 127 where it cannot be run, as shells' +
        '\nhave it. Else 1 where the machine cannot be served, 2 wrong usage. `--trace -- program`: with --, program is' +
        '\nnot taken for the name of a file. The devices do no DMA of their own: for that, serve a machine from a program' +
        '\nwith `iommufd/serve`.',
    )
    .action(async (file: string, args: readonly string[], flags: ServeFlags) => {
      try {
        const path = findProgram(file);
        if (path === undefined) {
          around.stderr.write(`iommufd run: ${file}: there is no such program${swallowed(flags)}\n`);
          done(EXIT_NOT_FOUND);
          return;
        }
        const serving = await startServing(flags, around.stderr);
        if (isStatic(path))
          around.stderr.write(
            `iommufd run: ${file} is statically linked: the preload library does not reach it, and what it opens is the host's\n`,
          );
        try {
          done(await runProgram(file, args, serving.library, serving.served.socket, around));
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

/** `--trace program` names a file. */
function swallowed({ trace }: ServeFlags): string {
  return typeof trace === 'string' ? ` ('${trace}' is the file of --trace; without one: --trace -- ...)` : '';
}

/** Not node's, which is about its own function. */
function reason(error: NodeJS.ErrnoException): string {
  const known = error.errno === undefined ? undefined : getSystemErrorMap().get(error.errno);
  return known === undefined ? error.message : `${known[1]} (${known[0]})`;
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
      around.stderr.write(`iommufd run: ${file}: ${reason(error)}\n`);
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
