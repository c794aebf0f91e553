/** Threads that take one mutex in turn: who is in is alone, and nobody sleeps for ever. */
import { Mutex } from '../../../hw/sync/mutex.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';

const HELD = 0;
const COUNT = 1;

function scenario(threads: number, rounds: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const mutex = new Mutex(ctx.env, ctx.base);
    const run = (): void => {
      for (let round = 0; round < rounds; round++) {
        ctx.check('mutual exclusion', mutex.lock() === 0, () => 'lock() failed');
        ctx.check('mutual exclusion', ++ctx.ghost[HELD]! === 1, () => `${ctx.ghost[HELD]} threads are in`);
        // A step inside, so that others may come.
        ctx.words.add(ctx.base + 64, 1);
        ctx.ghost[HELD]!--;
        ctx.ghost[COUNT]!++;
        mutex.unlock();
      }
    };
    const check = (): void =>
      ctx.check(
        'mutual exclusion',
        ctx.ghost[COUNT] === threads * rounds,
        () => `${ctx.ghost[COUNT]} rounds`,
      );
    return { run, check };
  };
  return defineScenario({
    name: `mutex-${threads}`,
    about: `${threads} threads take a mutex, ${rounds} time${rounds === 1 ? '' : 's'} each`,
    checks: ['mutual exclusion'],
    threads: Array.from({ length: threads }, (_, i) => ({ name: `t${i}`, program })),
  });
}

export const mutex2 = scenario(2, 1);
export const mutex3 = scenario(3, 1);
