/** Readers and writers of one lock: a writer is alone, readers meet no writer, and everyone gets in. */
import { RwLock } from '../../../hw/sync/rw-lock.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, OWN_GHOST } from './alike.js';

const EXCLUSION = 'reader and writer exclusion';
const READERS = OWN_GHOST;
const WRITERS = OWN_GHOST + 1;
const STEP = 512;

/** @param kinds  a letter a thread: r reads, w writes */
function scenario(kinds: string): Scenario {
  const program = (ctx: ThreadContext) => {
    const lock = new RwLock(ctx.env, ctx.base);
    const { ghost } = ctx;
    const story = () => `${ghost[READERS]} readers and ${ghost[WRITERS]} writers are in`;
    const read = (): void => {
      const result = lock.readLock();
      ctx.check(EXCLUSION, result === 0, () => `readLock() said ${result}`);
      ghost[READERS]!++;
      ctx.check(EXCLUSION, ghost[WRITERS] === 0, story);
      ctx.words.load(ctx.base + STEP);
      ghost[READERS]!--;
      lock.readUnlock();
    };
    const write = (): void => {
      const result = lock.writeLock();
      ctx.check(EXCLUSION, result === 0, () => `writeLock() said ${result}`);
      ghost[WRITERS]!++;
      ctx.check(EXCLUSION, ghost[WRITERS] === 1 && ghost[READERS] === 0, story);
      ctx.words.load(ctx.base + STEP);
      ghost[WRITERS]!--;
      lock.writeUnlock();
    };
    return kinds[ctx.index] === 'r' ? read : write;
  };
  return defineScenario({
    name: `rw-lock-${kinds}`,
    about: `a rwlock and ${kinds.length} threads: ${[...kinds].map((k) => (k === 'r' ? 'reader' : 'writer')).join(', ')}`,
    checks: [EXCLUSION],
    threads: alike(kinds.length, program),
  });
}

export const rwLockRw = scenario('rw');
export const rwLockWw = scenario('ww');
export const rwLockRrw = scenario('rrw');
export const rwLockRww = scenario('rww');
