import test from 'ava';
import { main } from '../../scripts/cli.js';

async function zoo(args: readonly string[], signal = new AbortController().signal) {
  let stdout = '';
  let stderr = '';
  const code = await main(['zoo', ...args], {
    stdout: { write: (text) => (stdout += text), columns: 160 },
    stderr: { write: (text) => (stderr += text) },
    signal,
    loadStress: () => Promise.reject(new Error('no run was expected')),
  });
  return { code, stdout, stderr, lines: stdout.trimEnd().split('\n') };
}

test.serial('zoo: --json is one object a bug: found by running, replayed, clean without it', async (t) => {
  const bugs = ['mutex-wakes-before-release', 'ring-full-taken-for-empty'];
  const { code, lines, stderr } = await zoo([...bugs, '--json', '--replays', '5']);
  t.is(code, 0, stderr);
  const rows = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  t.deepEqual(rows.map(({ bug }) => bug).sort(), bugs);
  for (const row of rows) {
    for (const key of ['origin', 'by', 'invariant']) t.is(typeof row[key], 'string', key);
    for (const key of ['schedules', 'seconds']) t.true((row[key] as number) > 0, key);
    t.true(row.found);
    t.is(row.replayed, 5);
    t.true(row.clean);
    t.is(row.problem, null);
  }
  t.is(rows.find(({ bug }) => bug === bugs[0])!.invariant, 'lost wake-up');
});

test.serial('zoo: the table has bug, origin, found by, schedules, seconds and the invariant', async (t) => {
  const { code, stdout, lines } = await zoo(['mutex-wakes-before-release', '--replays', '3']);
  t.is(code, 0);
  for (const head of ['bug', 'origin', 'found by', 'schedules', 'seconds', 'broken'])
    t.true(lines[1]!.includes(head), head);
  t.regex(stdout, /mutex-wakes-before-release.*random.*lost wake-up.*3\/3.*clean/);
  t.regex(lines.at(-1)!, /^1 of 1 bugs found, replayed and clean when off; \d+ s, seed 1$/);
});

test('zoo: what is not run is not found: exit code 1, by name', async (t) => {
  const over = AbortSignal.abort();
  const { code, stderr } = await zoo(['ste-torn'], over);
  t.is(code, 1);
  t.regex(stderr, /not run: ste-torn/);
});

test('zoo: --list has every bug with its origin, and runs nothing', async (t) => {
  const { code, lines } = await zoo(['--list', '--json']);
  t.is(code, 0);
  t.true(lines.length >= 24);
  for (const line of lines) {
    const { bug, origin, invariant } = JSON.parse(line) as Record<string, string>;
    t.true(
      [bug, origin, invariant].every((text) => text !== undefined && text.length > 0),
      line,
    );
  }
});

test('zoo: a bug that is not there is wrong usage', async (t) => {
  const { code, stderr } = await zoo(['no-such-bug']);
  t.is(code, 2);
  t.regex(stderr, /no bug 'no-such-bug'/);
});
