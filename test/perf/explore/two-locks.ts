/**
 * Two locks with ranks: a worker holds the inner one and finds that the table has grown, which takes the outer one. The
 * table only grows in some schedules. (As intel_svm_drain_prq, Aug 2021: a lock that a rare path takes the other way.)
 */

import { Mutex } from '../../../hw/sync/index.js';
import { defineScenario, type Scenario, type ThreadContext } from '../../../perf/explore/index.js';

const words = { outer: 0, inner: 64, grown: 128 };
const [OUTER, INNER] = [10, 20];

function scenario(name: string, inverted: boolean): Scenario {
  const locks = (ctx: ThreadContext) => ({
    outer: new Mutex(ctx.env, ctx.base + words.outer, OUTER),
    inner: new Mutex(ctx.env, ctx.base + words.inner, INNER),
  });
  const grower = (ctx: ThreadContext) => {
    const { outer, inner } = locks(ctx);
    return () => {
      outer.lock();
      inner.lock();
      ctx.words.store(ctx.base + words.grown, 1);
      inner.unlock();
      outer.unlock();
    };
  };
  const user = (ctx: ThreadContext) => {
    const { outer, inner } = locks(ctx);
    return () => {
      inner.lock();
      const grown = ctx.words.load(ctx.base + words.grown) === 1;
      if (grown && !inverted) inner.unlock();
      if (grown) {
        outer.lock();
        if (!inverted) inner.lock();
      }
      ctx.check(
        'what it saw',
        ctx.words.load(ctx.base + words.grown) === Number(grown),
        () => 'it has changed',
      );
      inner.unlock();
      if (grown) outer.unlock();
    };
  };
  return defineScenario({
    name,
    about: 'one thread makes a table grow, the other uses it',
    checks: ['what it saw'],
    words,
    threads: [
      { name: 'user', program: user },
      { name: 'grower', program: grower },
    ],
  });
}

export const inOrder = scenario('two-locks', false);
export const inverted = scenario('two-locks-inverted', true);
