/** Two slots, producers and one consumer, who try a few times and do not wait: nothing is lost, torn, or out of order. */
import { MpscRing } from '../../../hw/sync/mpsc-ring.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, OWN_GHOST } from './alike.js';
import { kill, mortal, untilDeath } from './mortal.js';

const R17 = 'R17';
const R18 = 'R18';
/** Ghost, by thread. */
const PUSHED = OWN_GHOST;
const POPPED = OWN_GHOST + 8;
const DIED = OWN_GHOST + 16;
const LOST = OWN_GHOST + 17;
const SLOTS = 2;
const SLOT_WORDS = 2;
const ITEM = 256;

/**
 * Thread 0 consumes.
 * @param tries  pushes of each producer; the consumer pops once more
 * @param dies   thread 1 is killed somewhere, by the consumer
 */
function scenario(threads: number, tries: number, dies: boolean): Scenario {
  const program = (ctx: ThreadContext) => {
    const { ghost } = ctx;
    const env = dies && ctx.index === 1 ? mortal(ctx) : ctx.env;
    const ring = new MpscRing(env, ctx.base, SLOTS, SLOT_WORDS);
    const data = new Int32Array(4 * SLOT_WORDS);
    const push = (): void => {
      for (let i = 0; i < tries; i++) {
        const item = ctx.index * ITEM + ghost[PUSHED + ctx.index]! + 1;
        data[0] = item;
        data[1] = -item;
        if (ring.push(data, 0, 1) === 1) ghost[PUSHED + ctx.index]!++;
      }
    };
    const produce = (): void =>
      untilDeath(ctx, push, () => {
        ghost[DIED] = 1;
      });
    const pop = (): void => {
      const n = ring.pop(data, 0, 4);
      for (let k = 0; k < n; k++) {
        const [a, b] = [data[k * SLOT_WORDS]!, data[k * SLOT_WORDS + 1]!];
        const from = Math.floor(a / ITEM);
        ctx.check(R17, a === -b && from >= 1 && from < threads, () => `popped ${a}, ${b}`);
        const expected = from * ITEM + ++ghost[POPPED + from]!;
        ctx.check(R17, a === expected, () => `popped ${a} instead of ${expected}`);
      }
    };
    const consume = (): void => {
      if (dies) kill(ctx);
      for (let i = 0; i <= tries; i++) pop();
    };
    const check = (): void => {
      pop();
      ghost[LOST] = ring.lost();
      for (let from = 1; from < threads; from++) {
        const [pushed, popped] = [ghost[PUSHED + from]!, ghost[POPPED + from]!];
        // The last one of a dead producer may have come, though it did not live to know.
        const slack = dies && from === 1 ? ghost[DIED]! : 0;
        ctx.check(
          R18,
          popped === pushed || popped === pushed + slack,
          () => `t${from} pushed ${pushed}, popped are ${popped} in the end`,
        );
      }
      ctx.check(R18, ghost[LOST]! <= ghost[DIED]!, () => `${ghost[LOST]} slots are lost`);
      ctx.check(R18, !ring.hasWork() && ring.claimant() === 0, () => 'a slot stays claimed');
    };
    return { run: ctx.index === 0 ? consume : produce, check };
  };
  return defineScenario({
    name: `mpsc-ring-${dies ? 'death-' : ''}${threads}`,
    about: `${threads - 1} producer${threads > 2 ? 's' : ''} push ${tries} each into ${SLOTS} slots${dies ? '; one dies' : ''}`,
    checks: [R17, R18],
    threads: alike(threads, program),
  });
}

export const mpsc2 = scenario(2, 4, false);
export const mpsc3 = scenario(3, 2, false);
export const mpscDeath2 = scenario(2, 3, true);
export const mpscDeath3 = scenario(3, 1, true);
