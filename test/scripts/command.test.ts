/** The command as a process: exit codes, a closed pipe, and what npm's scripts are made of. Few, as they cost. */
import { execFile, spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const command = fileURLToPath(new URL('../../scripts/iommufd.js', import.meta.url));
const run = (...args: string[]) =>
  spawnSync(process.execPath, [command, ...args], { encoding: 'utf8', timeout: 30_000 });

test('command: the exit code of wrong usage is 2 and stdout stays empty', (t) => {
  const { status, stdout, stderr } = run('stress', '--json', '--devices', 'many');
  t.is(status, 2);
  t.is(stdout, '');
  t.regex(stderr, /--devices: must be a whole number/);
});

test('command: --version is the package’s', (t) => {
  const { status, stdout } = run('--version');
  t.is(status, 0);
  t.regex(stdout, /^\d+\.\d+\.\d+\n$/);
});

test('command: a reader that goes away is no crash', async (t) => {
  const child = execFile(process.execPath, [command, 'topology', 'cix-p1', '--json']);
  child.stdout!.destroy();
  let stderr = '';
  child.stderr!.on('data', (text) => {
    stderr += text;
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  t.is(stderr, '');
  t.is(code, 0);
});

const full = existsSync('/dev/full') ? test : test.skip;
full('command: a stdout that is full is one line on stderr and exit code 1', (t) => {
  const stdout = openSync('/dev/full', 'w');
  t.teardown(() => closeSync(stdout));
  const { status, stderr } = spawnSync(process.execPath, [command, 'topology', 'cix-p1'], {
    encoding: 'utf8',
    stdio: ['ignore', stdout, 'pipe'],
    timeout: 30_000,
  });
  t.regex(stderr, /^iommufd: stdout: ENOSPC: .*\n$/);
  t.is(status, 1);
});

const proc = existsSync('/proc/self') ? test : test.skip;
proc('command: a place that takes no results is wrong usage, told before the work', (t) => {
  for (const [args, told] of [
    [['fuzz', '--count', '1000', '--corpus', '/proc/nowhere'], /--corpus: .*nowhere/],
    [['fuzz', '--count', '1000', '--corpus', command], /--corpus: .*is not a folder/],
    [['soak', '--duration', '600', '--report', '/nowhere/soak.json'], /--report: there is no directory/],
    [['scale', '--out', command], /--out: .*is not a folder/],
  ] as const) {
    const { status, stdout, stderr } = run(...args);
    t.is(status, 2, stderr);
    t.is(stdout, '');
    t.regex(stderr, told);
    t.notRegex(stderr, / {4}at /);
  }
});
