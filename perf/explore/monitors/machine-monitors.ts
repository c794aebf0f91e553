/**
 * The monitors that every machine scenario has by itself: two that look at each access, and those that look at the
 * machine when all is over. A scenario switches one off by name, and says why.
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import type { Machine } from '../../../runtime/machine.js';
import type { ThreadContext } from '../scenario.js';
import { addressSpaces } from './address-spaces.js';
import { configuration } from './configuration.js';
import { faultGroups } from './fault-groups.js';
import { countedAs, type EndMonitor, type Expect } from './monitor.js';
import { commandErrors, commands, events } from './queue-ledgers.js';
import { oneViommu, references } from './references.js';
import { guestTranslations, translations } from './translations.js';
import { GUARDS, guardThread, logFreedFrames } from './use-after-free.js';

export const END_MONITORS: readonly EndMonitor[] = [
  // First: it looks at caches that the others fill.
  configuration,
  translations,
  guestTranslations,
  commands,
  commandErrors,
  events,
  addressSpaces,
  references,
  oneViommu,
  faultGroups,
];

export const MONITOR_NAMES = [
  'frames',
  'objects',
  'configuration',
  'translations',
  'guest translations',
  'commands',
  'command errors',
  'events',
  'address spaces',
  'references',
  'one vIOMMU',
  'fault groups',
] as const;
export type MonitorName = (typeof MONITOR_NAMES)[number];

/** Monitors that are off, each with the reason. */
export type Unmonitored = Partial<Readonly<Record<MonitorName, string>>>;

/**
 * What a monitor's finding comes of in a scenario whose subject is the cause: by the invariant that the monitor found
 * broken, the one to report.
 */
export type Meanings = Readonly<Record<string, string>>;

export interface MonitorOptions {
  readonly unmonitored: Unmonitored;
  readonly means: Meanings;
  /** Of the scenario's threads. */
  readonly names: readonly string[];
}

const isOn = (off: Unmonitored, name: string): boolean => off[name as MonitorName] === undefined;

/** What a scenario's `checks` have in addition. */
export function monitorChecks(off: Unmonitored): string[] {
  return [...GUARDS, ...END_MONITORS]
    .filter(({ name }) => isOn(off, name))
    .flatMap(({ name, checks }) => checks.map((invariant) => countedAs(invariant, name)));
}

export class MachineMonitors {
  readonly #options: MonitorOptions;

  constructor(options: MonitorOptions) {
    this.#options = options;
  }

  /** The core, when its machine is made. */
  attachCore(ctx: ThreadContext, machine: Machine): void {
    if (isOn(this.#options.unmonitored, 'frames')) logFreedFrames(ctx, machine);
    this.attach(ctx, machine.memory, 'core');
  }

  /** A thread, when it attaches. */
  attach(ctx: ThreadContext, memory: MachineMemory, role: 'core' | 'iommu' | 'other'): void {
    const { names } = this.#options;
    const [frames, objects] = [this.#expect(ctx, 'frames'), this.#expect(ctx, 'objects')];
    if (frames !== null || objects !== null) guardThread(ctx, memory, { role, names, frames, objects });
  }

  /** All programs are through, and the hardware sleeps. */
  look(ctx: ThreadContext, machine: Machine): void {
    for (const monitor of END_MONITORS) {
      const expect = this.#expect(ctx, monitor.name);
      if (expect !== null) monitor.look(machine, expect);
    }
  }

  #expect(ctx: ThreadContext, name: string): Expect | null {
    const { unmonitored, means } = this.#options;
    if (!isOn(unmonitored, name)) return null;
    const labels = new Map<string, string>();
    return (invariant, holds, story) => {
      let label = labels.get(invariant);
      if (label === undefined) {
        label = countedAs(invariant, name);
        labels.set(invariant, label);
      }
      ctx.check(means[invariant] ?? invariant, holds, () => `${name}: ${story()}`, label);
    };
  }
}
