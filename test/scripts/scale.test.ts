import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { main } from '../../scripts/cli.js';

/** @param onStderr  told everything that was said so far, each time something is */
async function iommufd(
  args: readonly string[],
  signal = new AbortController().signal,
  onStderr: (text: string) => void = () => undefined,
) {
  let stdout = '';
  let stderr = '';
  const code = await main(args, {
    stdout: { write: (text) => (stdout += text) },
    stderr: {
      write: (text) => {
        stderr += text;
        onStderr(stderr);
      },
    },
    signal,
    loadStress: () => Promise.reject(new Error('no run was expected')),
  });
  return { code, stdout, stderr };
}

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'iommufd-scale-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

test.serial('scale: a small sweep gives CSV, JSON and a page that agree', async (t) => {
  const out = folder(t);
  const sweep = [
    '--iommus',
    '1,2',
    '--devices',
    '1',
    '--guests',
    '0,1',
    '--repeats',
    '1',
    '--duration',
    '0.2',
  ];
  const { code, stdout, stderr } = await iommufd(['scale', ...sweep, '--seed', '5', '--out', out, '--json']);
  t.is(code, 0, stderr);
  const data = JSON.parse(stdout);
  t.deepEqual(JSON.parse(readFileSync(join(out, 'scale.json'), 'utf8')), data);
  t.is(data.report, 'iommufd-scale');
  t.is(data.options.seed, 5);
  const points = data.points as { params: object; repeats: object[]; error?: string }[];
  t.deepEqual(
    points.map(({ params, repeats, error }) => [params, repeats.length, error]),
    [
      [1, 0],
      [1, 1],
      [2, 0],
      [2, 1],
    ].map(([psmmus, guests]) => [
      { psmmus, devices: psmmus, guests, s2Sharing: 'shared', batch: 64, queues: 1 },
      1,
      undefined,
    ]),
  );
  for (const { repeats } of data.points) {
    const [{ throughput, syncP50Us, syncP99Us, hitRate }] = repeats;
    t.true(throughput > 0 && syncP50Us > 0 && syncP99Us >= syncP50Us);
    t.true(hitRate > 0 && hitRate <= 1);
  }
  const csv = readFileSync(join(out, 'scale.csv'), 'utf8').trimEnd().split('\n');
  t.is(csv.length, 1 + 4);
  t.true(existsSync(join(out, 'scale.html')));
  t.regex(stderr, /4\/4 {2}/);
});

test.serial('scale: Ctrl-C ends the measurement under way and writes what there is', async (t) => {
  const out = folder(t);
  const abort = new AbortController();
  const sweep = ['--iommus', '1', '--repeats', '50', '--duration', '0.1', '--out', out, '--json'];
  const { code, stdout, stderr } = await iommufd(['scale', ...sweep], abort.signal, (said) => {
    if (said.includes('1/50')) setTimeout(() => abort.abort(), 50);
  });
  t.is(code, 0, stderr);
  t.regex(stderr, /interrupted/);
  const { points } = JSON.parse(stdout);
  t.is(points.length, 1);
  t.true(points[0].repeats.length >= 1 && points[0].repeats.length < 50);
  t.is(points[0].error, undefined);
  t.is(
    readFileSync(join(out, 'scale.csv'), 'utf8').trimEnd().split('\n').length,
    1 + points[0].repeats.length,
  );
});

test('scale: wrong usage names the option, before anything starts', async (t) => {
  const bad: [string[], RegExp][] = [
    [['--iommus', '0'], /iommufd scale: --iommus: '0' is not within 1 to 64/],
    [['--s2-sharing', 'all'], /--s2-sharing: 'all' is none of shared, per-psmmu/],
    [['--queues', '4'], /--queues: '4' is none of 1, per-psmmu/],
    [['--out', '/proc/nowhere'], /--out: /],
    [['--fast'], /unknown option '--fast'/],
  ];
  for (const [args, expected] of bad) {
    const { code, stdout, stderr } = await iommufd(['scale', ...args]);
    t.is(code, 2, args.join(' '));
    t.is(stdout, '');
    t.regex(stderr, expected);
    t.notRegex(stderr, /points/);
  }
});
