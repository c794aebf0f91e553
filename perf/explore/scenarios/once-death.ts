/** A thread that dies while it does what is done once: another does it again, and nobody waits for the dead. */
import { Once } from '../../../hw/sync/once.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, OWN_GHOST } from './alike.js';
import { kill, mortal, untilDeath, waitsInSlices } from './mortal.js';

const DONE_ONCE = 'done once by the living';
const DONE = OWN_GHOST;

function scenario(threads: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const { ghost } = ctx;
    const env = ctx.index === 0 ? mortal(ctx) : waitsInSlices(ctx);
    const once = new Once(env, ctx.base);
    const work = (): void => {
      env.words.add(ctx.base + 64, 1);
      if (ctx.index !== 0) ghost[DONE]!++;
    };
    const survive = (): void => {
      if (ctx.index === 1) kill(ctx);
      const result = once.run(work);
      ctx.check(DONE_ONCE, result === 0 || result === 1, () => `run() said ${result}`);
      ctx.check(DONE_ONCE, once.isDone() && ghost[DONE]! <= 1, () => `done ${ghost[DONE]} times`);
    };
    return ctx.index === 0 ? () => untilDeath(ctx, () => void once.run(work)) : survive;
  };
  return defineScenario({
    name: `once-death-${threads}`,
    about: `a thread dies at any step of something done once; ${threads - 1} need it done`,
    checks: [DONE_ONCE],
    threads: alike(threads, program),
    timeouts: true,
  });
}

export const onceDeath2 = scenario(2);
export const onceDeath3 = scenario(3);
