/** Writers change two words together, readers read both: never one of before and one of after. */
import { SeqLock } from '../../../hw/sync/seq-lock.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike } from './alike.js';

const NOT_TORN = 'no torn read';
const DATA = 512;

/** @param kinds  a letter a thread: r reads, w writes */
function scenario(kinds: string): Scenario {
  const program = (ctx: ThreadContext) => {
    const { words } = ctx;
    const lock = new SeqLock(ctx.env, ctx.base);
    const low = ctx.base + DATA;
    const high = low + 4;
    const read = (): void => {
      for (;;) {
        const ticket = lock.readBegin();
        ctx.check(NOT_TORN, ticket >= 0, () => `readBegin() said ${ticket}`);
        const a = words.load(low);
        const b = words.load(high);
        if (lock.readRetry(ticket)) continue;
        ctx.check(NOT_TORN, a === b, () => `read ${a} and ${b}`);
        return;
      }
    };
    const write = (): void => {
      const result = lock.writeBegin();
      ctx.check(NOT_TORN, result === 0, () => `writeBegin() said ${result}`);
      const value = words.load(low) + 1;
      words.store(low, value);
      words.store(high, value);
      lock.writeEnd();
    };
    const writers = [...kinds].filter((kind) => kind === 'w').length;
    const check = (): void =>
      ctx.check(
        NOT_TORN,
        words.load(low) === writers && words.load(high) === writers,
        () => `${words.load(low)} and ${words.load(high)} after ${writers} writes`,
      );
    return { run: kinds[ctx.index] === 'r' ? read : write, check };
  };
  return defineScenario({
    name: `seq-lock-${kinds}`,
    about: `a seqlock and ${kinds.length} threads: ${[...kinds].map((k) => (k === 'r' ? 'reader' : 'writer')).join(', ')}`,
    checks: [NOT_TORN],
    threads: alike(kinds.length, program),
  });
}

export const seqLockRw = scenario('rw');
export const seqLockRrw = scenario('rrw');
export const seqLockRww = scenario('rww');
