/**
 * What a campaign checked that its scenario is about. Monitors look whatever the scenario does: a campaign in which
 * they alone had something to see proves nothing of what it was for.
 */
import { MONITOR_NAMES, type MonitorName } from './monitors/machine-monitors.js';

type Counts = Readonly<Record<string, number>>;

/** @returns the monitor that a check is of, undefined for the scenario's own */
export const monitorOf = (check: string): MonitorName | undefined =>
  MONITOR_NAMES.find((name) => check.endsWith(` (${name})`));

/** @returns evaluations of the scenario's own checks */
export function ownChecks(checks: Counts): number {
  return Object.entries(checks).reduce((sum, [check, n]) => (monitorOf(check) ? sum : sum + n), 0);
}
