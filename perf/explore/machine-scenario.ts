/**
 * A scenario over a small machine, with the threads that it has in earnest: the core, one for each physical IOMMU, and
 * devices and guests.
 *
 *   core      thread 0: builds the machine inline, sets objects up unexplored, then gives the IOMMUs away
 *   NAME      a daemon for each IOMMU: the model in the unit loop that workers/piommu.ts runs
 *   others    attach as device and guest workers do (MachineThread)
 *
 * Whatever the scenario checks, monitors (monitors/) look at every access, and at the whole machine when all is over.
 */

import { UnitLayout } from '../../hw/iotlb/unit-layout.js';
import type { MemoryHandle } from '../../hw/memory/machine-memory.js';
import { type CreateOptions, createMachine, type Machine } from '../../runtime/machine.js';
import type { CheckedConfig, MachineConfig } from '../../runtime/machine-schema.js';
import { type MachineHandle, MachineThread } from '../../runtime/machine-thread.js';
import { runUnit } from '../../workers/unit-loop.js';
import {
  MachineMonitors,
  type Meanings,
  monitorChecks,
  type Unmonitored,
} from './monitors/machine-monitors.js';
import {
  defineScenario,
  exploredWaiting,
  type Scenario,
  type ScenarioThread,
  type ThreadBody,
  type ThreadContext,
} from './scenario.js';

/** @typeParam Shared  what the core tells the others before they attach: plain JSON, without bigints */
export interface MachineScenario<Shared> extends Omit<Scenario, 'threads' | 'memory'> {
  /** Small: all of its memory is zeroed for each schedule. maxFds is 1 unless it is said. */
  readonly machine: MachineConfig;
  /** For checks of what the core does while it does it. */
  readonly instrument?: (ctx: ThreadContext) => NonNullable<CreateOptions['instrument']>;
  /** Monitors that do not fit it, each with the reason. */
  readonly unmonitored?: Unmonitored;
  readonly means?: Meanings;
  /** Sets up, unexplored; `share` is for the others. @returns what the core runs, and how it checks at the end */
  readonly core: (
    ctx: ThreadContext,
    machine: Machine,
    share: (value: Shared) => void,
  ) => ThreadBody | (() => void);
  /** By name. The function is called unexplored, when it attaches; it returns what runs. */
  readonly threads?: Readonly<
    Record<string, (ctx: ThreadContext, thread: MachineThread, shared: Shared) => () => void>
  >;
}

interface Published {
  readonly ram: MemoryHandle['ram'];
  readonly regions: MemoryHandle['regions'];
  readonly config: CheckedConfig;
  readonly shared: unknown;
}

/** Makes a scenario of a small machine: its core, its IOMMUs, and threads of your own. @throws TypeError as defineScenario */
export function machineScenario<Shared = undefined>(spec: MachineScenario<Shared>): Scenario {
  const {
    machine: given,
    core,
    instrument,
    threads = {},
    unmonitored = {},
    means = {},
    checks,
    ...rest
  } = spec;
  const names = ['core', ...given.iommus.map(({ name }) => name), ...Object.keys(threads)];
  const monitors = new MachineMonitors({ unmonitored, means, names });
  const config = (ctx: ThreadContext): MachineConfig => ({
    ...small(given),
    bugs: { ...given.bugs, zoo: [...ctx.bugs] },
  });
  const all: ScenarioThread[] = [
    { name: 'core', program: (ctx) => startCore(ctx, config(ctx), { core, instrument, monitors }) },
  ];
  given.iommus.forEach(({ name }, index) => {
    all.push({ name, daemon: true, program: (ctx) => hostUnit(ctx, index, monitors) });
  });
  for (const [name, program] of Object.entries(threads))
    all.push({
      name,
      program: (ctx) => {
        const { thread, shared } = attach(ctx, monitors);
        return program(ctx, thread, shared as Shared);
      },
    });
  return defineScenario({
    ...rest,
    checks: [...checks, ...monitorChecks(unmonitored)],
    threads: all,
    memory: { machine: small(given) },
  });
}

const small = (config: MachineConfig): MachineConfig => ({
  maxFds: 1,
  memory: '2MiB',
  debugLocks: true,
  ...config,
});

interface CoreParts<Shared> extends Pick<MachineScenario<Shared>, 'core' | 'instrument'> {
  readonly monitors: MachineMonitors;
}

function startCore<Shared>(
  ctx: ThreadContext,
  config: MachineConfig,
  { core, instrument, monitors }: CoreParts<Shared>,
): ThreadBody {
  const machine = createMachine(config, {
    ...exploredWaiting(ctx),
    memory: ctx.memory,
    log: (text) => ctx.note(text),
    ...(instrument && { instrument: instrument(ctx) }),
  });
  ctx.restsOn(machine.env.threads.still);
  let shared: Shared | undefined;
  const body = core(ctx, machine, (value) => {
    shared = value;
  });
  machine.hostInline(false);
  const { memory, config: checked } = machine.handle();
  const { ram, regions } = memory;
  const end = Math.max(...Object.values(regions).map(({ base, size }) => base + size));
  ctx.lateStores(ram.linear, ram.linear + ram.bytes - 1);
  ctx.uses([
    [0, end],
    [ram.linear, ram.linear + ram.bytes],
  ]);
  const published: Published = { ram, regions, config: checked, shared };
  ctx.publish(published);
  monitors.attachCore(ctx, machine);
  const own: ThreadBody = typeof body === 'function' ? { run: body } : body;
  return {
    run: () => own.run(),
    check() {
      // What the scenario looks for comes first.
      own.check?.();
      monitors.look(ctx, machine);
    },
  };
}

function attach(
  ctx: ThreadContext,
  monitors: MachineMonitors,
  role: 'iommu' | 'other' = 'other',
): { thread: MachineThread; shared: unknown } {
  const { ram, regions, config, shared } = ctx.published() as Published;
  const handle: MachineHandle = { memory: { memory: ctx.memory, ram, regions }, config };
  const thread = MachineThread.attach(handle, { ...exploredWaiting(ctx), log: (text) => ctx.note(text) });
  ctx.restsOn(thread.env.threads.still);
  monitors.attach(ctx, thread.memory, role);
  return { thread, shared };
}

function hostUnit(ctx: ThreadContext, index: number, monitors: MachineMonitors): () => void {
  const { thread } = attach(ctx, monitors, 'iommu');
  const model = thread.smmuModel(index);
  const unit = thread.memory.region(UnitLayout, `unit:${index}`).base;
  return () => {
    runUnit({
      model,
      words: thread.memory.words,
      clock: ctx.clock,
      unit,
      stopping: () => false,
      spin: false,
    });
  };
}
