/** What led to what, and the file that shows it. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { PRESETS } from '../../../hw/acpi/presets.js';
import { runStress } from '../../../perf/stress/run.js';
import { planTimelines } from '../../../perf/stress/timeline.js';
import { chainsOf, smmuTrackOf } from '../../../perf/stress/timeline-causes.js';
import type { StressOptions } from '../../../perf/stress/types.js';

// [IHI0070] 4.1.1: opcodes. hw/timeline/timeline-layout.ts: kinds.
const TLBI_NH_ALL = 0x10;
const TLBI_NH_VA = 0x12;
const SYNC = 0x46;
const [SERVE, WALK, COMMAND, COMPLETED] = [1, 2, 3, 4];
/** CONTEXT_S1. */
const S1 = 2;

const event = (kind: number, startNs: number, durationNs: number, ...args: number[]) => ({
  kind,
  startNs,
  durationNs,
  args: Uint32Array.from({ length: 8 }, (_, i) => args[i] ?? 0),
});
const walk = (atNs: number, seq: number, sid: number, page: number, asid: number) =>
  event(WALK, atNs, 0, seq, sid, page, 0, 0, 0, asid << 16, 12 | (S1 << 8));
const served = (atNs: number, walks: number, sid: number) => event(SERVE, atNs, 10, 8, walks, 0, sid);
/** CMD_TLBI: ASID in bits 63:48, Address from bit 76 on (4.4.1). */
const tlbiVa = (atNs: number, asid: number, page: number) =>
  event(COMMAND, atNs, 2, TLBI_NH_VA, asid << 16, page << 12, 0, 1);
const sync = (atNs: number, index: number) => event(COMMAND, atNs, 1, SYNC, 0, 0, 0, index);
const completed = (atNs: number, seq: number, index: number) => event(COMPLETED, atNs, 0, seq, index);
const dmas = [
  { startNs: 90, endNs: 130 },
  { startNs: 140, endNs: 230 },
];
const only = (sid: number) => (wanted: number) => (wanted === sid ? dmas : []);

test('chains: from the batch that missed to the SYNC behind the command that named the page', (t) => {
  const track = smmuTrackOf([
    walk(100, 1, 5, 0x10, 3),
    walk(100, 2, 5, 0x11, 3),
    served(100, 2, 5),
    walk(200, 3, 5, 0x12, 3),
    served(200, 1, 5),
    tlbiVa(300, 4, 0x10),
    tlbiVa(310, 3, 0x11),
    sync(320, 9),
    tlbiVa(330, 3, 0x12),
    completed(400, 1, 9),
    sync(410, 10),
    completed(420, 2, 10),
  ]);
  t.deepEqual(
    track.syncs.map(({ startNs, endNs, index }) => [startNs, endNs, index]),
    [
      [320, 400, 9],
      [410, 420, 10],
    ],
  );
  const chains = chainsOf(track, only(5), 10);
  t.deepEqual(
    chains.map(({ walk: { fillSeq }, dma, invalidation, sync: end }) => [
      fillSeq,
      dma.startNs,
      invalidation.startNs,
      end.startNs,
    ]),
    [
      [2, 90, 310, 320],
      [3, 140, 330, 410],
    ],
    'another ASID ends nothing; a command behind a SYNC is for the next one',
  );
});

test('chains: a link that is not known makes no chain', (t) => {
  const walked = [walk(100, 1, 5, 0x10, 3), served(100, 1, 5)];
  const ended = [tlbiVa(300, 3, 0x10), sync(320, 1), completed(330, 1, 1)];
  const count = (events: ReturnType<typeof event>[], of = only(5)) =>
    chainsOf(smmuTrackOf(events), of, 10).length;
  t.is(count([...walked, ...ended]), 1);
  t.is(count([...walked, ...ended], only(6)), 0, 'no such device');
  t.is(
    count([...walked, ...ended], () => [{ startNs: 105, endNs: 130 }]),
    0,
    'no batch was under way',
  );
  t.is(count(walked), 0);
  t.is(count([...walked, tlbiVa(300, 3, 0x10), sync(320, 1)]), 0, 'no completion');
  t.is(count([...walked, tlbiVa(300, 3, 0x10), tlbiVa(301, 3, 0x10), ...ended]), 1, 'only once');
  t.is(count([walk(50, 1, 5, 0x10, 3), served(100, 1, 5), ...ended]), 0, 'a walk of a batch that is gone');
});

test('chains: one command may end many; the last are kept', (t) => {
  const events = Array.from({ length: 40 }, (_, n) => [
    walk(100, n + 1, 5, n, 3),
    walk(100, 100 + n, 5, n, 3),
  ]).flat();
  events.push(served(100, 80, 5), event(COMMAND, 300, 2, TLBI_NH_ALL), sync(320, 1), completed(330, 1, 1));
  const chains = chainsOf(smmuTrackOf(events), only(5), 1000);
  t.is(chains.length, 40);
  t.true(
    chains.every(({ walk: { fillSeq } }) => fillSeq >= 100),
    'of two walks of a page, the later made what was taken away',
  );
  t.is(chainsOf(smmuTrackOf(events), only(5), 7).length, 7);
});

