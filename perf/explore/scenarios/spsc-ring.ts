/** Two slots, one producer, one consumer, who try a few times and do not wait: what is popped is what was pushed. */
import { SpscRing } from '../../../hw/sync/spsc-ring.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, OWN_GHOST } from './alike.js';

const R17 = 'R17';
const R18 = 'R18';
const PUSHED = OWN_GHOST;
const POPPED = OWN_GHOST + 1;
const SLOTS = 2;
const SLOT_WORDS = 2;
const LINE = 64;

/**
 * @param batch   slots the producer tries to push at once
 * @param tries   how often each side tries
 * @param before  slots that went through before: the indices' start
 */
function scenario(batch: number, tries: number, before: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const { ghost } = ctx;
    const ring = new SpscRing(ctx.env, ctx.base, SLOTS, SLOT_WORDS);
    if (ctx.index === 0) {
      ctx.words.store(ctx.base, before | 0);
      ctx.words.store(ctx.base + LINE, before | 0);
    }
    const data = new Int32Array(4 * SLOT_WORDS);
    const produce = (): void => {
      for (let i = 0; i < tries; i++) {
        for (let k = 0; k < batch; k++) {
          data[k * SLOT_WORDS] = ghost[PUSHED]! + k + 1;
          data[k * SLOT_WORDS + 1] = -(ghost[PUSHED]! + k + 1);
        }
        // How many will fit is decided before they are written, so the consumer may be ahead of this.
        const pushed = ring.push(data, 0, batch);
        ghost[PUSHED]! += pushed;
      }
    };
    const pop = (): void => {
      const n = ring.pop(data, 0, 4);
      ctx.check(R18, n <= SLOTS, () => `${n} slots of ${SLOTS}`);
      for (let k = 0; k < n; k++) {
        const [a, b] = [data[k * SLOT_WORDS]!, data[k * SLOT_WORDS + 1]!];
        const expected = ++ghost[POPPED]!;
        ctx.check(R17, a === expected && b === -expected, () => `popped ${a}, ${b} instead of ${expected}`);
      }
    };
    const consume = (): void => {
      for (let i = 0; i < tries; i++) pop();
    };
    const check = (): void => {
      pop();
      ctx.check(
        R18,
        ghost[POPPED] === ghost[PUSHED],
        () => `${ghost[PUSHED]} pushed, ${ghost[POPPED]} popped in the end`,
      );
    };
    return { run: ctx.index === 0 ? produce : consume, check };
  };
  return defineScenario({
    name: `spsc-ring-${batch}-${tries}`,
    about: `a producer tries ${tries} times to push ${batch} into ${SLOTS} slots, a consumer to pop; the indices wrap`,
    checks: [R17, R18],
    threads: alike(2, program),
  });
}

/** prod and cons pass 2^32 on the way. */
export const spscSingles = scenario(1, 4, 0xffff_fffe);
export const spscBatches = scenario(2, 4, 0xffff_ffff);
