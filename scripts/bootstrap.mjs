// From a fresh clone to a running command with nothing but Node and npm: installs the locked packages when
// they are missing or older than the lockfile, builds, then runs what was asked for. Plain Node on purpose:
// zx itself is one of the packages that may not be installed yet.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`iommufd needs Node 20.19 or newer; this is ${process.version}`);
  process.exit(2);
}

function run(command, args, quiet = false) {
  const { status, signal, error } = spawnSync(command, args, {
    cwd: root,
    // Set-up chatter belongs on stderr: the stdout of `npm start -- --json` is JSON and nothing else.
    stdio: quiet ? ['ignore', 2, 2] : 'inherit',
  });
  if (error) throw error;
  if (signal) process.kill(process.pid, signal);
  return status ?? 1;
}

function must(command, args) {
  const status = run(command, args, true);
  if (status !== 0) process.exit(status);
}

const installed = join(root, 'node_modules/.package-lock.json');
const lock = join(root, 'package-lock.json');
if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs) {
  must('npm', ['ci', '--no-fund', '--no-audit']);
}
must(process.execPath, [join(root, 'node_modules/zx/build/cli.js'), 'scripts/build.mjs']);

const [task, ...rest] = process.argv.slice(2);
const zx = (script) => [join(root, 'node_modules/zx/build/cli.js'), script, ...rest];
// Ctrl-C reaches the child through the process group; it ends the run and reports, and we pass its status on.
process.on('SIGINT', () => undefined);
switch (task) {
  case 'start':
    process.exitCode = run(process.execPath, ['scripts/start.mjs', ...rest]);
    break;
  case 'test':
    process.exitCode = run(process.execPath, zx('scripts/test.mjs'));
    break;
  default:
    console.error(`bootstrap: unknown task '${task}' (start, test)`);
    process.exitCode = 2;
}