test('timelines: many threads keep fewer events each, and all rings stay within bounds', (t) => {
  t.is(planTimelines(4, 8, 2).events, 2 ** 16);
  const most = planTimelines(64, 256, 64);
  t.is(most.tracks.length, 385);
  t.true(most.events >= 1024 && most.events < 2 ** 16);
  t.true(most.bytes <= 192 * 2 ** 20);
});

interface Told {
  ph: string;
  tid: number;
  ts: number;
  dur?: number;
  id?: number;
  name: string;
  args?: { name?: string };
}

test.serial(
  '--trace: a run’s file is whole: tracks with names, in order, and arrows with both ends',
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'iommufd-trace-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'trace.json');
    const options: StressOptions = {
      topologyName: 'cix-p1',
      topology: PRESETS['cix-p1']!,
      durationS: 60,
      devices: 5,
      guests: 1,
      seed: Number(process.env.SEED ?? 20_261_120),
      mix: { nic: 3, nvme: 2, gpu: 1, guest: 4 },
      hostilePercent: 1,
      s2Sharing: 'shared',
      inject: null,
      kill: null,
      trace: file,
      memoryBytes: 128 * 2 ** 20,
    };
    t.log(`seed ${options.seed}`);
    // Two seconds do, but not where other programs have most of the processors.
    const enough = new AbortController();
    const silent = {
      started: () => undefined,
      sample: ({ atS, unmaps }: { atS: number; unmaps: number }) => {
        if (atS > 1.5 && unmaps > 500) enough.abort();
      },
      violation: () => undefined,
      death: () => undefined,
    };
    const result = await runStress(options, silent, enough.signal);
    t.deepEqual(result.violations, []);
    t.deepEqual(result.deaths, []);
    t.deepEqual(readdirSync(folder), ['trace.json']);
    const text = readFileSync(file, 'utf8');
    const { traceEvents: told } = JSON.parse(text) as { traceEvents: Told[] };
    t.like(result.trace, { file, bytes: Buffer.byteLength(text), problem: null });
    const names = new Map(
      told.filter(({ name }) => name === 'thread_name').map(({ tid, args }) => [tid, args!.name!]),
    );
    t.deepEqual(
      [...names.values()].sort(),
      [
        'core',
        ...result.devices.map(({ label }) => `device ${label}`),
        'guest 0',
        ...['smmu0', 'smmu1'].flatMap((name) => [`pIOMMU ${name}`, `pIOMMU ${name}: SYNC under way`]),
      ].sort(),
    );
    const slices = told.filter(({ ph }) => ph === 'X');
    t.is(slices.length, result.trace!.events);
    const busy: string[] = [];
    for (const [tid, name] of names) {
      const own = told.filter((one) => one.tid === tid && one.ph !== 'M');
      if (own.length > 0) busy.push(name.split(' ')[0]!);
      t.true(
        own.every(({ ts }, i) => i === 0 || ts >= own[i - 1]!.ts),
        `${name}: in order of time`,
      );
      // A thread does one thing after the other; a thousandth of a microsecond is lost to rounding.
      const work = own.filter(({ ph }) => ph === 'X');
      t.true(
        work.every(({ ts }, i) => i === 0 || ts >= work[i - 1]!.ts + work[i - 1]!.dur! - 0.003),
        `${name}: nothing overlaps`,
      );
    }
    // On a slow machine a guest, and so its devices, may not be up in time.
    t.deepEqual(
      ['core', 'pIOMMU', 'device'].filter((kind) => !busy.includes(kind)),
      [],
    );
    const flows = new Map<number, Told[]>();
    for (const point of told.filter(({ ph }) => 'stf'.includes(ph))) {
      const points = flows.get(point.id!) ?? [];
      flows.set(point.id!, [...points, point]);
    }
    t.is(flows.size, result.trace!.flows);
    t.true(flows.size > 0);
    const starts = new Map<number, Set<number>>();
    for (const { tid, ts } of slices) starts.set(tid, (starts.get(tid) ?? new Set()).add(ts));
    const wrong: unknown[] = [];
    for (const [id, points] of flows) {
      points.sort((a, b) => a.ts - b.ts);
      const phases = points.map(({ ph }) => ph).join('');
      const [dma, work, command, end] = points.map(({ tid }) => names.get(tid)!);
      const right =
        phases === 'sttf' &&
        dma!.startsWith('device ') &&
        work === command &&
        end === `${work}: SYNC under way` &&
        points.every(({ tid, ts }) => starts.get(tid)!.has(ts));
      if (!right) wrong.push([id, phases, dma, work, command, end]);
    }
    t.deepEqual(wrong.slice(0, 3), []);
    const kinds = new Set(slices.map(({ name }) => name));
    for (const name of [
      'IOMMU_IOAS_MAP',
      'IOMMU_IOAS_UNMAP',
      'walk',
      'DMA batch, misses',
      'SYNC',
      'CMD_SYNC',
    ])
      t.true(kinds.has(name), name);
    // Every ioctl has its name: none is told by its number.
    t.deepEqual(
      [...kinds].filter((name) => name.startsWith('ioctl ')),
      [],
    );
  },
);
