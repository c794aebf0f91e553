/** Runs and scale points for tests of pages: with every part of a page filled, and names that mean harm. */
import { PRESETS } from '../../../hw/acpi/presets.js';
import type { ScaleData } from '../../../perf/report/scale-data.js';
import type { LatencyDistribution, StressOptions, StressResult } from '../../../perf/stress/types.js';
import { resultOf, STORY, sampleAt } from '../stress-sample.js';

/** Where it lands, it is to stay text: in elements, in attributes, in scripts, in JSON. */
export const HOSTILE =
  `</script><script>globalThis.harmed=1</script><img src=x onerror="globalThis.harmed=2">` +
  `"' onmouseover='globalThis.harmed=3' <!-- ]]> \u2028 \u202e \${harm} \\`;

export const stressOptions: StressOptions = {
  topologyName: 'server-4',
  topology: PRESETS['server-4']!,
  durationS: 9,
  devices: 8,
  guests: 2,
  seed: 7,
  mix: { nic: 3, nvme: 2, gpu: 1, guest: 4 },
  hostilePercent: 1,
  s2Sharing: 'shared',
  inject: null,
  kill: null,
  memoryBytes: 2 ** 28,
};

/** A latency for each of many buckets: a long tail. */
function tail(what: LatencyDistribution['what'], name: string, scale: number): LatencyDistribution {
  const buckets = Array.from({ length: 60 }, (_, i): [number, number] => [
    scale * 1.2 ** i,
    Math.ceil(40_000 * 0.8 ** i),
  ]);
  const count = buckets.reduce((sum, [, n]) => sum + n, 0);
  return { what, name, count, p50Us: scale, p99Us: scale * 40, maxUs: scale * 1.2 ** 59, buckets };
}

/** @param name  of the run, its SMMUs, its devices and whatever else has one */
export function fullRun(name: (plain: string) => string, points = 40, iommus = 4): StressResult {
  const plain = resultOf(stressOptions, [STORY, { ...STORY, device: null, walk: null }]);
  const names = Array.from({ length: iommus }, (_, i) => name(`smmu${i}`));
  const sample = (atS: number, violations = 0) => ({
    ...sampleAt(atS),
    violations,
    iommus: names.map((iommu, i) => ({ ...sampleAt(atS * (1 + i / 5)).iommus[0]!, name: iommu })),
    syncLatency: names.map(() => sampleAt(atS).syncLatency[0]!),
  });
  return {
    ...plain,
    options: {
      ...plain.options,
      topologyName: name('server-4'),
      unsupported: [name('SMMUv2: not modelled')],
    },
    versions: { ...plain.versions, cpu: name('A processor'), os: name('Linux') },
    final: sample(points / 2, 2),
    samples: Array.from({ length: points }, (_, i) => {
      const now = sample((i + 1) / 2);
      return { ...now, syncInterval: now.syncLatency };
    }),
    latencies: [
      ...names.map((iommu, i) => tail('sync', iommu, 0.4 + i / 3)),
      tail('guest', name('all guests'), 2),
      ...names.map((iommu, i) => tail('miss', iommu, 0.9 + i / 3)),
    ],
    faults: names.map((iommu, i) => ({
      name: iommu,
      events: { C_BAD_STREAMID: 40 + i, [name('F_TRANSLATION')]: 800, F_PERMISSION: 35 },
      merged: 5 * i,
      aborted: 16 * i,
      notGranted: 9 * i,
    })),
    devices: names.flatMap((_, iommu) => [
      {
        label: name(`000${iommu}:01:00.0`),
        iommu,
        streamId: 0x100,
        kind: 'nic',
        guest: null,
        space: 0,
        ats: true,
      },
      {
        label: name('\\_SB_.DPU0#0'),
        iommu,
        streamId: 0x10,
        kind: 'guest',
        guest: iommu % 2,
        space: null,
        ats: false,
      },
    ]),
    checksByRule: { [name('R1')]: 1000, R7: 50 },
    violations: plain.violations.map((story) => ({
      ...story,
      summary: name(story.summary),
      device: story.device === null ? null : name(story.device),
      details: [name('detail')],
    })),
    deaths: [{ worker: name('piommu smmu1'), reason: name('exit code 1') }],
  };
}

export function scaleData(name: (plain: string) => string = (plain) => plain): ScaleData {
  const { versions } = resultOf(stressOptions);
  return {
    report: 'iommufd-scale',
    version: 1,
    versions,
    options: { [name('repeats')]: 3, note: name('none') },
    points: [1, 2, 4, 8].flatMap((psmmus) =>
      (['shared', 'per-psmmu'] as const).map((s2Sharing) => ({
        params: { psmmus, devices: psmmus * 2, guests: 1, s2Sharing, batch: 64, queues: 1 },
        repeats: [0.9, 1, 1.05].map((jitter) => ({
          throughput: 1e6 * psmmus ** 0.8 * jitter * (s2Sharing === 'shared' ? 1 : 0.85),
          syncP50Us: 1.5 * psmmus ** 0.2 * jitter,
          syncP99Us: 12 * psmmus ** 0.4 * jitter,
        })),
        ...(psmmus === 8 && s2Sharing === 'shared' ? { error: name('one repeat timed out') } : {}),
      })),
    ),
  };
}
