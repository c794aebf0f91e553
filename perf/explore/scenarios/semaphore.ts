/** A semaphore of one unit, which all threads want: what is acquired is never more than what was released. */
import { Semaphore } from '../../../hw/sync/semaphore.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, checkVisits, MUTUAL_EXCLUSION, visit } from './alike.js';

const CONSERVATION = 'conservation';

function scenario(threads: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const semaphore = new Semaphore(ctx.env, ctx.base);
    if (ctx.index === 0) semaphore.init(1);
    const run = (): void => {
      const result = semaphore.acquire();
      ctx.check(MUTUAL_EXCLUSION, result === 0, () => `acquire() said ${result}`);
      visit(ctx);
      semaphore.release();
    };
    const check = (): void => {
      checkVisits(ctx, threads);
      ctx.check(CONSERVATION, semaphore.value() === 1, () => `${semaphore.value()} units of 1 are left`);
    };
    return { run, check };
  };
  return defineScenario({
    name: `semaphore-${threads}`,
    about: `${threads} threads acquire and release a semaphore's one unit`,
    checks: [MUTUAL_EXCLUSION, CONSERVATION],
    threads: alike(threads, program),
  });
}

export const semaphore2 = scenario(2);
export const semaphore3 = scenario(3);

/** One thread gives the units that the others wait for, one after the other. */
function handOut(threads: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const semaphore = new Semaphore(ctx.env, ctx.base);
    const run = (): void => {
      if (ctx.index !== 0) semaphore.acquire();
      else for (let i = 1; i < threads; i++) semaphore.release();
    };
    const check = (): void =>
      ctx.check(CONSERVATION, semaphore.value() === 0, () => `${semaphore.value()} units are left`);
    return { run, check };
  };
  return defineScenario({
    name: `semaphore-hand-out-${threads}`,
    about: `a thread releases ${threads - 1} unit${threads > 2 ? 's' : ''}, one for each of the others`,
    checks: [CONSERVATION],
    threads: alike(threads, program),
  });
}

export const semaphoreHandOut2 = handOut(2);
export const semaphoreHandOut3 = handOut(3);
