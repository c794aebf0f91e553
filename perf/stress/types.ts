/** What a stress run takes, says while it runs, and returns: plain JSON-able data throughout. */
import type { MachineDescription } from '../../hw/acpi/description.js';
import { BUG_NAMES, type BugName } from '../../hw/bugs/bug-switches.js';
import { KERNEL_BUGS } from '../../hw/kernel/variants.js';
import type { KillableKind } from '../../workers/protocol/messages.js';

export type TrafficKind = 'nic' | 'nvme' | 'gpu' | 'guest';
export const INJECTIONS = [
  'skip-tlbi',
  'early-sync',
  'wrong-vmid',
  'early-free',
  'skip-atc-inv',
  'atc-before-tlbi',
] as const;
/** Of the bug zoo: those that ordinary threads can have. The compiled kernel's need its explore variant. */
export const ZOO_INJECTIONS = BUG_NAMES.filter((bug) => !(bug in KERNEL_BUGS));
export type Injection = (typeof INJECTIONS)[number] | BugName;
/** Injections that only a device with an ATC feels. */
export const ATS_INJECTIONS: readonly Injection[] = ['skip-atc-inv', 'atc-before-tlbi'];
/** Which PCI devices have an ATC: those behind a root complex that is described with ATS, all, none. */
export const ATS_CHOICES = ['auto', 'on', 'off'] as const;
export type AtsChoice = (typeof ATS_CHOICES)[number];
export const TRAFFIC_KINDS: readonly TrafficKind[] = ['nic', 'nvme', 'gpu', 'guest'];

export interface Kill {
  readonly kind: KillableKind;
  /** Milliseconds from the first DMA on. */
  readonly afterMs: number;
}

export interface StressOptions {
  readonly topologyName: string;
  readonly topology: MachineDescription;
  /** Seconds of traffic, set-up not counted. */
  readonly durationS: number;
  /** Devices in all, spread over the machine's SMMUs. */
  readonly devices: number;
  /** Guests (VMs); each takes devices behind several SMMUs. 0 = none. */
  readonly guests: number;
  readonly seed: number;
  /** Relative weights of the traffic programs; 'guest' is nested traffic with page-table churn. */
  readonly mix: Readonly<Record<TrafficKind, number>>;
  /** Share of transactions that are hostile, in percent. */
  readonly hostilePercent: number;
  readonly s2Sharing: 'shared' | 'per-psmmu';
  readonly inject: Injection | null;
  /** Default: auto. */
  readonly ats?: AtsChoice;
  /** One thread that is ended in the middle of its work, to see that the run survives it. */
  readonly kill: Kill | null;
  /** A file for the timelines, for Perfetto; absent: none are kept. */
  readonly trace?: string;
  /** RAM of the machine, bytes. */
  readonly memoryBytes: number;
}

/** One SMMU's totals since the start of traffic. */
export interface IommuTotals {
  readonly name: string;
  /** Page translations that devices asked for, whatever came of them. */
  readonly translations: number;
  /** Of those, found in a device's micro-TLB, in the IOTLB, or by the device itself in its ATC. */
  readonly hits: number;
  /** Of the hits, those in ATCs. */
  readonly atcHits: number;
  readonly misses: number;
  /** Invalidation commands consumed (TLBI_*, CFGI_*). */
  readonly invalidations: number;
  readonly syncs: number;
  readonly faults: number;
  readonly events: number;
  readonly eventsDropped: number;
}

/** Percentiles in microseconds of what a thread saw from issuing an invalidation to its SYNC being complete. */
export interface LatencySummary {
  readonly count: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly maxUs: number;
}

export interface StressSample {
  /** Seconds since traffic began. */
  readonly atS: number;
  readonly iommus: readonly IommuTotals[];
  /** By SMMU, over the whole run so far. */
  readonly syncLatency: readonly LatencySummary[];
  readonly maps: number;
  readonly unmaps: number;
  readonly guestInvalidations: number;
  readonly checks: number;
  readonly violations: number;
}

/** A sample that is kept for the report: one in the run's series, or several merged. */
export interface SeriesPoint extends StressSample {
  /** By SMMU, of the time since the point before. */
  readonly syncInterval: readonly LatencySummary[];
}

