/**
 * Visitors use what a word leads to, or what they kept of it in the same generation; a synchronizer takes it away,
 * waits, and destroys it: it is then used by nobody.
 */
import { Epoch } from '../../../hw/sync/epoch.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, OWN_GHOST } from './alike.js';
import { kill, mortal, untilDeath, waitsInSlices } from './mortal.js';

const R1 = 'R1';
const PROGRESS = 'visits of the new generation are not waited for';
/** Ghost: bit n: thing n is destroyed. */
const DESTROYED = OWN_GHOST;
const CURRENT = 768;
const STEP = 772;
const DONE = 776;
const SLOTS = 2;

/** @param kinds  a letter a thread: v visits, s synchronizes */
function scenario(kinds: string): Scenario {
  const visitors = [...kinds].filter((kind) => kind === 'v').length;
  const program = (ctx: ThreadContext) => {
    const { words, ghost } = ctx;
    const epoch = new Epoch(ctx.env, ctx.base, SLOTS);
    const current = ctx.base + CURRENT;
    if (ctx.index === 0) epoch.init();
    const visits = (): void => {
      const gen = epoch.enter(ctx.index);
      // What it kept from the first generation is still good in that one.
      const thing = gen === 1 ? 0 : words.load(current);
      words.load(ctx.base + STEP);
      ctx.check(R1, (ghost[DESTROYED]! & (1 << thing)) === 0, () => `thing ${thing} is used, and destroyed`);
      epoch.leave(ctx.index);
    };
    const synchronizes = (): void => {
      const thing = words.add(current, 1);
      const result = epoch.synchronize();
      ctx.check(R1, result === 0, () => `synchronize() said ${result}`);
      ghost[DESTROYED]! |= 1 << thing;
    };
    if (kinds[ctx.index] !== 'v') return synchronizes;
    epoch.claim(ctx.index);
    return visits;
  };
  return defineScenario({
    name: `epoch-${kinds}`,
    about: `${visitors} visitor${visitors > 1 ? 's' : ''} of an epoch, ${kinds.length - visitors} who take something away`,
    checks: [R1],
    threads: alike(kinds.length, program),
  });
}

export const epochVs = scenario('vs');
export const epochVvs = scenario('vvs');
export const epochVss = scenario('vss');

/** A visitor that came in the new generation stays until the synchronizer is through, which does not wait for it. */
function lateVisitor(): Scenario {
  const program = (ctx: ThreadContext) => {
    const { words } = ctx;
    const epoch = new Epoch(ctx.env, ctx.base, SLOTS);
    const done = ctx.base + DONE;
    if (ctx.index === 0) {
      epoch.init();
      epoch.claim(0);
    }
    const visits = (): void => {
      const gen = epoch.enter(0);
      ctx.check(PROGRESS, gen === 1 || gen === 2, () => `entered in ${gen}`);
      if (gen === 2) while (words.load(done) === 0) words.wait(done, 0, Number.POSITIVE_INFINITY);
      epoch.leave(0);
    };
    const synchronizes = (): void => {
      epoch.synchronize();
      words.store(done, 1);
      words.notify(done, 1);
    };
    return ctx.index === 0 ? visits : synchronizes;
  };
  return defineScenario({
    name: 'epoch-late-visitor',
    about: 'a visit that began after synchronize() lasts until synchronize() is over',
    checks: [PROGRESS],
    threads: alike(2, program),
  });
}

export const epochLate = lateVisitor();

/** The visitor dies somewhere. */
function deadVisitor(threads: number): Scenario {
  const program = (ctx: ThreadContext) => {
    const { ghost } = ctx;
    const env = ctx.index === 0 ? mortal(ctx) : waitsInSlices(ctx);
    const epoch = new Epoch(env, ctx.base, SLOTS);
    const current = ctx.base + CURRENT;
    if (ctx.index === 0) {
      epoch.init();
      epoch.claim(0);
    }
    const visits = (): void => {
      const gen = epoch.enter(0);
      const thing = gen === 1 ? 0 : env.words.load(current);
      env.words.load(ctx.base + STEP);
      ctx.check(R1, (ghost[DESTROYED]! & (1 << thing)) === 0, () => `thing ${thing} is used, and destroyed`);
      epoch.leave(0);
    };
    const synchronizes = (): void => {
      if (ctx.index === 1) kill(ctx);
      const thing = ctx.words.add(current, 1);
      const result = epoch.synchronize();
      ctx.check(R1, result === 0, () => `synchronize() said ${result}`);
      ghost[DESTROYED]! |= 1 << thing;
    };
    return ctx.index === 0 ? () => untilDeath(ctx, visits) : synchronizes;
  };
  return defineScenario({
    name: `epoch-dead-visitor-${threads}`,
    about: `a visitor dies at any step, ${threads - 1} synchronize`,
    checks: [R1],
    threads: alike(threads, program),
    timeouts: true,
  });
}

export const epochDeath2 = deadVisitor(2);
export const epochDeath3 = deadVisitor(3);
