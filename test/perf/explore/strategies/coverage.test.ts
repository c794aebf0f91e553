import test from 'ava';
import { ControlMemory, D, H } from '../../../../perf/explore/engine/control.js';
import { Orderings } from '../../../../perf/explore/strategies/orderings.js';
import { Run } from '../../../../perf/explore/strategies/strategy.js';
import { MUTEX, withSession } from './campaign.js';

const LOAD = 0;
const STORE = 1;
const RMW = 2;

/** A run of these accesses: thread, op, word, site. */
function runOf(accesses: readonly (readonly [number, number, number, number])[]): Run {
  const control = new ControlMemory();
  accesses.forEach(([thread, op, word, site], i) => {
    const at = control.decision(i);
    control.i32[at + D.choice] = thread;
    control.i32[at + D.offset] = word * 4;
    control.i32[at + D.enabled] = 0xfff | (site << 12);
    control.i32[at + D.info] = op;
  });
  control.i32[H.decisions] = accesses.length;
  return new Run(control);
}

test('orderings: a pair is a word, another thread, and not two loads', (t) => {
  const orderings = new Orderings();
  const add = (...accesses: (readonly [number, number, number, number])[]) => orderings.add(runOf(accesses));
  t.is(add([0, STORE, 1, 10], [0, LOAD, 1, 11], [0, STORE, 1, 12]), 0, 'one thread');
  t.is(add([0, STORE, 1, 10], [1, STORE, 2, 20]), 0, 'two words');
  t.is(add([0, LOAD, 1, 10], [1, LOAD, 1, 20]), 0, 'two loads');
  t.is(add([0, STORE, 1, 10], [1, LOAD, 1, 20]), 1);
  t.is(add([0, STORE, 1, 10], [1, LOAD, 1, 20]), 0, 'again');
  t.is(add([1, LOAD, 1, 20], [0, STORE, 1, 10]), 1, 'the other way round');
  t.is(add([0, RMW, 1, 10], [1, LOAD, 1, 21], [1, LOAD, 1, 22]), 2, 'a second look is at the same store');
  t.is(add([0, RMW, 1, 30], [1, RMW, 1, 31], [2, RMW, 1, 32]), 2, 'the last one by another');
  t.is(orderings.count, 6);
});

const orderingsOf = (summary: string): number => Number(/, (\d+) orderings/.exec(summary)?.[1]);
const keptOf = (summary: string): number => Number(/; (\d+) schedules kept/.exec(summary)?.[1]);

test.serial('coverage: orderings grow, then stop, and what showed one is kept', (t) =>
  withSession(MUTEX, 'mutex2', [], async (campaign) => {
    const counts = [];
    for (const schedules of [1, 10, 100, 2000, 4000]) {
      const { summary, failure } = await campaign('coverage', {}, schedules);
      t.is(failure, null, failure?.detail);
      t.true(keptOf(summary) >= 1 && keptOf(summary) <= Math.min(schedules, orderingsOf(summary)));
      counts.push(orderingsOf(summary));
    }
    t.true(counts[0]! > 0 && counts[0]! < counts[1]! && counts[1]! < counts[2]!, counts.join());
    t.is(counts[3], counts[4], 'all there are');
  }),
);
