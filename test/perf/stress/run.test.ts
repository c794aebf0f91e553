import test from 'ava';
import { PRESETS } from '../../../hw/acpi/presets.js';
import { runStress } from '../../../perf/stress/run.js';
import type { Injection, StressListener, StressOptions, StressResult } from '../../../perf/stress/types.js';
import { openImage } from '../../../runtime/image/opened-machine.js';

const SEED = Number(process.env.SEED ?? 20_261_120);

function options(over: Partial<StressOptions> = {}): StressOptions {
  return {
    topologyName: 'server-4',
    topology: PRESETS['server-4']!,
    durationS: 3,
    devices: 8,
    guests: 2,
    seed: SEED,
    mix: { nic: 3, nvme: 2, gpu: 1, guest: 4 },
    hostilePercent: 1,
    s2Sharing: 'shared',
    inject: null,
    kill: null,
    memoryBytes: 128 * 2 ** 20,
    ...over,
  };
}

const silent: StressListener = {
  started: () => undefined,
  sample: () => undefined,
  violation: () => undefined,
  death: () => undefined,
};

/** Where other programs have the processors, a guest that is just being set up takes a while to stop. */
const PATIENT = { stopTimeoutMs: 15_000 };

function run(
  over: Partial<StressOptions> = {},
  signal = new AbortController().signal,
): Promise<StressResult> {
  return runStress(options(over), silent, signal, PATIENT);
}

test.serial('stress: a correct machine is clean, and every rule was really checked', async (t) => {
  t.log(`seed ${SEED}`);
  // Three seconds do, but not where other programs have most of the processors.
  const enough = new AbortController();
  const listener: StressListener = {
    ...silent,
    sample({ atS, iommus, guestInvalidations, maps, unmaps }) {
      const all = iommus.every((i) => i.hits > 0 && i.misses > 0 && i.syncs > 0 && i.faults > 0);
      const atcs = iommus.some((i) => i.atcHits > 0);
      if (atS > 3 && all && atcs && Math.min(guestInvalidations, maps, unmaps) > 0) enough.abort();
    },
  };
  const result = await runStress(options({ durationS: 60 }), listener, enough.signal);
  t.deepEqual(result.violations, []);
  t.deepEqual(result.deaths, []);
  t.is(result.final.violations, 0);
  for (const rule of ['R1', 'R1 canary', 'R2', 'R6', 'R7', 'FAULT'])
    t.true(result.checksByRule[rule]! > 0, rule);
  for (const iommu of result.final.iommus) {
    t.true(iommu.hits > 0 && iommu.misses > 0 && iommu.syncs > 0 && iommu.faults > 0, iommu.name);
  }
  t.deepEqual(
    result.final.iommus.map(({ atcHits }) => atcHits > 0),
    [false, true, false, true],
  );
  t.true(result.final.guestInvalidations > 0);
  t.true(result.final.maps > 0 && result.final.unmaps > 0);
});

test.serial('stress: one stage 2 for each SMMU, and the two-SMMU topology, are clean too', async (t) => {
  const result = await run({
    topologyName: 'cix-p1',
    topology: PRESETS['cix-p1']!,
    devices: 5,
    s2Sharing: 'per-psmmu',
  });
  t.deepEqual(result.violations, []);
  t.deepEqual(result.deaths, []);
  t.is(result.final.iommus.length, 2);
});

for (const inject of ['skip-tlbi', 'early-sync', 'wrong-vmid', 'early-free'] satisfies Injection[])
  test.serial(`stress: --inject ${inject} on one SMMU of four is caught, with its story`, async (t) => {
    t.log(`seed ${SEED}`);
    const result = await run({ inject, durationS: 10 });
    t.deepEqual(result.deaths, []);
    t.true(result.final.violations > 0);
    const told = result.violations.find(
      ({ device, walk, invalidation, sync }) => device && walk && invalidation && sync,
    );
    t.truthy(told, JSON.stringify(result.violations.slice(0, 3), null, 1));
    t.regex(told!.stream!, /^0x[0-9a-f]+$/);
    t.regex(told!.iova!, /^0x[0-9a-f]+$/);
    t.regex(told!.walk!, /walk \d+ /);
    t.regex(told!.invalidation!, /CMD_TLBI_|guest \d+ invalidated/);
    t.regex(told!.sync!, /CMD_SYNC/);
    // Every fault of this kind but early-free sits in one SMMU; the others must not be accused of it.
    if (inject !== 'early-free')
      t.deepEqual(
        [...new Set(result.violations.filter(({ device }) => device).map(({ iommu }) => iommu))],
        ['smmu1'],
      );
  });

const GUESTS_ONLY = { nic: 0, nvme: 0, gpu: 0, guest: 1 };
const ATS_STORIES: readonly (readonly [Injection, RegExp, Partial<StressOptions>])[] = [
  ['skip-atc-inv', /^no CMD_ATC_INV was issued for stream 0x[0-9a-f]+$/, { mix: GUESTS_ONLY }],
  ['atc-before-tlbi', /^CMD_ATC_INV was consumed before the SYNC of the TLBI had completed: /, {}],
];
for (const [inject, why, over] of ATS_STORIES)
  test.serial(
    `stress: --inject ${inject} on one SMMU with ATS is caught by R2, with its story`,
    async (t) => {
      t.log(`seed ${SEED}`);
      const result = await run({ inject, durationS: 30, ...over });
      t.deepEqual(result.deaths, []);
      const told = result.violations.find(({ rule, details }) => rule === 'R2' && why.test(details.at(-1)!));
      t.truthy(told, JSON.stringify(result.violations.slice(0, 3), null, 1));
      t.is(told!.iommu, 'smmu3');
      t.truthy(told!.device);
      t.regex(told!.stream!, /^0x[0-9a-f]+$/);
      t.regex(told!.iova!, /^0x[0-9a-f]+$/);
      t.regex(told!.walk!, /served by the device's ATC, made by walk \d+ /);
      t.regex(told!.invalidation!, /CMD_TLBI_|guest \d+ invalidated/);
      t.regex(told!.sync!, /CMD_SYNC/);
      t.deepEqual(
        [...new Set(result.violations.filter(({ device }) => device).map(({ iommu }) => iommu))],
        ['smmu3'],
      );
    },
  );

test.serial('stress: a machine that is kept is the one that failed', async (t) => {
  const images: Uint8Array[] = [];
  const listener = { ...silent, keep: (image: Uint8Array) => void images.push(image) };
  const result = await runStress(
    options({ inject: 'skip-tlbi', durationS: 30 }),
    listener,
    new AbortController().signal,
  );
  t.true(result.violations.length > 0);
  t.is(images.length, 1);
  const opened = openImage(images[0]!);
  t.true(opened.config.bugs.skipTlbi);
  t.is(opened.iommus.length, result.final.iommus.length);
});

test.serial('stress: aborting ends it early, cleanly, with results', async (t) => {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 1500);
  const began = performance.now();
  const result = await run({ durationS: 60 }, controller.signal);
  t.true(performance.now() - began < 40_000);
  t.true(result.interrupted);
  t.deepEqual(result.violations, []);
  t.deepEqual(result.deaths, []);
});

test.serial('stress: a pIOMMU that dies is reported, and the run ends', async (t) => {
  const result = await runStress(options({ durationS: 60 }), silent, new AbortController().signal, {
    fault: { unit: 2, crashAfterSteps: 400 },
  });
  t.true(
    result.deaths.some(({ worker }) => worker.includes('smmu2')),
    JSON.stringify(result.deaths),
  );
});
