import test from 'ava';
import { Histogram } from '../../../perf/report/histogram.js';
import { SampleSeries } from '../../../perf/stress/sample-series.js';
import { sampleAt } from '../stress-sample.js';

function interval(us: number): Histogram {
  const histogram = Histogram.local();
  histogram.record(us * 1000);
  return histogram;
}

for (const offered of [1, 7, 8, 9, 16, 17, 33, 1000])
  test(`series: ${offered} samples become at most 8 points, and nothing is lost`, (t) => {
    const series = new SampleSeries(8);
    for (let i = 1; i <= offered; i++) series.add(sampleAt(i), [interval(i), interval(1)]);
    const points = series.points();
    t.true(points.length <= 8);
    t.true(points.length >= Math.min(offered, 4), 'no fewer than need be');
    t.is(points.at(-1)!.atS, offered, 'the last total is the last sample’s');
    const times = points.map(({ atS }) => atS);
    t.deepEqual(
      times,
      [...new Set(times)].sort((a, b) => a - b),
    );
    for (const iommu of [0, 1])
      t.is(
        points.reduce((sum, { syncInterval }) => sum + syncInterval[iommu]!.count, 0),
        offered,
        'every latency is in one interval',
      );
    t.true(Math.abs(points.at(-1)!.syncInterval[0]!.maxUs - offered) <= 0.1);
    const gaps = points.slice(0, -1).map(({ atS }, i) => atS - (points[i - 1]?.atS ?? 0));
    t.is(new Set(gaps).size <= 1, true, `all but the last are of one length: ${gaps}`);
  });

test('histogram: what came since a copy, and its buckets', (t) => {
  const histogram = Histogram.local();
  for (const ns of [5, 5, 100, 1_000_000]) histogram.record(ns);
  const before = histogram.copy();
  t.is(histogram.since(before).summary().count, 0);
  histogram.record(100);
  histogram.record(40_000);
  t.is(before.summary().count, 4, 'a copy stays as it was');
  const since = histogram.since(before);
  t.is(since.summary().count, 2);
  t.true(since.summary().maxUs >= 40 && since.summary().maxUs < 43, 'its own longest, not the run’s');
  const buckets = histogram.buckets();
  t.deepEqual(
    buckets.map(([, count]) => count),
    [2, 2, 1, 1],
  );
  t.is(buckets[0]![0], 0.005);
  for (const [i, ns] of [5, 100, 40_000, 1_000_000].entries())
    t.true(buckets[i]![0] * 1000 >= ns && buckets[i]![0] * 1000 <= ns * (1 + 1 / 16), `${ns}`);
});
