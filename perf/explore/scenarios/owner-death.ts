/**
 * A thread that dies with a lock, before it or after it: nobody waits for it for ever, and whoever comes into what it
 * left half done is told by EOWNERDEAD.
 */
import { Mutex } from '../../../hw/sync/mutex.js';
import { RwLock } from '../../../hw/sync/rw-lock.js';
import { SeqLock } from '../../../hw/sync/seq-lock.js';
import { SpinLock } from '../../../hw/sync/spin-lock.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { defineScenario, type Scenario, type ThreadContext } from '../scenario.js';
import { alike, diedInside, MUTUAL_EXCLUSION, OWN_GHOST, visit } from './alike.js';
import { kill, mortal, untilDeath, waitsInSlices } from './mortal.js';

const EOWNERDEAD = 130;
const ROBUST = 'owner death is told';
const DIED = OWN_GHOST;
const DIED_INSIDE = OWN_GHOST + 1;
const TOLD = OWN_GHOST + 2;
/** A thread that looks when the others are through. */
const AFTERWARDS = 200;

interface Lock {
  lock(): number;
  repair?(): void;
  unlock(): void;
}

function scenario(name: string, threads: number, make: (env: SyncEnv, base: number) => Lock): Scenario {
  const victim = (ctx: ThreadContext) => {
    const env = mortal(ctx);
    const lock = make(env, ctx.base);
    const live = (): void => {
      lock.lock();
      visit(ctx, env.words);
      lock.unlock();
    };
    const run = (): void =>
      untilDeath(ctx, live, () => {
        ctx.ghost[DIED] = 1;
        if (diedInside(ctx)) ctx.ghost[DIED_INSIDE] = 1;
      });
    const check = (): void => {
      // The others may have been through before it came.
      const next = make({ ...waitsInSlices(ctx), threadId: AFTERWARDS }, ctx.base).lock();
      const told = ctx.ghost[TOLD]! + (next === -EOWNERDEAD ? 1 : 0);
      ctx.check(ROBUST, next === 0 || next === -EOWNERDEAD, () => `in the end lock() said ${next}`);
      ctx.check(
        ROBUST,
        told === ctx.ghost[DIED_INSIDE] || (told === 1 && ctx.ghost[DIED] === 1),
        () => `it died ${ctx.ghost[DIED_INSIDE] === 1 ? 'inside' : 'outside'}, and ${told} threads were told`,
      );
    };
    return { run, check };
  };
  const survivor = (ctx: ThreadContext) => {
    const lock = make(waitsInSlices(ctx), ctx.base);
    return () => {
      if (ctx.index === 1) kill(ctx);
      const result = lock.lock();
      ctx.check(MUTUAL_EXCLUSION, result === 0 || result === -EOWNERDEAD, () => `lock() said ${result}`);
      if (result !== 0) {
        ctx.check(ROBUST, ctx.ghost[DIED] === 1, () => 'EOWNERDEAD, but nobody died');
        ctx.ghost[TOLD]!++;
        lock.repair?.();
      }
      visit(ctx);
      lock.unlock();
    };
  };
  return defineScenario({
    name: `${name}-owner-death-${threads}`,
    about: `a thread that takes a ${name} dies at any step; ${threads - 1} go on`,
    checks: [MUTUAL_EXCLUSION, ROBUST],
    threads: alike(threads, (ctx) => (ctx.index === 0 ? victim(ctx) : survivor(ctx))),
    timeouts: true,
  });
}

const mutex = (env: SyncEnv, base: number): Lock => {
  const it = new Mutex(env, base);
  return { lock: () => it.lock(), repair: () => it.markConsistent(), unlock: () => it.unlock() };
};
const spinLock = (env: SyncEnv, base: number): Lock => new SpinLock(env, base);
const writer = (env: SyncEnv, base: number): Lock => {
  const it = new RwLock(env, base);
  return { lock: () => it.writeLock(), unlock: () => it.writeUnlock() };
};
const sequence = (env: SyncEnv, base: number): Lock => {
  const it = new SeqLock(env, base);
  return { lock: () => it.writeBegin(), unlock: () => it.writeEnd() };
};

export const mutexDeath2 = scenario('mutex', 2, mutex);
export const mutexDeath3 = scenario('mutex', 3, mutex);
export const spinLockDeath2 = scenario('spin-lock', 2, spinLock);
export const spinLockDeath3 = scenario('spin-lock', 3, spinLock);
export const rwLockDeath2 = scenario('rw-lock', 2, writer);
export const rwLockDeath3 = scenario('rw-lock', 3, writer);
export const seqLockDeath2 = scenario('seq-lock', 2, sequence);
export const seqLockDeath3 = scenario('seq-lock', 3, sequence);
