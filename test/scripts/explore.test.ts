import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { main } from '../../scripts/cli.js';

async function explore(args: readonly string[], signal = new AbortController().signal) {
  let stdout = '';
  let stderr = '';
  const code = await main(['explore', ...args], {
    stdout: { write: (text) => (stdout += text), columns: 100 },
    stderr: { write: (text) => (stderr += text) },
    signal,
    loadStress: () => Promise.reject(new Error('no run was expected')),
  });
  const lines = stdout.trimEnd().split('\n');
  return { code, stdout, stderr, lines };
}

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'iommufd-explore-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

/** Two threads add one to a word, in two steps each. */
const LOST_UPDATE = `
const program = (ctx) => ({
  run() {
    const seen = ctx.words.load(ctx.base);
    ctx.note('saw ' + seen);
    ctx.words.store(ctx.base, seen + 1);
  },
  check() {
    const sum = ctx.words.load(ctx.base);
    ctx.check('sum', sum === 2, () => 'the sum is ' + sum);
  },
});
export const lostUpdate = {
  name: 'lost-update', about: 'two threads add one', checks: ['sum'], words: { counter: 0 },
  threads: [{ name: 'a', program }, { name: 'b', program }],
};
export const checksNothing = {
  name: 'checks-nothing', about: 'looks at nothing', checks: ['sum'],
  threads: [{ name: 'a', program: (ctx) => () => { ctx.words.add(ctx.base, 1); } }],
};
export const sharesNothing = {
  name: 'shares-nothing', about: 'checks, and touches nothing', checks: ['one'],
  threads: ['a', 'b'].map((name) => ({ name, program: (ctx) => () => ctx.check('one', true) })),
};
export const isAsync = {
  name: 'is-async', about: 'goes on when nobody looks', checks: ['one'],
  threads: ['a', 'b'].map((name) => ({
    name,
    program: (ctx) => async () => { ctx.words.load(ctx.base); await null; throw new Error('late'); },
  })),
};
export const returnsNothing = {
  name: 'returns-nothing', about: 'sets up, and returns nothing to run', checks: ['one'],
  threads: [{ name: 'a', program() {} }],
};
let runs = 0;
export const fickle = {
  name: 'fickle', about: 'fails once', checks: ['once'],
  threads: [{ name: 'a', program: (ctx) => () => ctx.check('once', runs++ > 0, () => 'the first time') }],
};
export const noSetup = {
  name: 'no-setup', about: 'cannot be set up', checks: ['sum'],
  threads: [{ name: 'a', program() { throw new Error('no such luck'); } }],
};
`;

function lostUpdate(t: ExecutionContext): { path: string; module: string } {
  const path = folder(t);
  const module = join(path, 'lost-update.mjs');
  writeFileSync(module, LOST_UPDATE);
  return { path, module };
}

