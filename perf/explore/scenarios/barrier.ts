/** Threads meet at a barrier: nobody goes on before all have come, and one of them is told that it was the last. */
import { Barrier } from '../../../hw/sync/barrier.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, OWN_GHOST } from './alike.js';

const TOGETHER = 'all or nobody';
const ONE_LAST = 'one is the last';
const ARRIVED = OWN_GHOST;
const LAST = OWN_GHOST + 1;

function scenario(threads: number, rounds: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const { ghost } = ctx;
    const barrier = new Barrier(ctx.env, ctx.base);
    if (ctx.index === 0) barrier.init(threads);
    const run = (): void => {
      for (let round = 1; round <= rounds; round++) {
        ghost[ARRIVED]!++;
        const result = barrier.wait();
        ctx.check(TOGETHER, result >= 0, () => `wait() said ${result}`);
        ctx.check(TOGETHER, ghost[ARRIVED]! >= threads * round, () => `${ghost[ARRIVED]} in round ${round}`);
        ghost[LAST]! += result;
      }
    };
    const check = (): void => ctx.check(ONE_LAST, ghost[LAST] === rounds, () => `${ghost[LAST]} were last`);
    return { run, check };
  };
  return defineScenario({
    name: `barrier-${threads}-${rounds}`,
    about: `${threads} threads meet ${rounds === 1 ? 'once' : 'twice'}`,
    checks: [TOGETHER, ONE_LAST],
    threads: alike(threads, program),
  });
}

export const barrier2 = scenario(2, 2);
export const barrier3 = scenario(3, 1);
export const barrier3Twice = scenario(3, 2);
