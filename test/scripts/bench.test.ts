import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { main } from '../../scripts/cli.js';

async function iommufd(...args: string[]) {
  let stdout = '';
  let stderr = '';
  const code = await main(args, {
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
    signal: new AbortController().signal,
    loadStress: () => Promise.reject(new Error('no run was expected')),
  });
  return { code, stdout, stderr };
}

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'iommufd-bench-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

const ONE = ['bench', '--json', '--quick', '--filter', 'struct iommu_ioas_map'];

test.serial('bench: --json is one object on stdout, and a run compares with itself', async (t) => {
  const { code, stdout, stderr } = await iommufd(...ONE);
  t.is(code, 0, stderr);
  t.is(stdout.trimEnd().split('\n').length, 1);
  const result = JSON.parse(stdout);
  t.deepEqual(Object.keys(result).sort(), ['cores', 'node', 'rows']);
  t.is(result.node, process.version);
  t.is(result.rows.length, 1);
  t.deepEqual(Object.keys(result.rows[0]).sort(), ['median', 'name', 'ratio', 'spread', 'target', 'unit']);
  t.deepEqual([result.rows[0].name, result.rows[0].unit], ['micro: struct iommu_ioas_map to bytes', 'ns']);
  t.true(result.rows[0].median > 0);

  const file = join(folder(t), 'before.json');
  writeFileSync(file, stdout);
  const same = await iommufd(...ONE, '--baseline', file, '--tolerance', '1000000');
  t.is(same.code, 0, same.stderr);
  t.regex(same.stderr, /1 rows within 1000000 % of .*before\.json, 0 worse, 0 missing/);

  // A thousand times faster, once: nobody reaches that again.
  result.rows[0].median /= 1000;
  writeFileSync(file, JSON.stringify(result));
  const worse = await iommufd(...ONE, '--baseline', file, '--tolerance', '50');
  t.is(worse.code, 1);
  t.regex(worse.stderr, /worse by \d+ %: micro: struct iommu_ioas_map to bytes: median/);
});

test('bench: a bad baseline, tolerance or filter is wrong usage, told before anything runs', async (t) => {
  const file = join(folder(t), 'bad.json');
  writeFileSync(file, '{"rows":[{"name":"x"}],"node":"v20","cores":2}');
  const bad: [string[], RegExp][] = [
    [['--baseline', file], /--baseline: .*bad\.json: rows\.0\.ratio: /],
    [['--baseline', `${file}.gone`], /--baseline: ENOENT/],
    [['--tolerance', 'ten'], /--tolerance.*must be a number of percent/],
    [['--filter', 'no such row'], /--filter: no row has 'no such row' in its name/],
    [['--fast'], /unknown option '--fast'/],
  ];
  for (const [args, expected] of bad) {
    const { code, stdout, stderr } = await iommufd('bench', ...args);
    t.is(code, 2, args.join(' '));
    t.is(stdout, '');
    t.regex(stderr, expected);
    t.false(stderr.includes('...\n'), 'nothing was measured');
  }
});