test.serial('explore: a failure is told as a table, written to a file, and happens again', async (t) => {
  const { path, module } = lostUpdate(t);
  const found = await explore(['--scenario-file', `${module}#lostUpdate`, '--seed', '3', '--out', path]);
  t.is(found.code, 1, found.stderr);
  t.regex(
    found.stdout,
    /^lost-update\n {2}\d+ schedules?, \d+ steps in [\d.]+ s: [\d.k]+ schedules\/s, [\d.k]+ steps\/s\n/,
  );
  t.regex(found.stdout, /BROKEN: sum, in schedule \d+ of seed 3: \d+ steps, \d+ switch/);
  t.regex(found.stdout, /│ step +│ a +│ b +│/);
  t.regex(found.stdout, /counter is 0/);
  t.regex(found.stdout, /counter := 1/);
  t.regex(found.stdout, /# saw 0/);
  t.regex(found.stdout, /sum, in a: the sum is 1/);
  t.regex(found.lines.at(-1)!, /^1 scenario, \d+ schedules?, \d+ steps, 1 failure; seed 3$/);
  const [, file] = /again: iommufd explore --replay (\S+)/.exec(found.stdout)!;
  t.deepEqual(readdirSync(path).sort(), ['explore-lost-update-3.json', 'lost-update.mjs']);

  const story = (text: string) => text.slice(text.indexOf('┌'), text.indexOf('the sum is 1'));
  for (let i = 0; i < 3; i++) {
    const again = await explore(['--replay', file!]);
    t.is(again.code, 1);
    t.regex(again.stdout, /as recorded: sum in a after \d+ steps/);
    t.notRegex(again.stdout, /note:/);
    t.is(story(again.stdout), story(found.stdout));
  }
});

test.serial('explore: --shrink says what it came to, --trace writes the schedule down', async (t) => {
  const { path, module } = lostUpdate(t);
  const trace = join(path, 'trace.json');
  const { code, stdout } = await explore([
    ...['--scenario-file', `${module}#lostUpdate`, '--seed', '3', '--out', path],
    ...['--shrink', '--trace', trace],
  ]);
  t.is(code, 1);
  t.regex(stdout, /shrunk from \d+ switches and \d+ steps to 2 and \d+, by \d+ schedules/);
  t.true(stdout.includes(`trace: ${trace}`));
  const { traceEvents } = JSON.parse(readFileSync(trace, 'utf8')) as { traceEvents: { name: string }[] };
  for (const name of ['counter is 0', 'counter := 1', 'saw 0', 'sum'])
    t.true(
      traceEvents.some((event) => event.name === name),
      name,
    );
});

test.serial('explore: --json says the same, one object a line', async (t) => {
  const { path, module } = lostUpdate(t);
  const { lines, code } = await explore([
    ...['--scenario-file', `${module}#lostUpdate`, 'mutex-2', '--schedules', '200'],
    ...['--seed', '3', '--out', path, '--json'],
  ]);
  t.is(code, 1);
  const said = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const reports = said.filter(({ type }) => type === 'report');
  t.deepEqual(reports.map(({ scenario, ok }) => [scenario, ok]).sort(), [
    ['lost-update', false],
    ['mutex-2', true],
  ]);
  const failed = reports.find(({ ok }) => ok === false) as {
    failure: { invariant: string };
    told: { replayFile: string; story: { rows: { thread: string; accesses: { text: string }[] }[] } };
  };
  t.is(failed.failure.invariant, 'sum');
  t.true(failed.told.story.rows.some(({ accesses }) => accesses.some(({ text }) => text === 'counter := 1')));
  const { type, scenarios, failures, problems, seed } = said.at(-1)!;
  t.deepEqual([type, scenarios, failures, problems, seed], ['result', 2, 1, 0, 3]);
  const [replayed] = (await explore(['--replay', failed.told.replayFile, '--json'])).lines.map(
    (line) => JSON.parse(line) as { type: string; same: boolean },
  );
  t.is(replayed!.type, 'replayed');
  t.true(replayed!.same);
});

test.serial('explore: a clean scenario is exit code 0, a seed repeats its schedules', async (t) => {
  const digests: unknown[] = [];
  for (let i = 0; i < 2; i++) {
    const { code, lines } = await explore(['mutex-2', '--schedules', '300', '--seed', '9', '--json']);
    t.is(code, 0);
    const { digest, schedules, steps, checks } = JSON.parse(lines.at(-2)!) as Record<string, unknown>;
    digests.push([digest, schedules, steps, checks]);
  }
  t.deepEqual(digests[0], digests[1]);
});

test.serial(
  'explore: a scenario in which no check ran, or that cannot be set up, is exit code 1',
  async (t) => {
    const { path, module } = lostUpdate(t);
    const nothing = await explore([
      '--scenario-file',
      `${module}#checksNothing`,
      '--schedules',
      '5',
      '--out',
      path,
    ]);
    t.is(nothing.code, 1);
    t.regex(nothing.stdout, /PROVED NOTHING: no check ran/);
    t.regex(nothing.lines.at(-1)!, /0 failures, 1 proved nothing/);
    const broken = await explore(['--scenario-file', `${module}#noSetup`, '--schedules', '5', '--out', path]);
    t.is(broken.code, 1);
    t.regex(broken.stderr, /iommufd explore: no-setup: .*no such luck/);
    t.notRegex(broken.stderr, /engine\/|node:/);
  },
);

test.serial(
  'explore: threads that share nothing, are async, or have nothing to run are told so',
  async (t) => {
    const { path, module } = lostUpdate(t);
    const run = (name: string) =>
      explore(['--scenario-file', `${module}#${name}`, '--schedules', '5', '--out', path]);
    const idle = await run('sharesNothing');
    t.is(idle.code, 1);
    t.regex(idle.stdout, /checks made: one 10\n {2}PROVED NOTHING: no thread made an access/);
    const late = await run('isAsync');
    t.is(late.code, 1, late.stderr);
    t.regex(late.stdout, /exception, in [ab]: TypeError: what runs must not be async/);
    t.notRegex(late.stdout, /engine\/|node:/);
    const nothing = await run('returnsNothing');
    t.is(nothing.code, 1);
    t.regex(nothing.stderr, /program\(\) has to return what is to run/);
  },
);

test.serial(
  'explore: checks of monitors are told by monitor, and nothing is wider than the terminal',
  async (t) => {
    const { code, stdout, lines } = await explore(['unmap-during-dma', '--schedules', '3', '--seed', '1']);
    t.is(code, 0, stdout);
    t.regex(stdout, /\n {2}checks made: R1 \d+\n {2}monitors: frames \d+, objects \d+/);
    t.regex(stdout, /nothing to look at:[^;]* guest\s+translations/);
    for (const line of lines) t.true(line.length <= 100, line);
    const bug = await explore([
      'unmap-during-dma',
      '--bug',
      'tlbi-skipped',
      '--seed',
      '1',
      '--out',
      folder(t),
    ]);
    t.is(bug.code, 1);
    t.regex(bug.stdout, /\n {2}R1: once the SYNC .*\n/);
  },
);

test.serial('explore: a failure that does not happen again is told as such', async (t) => {
  const { path, module } = lostUpdate(t);
  const { code, stdout } = await explore(['--scenario-file', `${module}#fickle`, '--out', path]);
  t.is(code, 1);
  t.regex(stdout, /BROKEN: once/);
  t.regex(stdout, /NOT the same when run again: the scenario is not deterministic/);
});

test.serial('explore: a replay of code that has changed says so, and proves nothing', async (t) => {
  const { path, module } = lostUpdate(t);
  await explore(['--scenario-file', `${module}#lostUpdate`, '--seed', '3', '--out', path]);
  const file = join(path, 'explore-lost-update-3.json');
  // Another module of that name, as this process has loaded the first one already.
  const other = join(path, 'mended.mjs');
  writeFileSync(other, LOST_UPDATE.replace(/const seen[\s\S]*?seen \+ 1\);/, 'ctx.words.add(ctx.base, 1);'));
  writeFileSync(file, readFileSync(file, 'utf8').replace('lost-update.mjs', 'mended.mjs'));
  const { code, stdout } = await explore(['--replay', file]);
  t.is(code, 1);
  t.regex(stdout, /DIVERGED/);
  t.regex(stdout, /note: .*mended\.mjs is not what it was/);
});

