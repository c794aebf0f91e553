import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Failure } from '../../../perf/explore/engine/messages.js';
import {
  choicesOf,
  differencesFrom,
  readReplay,
  replayFileName,
  sourceOf,
  writeReplay,
} from '../../../perf/explore/replay-file.js';
import { scenarioUrl } from './broken-lock.js';

const FAILURE: Failure = {
  invariant: 'lost wake-up',
  detail: 't0 sleeps',
  thread: 't1',
  schedule: 41,
  choices: [1, 1, 1, 0, 0, 257, 1],
  preemptions: 2,
  steps: 6,
};
const OF = {
  scenario: 'mutex-2',
  threads: ['t0', 't1'],
  source: { url: scenarioUrl('mutex'), export: 'mutex2' },
  bugs: ['mutex-wakes-before-release'],
  seed: 42,
  strategy: 'random',
} as const;

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'iommufd-replay-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

test('replay file: what is written is read, and is of this code', (t) => {
  const file = writeReplay(join(folder(t), replayFileName(OF)), OF, FAILURE);
  t.regex(file, /explore-mutex-2-mutex-wakes-before-release-42\.json$/);
  const read = readReplay(file);
  t.deepEqual(choicesOf(read), FAILURE.choices as number[]);
  t.deepEqual(read.choices[0], [1, 3]);
  t.is(read.scenario, 'mutex-2');
  t.is(sourceOf(read), null);
  t.deepEqual(differencesFrom(read), []);
  t.regex(read.sources.iommufd, /^[0-9a-f]{64}$/);
});

test('replay file: another version, other sources and another module are told', (t) => {
  const path = folder(t);
  const module = join(path, 'queue.mjs');
  writeFileSync(module, 'export const a = 1;\n');
  const file = join(path, 'replay.json');
  writeReplay(file, { ...OF, source: { url: `file://${module}`, export: 'a' } }, FAILURE);
  t.deepEqual(sourceOf(readReplay(file)), { url: `file://${module}`, export: 'a' });
  t.deepEqual(differencesFrom(readReplay(file)), []);
  writeFileSync(module, 'export const a = 2;\n');
  const content = JSON.parse(readFileSync(file, 'utf8')) as { sources: object };
  const other = {
    ...content,
    iommufd: '0.0.1',
    node: 'v18.0.0',
    sources: { ...content.sources, iommufd: 'x' },
  };
  writeFileSync(file, JSON.stringify(other));
  const told = differencesFrom(readReplay(file));
  t.is(told.length, 4);
  t.regex(
    told.join('\n'),
    /iommufd 0\.0\.1, .*\n.*Node v18\.0\.0, .*\nthe code of iommufd .*\n.*queue\.mjs is not/,
  );
});

test('replay file: hostile content is refused in one line that names the file', (t) => {
  const path = folder(t);
  const file = join(path, 'replay.json');
  writeReplay(file, OF, FAILURE);
  const good = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  const cases: [unknown, RegExp][] = [
    ['', /cannot be read/],
    ['{', /cannot be read/],
    ['null', /is no replay/],
    ['[]', /is no replay/],
    [{ ...good, version: 2 }, /version/],
    [{ ...good, bugs: ['no-such-bug'] }, /has the bug 'no-such-bug', which is not known/],
    [
      {
        ...good,
        choices: [
          [0, 65536],
          [1, 1],
        ],
      },
      /65537 choices/,
    ],
    [{ ...good, choices: [[0, -1]] }, /choices\.0\.1/],
    [{ ...good, choices: [[0.5, 1]] }, /choices\.0\.0/],
    [{ ...good, choices: [[0, 2 ** 40]] }, /choices/],
    [{ ...good, choices: [['0', 1]] }, /choices/],
    [{ ...good, threads: [] }, /threads/],
    [{ ...good, scenario: 'x'.repeat(10_000) }, /scenario/],
    [{ ...good, module: { path: 7, export: 'a' } }, /module\.path/],
    [{ ...good, module: { path: '/dev/zero', export: 'a' } }, /'\/dev\/zero': it is not a file/],
    [{ ...good, module: { path, export: 'a' } }, /it is not a file/],
    [{ ...good, module: { path: join(path, 'gone.mjs'), export: 'a' } }, /gone\.mjs.*ENOENT/],
    [{ ...good, module: { path: 'a\0b', export: 'a' } }, /null bytes/],
    [`${'['.repeat(1e6)}${']'.repeat(1e6)}`, /is no replay/],
    [`${'{"a":'.repeat(1e5)}`, /cannot be read/],
    [JSON.stringify(good).replace('"seed":42', '"seed":1e999'), /seed/],
    [{ ...good, extra: 1 }, /extra/],
    [' '.repeat(5 * 2 ** 20), /bytes/],
  ];
  for (const [content, message] of cases) {
    writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
    t.throws(() => readReplay(file), { name: 'OptionError', message: message });
    t.throws(() => readReplay(file), { message: /replay\.json' / });
  }
  t.throws(() => readReplay(join(path, 'none')), { message: /is not there/ });
  t.throws(() => readReplay(path), { message: /is not a file/ });
});
