/** Threads that take one spin lock in turn. Whoever waits naps until the word has changed; nobody wakes it. */
import { SpinLock } from '../../../hw/sync/spin-lock.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, checkVisits, MUTUAL_EXCLUSION, visit } from './alike.js';

function scenario(threads: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const lock = new SpinLock(ctx.env, ctx.base);
    const run = (): void => {
      const result = lock.lock();
      ctx.check(MUTUAL_EXCLUSION, result === 0, () => `lock() said ${result}`);
      visit(ctx);
      lock.unlock();
    };
    return { run, check: () => checkVisits(ctx, threads) };
  };
  return defineScenario({
    name: `spin-lock-${threads}`,
    about: `${threads} threads take a spin lock`,
    checks: [MUTUAL_EXCLUSION],
    threads: alike(threads, program),
  });
}

export const spinLock2 = scenario(2);
export const spinLock3 = scenario(3);