test.serial('explore: the shards of a campaign, merged, are the campaign', async (t) => {
  const path = folder(t);
  const args = ['mutex-2', '--seed', '5', '--schedules', '100', '--json'];
  const files = [0, 1].map((i) => join(path, `${i}.jsonl`));
  for (const [i, file] of files.entries()) {
    const { stdout, code } = await explore([...args, '--shard', `${i}/2`]);
    t.is(code, 0);
    writeFileSync(file, stdout);
  }
  const merged = await explore(['--merge', ...files, '--json']);
  t.is(merged.code, 0, merged.stderr);
  const whole = await explore(['mutex-2', '--seed', '5', '--schedules', '200', '--json']);
  const facts = (line: string) => {
    const { schedules, steps, checks, digest } = JSON.parse(line) as Record<string, unknown>;
    return { schedules, steps, checks, digest };
  };
  t.deepEqual(facts(merged.lines[0]!), facts(whole.lines.at(-2)!));
  t.regex((await explore(['--merge', ...files])).stdout, /^mutex-2\n {2}200 schedules, .* all 2 shards\n/);
  t.regex((await explore(['--merge', files[1]!])).stdout, / shard 1\/2\n/);

  const [first] = files;
  const twice = await explore(['--merge', first!, first!]);
  t.is(twice.code, 2);
  t.regex(twice.stderr, /--merge: mutex-2: shard 0\/2 is there twice/);
  for (const [text, message] of [
    ['{"type":"report"}', /line 1: no report of this version: version/],
    ['{', /line 1: .*JSON/],
    ['', /has no report/],
    ['null', /has no report/],
  ] as const) {
    writeFileSync(first!, text);
    const { code, stderr } = await explore(['--merge', first!]);
    t.is(code, 2);
    t.regex(stderr, message);
  }
});

test.serial('explore: Ctrl-C ends it with the results so far', async (t) => {
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 1500);
  const { code, lines } = await explore(['mutex-2', '--duration', '100', '--seed', '1'], abort.signal);
  t.is(code, 0);
  t.regex(lines.at(-1)!, /^1 scenario, [\d.kM]+ schedules, .* 0 failures; seed 1, ended early$/);
});

test('explore: --list has every scenario with what it checks', async (t) => {
  const { code, stdout } = await explore(['--list']);
  t.is(code, 0);
  t.regex(stdout, /^mutex-2\n {4}2 threads take a mutex\n {4}checks mutual exclusion; threads t0, t1$/m);
  const { lines } = await explore(['--list', '--json', 'mutex-2']);
  t.deepEqual(JSON.parse(lines[0]!), {
    type: 'scenario',
    scenario: 'mutex-2',
    about: '2 threads take a mutex',
    checks: ['mutual exclusion'],
    threads: ['t0', 't1'],
  });
});
