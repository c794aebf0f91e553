/** `iommufd chaos`: ends threads of stress runs at random moments, and sees whether each run survives it. */
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { CHAOS_KINDS, type ChaosRun, runChaos } from '../../perf/chaos/run.js';
import { plural } from '../../perf/report/units.js';
import { OptionError } from '../../perf/stress/option-error.js';
import type { KillableKind } from '../../workers/protocol/messages.js';
import { EXIT_CLEAN, EXIT_FOUND, type Surroundings } from '../surroundings.js';
import { usageError, wholeOption } from './usage.js';

interface Flags {
  readonly count: string;
  readonly seed?: string;
  readonly kinds: string;
  readonly json?: boolean;
}

export function addChaos(program: Command, around: Surroundings, done: (code: number) => void): void {
  program
    .command('chaos')
    .description(
      'end a thread at a random moment, run after run: each must be reported, and nothing may hang',
    )
    .option('--count <n>', 'runs', '200')
    .option('--seed <n>', 'repeat the choices of a run; it printed its seed (default: drawn)')
    .option('--kinds <list>', `kinds of threads: ${CHAOS_KINDS.join(', ')}`, CHAOS_KINDS.join(','))
    .option('--json', 'one JSON object on stdout')
    .addHelpText(
      'after',
      '\nRuns take some seconds each; iommufd stress --kill repeats one. Ctrl-C ends early, with its results.' +
        '\nExit codes: 0 all survived, 1 a run did not, 2 wrong usage.',
    )
    .action(async (flags: Flags) => {
      try {
        done(await chaos(flags, around));
      } catch (error) {
        const code = usageError('chaos', error, around.stderr);
        if (code === null) throw error;
        done(code);
      }
    });
}

async function chaos(flags: Flags, around: Surroundings): Promise<number> {
  const seed = flags.seed === undefined ? Date.now() >>> 0 : wholeOption('seed', flags.seed, 0, 2 ** 32 - 1);
  const count = wholeOption('count', flags.count, 1, 1e6);
  const command = [process.execPath, fileURLToPath(new URL('../iommufd.js', import.meta.url)), 'stress'];
  around.stderr.write(`seed ${seed}\n`);
  const runs = await runChaos(
    { count, seed, kinds: kindsOf(flags.kinds), command },
    (run, n) => {
      if (run.problem !== null) around.stderr.write(`${told(run)}\n`);
      else if (n % 10 === 0) around.stderr.write(`${n} of ${count}\n`);
    },
    around.signal,
  );
  const bad = runs.filter(({ problem }) => problem !== null);
  if (flags.json)
    around.stdout.write(`${JSON.stringify({ seed, survived: runs.length - bad.length, runs })}\n`);
  else
    around.stdout.write(
      `${plural(runs.length, 'run')} (${kindsText(runs)}), ${runs.length - bad.length} survived; seed ${seed}\n`,
    );
  return bad.length === 0 ? EXIT_CLEAN : EXIT_FOUND;
}

function told({ kind, afterMs, seed, problem }: ChaosRun): string {
  return `NOT survived: --kill ${kind}:${afterMs} --seed ${seed}: ${problem}`;
}

/** `device 3, guest 1`: whose threads were ended, and how often. */
function kindsText(runs: readonly ChaosRun[]): string {
  const ended = CHAOS_KINDS.map((kind) => [kind, runs.filter((run) => run.kind === kind).length] as const);
  return ended.flatMap(([kind, n]) => (n === 0 ? [] : [`${kind} ${n}`])).join(', ') || 'none';
}

function kindsOf(list: string): KillableKind[] {
  return list.split(',').map((name) => {
    const found = CHAOS_KINDS.find((kind) => kind === name.trim());
    if (found === undefined) throw new OptionError('kinds', `'${name}' is none of ${CHAOS_KINDS.join(', ')}`);
    return found;
  });
}
