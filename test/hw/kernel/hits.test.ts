import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { IotlbEntry, UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { FILL_READ, FILL_S1, FILL_WRITE } from '../../../hw/kernel/kernel.js';
import { KernelBench } from '../../kit/kernel-bench.js';

const SID = 9;
const S1 = 2;
const NESTED = 4;
const TAG = 7 | (3 << 16);
const [MICRO, IOTLB] = [1, 2];
const STAGE_1 = FILL_READ | FILL_WRITE | FILL_S1;

function wired(kind = S1, entries = 64): KernelBench {
  const bench = new KernelBench({ entries });
  bench.set32(bench.port + PortLayout.at.sid, SID);
  bench.context(SID, { kind, tag: TAG });
  return bench;
}

/** One batch of reads. @returns outstanding */
function batch(bench: KernelBench, iovas: readonly bigint[], flags = 0): number {
  iovas.forEach((iova, i) => {
    bench.ask(bench.slot(i), iova, flags, SID);
  });
  const outstanding = bench.kernel.dmaBegin(bench.port, iovas.length);
  bench.kernel.dmaEnd(bench.port);
  return outstanding;
}

/** What a SYNC does to a device: the next batch starts without its micro-TLB. */
const consumeSync = (bench: KernelBench): void => {
  const gen = bench.unit + UnitLayout.at.gen;
  bench.set32(gen, bench.get32(gen) + 1);
};

test('hits: entries of several sizes serve one batch, whichever size was hit last', (t) => {
  const bench = wired();
  const { kernel, unit, iotlb } = bench;
  kernel.iotlbFill(unit, iotlb, TAG, 0x10, 0x1234, 12, STAGE_1);
  kernel.iotlbFill(unit, iotlb, TAG, 0x400, 0x40000, 21, STAGE_1);
  kernel.iotlbFill(unit, iotlb, TAG, 0x40000, 0x80000, 30, STAGE_1);
  const asked = [0x10_123n, 0x400_000n + 0x12_3456n, 0x10_ff8n, 0x4000_0000n + 0x1234_5678n, 0x400_008n];
  const pas = [
    0x1234_123n,
    0x4000_0000n + 0x12_3456n,
    0x1234_ff8n,
    0x8000_0000n + 0x1234_5678n,
    0x4000_0008n,
  ];
  // The third asks for the page of the first again.
  for (const sources of [[IOTLB, IOTLB, MICRO, IOTLB, IOTLB], Array(5).fill(MICRO)]) {
    t.is(batch(bench, asked), 0);
    pas.forEach((pa, i) => {
      t.like(bench.result(bench.slot(i)), {
        status: 0,
        pa,
        source: sources[i],
        ipa: 0n,
        sizeLg2: [12, 21, 12, 30, 21][i]!,
      });
    });
  }
  consumeSync(bench);
  t.is(batch(bench, asked.toReversed()), 0);
  t.is(bench.result(bench.slot(4)).pa, pas[0]!);
  t.is(bench.get64(bench.port + PortLayout.at.hitsIotlb), 8n);
  t.is(bench.get64(bench.port + PortLayout.at.hitsMicro), 7n);
});

test('hits: pages of one set that agree in the low half of the page word are told apart', (t) => {
  const bench = wired();
  const { kernel, unit, iotlb } = bench;
  const apart = [0n, 1n, 2n, 3n].map((i) => 0x5000n + (i << 32n));
  apart.forEach((iova, i) => {
    kernel.iotlbFill(unit, iotlb, TAG, Number(iova >> 12n), 0x100 + i, 12, STAGE_1);
  });
  t.is(batch(bench, apart), 0);
  apart.forEach((_, i) => {
    t.like(bench.result(bench.slot(i)), { pa: BigInt(0x100 + i) << 12n, source: IOTLB });
  });
  t.is(batch(bench, [0x5000n + (4n << 32n)]), 1, 'the fifth is not there');
});

test('hits: an entry in the middle of a refill, or one without the permission, is no hit', (t) => {
  const bench = wired();
  const { kernel, unit, iotlb } = bench;
  kernel.iotlbFill(unit, iotlb, TAG, 0x10, 0x1234, 12, FILL_READ | FILL_S1);
  t.is(batch(bench, [0x10_000n], 1), 1, 'a write');
  const entry = iotlb + 64 + 32 * kernel.iotlbProbe(unit, iotlb, TAG, FILL_S1, 0x10);
  bench.set32(entry + IotlbEntry.at.seq, bench.get32(entry + IotlbEntry.at.seq) + 1);
  t.is(batch(bench, [0x10_000n]), 1);
  bench.set32(entry + IotlbEntry.at.seq, bench.get32(entry + IotlbEntry.at.seq) + 1);
  t.is(batch(bench, [0x10_000n]), 0);
});

test('hits: substreams hit by their own context, and the micro-TLB never mixes them', (t) => {
  const bench = wired();
  const { kernel, unit, iotlb } = bench;
  const [ONE, TWO] = [7 | (11 << 16), 7 | (12 << 16)];
  bench.context(SID, { kind: S1, tag: ONE, ssid: 1 });
  bench.context(SID, { kind: S1, tag: TWO, ssid: 2 });
  kernel.iotlbFill(unit, iotlb, TAG, 0x10, 0x100, 12, STAGE_1);
  kernel.iotlbFill(unit, iotlb, ONE, 0x10, 0x101, 12, STAGE_1);
  kernel.iotlbFill(unit, iotlb, TWO, 0x10, 0x102, 12, STAGE_1);
  const ssids = [0xffff_ffff, 1, 1, 2, 3, 0xffff_ffff, 2, 2];
  for (let again = 0; again < 2; again++) {
    ssids.forEach((ssid, i) => {
      bench.ask(bench.slot(i), 0x10_008n, 0, SID, ssid);
    });
    t.is(kernel.dmaBegin(bench.port, ssids.length), 1, 'the one without a context');
    kernel.dmaEnd(bench.port);
    ssids.forEach((ssid, i) => {
      if (ssid === 3) return;
      const pfn = ssid === 0xffff_ffff ? 0x100n : 0x100n + BigInt(ssid);
      t.like(bench.result(bench.slot(i)), { status: 0, pa: (pfn << 12n) | 8n }, `slot ${i}`);
    });
    t.is(bench.result(bench.slot(2)).source, MICRO);
    t.is(bench.result(bench.slot(7)).source, MICRO);
  }
});

test('hits: what is not a plain read or write, or counts as something else, goes to the pIOMMU', (t) => {
  const bench = wired();
  const { kernel, unit, iotlb } = bench;
  kernel.iotlbFill(unit, iotlb, TAG, 0x10, 0x1234, 12, STAGE_1);
  for (const flags of [2, 4, 8, 16, 3, 5]) {
    t.is(batch(bench, [0x10_000n]), 0);
    t.is(batch(bench, [0x10_000n], flags), 1, `flags ${flags}`);
  }
  const PRIVCFG = 24;
  const INSTCFG = 26;
  for (const [flags, misses] of [
    [1 << 18, 1],
    [3 << PRIVCFG, 1],
    [3 << INSTCFG, 1],
    [(2 << PRIVCFG) | (2 << INSTCFG), 0],
  ] as const) {
    bench.context(SID, { kind: S1, tag: TAG, flags });
    t.is(batch(bench, [0x10_000n]), misses);
  }
});

test('hits: an EL2 stream hits entries of neither stage', (t) => {
  const bench = wired(5);
  const { kernel, unit, iotlb } = bench;
  kernel.iotlbFill(unit, iotlb, TAG, 0x10, 0x1234, 12, STAGE_1);
  t.is(batch(bench, [0x10_000n]), 1);
  kernel.iotlbFill(unit, iotlb, TAG, 0x10, 0x4321, 12, FILL_READ | FILL_WRITE);
  t.is(batch(bench, [0x10_008n]), 0);
  t.like(bench.result(bench.slot(0)), { pa: 0x4321_008n, ipa: 0n, source: IOTLB });
});

test('hits: no torn entry is used while another thread refills its set', async (t) => {
  const bench = wired(NESTED, 64);
  const { memory, unit, iotlb, scratch: stop } = bench;
  const page = 0x10;
  const writer = new Worker(new URL('./refill-writer.js', import.meta.url), {
    workerData: { handle: memory.handle(), unit, iotlb, tag: TAG, page, stop },
  });
  t.teardown(() => writer.terminate());
  await once(writer, 'message');
  const { kernel, port } = bench;
  const iova = BigInt(page) << 12n;
  for (let i = 0; i < 64; i++) bench.ask(bench.slot(i), iova, 0, SID);
  const slots = Array.from({ length: 64 }, (_, i) => bench.slot(i) >> 2);
  const { u32 } = memory;
  let hits = 0;
  let torn = 0;
  const versions = new Set<number>();
  const until = performance.now() + 700;
  while (performance.now() < until) {
    consumeSync(bench);
    // Nobody answers: what misses is taken off the rings again.
    kernel.dmaBegin(port, 16);
    for (const slot of slots.slice(0, 16)) {
      if (u32[slot + 10] !== 0) continue;
      hits++;
      const [pa, ipa] = [u32[slot + 6]! >>> 12, u32[slot + 8]! >>> 12];
      versions.add(pa);
      if (pa !== ipa || u32[slot + 11] !== 12) torn++;
    }
    kernel.dmaEnd(port);
    bench.set32(port + PortLayout.at.inFlight, 0);
    bench.set32(port + PortLayout.at.reqCons, bench.get32(port + PortLayout.at.reqProd));
  }
  memory.words.store(stop, 1);
  const [fills] = (await once(writer, 'message')) as [number];
  t.log(`${hits} hits of ${versions.size} versions while ${fills} were filled`);
  t.is(torn, 0);
  t.true(hits > 0 && versions.size > 10);
});
