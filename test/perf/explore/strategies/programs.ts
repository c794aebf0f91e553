/** Small programs whose schedules and outcomes are known. */
import { defineScenario, type Scenario, type ThreadContext } from '../../../../perf/explore/scenario.js';

/** Two threads of `steps` accesses each, to words of their own. */
export const independent = (steps: number): Scenario =>
  defineScenario({
    name: `independent-${steps}`,
    about: 'two threads that have nothing to do with each other',
    checks: ['done'],
    threads: ['a', 'b'].map((name, i) => ({
      name,
      program: (ctx: ThreadContext) => () => {
        for (let n = 0; n < steps; n++) ctx.words.add(ctx.base + 8 * i, 1);
        ctx.check('done', true, () => '');
      },
    })),
  });

export const independent1 = independent(1);
export const independent3 = independent(3);

const X = 0;
const Y = 64;

/**
 * Message passing with kept stores: data, flag | flag, data. It fails when (flag, data) is seen to be the one given:
 * 'f1 d0' is the one that a barrier forbids.
 */
const passing = (flag: number, data: number, barrier: boolean): Scenario =>
  defineScenario({
    name: `passing-${flag}${data}${barrier ? '-barrier' : ''}`,
    about: 'a writer whose stores become visible late, and a reader',
    checks: ['unseen'],
    storeBuffer: ['writer'],
    threads: [
      {
        name: 'writer',
        program: (ctx) => () => {
          ctx.words.store(ctx.base + X, 1);
          if (barrier) ctx.words.dmaWmb();
          ctx.words.store(ctx.base + Y, 1);
          ctx.words.load(ctx.base + X);
        },
      },
      {
        name: 'reader',
        program: (ctx) => () => {
          const f = ctx.words.load(ctx.base + Y);
          const d = ctx.words.load(ctx.base + X);
          ctx.check('unseen', f !== flag || d !== data, () => `f${f} d${d}`);
        },
      },
    ],
  });

export const passing00 = passing(0, 0, false);
export const passing01 = passing(0, 1, false);
export const passing10 = passing(1, 0, false);
export const passing11 = passing(1, 1, false);
export const passing10Barrier = passing(1, 0, true);
export const passing11Barrier = passing(1, 1, true);

/**
 * Two threads that each store to both words and read what the other did; it fails when they see the outcome given:
 * a's and b's look at the other's word, then the words at the end.
 */
const crossing = (outcome: string): Scenario =>
  defineScenario({
    name: `crossing-${outcome}`,
    about: 'two writers of the same words, both with a store buffer',
    checks: ['unseen'],
    storeBuffer: ['a', 'b'],
    threads: ['a', 'b'].map((name, i) => ({
      name,
      program: (ctx: ThreadContext) => ({
        run() {
          const [mine, other] = i === 0 ? [X, Y] : [Y, X];
          ctx.words.store(ctx.base + mine, i + 1);
          ctx.words.store(ctx.base + other, i + 1);
          ctx.ghost[i] = ctx.words.load(ctx.base + mine);
        },
        check() {
          const end = [X, Y].map((at) => ctx.words.load(ctx.base + at));
          const seen = [ctx.ghost[0], ctx.ghost[1], ...end].join('');
          ctx.check('unseen', seen !== outcome, () => seen);
        },
      }),
    })),
  });

export const crossing1122 = crossing('1122');
export const crossing1211 = crossing('1211');
export const crossing2112 = crossing('2112');
export const crossing2121 = crossing('2121');
