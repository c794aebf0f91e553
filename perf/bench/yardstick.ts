/** A round that is measured twice: by C on its copy of the memory, and by us, one after the other on one processor. */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { type Answer, Baseline, type Compiled } from './baseline.js';
import type { FigureName, Goal } from './figures.js';
import type { Round } from './rounds.js';

/** The program, or why there is none; compiled when first asked for. */
export type Yardstick = () => Compiled | string;

/** @returns null without a C compiler */
export function onImage(yardstick: Yardstick, memory: MachineMemory): Promise<Baseline | null> {
  const compiled = yardstick();
  return typeof compiled === 'string' ? Promise.resolve(null) : Baseline.start(compiled, memory);
}

/** A figure in ns that is compared with C. @param atLeast  C's time over ours; none: only told */
export function comparedFigure(name: string, yardstick: Yardstick, atLeast?: number): FigureName {
  const compiled = yardstick();
  const goal: Goal | undefined = atLeast === undefined ? undefined : { kind: 'ratio', atLeast, of: 'C' };
  return {
    name,
    unit: 'ns',
    ...(goal === undefined ? {} : { goal }),
    ...(typeof compiled === 'string' ? { noRatio: compiled } : {}),
  };
}

/**
 * @param ours  ns, and the share of the time this thread had its processor
 * @param field  what of C's answer is to be compared, ns
 */
export function comparedRound(
  ours: readonly { readonly ns: number; readonly field: string }[],
  share: number,
  theirs: Answer | null,
): Round {
  return {
    values: ours.map(({ ns }) => ns),
    ratios: ours.map(({ ns, field }) => (theirs === null ? null : theirs[field]! / ns)),
    share: Math.min(share, theirs?.share ?? 1),
  };
}

/** FNV-1a over what each record asks and answers: what the C program's `answers` gives. */
export function answersHash(memory: MachineMemory, xlats: number, n: number): number {
  const words = [0, 1, 6, 7, 8, 9, 10, 11];
  let hash = 0x811c9dc5;
  for (let i = 0; i < n; i++)
    for (const word of words) {
      hash = Math.imul(hash ^ memory.u32[(xlats >>> 2) + i * 16 + word]!, 0x0100_0193);
    }
  return hash >>> 0;
}
