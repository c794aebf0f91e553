/** What the scenarios of hw/sync share: threads that run one program, and a section that one may be in at a time. */
import type { Words } from '../../../hw/sync/words.js';
import type { ScenarioThread, ThreadContext } from '../scenario.js';

/** t0, t1, ... */
export const alike = (threads: number, program: ScenarioThread['program']): ScenarioThread[] =>
  Array.from({ length: threads }, (_, i) => ({ name: `t${i}`, program }));

export const MUTUAL_EXCLUSION = 'mutual exclusion';

/** Ghost words: who is in, from 1, and visits that came to their end. Scenarios have those from OWN_GHOST on. */
const INSIDE = 0;
const VISITS = 1;
export const OWN_GHOST = 8;

/** Where the words lie that are guarded; below is room for what guards them. */
export const GUARDED = 512;

/** Enters, lets others come, leaves; whoever meets somebody there says so. */
export function visit(ctx: ThreadContext, words: Words = ctx.words): void {
  const met = ctx.ghost[INSIDE]!;
  ctx.check(MUTUAL_EXCLUSION, met === 0, () => `${ctx.name} is in, and so is t${met - 1}`);
  ctx.ghost[INSIDE] = ctx.index + 1;
  const at = ctx.base + GUARDED;
  words.store(at, words.load(at) + 1);
  ctx.ghost[INSIDE] = 0;
  ctx.ghost[VISITS]!++;
}

/** At the end: so many visits took place, and none of them was lost. */
export function checkVisits(ctx: ThreadContext, visits: number): void {
  const counted = ctx.words.load(ctx.base + GUARDED);
  ctx.check(
    MUTUAL_EXCLUSION,
    ctx.ghost[VISITS] === visits && counted === visits,
    () => `${ctx.ghost[VISITS]} visits of ${visits}, ${counted} counted`,
  );
}

/** This thread died. @returns whether it was inside, where it is no more */
export function diedInside(ctx: ThreadContext): boolean {
  if (ctx.ghost[INSIDE] !== ctx.index + 1) return false;
  ctx.ghost[INSIDE] = 0;
  return true;
}
