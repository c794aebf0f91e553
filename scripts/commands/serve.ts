/** `iommufd serve`: a machine behind a Unix socket, until a signal ends it. */
import type { Command } from 'commander';
import { PreloadError } from '../../runtime/serve/preload-library.js';
import { EXIT_CLEAN, EXIT_FOUND, type Surroundings } from '../surroundings.js';
import { addServeOptions, type ServeFlags, startServing } from './serve-options.js';
import { usageError } from './usage.js';

export function addServe(program: Command, around: Surroundings, done: (code: number) => void): void {
  addServeOptions(program.command('serve'))
    .description('a machine behind a socket, for programs that open /dev/iommu with the preload library')
    .addHelpText(
      'after',
      '\nPrints two lines for the shell of a client: export IOMMUFD_SOCKET=..., export LD_PRELOAD=...; then serves until' +
        '\nCtrl-C or SIGTERM. Exit codes: 0 ended by a signal, 1 it cannot be served, 2 wrong usage.',
    )
    .action(async (flags: ServeFlags) => {
      try {
        const serving = await startServing(flags, around.stderr);
        try {
          around.stdout.write(`export IOMMUFD_SOCKET=${serving.served.socket}\n`);
          around.stdout.write(`export LD_PRELOAD=${serving.library}\n`);
          await aborted(around.signal);
        } finally {
          await serving.close();
        }
        done(EXIT_CLEAN);
      } catch (error) {
        const code = serveError('serve', error, around);
        if (code === null) throw error;
        done(code);
      }
    });
}

/** @returns the exit code, or null when it is a defect */
export function serveError(command: string, error: unknown, around: Surroundings): number | null {
  const usage = usageError(command, error, around.stderr);
  if (usage !== null) return usage;
  const told = error instanceof PreloadError || (error instanceof Error && /^serve: /.test(error.message));
  if (!told && (error as NodeJS.ErrnoException).code === undefined) return null;
  around.stderr.write(`iommufd ${command}: ${(error as Error).message}\n`);
  return EXIT_FOUND;
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((done) => signal.addEventListener('abort', () => done(), { once: true }));
}
