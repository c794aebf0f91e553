/** Ringers make work and ring; their listener sleeps when there is none, and sees all of it in the end. */
import { Doorbell } from '../../../hw/sync/doorbell.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike } from './alike.js';

const ALL_SEEN = 'all work is seen';
const WORK = 512;

function scenario(threads: number, each: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const { words } = ctx;
    const doorbell = new Doorbell(ctx.env, ctx.base);
    const work = ctx.base + WORK;
    const listen = (): void => {
      let done = 0;
      while (done < each * (threads - 1)) {
        const result = doorbell.waitFor(() => words.load(work) !== done);
        ctx.check(ALL_SEEN, result === 0, () => `waitFor() said ${result}`);
        done = words.load(work);
      }
    };
    const ring = (): void => {
      for (let i = 0; i < each; i++) {
        words.add(work, 1);
        doorbell.ring();
      }
    };
    return ctx.index === 0 ? listen : ring;
  };
  return defineScenario({
    name: `doorbell-${threads}`,
    about: `a listener, and ${threads - 1} who ring ${each === 1 ? 'once' : 'twice'}`,
    checks: [ALL_SEEN],
    threads: alike(threads, program),
  });
}

export const doorbell2 = scenario(2, 2);
export const doorbell3 = scenario(3, 1);
