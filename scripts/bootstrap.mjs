// From a fresh clone to a running command with nothing but Node and npm: installs the locked packages when
// they are missing or older than the lockfile, builds, then runs what was asked for. Plain Node on purpose:
// zx itself is one of the packages that may not be installed yet.
import { spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const zx = join(root, 'node_modules/zx/build/cli.js');

/** A command of its own name. */
function command(name) {
  return (args) => [join(root, 'dist/scripts/iommufd.js'), name, ...args];
}

const TASKS = {
  /** Set-up is all there is to it. */
  build: () => null,
  start: (args) => [join(root, 'scripts/start.mjs'), ...args],
  fuzz: command('fuzz'),
  chaos: command('chaos'),
  soak: command('soak'),
  bench: command('bench'),
  explore: command('explore'),
  scale: command('scale'),
  inspect: command('inspect'),
  zoo: command('zoo'),
  test: (args) => [zx, join(root, 'scripts/test.mjs'), ...args],
};

/** Set-up chatter belongs on stderr: stdout is the task's alone. */
const SET_UP = ['ignore', 2, 2];

/** Runs a program to its end; Ctrl-C and a polite kill are the program's to answer. */
function run(command, args, stdio) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio });
    const forward = (signal) => child.kill(signal);
    process.on('SIGINT', forward);
    process.on('SIGTERM', forward);
    child.on('error', reject);
    child.on('exit', (status, signal) => {
      process.off('SIGINT', forward);
      process.off('SIGTERM', forward);
      resolve(signal === null ? status : 128 + constants.signals[signal]);
    });
  });
}

/** npm writes this file when an installation is complete, and only then. */
function installed() {
  const mark = statSync(join(root, 'node_modules/.package-lock.json'), { throwIfNoEntry: false });
  if (mark === undefined || !existsSync(zx)) return false;
  return mark.mtimeMs >= statSync(join(root, 'package-lock.json')).mtimeMs;
}

async function setUp() {
  if (!installed()) {
    console.error('installing the locked packages ...');
    const status = await run('npm', ['ci', '--no-fund', '--no-audit', '--loglevel=error'], SET_UP);
    if (status !== 0) return status;
  }
  return run(process.execPath, [zx, join(root, 'scripts/build.mjs')], SET_UP);
}

async function bootstrap([task, ...args]) {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    console.error(`iommufd needs Node 20.19 or newer; this is ${process.version}`);
    return 2;
  }
  if (!Object.hasOwn(TASKS, task ?? '')) {
    console.error(`bootstrap: unknown task '${task}' (${Object.keys(TASKS).join(', ')})`);
    return 2;
  }
  const status = await setUp();
  const command = TASKS[task](args);
  if (status === 0) return command === null ? 0 : run(process.execPath, command, 'inherit');
  // Whoever reads the last line for the count is to see that nothing passed.
  if (task === 'test') console.log('0 passed, 1 failed');
  return status;
}

process.exitCode = await bootstrap(process.argv.slice(2));
