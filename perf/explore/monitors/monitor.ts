/**
 * A monitor: what is checked of every machine scenario, whatever else it checks by itself. Its checks are counted
 * apart from the scenario's own, as `R1 (translations)`: a scenario whose own check never ran does not hide behind it.
 */
import type { Machine } from '../../../runtime/machine.js';

/** @param invariant  one of the monitor's `checks` */
export type Expect = (invariant: string, holds: boolean, story: () => string) => void;

/** Looks at a machine whose programs are through and whose hardware sleeps, on the core's thread. */
export interface EndMonitor {
  readonly name: string;
  readonly about: string;
  readonly checks: readonly string[];
  look(machine: Machine, expect: Expect): void;
}

export const countedAs = (invariant: string, monitor: string): string => `${invariant} (${monitor})`;
