/**
 * One stress run from start to end: build the machine and the checker around it, move the SMMUs to threads, let
 * guests, devices and the core have at each other, and tell what was seen.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { BUG_NAMES } from '../../hw/bugs/bug-switches.js';
import type { InvalidationNote, IoasObserver } from '../../runtime/drivers/contract.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import { type HostOptions, WorkerHost } from '../../workers/host.js';
import { Histogram } from '../report/histogram.js';
import { atcsOf, Checker } from './checker/checker.js';
import { Shadow } from './checker/shadow.js';
import { Stories } from './checker/stories.js';
import { EventLedger } from './events.js';
import { devicesOf, planStress } from './plan.js';
import { SampleSeries } from './sample-series.js';
import { guestLatency, Sampler } from './sampler.js';
import { setUp } from './setup.js';
import { StressLayout } from './stress-layout.js';
import { allocTimelines, planTimelines, timedTarget } from './timeline.js';
import { writeTimelines } from './timeline-file.js';
import { machineConfigOf } from './topology.js';
import {
  ATS_INJECTIONS,
  type Injection,
  type Kill,
  type StressListener,
  type StressOptions,
  type StressResult,
  type StressSample,
  type ViolationStory,
  type WorkerDeath,
} from './types.js';
import { runVersions } from './versions.js';

const SAMPLE_MS = 500;
const FIRST_DMA_POLL_MS = 2;
/** Stories kept in the result; all are counted. */
const MAX_STORIES = 100;
/** With an injected bug the point is made by the first violations: no need to go on for long. */
const INJECTED_LINGER_MS = 500;

/**
 * @param hostOptions  how the workers are started: for the tests of what happens when one breaks
 * @throws RangeError or OptionError naming the option, before anything is started
 */
export async function runStress(
  options: StressOptions,
  listener: StressListener,
  signal: AbortSignal,
  hostOptions: HostOptions = {},
): Promise<StressResult> {
  const plan = planStress(options, options.devices);
  const versions = runVersions();
  const began = performance.now();
  const parts = build(options);
  const { machine, checker, shadow, ledger, latency, unconfirmed } = parts;
  const machineMs = performance.now() - began;
  const iommuNames = machine.iommus.map(({ name }) => name);
  const stories = new Stories(
    machine.memory,
    shadow,
    checker,
    machine.config.devices.map(({ label, iommuIndex, sid }) => ({ label, iommu: iommuIndex, sid })),
    iommuNames,
  );
  const sampler = new Sampler(machine, checker, ledger, plan.guests.length, latency);
  const deaths: WorkerDeath[] = [];
  const told: ViolationStory[] = [];
  const series = new SampleSeries();
  let extra = 0;

  const { fd, vfios, tasks } = setUp(machine, plan, options);
  const workersBegan = performance.now();
  const host = await WorkerHost.start(machine, hostOptions);
  const workersMs = performance.now() - workersBegan;
  const die = (worker: string, reason: string): void => {
    // Once each: a thread that is ended after its program failed has been told already.
    if (deaths.some((death) => death.worker === worker)) return;
    const death = { worker, reason };
    deaths.push(death);
    listener.death(death);
    host.requestStop();
  };
  host.onDeath(({ name, reason }) => die(name, reason));
  for (const file of [fd, ...vfios]) host.expose(timedTarget(machine, file));
  listener.started({ machineMs, workersMs, iommus: iommuNames, devices: tasks.map(({ name }) => name) });

  const trafficBegan = performance.now();
  const atS = (): number => (performance.now() - trafficBegan) / 1000;
  const tell = (list: readonly ViolationStory[]): void => {
    for (const story of list) {
      if (told.length < MAX_STORIES) told.push(story);
      listener.violation(story);
    }
  };
  const violations = (): number => stories.count + extra;
  const sample = (): StressSample => {
    const taken = sampler.take(atS(), violations());
    series.add(taken, sampler.takeIntervals());
    listener.sample(taken);
    return taken;
  };
  const running = host.run(tasks).map((task, i) =>
    task.then(
      () => true,
      (error: Error) => {
        die(tasks[i]!.name, error.message);
        return false;
      },
    ),
  );
  const firstDmaMs = await firstDma(sampler, began, signal, () => deaths.length > 0);

  const killing =
    options.kill === null
      ? undefined
      : setTimeout(({ kind }: Kill) => host.kill(kind, options.seed), options.kill.afterMs, options.kill);
  let lastSample = 0;
  let caughtAt = -1;
  while (atS() < options.durationS && !signal.aborted && deaths.length === 0) {
    await sleep(50, undefined, { signal }).catch(onlyAbort);
    tell(stories.take());
    for (const iommu of unconfirmed)
      die(
        `pIOMMU ${iommuNames[iommu]}`,
        'it did not complete a SYNC in time, so a device may still use what was unmapped',
      );
    if (violations() > 0 && caughtAt < 0) caughtAt = performance.now();
    if (listener.keep !== undefined && caughtAt >= 0) break;
    if (options.inject !== null && caughtAt >= 0 && performance.now() - caughtAt > INJECTED_LINGER_MS) break;
    if (performance.now() - lastSample < SAMPLE_MS) continue;
    lastSample = performance.now();
    sample();
  }

  clearTimeout(killing);
  // stop() waits for the programs, and ends those that do not return.
  const report = await host.stop();
  await Promise.all(running);
  for (const name of report.terminated) die(name, 'did not stop in time');
  if (violations() > 0) listener.keep?.(machine.saveImage());
  machine.poll();
  if (deaths.length === 0) {
    checker.sweep();
    const audit = ledger.audit(machine);
    extra += audit.length;
    tell(audit);
  }
  tell(stories.take());
  // After a death as well: what led to it is what somebody wants to see.
  const trace = options.trace ? writeTimelines(options.trace, machine, plan.guests.length) : null;
  if (deaths.length === 0) machine.close();
  const final = sample();
  const { topology, ...rest } = options;
  return {
    options: { ...rest, unsupported: topology.unsupported.map(({ name, reason }) => `${name}: ${reason}`) },
    versions,
    startup: { machineMs, workersMs, firstDmaMs },
    final,
    guestLatency: guestLatency(machine.memory, plan.guests.length).summary(),
    samples: series.points(),
    latencies: sampler.distributions(),
    faults: sampler.faults(),
    devices: devicesOf(plan, machine.config.devices),
    trace,
    checksByRule: sampler.checks(),
    violations: told,
    deaths,
    interrupted: signal.aborted,
  };
}

