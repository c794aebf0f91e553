/** Scenarios that go wrong in ways that an explorer might overlook, each a thread or two. */
import { defineScenario, type Scenario, type ThreadContext } from '../../../perf/explore/index.js';

type Program = (ctx: ThreadContext) => () => void;

const store: Program = (ctx) => () => {
  ctx.words.store(ctx.base, 1);
  ctx.check('seen', true, () => '');
};

function scenario(name: string, threads: Scenario['threads'], more: Partial<Scenario> = {}): Scenario {
  return defineScenario({ name, about: 'goes wrong', checks: ['seen'], threads, ...more });
}

export const quiet = scenario('quiet', [{ name: 'a', program: (ctx) => () => ctx.words.store(ctx.base, 1) }]);

export const exits = scenario('exits', [
  { name: 'a', program: store },
  {
    name: 'b',
    program: (ctx) => () => {
      ctx.words.store(ctx.base, 2);
      process.exit(0);
    },
  },
]);

export const spins = scenario('spins', [
  { name: 'a', program: store },
  {
    name: 'b',
    program: (ctx) => () => {
      ctx.words.store(ctx.base, 2);
      for (;;);
    },
  },
]);

export const spinsInSetup = scenario('spins-in-setup', [
  {
    name: 'a',
    program: () => {
      for (;;);
    },
  },
]);

/** Sets up, but for the third time. */
let setups = 0;
export const failsLater = scenario('fails-later', [
  { name: 'a', program: store },
  {
    name: 'b',
    program: (ctx) => {
      if (++setups === 3) throw new RangeError('no third time');
      return store(ctx);
    },
  },
]);

export const checkThrows = scenario('check-throws', [
  {
    name: 'a',
    program: (ctx) => ({
      run: store(ctx),
      check: () => {
        throw new RangeError('at the end');
      },
    }),
  },
]);

export const daemonThrows = scenario('daemon-throws', [
  { name: 'a', program: store },
  {
    name: 'd',
    daemon: true,
    program: (ctx) => () => {
      while (ctx.words.load(ctx.base) === 0) ctx.words.wait(ctx.base, 0, Number.POSITIVE_INFINITY, true);
      ctx.check('seen', false, () => 'by a daemon');
    },
  },
]);

/** What is broken first is what counts, whatever the others make of their end. */
export const twoAtOnce = scenario(
  'two-at-once',
  [
    {
      name: 'a',
      program: (ctx) => () => {
        ctx.words.store(ctx.base, 1);
        ctx.check('first', false, () => 'the first');
      },
    },
    {
      name: 'b',
      program: (ctx) => () => {
        try {
          for (;;) ctx.words.load(ctx.base + 64);
        } catch (error) {
          throw new TypeError('made of the end', { cause: error });
        }
      },
    },
  ],
  { checks: ['first'] },
);

export const longStory = scenario('long-story', [
  {
    name: 'a',
    program: (ctx) => () => ctx.check('seen', false, () => '\u0000'.repeat(1e6)),
  },
]);

export const storyThrows = scenario('story-throws', [
  {
    name: 'a',
    program: (ctx) => () =>
      ctx.check('seen', false, () => {
        throw new RangeError('no words');
      }),
  },
]);

/** Sleeps and wakes: two decisions a step, so that the log is full before the steps are counted out. */
export const longLog = scenario(
  'long-log',
  [0, 1].map((me) => ({
    name: `t${me}`,
    program: (ctx: ThreadContext) => () => {
      const turn = ctx.base;
      for (let n = 0; n < 20_000; n++) {
        while (ctx.words.load(turn) !== me) ctx.words.wait(turn, 1 - me, Number.POSITIVE_INFINITY, true);
        ctx.words.store(turn, 1 - me);
      }
    },
  })),
  { stepLimit: 60_000 },
);

/** More stores than a store buffer has room for, then the last of them read back by another thread. */
export const manyStores = scenario(
  'many-stores',
  [
    {
      name: 'a',
      program: (ctx) => () => {
        for (let i = 0; i < 100; i++) ctx.words.store(ctx.base + 4 * i, i + 1);
        for (let i = 0; i < 100; i++)
          ctx.check('seen', ctx.words.load(ctx.base + 4 * i) === i + 1, () => `own store ${i} is lost`);
      },
    },
    {
      name: 'b',
      program: (ctx) => () => {
        ctx.words.load(ctx.base);
      },
    },
  ],
  { storeBuffer: ['a'] },
);

/** Not the same code in each schedule. */
let schedules = 0;
export const moody = scenario('moody', [
  {
    name: 'a',
    program: (ctx) => () => {
      store(ctx)();
      if (schedules++ % 2 === 0) ctx.words.store(ctx.base, 3);
    },
  },
  { name: 'b', program: store },
]);

export const notAScenario = { name: 'x' };
export const aFunction = (): number => 1;
