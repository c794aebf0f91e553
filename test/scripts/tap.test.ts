import test from 'ava';

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}
const script = new URL('../../../scripts/tap.mjs', import.meta.url);
const { readTap } = (await import(script.href)) as {
  readTap(
    lines: AsyncIterable<string>,
    say: (text: string) => void,
    seen?: (counts: Counts) => void,
  ): Promise<Counts>;
};

async function read(text: string): Promise<{ counts: Counts; said: string[] }> {
  const said: string[] = [];
  async function* lines() {
    yield* text.split('\n');
  }
  return { counts: await readTap(lines(), (line) => said.push(line)), said };
}

test('tap: counts what passed, failed and was skipped', async (t) => {
  const { counts, said } = await read(
    'TAP version 13\nok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP\nnot ok 4 - d # TODO\nok 5 - e\n\n1..5\n# tests 5\n# pass 2\n# fail 1',
  );
  t.deepEqual(counts, { passed: 2, failed: 1, skipped: 2 });
  t.deepEqual(said, ['FAILED - b']);
});

test('tap: says the details and logs of failed tests, and of no other', async (t) => {
  const { said } = await read(
    'ok 1 - a\n# SEED=1\nnot ok 2 - b\n# SEED=2\n  ---\n  message: no\n  ...\nok 3 - c\n# SEED=3',
  );
  t.deepEqual(said, ['FAILED - b', '# SEED=2', '  ---', '  message: no', '  ...']);
});

test('tap: nothing is no test', async (t) => {
  t.deepEqual((await read('')).counts, { passed: 0, failed: 0, skipped: 0 });
});

test('tap: a stray line of output is passed on', async (t) => {
  t.deepEqual((await read('ok 1 - a\nhello')).said, ['hello']);
});

test('tap: tells the counts after each test', async (t) => {
  const seen: number[][] = [];
  async function* lines() {
    yield* ['ok 1 - a', '# a log', 'not ok 2 - b', '  ---', 'ok 3 - c # SKIP'];
  }
  await readTap(
    lines(),
    () => undefined,
    ({ passed, failed, skipped }) => seen.push([passed, failed, skipped]),
  );
  t.deepEqual(seen, [
    [1, 0, 0],
    [1, 1, 0],
    [1, 1, 1],
  ]);
});
