/** One thread makes items under a mutex, one for each of the others, who wait on a condition until there is one. */
import { Condition } from '../../../hw/sync/condition.js';
import { Mutex } from '../../../hw/sync/mutex.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike } from './alike.js';

const CONSERVATION = 'conservation';
const MUTEX = 64;
const ITEMS = 512;

function scenario(threads: number, wakes: 'signal' | 'broadcast'): Scenario {
  const consumers = threads - 1;
  const program = (ctx: ThreadContext) => {
    const { words } = ctx;
    const mutex = new Mutex(ctx.env, ctx.base + MUTEX);
    const condition = new Condition(ctx.env, ctx.base);
    const items = ctx.base + ITEMS;
    const consume = (): void => {
      mutex.lock();
      const result = condition.waitFor(mutex, () => words.load(items) > 0);
      ctx.check(CONSERVATION, result === 0, () => `waitFor() said ${result}`);
      const before = words.sub(items, 1);
      ctx.check(CONSERVATION, before > 0, () => 'took what is not there');
      mutex.unlock();
    };
    const produce = (): void => {
      mutex.lock();
      words.add(items, consumers);
      if (wakes === 'broadcast') condition.broadcast();
      else for (let i = 0; i < consumers; i++) condition.signal();
      mutex.unlock();
    };
    const check = (): void =>
      ctx.check(CONSERVATION, words.load(items) === 0, () => `${words.load(items)} items are left`);
    return { run: ctx.index === 0 ? produce : consume, check };
  };
  return defineScenario({
    name: `condition-${wakes}-${threads}`,
    about: `${consumers} thread${consumers > 1 ? 's wait' : ' waits'} on a condition for what another makes and tells by ${wakes}`,
    checks: [CONSERVATION],
    threads: alike(threads, program),
  });
}

export const conditionSignal2 = scenario(2, 'signal');
export const conditionSignal3 = scenario(3, 'signal');
export const conditionBroadcast3 = scenario(3, 'broadcast');