interface Parts {
  readonly machine: Machine;
  readonly checker: Checker;
  readonly shadow: Shadow;
  readonly ledger: EventLedger;
  readonly latency: readonly Histogram[];
  /** SMMUs that did not complete a SYNC in time. */
  readonly unconfirmed: ReadonlySet<number>;
}

function build(options: StressOptions): Parts {
  const { topology, devices, memoryBytes, s2Sharing, inject } = options;
  const iommus = topology.iommus.length;
  const timelines = options.trace ? planTimelines(iommus, devices, options.guests) : null;
  const plain = machineConfigOf(topology, {
    devices,
    memoryBytes,
    s2Sharing,
    ats: options.ats,
    trace: true,
    instrumentBytes: timelines?.bytes ?? 0,
  });
  const config = { ...plain, bugs: bugsOf(inject, plain) };
  const ledger = new EventLedger(iommus);
  let checker: Checker | undefined;
  let shadow: Shadow | undefined;
  const latency = Array.from({ length: iommus }, () => Histogram.local());
  const unconfirmed = new Set<number>();
  const machine = createMachine(config, {
    instrument: (memory, kernel, checked) => {
      Shadow.allocRegions(memory);
      memory.allocRegion(StressLayout, 'stress');
      if (timelines !== null) allocTimelines(memory, timelines);
      shadow = new Shadow(memory);
      checker = new Checker(
        memory,
        kernel,
        shadow,
        checked.iommus.map(({ name, iotlbEntries }, index) => ({ name, index, iotlbEntries })),
        atcsOf(checked.devices),
      );
      const inner = checker;
      return {
        observer: timed(inner, latency, (iommu) => unconfirmed.add(iommu)),
        onAllocateTag: (iommu, kind, id) => inner.idAllocated(iommu, kind, id),
        onHostEvent: (iommu, event) => ledger.host(iommu, event),
      };
    },
  });
  for (const { instance } of machine.iommus) ledger.tap(instance);
  return { machine, checker: checker!, shadow: shadow!, ledger, latency, unconfirmed };
}

/**
 * One SMMU of several misbehaves: the second that has a device (with an ATC, where that matters), so that a checker
 * which looks at the first one only would miss it.
 */
function bugsOf(inject: Injection | null, config: MachineConfig): NonNullable<MachineConfig['bugs']> {
  const needsAts = inject !== null && ATS_INJECTIONS.includes(inject);
  const used = config.iommus.flatMap(({ name }, index) =>
    config.devices.some(({ iommu, ats }) => iommu === name && (ats || !needsAts)) ? [index] : [],
  );
  return {
    iommu: used[1] ?? used[0] ?? 0,
    skipTlbi: inject === 'skip-tlbi',
    earlySync: inject === 'early-sync',
    wrongVmid: inject === 'wrong-vmid',
    earlyFree: inject === 'early-free',
    skipAtcInv: inject === 'skip-atc-inv',
    atcBeforeTlbi: inject === 'atc-before-tlbi',
    zoo: BUG_NAMES.filter((bug) => bug === inject),
  };
}

/**
 * The checker, with the invalidations' durations noted by the way.
 * @param unconfirmed  told of an SMMU that did not complete a SYNC in time
 */
function timed(
  checker: Checker,
  latency: readonly Histogram[],
  unconfirmed: (iommu: number) => void,
): IoasObserver {
  let last: readonly InvalidationNote[] | null = null;
  return {
    mapping: (ioasId, iovaPage, pfn, pages) => checker.mapping(ioasId, iovaPage, pfn, pages),
    unmapped(ioasId, iovaPage, pfn, pages, notes) {
      // One unmap reports once for each physical run, with the same notes.
      if (notes !== last)
        for (const { iommu, durationNs, failed } of notes) {
          latency[iommu]!.record(durationNs);
          if (failed) unconfirmed(iommu);
        }
      last = notes;
      checker.unmapped(ioasId, iovaPage, pfn, pages, notes);
    },
  };
}

async function firstDma(
  sampler: Sampler,
  began: number,
  signal: AbortSignal,
  failed: () => boolean,
): Promise<number> {
  while (sampler.running() === 0 && !signal.aborted && !failed())
    await sleep(FIRST_DMA_POLL_MS, undefined, { signal }).catch(onlyAbort);
  return performance.now() - began;
}

function onlyAbort(error: Error): void {
  if (error.name !== 'AbortError') throw error;
}
