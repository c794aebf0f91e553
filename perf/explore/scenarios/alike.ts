/** What the scenarios of hw/sync share: threads that run one program, and a section that one may be in at a time. */
import type { ScenarioThread, ThreadContext } from '../scenario.js';

/** t0, t1, ... */
export const alike = (threads: number, program: ScenarioThread['program']): ScenarioThread[] =>
  Array.from({ length: threads }, (_, i) => ({ name: `t${i}`, program }));

export const MUTUAL_EXCLUSION = 'mutual exclusion';

const INSIDE = 0;
const VISITS = 1;

/** Enters, lets others come, leaves; whoever meets somebody there says so. */
export function visit(ctx: ThreadContext): void {
  const inside = ++ctx.ghost[INSIDE]!;
  ctx.check(MUTUAL_EXCLUSION, inside === 1, () => `${inside} threads are in`);
  // A step inside; it is what the section guards, too.
  const at = ctx.base + GUARDED;
  const before = ctx.words.load(at);
  ctx.words.store(at, before + 1);
  ctx.ghost[INSIDE]!--;
  ctx.ghost[VISITS]!++;
}

/** Where the words lie that are guarded; below is room for what guards them. */
export const GUARDED = 1024;

/** At the end: `visits` took place, and none was lost. */
export function checkVisits(ctx: ThreadContext, visits: number): void {
  const counted = ctx.words.load(ctx.base + GUARDED);
  ctx.check(
    MUTUAL_EXCLUSION,
    ctx.ghost[VISITS] === visits && counted === visits,
    () => `${ctx.ghost[VISITS]} visits of ${visits}, ${counted} counted`,
  );
}
