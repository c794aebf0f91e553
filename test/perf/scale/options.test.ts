import test from 'ava';
import { parseList, type ScaleInput, scaleOptions } from '../../../perf/scale/options.js';
import { OptionError } from '../../../perf/stress/option-error.js';

test('list: numbers, ranges and series, ascending and each once', (t) => {
  t.deepEqual(parseList('4,1,2,2', 1, 64), [1, 2, 4]);
  t.deepEqual(parseList('1-4,3-6', 1, 64), [1, 2, 3, 4, 5, 6]);
  t.deepEqual(parseList('1-64x2', 1, 64), [1, 2, 4, 8, 16, 32, 64]);
  t.deepEqual(parseList('3-20x3', 1, 64), [3, 9]);
  t.deepEqual(parseList('0', 0, 4), [0]);
});

test('list: what is none, out of range or endless is told', (t) => {
  for (const text of ['', 'a', '1,', '1-', '-1', '1.5', '1-2-3', '2x2'])
    t.regex(String(parseList(text, 1, 64)), /is no number/);
  for (const text of ['0', '65', '1-65', '8-2'])
    t.regex(String(parseList(text, 1, 64)), /is not within 1 to 64/);
  for (const text of ['1-8x1', '1-8x0', '0-8x2']) t.regex(String(parseList(text, 0, 64)), /would never end/);
});

test('options: every combination is a point, devices grow with the SMMUs', (t) => {
  const { points, repeats, seed } = scaleOptions(
    { iommus: '1,2', devices: '3', batch: '16,64', repeats: '2', seed: '7' },
    () => t.fail() as never,
  );
  t.deepEqual(
    points.map(({ psmmus, devices, guests, batch, queues }) => [psmmus, devices, guests, batch, queues]),
    [
      [1, 3, 0, 16, 1],
      [1, 3, 0, 64, 1],
      [2, 6, 0, 16, 1],
      [2, 6, 0, 64, 1],
    ],
  );
  t.deepEqual([repeats, seed], [2, 7]);
});

test('options: combinations that are the same point are taken once', (t) => {
  const both = { s2Sharing: 'shared,per-psmmu', seed: 1 };
  t.is(scaleOptions({ ...both, iommus: '2', guests: '0' }).points.length, 1);
  t.is(scaleOptions({ ...both, iommus: '2', guests: '1' }).points.length, 2);
  const queues = scaleOptions({ iommus: '1,4', guests: '1', queues: '1,per-psmmu', seed: 1 }).points;
  t.deepEqual(
    queues.map((point) => [point.psmmus, point.queues]),
    [
      [1, 1],
      [4, 1],
      [4, 4],
    ],
  );
});

const WRONG: [ScaleInput, option: string, RegExp][] = [
  [{ iommus: '0' }, 'iommus', /not within 1 to 64/],
  [{ iommus: '65' }, 'iommus', /not within 1 to 64/],
  [{ devices: 'two' }, 'devices', /is no number/],
  [{ iommus: '64', devices: '5' }, 'devices', /more than 256 threads/],
  [{ iommus: '1', devices: '1', guests: '2' }, 'guests', /2 guests, and 1 SMMUs with 1 devices each have 1/],
  [{ guests: '65' }, 'guests', /not within 0 to 64/],
  [{ s2Sharing: 'all' }, 's2Sharing', /'all' is none of shared, per-psmmu/],
  [{ batch: '65' }, 'batch', /not within 1 to 64/],
  [{ queues: '2' }, 'queues', /'2' is none of 1, per-psmmu/],
  [{ queues: 'per-psmmu' }, 'queues', /one command queue \(no ECMDQ\)/],
  [{ repeats: '0' }, 'repeats', /a whole number from 1 to 1000/],
  [{ duration: 'long' }, 'duration', /a number of seconds/],
  [{ seed: '-1' }, 'seed', /a whole number from 0 to 4294967295/],
  [{ speed: '1' } as ScaleInput, 'speed', /./],
];
for (const [input, option, message] of WRONG)
  test(`options: ${JSON.stringify(input)} is refused by its name`, (t) => {
    const error = t.throws(() => scaleOptions(input), { instanceOf: OptionError })!;
    t.is(error.option, option);
    t.regex(error.message, message);
  });
