/** A made-up run for tests of what shows one: two SMMUs, four seconds, plain numbers. */
import type {
  LatencyDistribution,
  SeriesPoint,
  StressOptions,
  StressResult,
  StressSample,
  ViolationStory,
} from '../../perf/stress/types.js';

export function sampleAt(atS: number): StressSample {
  return {
    atS,
    iommus: [
      {
        name: 'smmu0',
        translations: 2_000_000 * atS,
        hits: 1_900_000 * atS,
        atcHits: 400_000 * atS,
        misses: 100_000 * atS,
        invalidations: 3_000 * atS,
        syncs: 1_000 * atS,
        faults: 12,
        events: 12,
        eventsDropped: 0,
      },
      {
        name: 'smmu1',
        translations: 0,
        hits: 0,
        atcHits: 0,
        misses: 0,
        invalidations: 0,
        syncs: 0,
        faults: 0,
        events: 0,
        eventsDropped: 0,
      },
    ],
    syncLatency: [
      { count: 1_000 * atS, p50Us: 0.42, p99Us: 17.5, maxUs: 250 },
      { count: 0, p50Us: 0, p99Us: 0, maxUs: 0 },
    ],
    maps: 500 * atS,
    unmaps: 400 * atS,
    guestInvalidations: 200 * atS,
    checks: 1000 * atS,
    violations: 0,
  };
}

export const STORY: ViolationStory = {
  rule: 'R1',
  summary: 'a DMA used a translation after its invalidation was complete',
  device: '0000:01:00.0',
  iommu: 'smmu0',
  stream: '0x100',
  iova: '0x10003000',
  pa: '0x80042000',
  walk: 'walk 1234 at tick 77: PA 0x80042000, from the IOTLB',
  invalidation: 'TLBI_NH_VA 0x10003000 asid 3 at tick 80',
  sync: 'CMD_SYNC at queue index 512, complete at tick 81',
  details: ['used at tick 90'],
};

function pointAt(atS: number): SeriesPoint {
  const { syncLatency, ...rest } = sampleAt(atS);
  return { ...rest, syncLatency, syncInterval: syncLatency };
}

export function distributionOf(what: LatencyDistribution['what'], name: string): LatencyDistribution {
  return {
    what,
    name,
    count: 4000,
    p50Us: 0.42,
    p99Us: 17.5,
    maxUs: 250,
    buckets: [
      [0.42, 3000],
      [2, 900],
      [17.5, 80],
      [250, 20],
    ],
  };
}

export function resultOf(options: StressOptions, violations: readonly ViolationStory[] = []): StressResult {
  const { topology, ...rest } = options;
  return {
    options: { ...rest, unsupported: topology.unsupported.map(({ name }) => name) },
    versions: {
      iommufd: '0.1.0',
      node: process.version,
      cores: 2,
      os: 'Linux 6.1.0 x64',
      cpu: 'A processor',
      startedAt: '2026-11-20T12:00:00.000Z',
    },
    startup: { machineMs: 20, workersMs: 60, firstDmaMs: 95 },
    final: { ...sampleAt(4), violations: violations.length },
    samples: [pointAt(2), pointAt(4)],
    latencies: [distributionOf('sync', 'smmu0'), distributionOf('miss', 'smmu0')],
    faults: [
      {
        name: 'smmu0',
        events: { C_BAD_STREAMID: 4, F_TRANSLATION: 8 },
        merged: 3,
        aborted: 16,
        notGranted: 7,
      },
      { name: 'smmu1', events: {}, merged: 0, aborted: 0, notGranted: 7 },
    ],
    devices: [
      { label: '0000:01:00.0', iommu: 0, streamId: 0x100, kind: 'nic', guest: null, space: 0, ats: true },
      { label: '\\_SB_.DPU0#0', iommu: 1, streamId: 0x10, kind: 'guest', guest: 0, space: null, ats: false },
    ],
    checksByRule: { R1: 3990, R6: 10 },
    guestLatency: { count: 800, p50Us: 31, p99Us: 210, maxUs: 900 },
    violations,
    deaths: [],
    interrupted: false,
  };
}
