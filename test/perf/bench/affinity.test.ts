import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import test from 'ava';
import { canPin, currentThread, pin, ranNs, unpin, workerThreads } from '../../../perf/bench/affinity.js';

const cores = availableParallelism();
const allowed = (): string =>
  /^Cpus_allowed_list:\t(.*)$/m.exec(readFileSync(`/proc/self/task/${currentThread()}/status`, 'utf8'))![1]!;

const pinning = canPin() && cores >= 2 ? test.serial : test.serial.skip;

pinning('pin: a thread that is pinned can be moved to another processor, and let go', (t) => {
  const before = allowed();
  t.true(pin(currentThread(), 0));
  t.is(allowed(), '0');
  // What is pinned sees one processor only: that must not be taken for all there are.
  t.true(pin(currentThread(), 1));
  t.is(allowed(), '1');
  unpin(currentThread());
  t.is(allowed(), before);
});

pinning('ran: the caller’s own account is up to date', (t) => {
  const me = currentThread();
  const before = ranNs(me);
  let n = 0;
  for (let i = 0; i < 5e5; i++) n += Math.sqrt(i);
  t.true(n > 0);
  t.true(ranNs(me) > before);
  t.true(Number.isNaN(ranNs(1)));
  t.false(workerThreads().includes(me));
});
