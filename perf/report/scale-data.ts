/**
 * What a scale run measured, as plain JSON: a point for each combination of parameters, each measured several
 * times. `iommufd scale` fills it in; report/scale-page.ts draws it.
 */
import type { RunVersions } from '../stress/types.js';

export interface ScaleParams {
  /** Physical SMMUs. */
  readonly psmmus: number;
  /** Devices in all. */
  readonly devices: number;
  readonly guests: number;
  readonly s2Sharing: 'shared' | 'per-psmmu';
  /** Transactions a device sends at a time. */
  readonly batch: number;
  /** Command queues of an SMMU that commands are spread over. */
  readonly queues: number;
}

/** One measurement of a point. */
export interface ScaleRepeat {
  /** Translations a second, all devices together. */
  readonly throughput: number;
  /** Microseconds from issuing an invalidation until its SYNC was complete. */
  readonly syncP50Us: number;
  readonly syncP99Us: number;
  /** Of the translations, found in a cache: 0..1. */
  readonly hitRate?: number;
  readonly invalidationsPerS?: number;
  readonly mapsPerS?: number;
}

export interface ScalePoint {
  readonly params: ScaleParams;
  readonly repeats: readonly ScaleRepeat[];
  /** Why a point has fewer repeats than the others, or none. */
  readonly error?: string;
}

export interface ScaleData {
  readonly report: 'iommufd-scale';
  readonly version: 1;
  readonly versions: RunVersions;
  /** As given, by name, in the order they are to be told. */
  readonly options: Readonly<Record<string, string | number | boolean>>;
  readonly points: readonly ScalePoint[];
}
