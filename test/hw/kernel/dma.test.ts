import test from 'ava';
import { PortLayout, Xlat } from '../../../hw/iotlb/port-layout.js';
import { StreamContext, UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { KernelBench, RAM_PA, SLOT } from '../../kit/kernel-bench.js';
import { Random, SEED } from '../../kit/random.js';

const PORT = PortLayout.at;
const UNIT = UnitLayout.at;
const SID = 9;
const ABORT = 0;
const BYPASS = 1;
const S1 = 2;
const S2 = 3;
const PENDING = 0xffff_ffff;
const F_TRANSLATION = 0x10;
const [MICRO, IOTLB, WALK, FROM_BYPASS] = [1, 2, 3, 4];
const EBUSY = 16;

/** A bench whose stream 9 has stage 2 that maps IPA n to frame n + 0x1000 for 512 pages, read-write below 256. */
function wired(kind = S2): { bench: KernelBench; context: number } {
  const bench = new KernelBench();
  bench.set32(bench.port + PORT.sid, SID);
  for (let i = 0n; i < 512n; i++)
    bench.setRam(RAM_PA + 0x2000n + i * 8n, ((i + 0x1000n) << 12n) | 0x443n | (i < 256n ? 0x80n : 0n));
  bench.setRam(RAM_PA, (RAM_PA + 0x1000n) | 3n);
  bench.setRam(RAM_PA + 0x1000n, (RAM_PA + 0x2000n) | 3n);
  const context = bench.context(SID, { kind, tag: 4, s2Root: RAM_PA, s2InputBits: 39, s2StartLevel: 1 });
  return { bench, context };
}

/** The pIOMMU's turn: takes everything, walks, answers. @returns how many it served */
function serve(bench: KernelBench, context: number): number {
  const n = bench.kernel.takeRequests(bench.port, bench.scratch, 128);
  bench.kernel.translateBatch(bench.unit, context, bench.iotlb, bench.scratch, n);
  if (n > 0) bench.kernel.answer(bench.port, bench.scratch, n);
  return n;
}

test('dma: misses go out, come back by cookie, and hit the micro-TLB, then the IOTLB after a SYNC', (t) => {
  const { bench, context } = wired();
  const { kernel, port } = bench;
  for (let i = 0; i < 3; i++) bench.ask(bench.slot(i), BigInt(i) * 4096n + 5n, i & 1, SID);
  t.is(kernel.dmaBegin(port, 3), 3);
  t.is(bench.get32(port + PORT.ack), 1);
  t.is(bench.result(bench.slot(1)).status, PENDING);
  t.is(kernel.dmaPoll(port), 3);
  t.is(serve(bench, context), 3);
  t.is(kernel.dmaPoll(port), 0);
  for (let i = 0; i < 3; i++)
    t.like(bench.result(bench.slot(i)), {
      status: 0,
      pa: BigInt(i + 0x1000) * 4096n + 5n,
      ipa: BigInt(i) * 4096n + 5n,
      sizeLg2: 12,
      source: WALK,
      fillSeq: i + 1,
    });
  kernel.dmaEnd(port);
  t.is(bench.get32(port + PORT.ack), 0);

  t.is(kernel.dmaBegin(port, 3), 0);
  for (let i = 0; i < 3; i++)
    t.like(bench.result(bench.slot(i)), {
      status: 0,
      source: MICRO,
      pa: BigInt(i + 0x1000) * 4096n + 5n,
      fillSeq: i + 1,
    });
  kernel.dmaEnd(port);

  bench.set32(bench.unit + UNIT.gen, 2);
  t.is(kernel.dmaBegin(port, 3), 0);
  t.is(bench.get32(port + PORT.ack), 2);
  for (let i = 0; i < 3; i++)
    t.like(bench.result(bench.slot(i)), {
      status: 0,
      source: IOTLB,
      ipa: BigInt(i) * 4096n + 5n,
      fillSeq: i + 1,
    });
  kernel.dmaEnd(port);
  t.is(bench.get64(port + PORT.hitsMicro), 3n);
  t.is(bench.get64(port + PORT.hitsIotlb), 3n);
  t.is(bench.get64(port + PORT.misses), 3n);
});

test('dma: a cached read-only translation does not serve a write; the walk refuses it', (t) => {
  const { bench, context } = wired();
  const { kernel, port } = bench;
  bench.ask(bench.slot(0), 300n << 12n, 0, SID);
  t.is(kernel.dmaBegin(port, 1), 1);
  serve(bench, context);
  t.is(kernel.dmaPoll(port), 0);
  kernel.dmaEnd(port);
  bench.ask(bench.slot(0), 300n << 12n, 1, SID);
  t.is(kernel.dmaBegin(port, 1), 1);
  serve(bench, context);
  t.is(kernel.dmaPoll(port), 0);
  t.like(bench.result(bench.slot(0)), { status: 0x13, fault: 1 | (2 << 1), ipa: 300n << 12n, pa: 0n });
  t.is(bench.get64(port + PORT.faults), 1n);
});

test('dma: a translation that was answered for a read lets a write find its own', (t) => {
  const { bench, context } = wired();
  const { kernel, port } = bench;
  for (const [flags, source] of [
    [0, WALK],
    [1, IOTLB],
    [1, MICRO],
    [0, MICRO],
  ] as const) {
    bench.ask(bench.slot(0), 3n << 12n, flags, SID);
    if (kernel.dmaBegin(port, 1) > 0) serve(bench, context);
    t.is(kernel.dmaPoll(port), 0);
    t.is(bench.result(bench.slot(0)).source, source);
    kernel.dmaEnd(port);
  }
});

test('dma: invalid, foreign, half-written and SSID-tagged streams are the pIOMMU to answer', (t) => {
  const { bench, context } = wired();
  const { kernel, port } = bench;
  const begin = (): number => {
    const n = kernel.dmaBegin(port, 1);
    serve(bench, context);
    kernel.dmaPoll(port);
    kernel.dmaEnd(port);
    return n;
  };
  bench.ask(bench.slot(0), 0n, 0, SID);
  t.is(begin(), 1);
  t.is(begin(), 0);
  bench.set32(context + StreamContext.at.valid, 0);
  t.is(begin(), 1);
  bench.set32(context + StreamContext.at.valid, 1);
  bench.set32(context + StreamContext.at.seq, 1);
  t.is(begin(), 1);
  bench.set32(context + StreamContext.at.seq, 2);
  bench.set32(context + StreamContext.at.sid, SID + 1024);
  t.is(begin(), 1);
  bench.set32(context + StreamContext.at.sid, SID);
  bench.set32(context + StreamContext.at.ssid, 0);
  t.is(begin(), 1);
  bench.set32(context + StreamContext.at.ssid, 0xffff_ffff);
  t.is(begin(), 0);
  bench.ask(bench.slot(0), 0n, 0, SID + 1);
  t.is(begin(), 1);
  bench.ask(bench.slot(0), 0n, 0, SID, 0);
  t.is(begin(), 1);
  // Neither was put in the micro-TLB under our own name.
  bench.ask(bench.slot(0), 5n << 12n, 0, SID + 1);
  t.is(begin(), 1);
  kernel.iotlbInvalidateAll(bench.unit, bench.iotlb);
  bench.ask(bench.slot(0), 5n << 12n, 0, SID);
  t.is(begin(), 1);
});

test('dma: bypass answers the address itself, within its bits; abort aborts', (t) => {
  const { bench } = wired();
  const { kernel, port } = bench;
  bench.context(SID, { kind: BYPASS, s1OutputBits: 40 });
  bench.ask(bench.slot(0), 0xff_1234_5678n, 1, SID);
  bench.ask(bench.slot(1), 1n << 40n, 0, SID);
  t.is(kernel.dmaBegin(port, 2), 1);
  t.like(bench.result(bench.slot(0)), { status: 0, pa: 0xff_1234_5678n, source: FROM_BYPASS });
  t.is(serve(bench, bench.contexts + SID * 128), 1);
  t.is(kernel.dmaPoll(port), 0);
  t.like(bench.result(bench.slot(1)), { status: 0x11, fault: 2 << 1 });
  kernel.dmaEnd(port);
  bench.context(SID, { kind: ABORT });
  t.is(kernel.dmaBegin(port, 2), 0);
  t.like(bench.result(bench.slot(0)), { status: 0xff, pa: 0n });
});

test('dma: an IOTLB entry of stage 1 gives no IPA', (t) => {
  const { bench } = wired();
  const { kernel, port } = bench;
  bench.context(SID, { kind: S1, tag: 4 });
  kernel.iotlbFill(bench.unit, bench.iotlb, 4, 0x77, 0x99, 12, 0x16, 0);
  bench.ask(bench.slot(0), 0x77123n, 1, SID);
  for (const source of [IOTLB, MICRO]) {
    t.is(kernel.dmaBegin(port, 1), 0);
    t.like(bench.result(bench.slot(0)), { status: 0, pa: 0x99123n, ipa: 0n, source });
    kernel.dmaEnd(port);
  }
});

test('dma: an answer to a batch that was left is dropped, even when its slot is in use again', (t) => {
  const { bench, context } = wired();
  const { kernel, port } = bench;
  bench.ask(bench.slot(0), 1n << 12n, 0, SID);
  t.is(kernel.dmaBegin(port, 1), 1);
  kernel.dmaEnd(port);
  bench.ask(bench.slot(0), 2n << 12n, 0, SID);
  t.is(kernel.dmaBegin(port, 1), 1);
  t.is(serve(bench, context), 2);
  t.is(kernel.dmaPoll(port), 0);
  t.is(bench.result(bench.slot(0)).pa, 0x1002n << 12n);
  kernel.dmaEnd(port);
  t.is(bench.get32(port + PORT.inFlight), 0);
});

test('dma: requests that nobody answers fill the ring, then begin is EBUSY and stays outside the epoch', (t) => {
  const { bench, context } = wired();
  const { kernel, port } = bench;
  for (let batch = 0; batch < 2; batch++) {
    for (let i = 0; i < 64; i++) bench.ask(bench.slot(i), BigInt(i) << 12n, 0, SID);
    t.is(kernel.dmaBegin(port, 64), 64);
    kernel.dmaEnd(port);
  }
  t.is(kernel.dmaBegin(port, 1), -EBUSY);
  t.is(bench.get32(port + PORT.ack), 0);
  t.is(serve(bench, context), 128);
  bench.ask(bench.slot(0), 1n << 12n, 0, SID);
  t.is(kernel.dmaBegin(port, 1), 0);
});

test('dma: leaving while a SYNC waits rings the doorbell', (t) => {
  const { bench } = wired();
  bench.kernel.dmaBegin(bench.port, 0);
  bench.kernel.dmaEnd(bench.port);
  t.is(bench.get32(bench.unit + UNIT.doorbell), 0);
  bench.set32(bench.unit + UNIT.syncWaiting, 1);
  bench.kernel.dmaBegin(bench.port, 0);
  bench.kernel.dmaEnd(bench.port);
  t.is(bench.get32(bench.unit + UNIT.doorbell), 1);
});

test('dma: more slots than a batch has are not touched', (t) => {
  const { bench } = wired();
  t.is(bench.kernel.dmaBegin(bench.port, 1000), 64);
});

test('rings: indexes more than a ring apart are an empty ring to the pIOMMU, and a full one for answers', (t) => {
  const { bench } = wired();
  const { kernel, port, scratch } = bench;
  bench.set32(port + PORT.reqProd, 0x8000_0000);
  bench.set32(port + PORT.reqCons, 5);
  t.is(kernel.takeRequests(port, scratch, 128), 0);
  t.is(bench.get32(port + PORT.reqCons), 0x8000_0000);
  bench.set32(port + PORT.respCons, 77);
  t.is(kernel.answer(port, scratch, 1), 0);
  t.is(bench.get32(port + PORT.answered), 1);
});

test('rings: indexes that wrap past 2^32 keep their order', (t) => {
  const { bench, context } = wired();
  const { kernel, port } = bench;
  for (const at of [PORT.reqProd, PORT.reqCons, PORT.respProd, PORT.respCons])
    bench.set32(port + at, 0xffff_fffe);
  for (let i = 0; i < 5; i++) bench.ask(bench.slot(i), BigInt(i) << 12n, 0, SID);
  t.is(kernel.dmaBegin(port, 5), 5);
  t.is(kernel.takeRequests(port, bench.scratch, 3), 3);
  t.deepEqual(
    [0, 1, 2].map((i) => bench.get64(bench.scratch + i * SLOT + Xlat.at.iova)),
    [0n, 4096n, 8192n],
  );
  bench.kernel.translateBatch(bench.unit, context, bench.iotlb, bench.scratch, 3);
  t.is(kernel.answer(port, bench.scratch, 3), 3);
  t.is(kernel.dmaPoll(port), 2);
  t.is(serve(bench, context), 2);
  t.is(kernel.dmaPoll(port), 0);
  t.is(bench.get32(port + PORT.reqCons), 3);
});

test('rings: scribbled ports never throw, and never change a byte outside their regions', (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const { bench, context } = wired();
  const { kernel, port, memory } = bench;
  const before = memory.u8.slice(bench.tables);
  const words = PortLayout.size / 4;
  const wiring = [PORT.unit, PORT.contexts, PORT.iotlb].map((at) => at / 4);
  for (let round = 0; round < 3000; round++) {
    for (let i = 0; i < 40; i++) {
      const word = random.chance(0.5)
        ? random.pick([112, 128, 144, 160, 35, 36, 37, 38])
        : random.below(words);
      if (!wiring.includes(word))
        bench.set32(port + word * 4, random.chance(0.5) ? random.below(300) : random.u32());
    }
    kernel.dmaBegin(port, random.below(70));
    const n = kernel.takeRequests(port, bench.scratch, 256);
    t.true(n <= 128);
    kernel.translateBatch(bench.unit, context, bench.iotlb, bench.scratch, n);
    t.true(kernel.answer(port, bench.scratch, n) <= n);
    kernel.dmaPoll(port);
    kernel.dmaEnd(port);
  }
  t.deepEqual(memory.u8.subarray(bench.tables), before);
});

test('dma: a fault of the walk comes back with its details', (t) => {
  const { bench, context } = wired();
  bench.ask(bench.slot(0), (1n << 39n) | 7n, 0, SID);
  t.is(bench.kernel.dmaBegin(bench.port, 1), 1);
  serve(bench, context);
  t.is(bench.kernel.dmaPoll(bench.port), 0);
  t.like(bench.result(bench.slot(0)), {
    status: F_TRANSLATION,
    fault: 1 | (2 << 1),
    ipa: (1n << 39n) | 7n,
    source: WALK,
  });
});
