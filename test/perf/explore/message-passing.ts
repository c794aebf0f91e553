/** Data, then a flag, from one thread to another: with and without what keeps them in order. */
import { defineScenario, type Scenario, type ThreadContext } from '../../../perf/explore/index.js';

const words = { data: 0, flag: 64 };

function scenario(name: string, barrier: boolean): Scenario {
  const writer = (ctx: ThreadContext) => () => {
    ctx.words.store(ctx.base + words.data, 7);
    if (barrier) ctx.words.dmaWmb();
    ctx.words.store(ctx.base + words.flag, 1);
    // One more access, so that the flag may show before the thread ends.
    ctx.words.load(ctx.base + 128);
  };
  const reader = (ctx: ThreadContext) => () => {
    if (ctx.words.load(ctx.base + words.flag) === 0) return;
    const data = ctx.words.load(ctx.base + words.data);
    ctx.check('data before flag', data === 7, () => `the flag is up, and the data is ${data}`);
  };
  return defineScenario({
    name,
    about: 'one thread passes data to another, and a flag',
    checks: ['data before flag'],
    words,
    storeBuffer: ['writer'],
    threads: [
      { name: 'writer', program: writer },
      { name: 'reader', program: reader },
    ],
  });
}

export const withBarrier = scenario('mp-barrier', true);
export const withoutBarrier = scenario('mp-no-barrier', false);
