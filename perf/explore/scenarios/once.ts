/** Something done once by whoever comes first. All attempts but the last throw: it is then
 * another's to do. */
import { Once } from '../../../hw/sync/once.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike } from './alike.js';

const EXACTLY_ONCE = 'exactly once';
const ATTEMPTS = 0;
const DONE = 1;

function scenario(threads: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const once = new Once(ctx.env, ctx.base);
    const work = (): void => {
      const attempt = ++ctx.ghost[ATTEMPTS]!;
      ctx.words.add(ctx.base + 64, 1);
      if (attempt < threads) throw new NotThisTime();
      ctx.ghost[DONE]!++;
    };
    const run = (): void => {
      try {
        once.run(work);
      } catch (error) {
        if (!(error instanceof NotThisTime)) throw error;
        return;
      }
      // Whoever returns finds it done.
      ctx.check(EXACTLY_ONCE, ctx.ghost[DONE] === 1, () => `done ${ctx.ghost[DONE]} times`);
    };
    const check = (): void =>
      ctx.check(EXACTLY_ONCE, ctx.ghost[DONE] === 1, () => `done ${ctx.ghost[DONE]} times in the end`);
    return { run, check };
  };
  return defineScenario({
    name: `once-${threads}`,
    about: `${threads} threads run something once; all attempts but the last throw`,
    checks: [EXACTLY_ONCE],
    threads: alike(threads, program),
  });
}

class NotThisTime extends Error {}

export const once2 = scenario(2);
export const once3 = scenario(3);
