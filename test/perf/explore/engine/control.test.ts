import test from 'ava';
import { ControlMemory, D, DECISION_WORDS, H, T } from '../../../../perf/explore/engine/control.js';

test('control memory: no two words are at one place', (t) => {
  // The bugs that are on take two words.
  const header = Object.values(H);
  t.is(new Set(header).size, header.length);
  const control = new ControlMemory();
  t.true(Math.max(...header) < control.thread(0));
  const thread = Object.values(T);
  t.is(new Set(thread).size, thread.length);
  t.true(Math.max(...thread) < control.thread(1) - control.thread(0));
  t.deepEqual(
    Object.values(D),
    Array.from({ length: DECISION_WORDS }, (_, i) => i),
  );
});
