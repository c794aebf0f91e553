import test from 'ava';
import fc from 'fast-check';
import { layout, line, u32 } from '../../../hw/memory/layout.js';
import { Histogram, histogramField } from '../../../perf/report/histogram.js';

const SEED = Number(process.env.SEED ?? Date.now() % 0x7fff_ffff) | 0;

test('histogram: nothing recorded is all zero', (t) => {
  t.deepEqual(Histogram.local().summary(), { count: 0, p50Us: 0, p99Us: 0, maxUs: 0 });
});

test('histogram: percentiles of any values are within a sixteenth of the exact ones', (t) => {
  t.log(`SEED=${SEED}`);
  // From 1 ns to some four minutes, every octave as likely as another.
  const latency = fc
    .tuple(fc.integer({ min: 0, max: 37 }), fc.double({ min: 1, max: 2, noNaN: true, maxExcluded: true }))
    .map(([octave, mantissa]) => Math.floor(2 ** octave * mantissa));
  fc.assert(
    fc.property(fc.array(latency, { minLength: 1, maxLength: 300 }), (values) => {
      const histogram = Histogram.local();
      for (const value of values) histogram.record(value);
      const { count, p50Us, p99Us, maxUs } = histogram.summary();
      const sorted = [...values].sort((a, b) => a - b);
      const exact = (share: number) => sorted[Math.max(1, Math.ceil(sorted.length * share)) - 1]! / 1000;
      const near = (found: number, wanted: number) => Math.abs(found - wanted) <= wanted / 16;
      return (
        count === values.length &&
        near(p50Us, exact(0.5)) &&
        near(p99Us, exact(0.99)) &&
        maxUs >= sorted.at(-1)! / 1000 &&
        maxUs < sorted.at(-1)! / 1000 + 0.1 + 1e-9 * maxUs
      );
    }),
    { seed: SEED, numRuns: 300 },
  );
  t.pass();
});

test('histogram: values below 32 ns are kept exactly', (t) => {
  for (let ns = 0; ns < 32; ns++) {
    const histogram = Histogram.local();
    histogram.record(ns);
    t.is(histogram.summary().p50Us, ns / 1000, `${ns} ns`);
  }
});

test('histogram: what no clock should give is counted at the ends', (t) => {
  const histogram = Histogram.local();
  for (const ns of [-5, Number.NaN, 0.4]) histogram.record(ns);
  t.deepEqual(histogram.summary(), { count: 3, p50Us: 0, p99Us: 0, maxUs: 0 });
  histogram.record(Number.POSITIVE_INFINITY);
  histogram.record(1e18);
  const { count, maxUs } = histogram.summary();
  t.is(count, 5);
  t.true(maxUs > 2.74e8 && maxUs < 2.75e8, `${maxUs}`);
});

test('histogram: the longest value is not lost to the percentiles of many short ones', (t) => {
  const histogram = Histogram.local();
  for (let i = 0; i < 10_000; i++) histogram.record(500);
  histogram.record(5_000_000_000);
  const { p50Us, p99Us, maxUs } = histogram.summary();
  t.true(Math.abs(p50Us - 0.5) < 0.5 / 16);
  t.true(Math.abs(p99Us - 0.5) < 0.5 / 16);
  t.is(maxUs, 5_000_000);
});

test('histogram: two in one region do not touch each other or their neighbours', (t) => {
  const shape = layout('test', 1, {
    a: histogramField(),
    guard: line(u32()),
    b: histogramField(),
    end: u32(),
  });
  const words = new Uint32Array(new SharedArrayBuffer(shape.size + 128));
  const base = 64;
  const a = new Histogram(words, base + shape.at.a);
  const b = new Histogram(words, base + shape.at.b);
  a.record(0);
  a.record(1e18);
  b.record(100);
  t.is(words[(base + shape.at.guard) / 4], 0);
  t.is(words[(base + shape.at.end) / 4], 0);
  t.true(words.subarray(0, base / 4).every((word) => word === 0));
  t.is(a.summary().count, 2);
  t.is(b.summary().count, 1);
  t.is(new Histogram(words, base + shape.at.b).summary().maxUs, 0.1);
});

test('histogram: merging gives what recording into one would', (t) => {
  const parts = [Histogram.local(), Histogram.local(), Histogram.local()];
  const whole = Histogram.local();
  for (let i = 0; i < 999; i++) {
    const ns = (i * 7919) % 100_003;
    parts[i % 3]!.record(ns);
    whole.record(ns);
  }
  const merged = Histogram.local();
  for (const part of parts) merged.merge(part);
  t.deepEqual(merged.summary(), whole.summary());
});