/** One histogram of the whole run. */
export interface LatencyDistribution extends LatencySummary {
  /**
   * `sync`: the host's invalidations, by SMMU. `guest`: all guests'. `miss`: translating a batch of up to 64
   * transactions of which at least one had to be walked, by SMMU.
   */
  readonly what: 'sync' | 'guest' | 'miss';
  /** The SMMU's name, or `all guests`. */
  readonly name: string;
  /** Filled buckets in order: the longest latency that counts there, and how many did. */
  readonly buckets: readonly (readonly [upToUs: number, count: number])[];
}

/** What one SMMU refused. */
export interface FaultBreakdown {
  readonly name: string;
  /** Events that reached the driver, by the specification's name. */
  readonly events: Readonly<Record<string, number>>;
  /** Events that the SMMU merged with the one before (STE.MEV): of refused transactions as well. */
  readonly merged: number;
  /** Transactions aborted without an event: the stream was blocked. */
  readonly aborted: number;
  /** Translation Requests that were not granted, or refused: the device is told, and nobody else. */
  readonly notGranted: number;
}

export interface StressDevice {
  readonly label: string;
  /** Index of its SMMU. */
  readonly iommu: number;
  readonly streamId: number;
  readonly kind: TrafficKind;
  /** The VM that it is assigned to, or the host address space that it shares. */
  readonly guest: number | null;
  readonly space: number | null;
  /** It has an ATC. */
  readonly ats: boolean;
}

/** What a file of timelines has. */
export interface TraceSummary {
  readonly file: string;
  readonly bytes: number;
  readonly events: number;
  /** Chains from a DMA to the SYNC that ended what it used. */
  readonly flows: number;
  /** The last so many milliseconds of the run: since when every thread's ring has everything. */
  readonly windowMs: number;
  /** Why there is no such file; null when there is. */
  readonly problem: string | null;
}

/** What a figure depends on besides the options. */
export interface RunVersions {
  readonly iommufd: string;
  readonly node: string;
  readonly cores: number;
  /** Name, release and architecture. */
  readonly os: string;
  readonly cpu: string;
  /** ISO 8601, when the run began. */
  readonly startedAt: string;
}

/** One violation, told so that someone can act on it. Absent facts are null, never invented. */
export interface ViolationStory {
  /** R1, R2, R6, R7 (perf/README.md), or FAULT for a hostile transaction that was not answered as it should be. */
  readonly rule: string;
  readonly summary: string;
  readonly device: string | null;
  readonly iommu: string;
  readonly stream: string | null;
  readonly iova: string | null;
  readonly pa: string | null;
  /** Where the translation came from: the walk (number, tick, IPA, PA), and the cache that served it. */
  readonly walk: string | null;
  /** The invalidation that should have killed it: command, range, tag, ticks. */
  readonly invalidation: string | null;
  /** The SYNC that claimed completion: queue index and tick. */
  readonly sync: string | null;
  readonly details: readonly string[];
}

export interface WorkerDeath {
  readonly worker: string;
  readonly reason: string;
}

export interface StressResult {
  readonly options: Omit<StressOptions, 'topology'> & { readonly unsupported: readonly string[] };
  readonly versions: RunVersions;
  /** Milliseconds: create the machine, start its workers, until the first DMA. */
  readonly startup: { readonly machineMs: number; readonly workersMs: number; readonly firstDmaMs: number };
  readonly final: StressSample;
  /** What guests saw from an invalidation of theirs until it was complete. */
  readonly guestLatency: LatencySummary;
  /** For charts: two a second, or as many as 2000 over a run of more than some 16 minutes. */
  readonly samples: readonly SeriesPoint[];
  readonly latencies: readonly LatencyDistribution[];
  /** By SMMU. */
  readonly faults: readonly FaultBreakdown[];
  readonly devices: readonly StressDevice[];
  readonly trace?: TraceSummary | null;
  /** Number of checks made, by rule. */
  readonly checksByRule: Readonly<Record<string, number>>;
  readonly violations: readonly ViolationStory[];
  readonly deaths: readonly WorkerDeath[];
  /** Ended by Ctrl-C before its time. */
  readonly interrupted: boolean;
}

export interface StressListener {
  /**
   * Given, the run ends at its first violation and hands over the machine as it then stands (openImage takes it).
   */
  keep?(image: Uint8Array): void;
  started(info: {
    machineMs: number;
    workersMs: number;
    iommus: readonly string[];
    devices: readonly string[];
  }): void;
  sample(sample: StressSample): void;
  violation(story: ViolationStory): void;
  death(death: WorkerDeath): void;
}
