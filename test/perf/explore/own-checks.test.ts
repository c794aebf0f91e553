import test from 'ava';
import { ownChecks } from '../../../perf/explore/own-checks.js';
import { verdictOf } from '../../../perf/explore/run.js';

const report = {
  failure: null,
  diverged: false,
  summary: '',
} as unknown as Parameters<typeof verdictOf>[0];

test('own checks: what monitors saw does not count, a name with parentheses of its own does', (t) => {
  t.is(ownChecks({ R1: 0, 'R1 (translations)': 500, 'R17 (commands)': 3 }), 0);
  t.is(ownChecks({ R1: 2, 'no loss (of any)': 3, 'R14 (address spaces)': 7 }), 5);
});

test('verdict: a campaign whose scenario checked nothing is no proof, however much its monitors saw', (t) => {
  t.deepEqual(verdictOf({ ...report, checks: { R1: 0, 'R1 (frames)': 9 } }), {
    ok: false,
    problem: 'no check ran',
  });
  t.true(verdictOf({ ...report, checks: { R1: 1, 'R1 (frames)': 9 } }).ok);
});
