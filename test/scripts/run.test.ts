import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { compile, compiler } from '../../runtime/serve/preload-library.js';
import { canCompile, finished, until } from '../kit/c-client.js';

const IOMMUFD = join(import.meta.dirname, '../../scripts/iommufd.js');

/** A place for the sockets of what the test runs, so that what is left behind is seen. */
function place(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-run-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

function start(args: readonly string[], runtimeDir: string, env: NodeJS.ProcessEnv = {}) {
  return spawn(process.execPath, [IOMMUFD, ...args], {
    env: { ...process.env, XDG_RUNTIME_DIR: runtimeDir, ...env },
  });
}

const sh = (script: string) => ['run', '--', '/bin/sh', '-c', script];

test('run: stdio and exit code are the program’s, and nothing is left behind', async (t) => {
  if (!canCompile(t)) return;
  const folder = place(t);
  const child = start(
    sh('read line; echo "got $line"; echo more >&2; test -S "$IOMMUFD_SOCKET"; exit 7'),
    folder,
  );
  child.stdin.end('this\n');
  const { stdout, stderr, code } = await finished(child);
  t.is(stdout, 'got this\n');
  t.is(stderr, 'more\n');
  t.is(code, 7);
  t.deepEqual(readdirSync(folder), []);
});

test('run: options after the program are the program’s', async (t) => {
  if (!canCompile(t)) return;
  const { stdout, code } = await finished(start(['run', 'echo', '--config', '-V'], place(t)));
  t.is(stdout, '--config -V\n');
  t.is(code, 0);
});

test('run: the machine may be a topology, with as many devices as wanted', async (t) => {
  if (!canCompile(t)) return;
  const open = (n: number) => `(exec 3<>/dev/vfio/devices/vfio${n}) 2>/dev/null && echo ${n}`;
  const script = [0, 2, 3].map(open).join('; ');
  const child = start(
    ['run', '--topology', 'cix-p1', '--devices', '3', '--', '/bin/sh', '-c', script],
    place(t),
  );
  t.is((await finished(child)).stdout, '0\n2\n');
});

test('run: a program that a signal ends is 128 and the signal', async (t) => {
  if (!canCompile(t)) return;
  const { code } = await finished(start(sh('kill -KILL $$'), place(t)));
  t.is(code, 137);
});

test('run: a signal is handed on, and the program decides', async (t) => {
  if (!canCompile(t)) return;
  const child = start(
    sh('trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.05; done'),
    place(t),
  );
  child.stdout.once('data', () => child.kill('SIGTERM'));
  const { stdout, code } = await finished(child);
  t.is(stdout, 'ready\ncaught\n');
  t.is(code, 9);
});

test('run: what cannot be run is told as shells tell it', async (t) => {
  if (!canCompile(t)) return;
  const gone = await finished(start(['run', '--', '/no/such/program'], place(t)));
  t.is(gone.code, 127);
  t.is(gone.stderr, 'iommufd run: /no/such/program: there is no such program\n');
  const folder = await finished(start(['run', '--', '/tmp'], place(t)));
  t.is(folder.code, 126);
  t.is(folder.stderr, 'iommufd run: /tmp: permission denied (EACCES)\n');
});

test('run: --trace does not write over the program that is to be run', async (t) => {
  if (!canCompile(t)) return;
  const folder = place(t);
  const program = join(folder, 'program');
  writeFileSync(program, '#!/bin/sh\nexit 5\n', { mode: 0o755 });
  const { code, stderr } = await finished(start(['run', '--trace', program, 'echo'], folder));
  t.is(code, 2);
  t.regex(stderr, /^iommufd run: --trace: '.*program' is a program; if it is to be run: --trace -- /);
  t.is(readFileSync(program, 'utf8'), '#!/bin/sh\nexit 5\n');
  const gone = await finished(start(['run', '--trace', 'echo', 'no-such-program'], folder));
  t.is(gone.code, 127);
  t.regex(gone.stderr, /no-such-program: there is no such program \('echo' is the file of --trace/);
  t.false(existsSync('echo'));
});

test('run: a program that the library cannot reach is told', async (t) => {
  if (!canCompile(t)) return;
  const folder = place(t);
  const program = join(folder, 'program');
  writeFileSync(`${program}.c`, 'int main(void) { return 4; }\n');
  if (compile(['-static', '-o', program, `${program}.c`]).status !== 0) {
    t.log('skipped: no static C library');
    t.pass();
    return;
  }
  const { code, stderr } = await finished(start(['run', '--', program], folder));
  t.is(code, 4);
  t.regex(stderr, /program is statically linked: the preload library does not reach it/);
});

test('run: a topology that is given for a configuration is told', async (t) => {
  const folder = place(t);
  const file = join(folder, 'machine.json');
  writeFileSync(file, '{"iommus": [{"name": "a", "base": 4096}]}');
  const { code, stderr } = await finished(start(['run', '--config', file, 'true'], folder));
  t.is(code, 2);
  t.is(stderr, `iommufd run: --config: '${file}' is a topology: --topology takes it\n`);
});

test('run: CC may have options', async (t) => {
  if (!canCompile(t)) return;
  const folder = place(t);
  const wrapper = join(folder, 'wrapper');
  writeFileSync(wrapper, '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });
  const CC = `${wrapper} ${compiler()}`;
  const { code, stderr } = await finished(start(['run', '--', '/bin/true'], folder, { CC }));
  t.is(code, 0, stderr);
});

test('run: without a compiler it says so', async (t) => {
  const { code, stderr } = await finished(
    start(['run', '--', '/bin/true'], place(t), { CC: '/no/such/compiler', XDG_CACHE_HOME: place(t) }),
  );
  t.is(code, 1);
  t.regex(stderr, /^iommufd run: a C compiler is needed .*'\/no\/such\/compiler' cannot be run/);
});

test('run: --trace writes what decode reads', async (t) => {
  if (!canCompile(t)) return;
  const folder = place(t);
  const trace = join(folder, 'trace');
  // Python, perl and the like open and ioctl through the C library too; a shell can only open.
  const { code } = await finished(
    start(
      ['run', '--trace', trace, '--', '/bin/sh', '-c', 'exec 3<>/dev/iommu; read -r line <&3; exit 0'],
      folder,
    ),
  );
  t.is(code, 0);
  t.true(existsSync(trace));
  const decoded = spawnSync(process.execPath, [IOMMUFD, 'decode', trace], { encoding: 'utf8' });
  t.is(decoded.status, 0, decoded.stderr);
});

test('serve: says how to use it, and a signal ends it cleanly', async (t) => {
  if (!canCompile(t)) return;
  const folder = place(t);
  const socket = join(folder, 'socket');
  const child = start(['serve', '--socket', socket], folder);
  const end = finished(child);
  let said = '';
  child.stdout.on('data', (bytes: Buffer) => {
    said += bytes.toString();
  });
  await until(() => said.split('\n').length > 2);
  t.regex(said, new RegExp(`^export IOMMUFD_SOCKET=${socket}\nexport LD_PRELOAD=/.*\\.so\n$`));
  t.is(statSync(socket).mode & 0o777, 0o600);
  const second = await finished(start(['serve', '--socket', socket], place(t)));
  t.is(second.code, 1);
  t.regex(second.stderr, /a server is at .* already/);
  // A shell of its own: the library is loaded when a program begins. The descriptor is a socket of the server's.
  const client = spawnSync(
    '/bin/sh',
    ['-c', `${said} /bin/sh -c 'exec 3<>/dev/iommu && test -S /dev/fd/3 && echo open'`],
    {
      encoding: 'utf8',
    },
  );
  t.is(client.stdout, 'open\n', client.stderr);
  child.kill('SIGTERM');
  t.is((await end).code, 0);
  t.deepEqual(readdirSync(folder), []);
});

test('serve: a socket whose server died is taken over', async (t) => {
  if (!canCompile(t)) return;
  const folder = place(t);
  const socket = join(folder, 'socket');
  const first = start(['serve', '--socket', socket], folder);
  await new Promise((said) => first.stdout.once('data', said));
  first.kill('SIGKILL');
  await finished(first);
  t.true(existsSync(socket));
  const second = start(['serve', '--socket', socket], folder);
  await new Promise((said) => second.stdout.once('data', said));
  second.kill('SIGINT');
  t.is((await finished(second)).code, 0);
  t.false(existsSync(socket));
});

test('run: a trace that cannot be written any more is told once, and ends no program', async (t) => {
  if (!canCompile(t)) return;
  if (!existsSync('/dev/full')) {
    t.pass();
    return;
  }
  const script = 'exec 3<>/dev/iommu; for i in 1 2; do head -c 1 <&3 2>&1 | grep -c Invalid; done';
  const child = start(['run', '--trace', '/dev/full', '--', '/bin/sh', '-c', script], place(t));
  const { stdout, stderr } = await finished(child);
  t.is(stdout, '1\n1\n');
  t.regex(stderr, /^iommufd: --trace ends here: ENOSPC[^\n]*\n$/);
});
