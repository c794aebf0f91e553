/** Reads a running machine's counters into samples: for display, and for the report. */
import { PortLayout } from '../../hw/iotlb/port-layout.js';
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { Smmuv3Layout } from '../../hw/smmuv3/smmuv3-layout.js';
import type { Machine } from '../../runtime/machine.js';
import { portKey } from '../../runtime/machine-hardware.js';
import { Histogram } from '../report/histogram.js';
import type { Checker } from './checker/checker.js';
import { read64 } from './counters.js';
import { type EventLedger, eventCounters } from './events.js';
import { DeviceStats, GuestStats, StressLayout } from './stress-layout.js';
import type { FaultBreakdown, IommuTotals, LatencyDistribution, StressSample } from './types.js';

/** Checks by rule, as the report names them. */
export type ChecksByRule = Readonly<Record<'R1' | 'R1 canary' | 'R2' | 'R6' | 'R7' | 'FAULT', number>>;

export class Sampler {
  readonly #machine: Machine;
  readonly #checker: Checker;
  readonly #ledger: EventLedger;
  readonly #guests: number;
  readonly #stress: number;
  /** By IOMMU: how long unmaps took from issue to SYNC. Writer: the core. */
  readonly #latency: readonly Histogram[];
  /** As they were when an interval last ended. */
  #before: Histogram[];

  constructor(
    machine: Machine,
    checker: Checker,
    ledger: EventLedger,
    guests: number,
    latency: readonly Histogram[],
  ) {
    this.#machine = machine;
    this.#checker = checker;
    this.#ledger = ledger;
    this.#guests = guests;
    this.#stress = machine.memory.region(StressLayout, 'stress').base;
    this.#latency = latency;
    this.#before = latency.map((histogram) => histogram.copy());
  }

  take(atS: number, violations: number): StressSample {
    const checks = this.checks();
    return {
      atS,
      iommus: this.#machine.iommus.map(({ index, name }) => this.#iommu(index, name)),
      syncLatency: this.#latency.map((histogram) => histogram.summary()),
      maps: this.#devices('maps') + this.#guestSum('maps'),
      unmaps: this.#devices('unmaps') + this.#guestSum('unmaps'),
      guestInvalidations: this.#guestSum('invalidations'),
      checks: Object.values(checks).reduce((sum, count) => sum + count, 0),
      violations,
    };
  }

  /** SYNC latencies by SMMU since this was last asked. */
  takeIntervals(): Histogram[] {
    const intervals = this.#latency.map((histogram, index) => histogram.since(this.#before[index]!));
    this.#before = this.#latency.map((histogram) => histogram.copy());
    return intervals;
  }

  /** Of the whole run; those that nothing was recorded in are left out. */
  distributions(): LatencyDistribution[] {
    const { memory, iommus, config } = this.#machine;
    const misses = iommus.map(() => Histogram.local());
    config.devices.forEach(({ iommuIndex }, device) => {
      misses[iommuIndex]!.merge(new Histogram(memory.u32, this.#device(device) + DeviceStats.at.missLatency));
    });
    const named = (what: LatencyDistribution['what'], name: string, histogram: Histogram) => ({
      what,
      name,
      ...histogram.summary(),
      buckets: histogram.buckets(),
    });
    return [
      ...this.#latency.map((histogram, index) => named('sync', iommus[index]!.name, histogram)),
      named('guest', 'all guests', guestLatency(memory, this.#guests)),
      ...misses.map((histogram, index) => named('miss', iommus[index]!.name, histogram)),
    ].filter(({ count }) => count > 0);
  }

  faults(): FaultBreakdown[] {
    const { memory, iommus, config } = this.#machine;
    const sum = (index: number, field: 'aborts' | 'notGranted'): number =>
      config.devices.reduce(
        (before, { iommuIndex }, device) =>
          iommuIndex === index
            ? before + read64(memory, this.#device(device) + DeviceStats.at[field])
            : before,
        0,
      );
    return iommus.map(({ index, name }) => ({
      name,
      events: this.#ledger.byName(index),
      merged: eventCounters(memory, index).merged,
      aborted: sum(index, 'aborts'),
      notGranted: sum(index, 'notGranted'),
    }));
  }

  checks(): ChecksByRule {
    const { checks } = this.#checker;
    return {
      R1: this.#devices('checks'),
      'R1 canary': checks.canary + this.#guestSum('canaryChecks'),
      R2: this.#devices('atcChecks') + checks.R2 + this.#guestSum('atcScans'),
      R6: checks.R6,
      R7: checks.R7,
      FAULT: this.#devices('faultChecks') + this.#ledger.checks,
    };
  }

  /** Devices that have completed a DMA. */
  running(): number {
    const { memory, config } = this.#machine;
    return config.devices.filter(
      (_, device) => memory.words.load(this.#device(device) + DeviceStats.at.running) > 0,
    ).length;
  }

  #iommu(index: number, name: string): IommuTotals {
    const { memory, config } = this.#machine;
    const { base } = memory.region(Smmuv3Layout, `smmuv3:${index}`);
    const word = (at: number): number => memory.words.load(base + at) >>> 0;
    const syncs = word(Smmuv3Layout.at.syncSeq);
    const { recorded, lost } = eventCounters(memory, index);
    let hits = 0;
    let atcHits = 0;
    let misses = 0;
    let faults = 0;
    config.devices.forEach(({ iommuIndex }, device) => {
      if (iommuIndex !== index) return;
      const port = memory.region(PortLayout, portKey(device)).base;
      hits += read64(memory, port + PortLayout.at.hitsMicro) + read64(memory, port + PortLayout.at.hitsIotlb);
      atcHits += read64(memory, port + PortLayout.at.hitsAtc);
      misses += read64(memory, port + PortLayout.at.misses);
      faults += read64(memory, port + PortLayout.at.faults);
    });
    return {
      name,
      translations: hits + atcHits + misses,
      hits: hits + atcHits,
      atcHits,
      misses,
      invalidations: word(Smmuv3Layout.at.commandsConsumed) - syncs,
      syncs,
      faults,
      events: recorded,
      eventsDropped: lost,
    };
  }

  #devices(field: 'maps' | 'unmaps' | 'checks' | 'atcChecks' | 'faultChecks'): number {
    const { memory, config } = this.#machine;
    let sum = 0;
    for (let device = 0; device < config.devices.length; device++)
      sum += read64(memory, this.#device(device) + DeviceStats.at[field]);
    return sum;
  }

  #guestSum(field: 'maps' | 'unmaps' | 'invalidations' | 'canaryChecks' | 'atcScans'): number {
    let sum = 0;
    for (let vm = 0; vm < this.#guests; vm++)
      sum += read64(
        this.#machine.memory,
        this.#stress + StressLayout.at.guests + vm * GuestStats.size + GuestStats.at[field],
      );
    return sum;
  }

  #device(device: number): number {
    return this.#stress + StressLayout.at.devices + device * DeviceStats.size;
  }
}

/** What guests measured from issuing an invalidation to its completion, merged. */
export function guestLatency(memory: MachineMemory, guests: number): Histogram {
  const merged = Histogram.local();
  const { base } = memory.region(StressLayout, 'stress');
  for (let vm = 0; vm < guests; vm++)
    merged.merge(
      new Histogram(memory.u32, base + StressLayout.at.guests + vm * GuestStats.size + GuestStats.at.latency),
    );
  return merged;
}
