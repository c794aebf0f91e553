/** Threads that take one mutex in turn: who is in is alone, and nobody sleeps for ever. */
import { Mutex } from '../../../hw/sync/mutex.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, checkVisits, MUTUAL_EXCLUSION, visit } from './alike.js';

function scenario(threads: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const mutex = new Mutex(ctx.env, ctx.base);
    const run = (): void => {
      const result = mutex.lock();
      ctx.check(MUTUAL_EXCLUSION, result === 0, () => `lock() said ${result}`);
      visit(ctx);
      mutex.unlock();
    };
    return { run, check: () => checkVisits(ctx, threads) };
  };
  return defineScenario({
    name: `mutex-${threads}`,
    about: `${threads} threads take a mutex`,
    checks: [MUTUAL_EXCLUSION],
    threads: alike(threads, program),
  });
}

export const mutex2 = scenario(2);
export const mutex3 = scenario(3);
