/** The `iommufd` command line: which commands there are, and what wrong usage comes to. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError, Help, type Option } from 'commander';
import { addBench } from './commands/bench.js';
import { addChaos } from './commands/chaos.js';
import { addDecode } from './commands/decode.js';
import { addExplore } from './commands/explore.js';
import { addFuzz } from './commands/fuzz.js';
import { addInspect } from './commands/inspect.js';
import { addRun } from './commands/run.js';
import { addScale } from './commands/scale.js';
import { addServe } from './commands/serve.js';
import { addSoak } from './commands/soak.js';
import { addStress } from './commands/stress.js';
import { addTopology } from './commands/topology.js';
import { addZoo } from './commands/zoo.js';
import { EXIT_CLEAN, EXIT_USAGE, type Surroundings } from './surroundings.js';

/** Commander's own, with defaults as a user would type them: without quotes, and none where it is empty. */
function optionDescription(option: Option): string {
  const text = Help.prototype.optionDescription.call(new Help(), option);
  return text.replace(/ \(default: ""\)$/, '').replace(/\(default: "([^"]*)"\)$/, '(default: $1)');
}

/** @returns the exit code: 0 clean, 1 a violation or a dead worker, 2 wrong usage */
export async function main(args: readonly string[], surroundings: Surroundings): Promise<number> {
  let exitCode = EXIT_CLEAN;
  const done = (code: number): void => {
    exitCode = code;
  };
  const program = new Command('iommufd')
    .description("Linux's iommufd user API over simulated physical IOMMUs, with real threads.")
    .version(packageVersion(), '-V, --version')
    .exitOverride()
    // What follows a program's name belongs to that program.
    .enablePositionalOptions()
    .configureHelp({ optionDescription })
    .configureOutput({
      writeOut: (text) => surroundings.stdout.write(text),
      writeErr: (text) => surroundings.stderr.write(text),
    })
    .showHelpAfterError('(iommufd --help)')
    .addHelpText('after', '\nExit codes: 0 clean, 1 a violation or a dead worker, 2 wrong usage.');
  addStress(program, surroundings, done);
  addTopology(program, surroundings, done);
  addExplore(program, surroundings, done);
  addFuzz(program, surroundings, done);
  addChaos(program, surroundings, done);
  addSoak(program, surroundings, done);
  addBench(program, surroundings, done);
  addInspect(program, surroundings, done);
  addDecode(program, surroundings, done);
  addScale(program, surroundings, done);
  addServe(program, surroundings, done);
  addRun(program, surroundings, done);
  addZoo(program, surroundings, done);
  for (const command of program.commands) command.showHelpAfterError(`(iommufd ${command.name()} --help)`);
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? EXIT_CLEAN : EXIT_USAGE;
  }
  return exitCode;
}

/** Two folders up, where npm puts it: next to `dist`. */
function packageVersion(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
