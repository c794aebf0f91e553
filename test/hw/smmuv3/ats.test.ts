import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { OK, PRIVILEGED, SmmuFixture, WRITE } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const ABORT = 0xff;
const NOT_GRANTED = 0xfc;
const UR = 0xfb;
const CA = 0xfa;
const ATC = 5;
const TRANSLATED = 8;
const TREQ = 16;
const NO_SSID = 0xffff_ffff;
/** STE.EATS, bits 93:92. */
const EATS = 1n << 28n;
const S1CHK = 2n << 28n;
/** CR0: SMMUEN, EVENTQEN, CMDQEN, and ATSCHK. */
const ON = 0b1101;
const ATSCHK = 1 << 4;
const CERROR_ATC_INV_SYNC = 3;

const at = PortLayout.at;

interface Streams {
  readonly f: SmmuFixture;
  /** Stage 2 of stream 3. */
  readonly root: number;
}

/** Stream 3: stage 2, EATS full; 0x1000 writable, 0x2000 read-only, 0x20_0000 a block. Stream 4: the same without EATS. */
function streams(cr0 = ON, options: ConstructorParameters<typeof SmmuFixture>[0] = {}): Streams {
  const { config, ...rest } = options;
  const f = new SmmuFixture({ sids: [3, 4], ats: true, ...rest, config: { ats: true, ...config } });
  const root = f.alloc(4096);
  f.map(root, 1, 0x1000n, 0x8080_0000n, 3, S.S2_PAGE);
  f.map(root, 1, 0x2000n, 0x8081_0000n, 3, S.S2_PAGE_RO);
  f.map(root, 1, 0x40_0000n, 0x8080_0000n, 2, S.S2_BLOCK);
  const ste = S.steS2({ root, vmid: 1 });
  f.setSte(4, ste);
  ste[1]! |= EATS;
  f.setSte(3, ste);
  f.enable(cr0);
  return { f, root };
}

const counter = (f: SmmuFixture, offset: number): number => f.memory.u32[(f.ports[0]! + offset) >> 2]!;
const cons = (f: SmmuFixture): number => f.mmio.read32(0x9c);
const word = (f: SmmuFixture, offset: number): number => f.memory.words.load(f.regions.smmu + offset);

test('ats: a translation is requested once, and then the device asks nobody', (t) => {
  const { f } = streams();
  const first = f.dma(0x1234n);
  t.like(first, { status: OK, pa: 0x8080_0234n, sizeLg2: 12, source: 3 });
  t.true(first.fillSeq > 0);
  t.like(f.dma(0x1678n, WRITE), { status: OK, pa: 0x8080_0678n, source: ATC, fillSeq: first.fillSeq });
  t.like(f.dma(0x40_1234n, WRITE), { status: OK, pa: 0x8080_1234n, sizeLg2: 21 });
  t.is(counter(f, at.atsRequests), 2);
  t.is(counter(f, at.hitsAtc), 1);
  t.deepEqual(f.events(), []);
});

test('ats: it outlives SYNCs, TLBI and whatever else, until ATC_INV', (t) => {
  const { f, root } = streams();
  f.dma(0x1000n);
  f.map(root, 1, 0x1000n, 0x8089_0000n, 3, S.S2_PAGE);
  f.command(S.tlbi(0x28, 1), S.sync(), S.CFGI_ALL, S.sync());
  t.like(f.dma(0x1000n), { source: ATC, pa: 0x8080_0000n });
  f.command(S.atcInv(3, 0x1000n, 0), S.sync());
  t.like(f.dma(0x1000n), { source: 3, pa: 0x8089_0000n });
});

const SPANS: ReadonlyArray<readonly [string, S.Command, readonly bigint[]]> = [
  ['the page', S.atcInv(3, 0x1fffn, 0), [0x1000n]],
  ['another page', S.atcInv(3, 0x3000n, 0), []],
  ['an aligned span around the address', S.atcInv(3, 0x3000n, 2), [0x1000n, 0x2000n]],
  ['a span that begins inside a block', S.atcInv(3, 0x40_8000n, 0), [0x40_0000n]],
  ['everything', S.atcInv(3, 0n, 52), [0x1000n, 0x2000n, 0x40_0000n]],
  ['another stream', S.atcInv(4, 0n, 52), []],
  ['a substream that was not used', S.atcInv(3, 0n, 52, 7), []],
  ['all substreams and none', S.atcInv(3, 0n, 52, 7, true), [0x1000n, 0x2000n, 0x40_0000n]],
];
for (const [name, command, gone] of SPANS)
  test(`atc_inv: ${name}`, (t) => {
    const { f } = streams();
    const pages = [0x1000n, 0x2000n, 0x40_0000n];
    for (const iova of pages) f.dma(iova);
    f.command(command, S.sync());
    t.deepEqual(
      pages.filter((iova) => f.dma(iova).source !== ATC),
      gone,
    );
  });

test('ats: substreams have entries of their own, and invalidations of their own', (t) => {
  const f = new SmmuFixture({ ats: true, config: { ats: true, ssidBits: 4 } });
  const table = f.alloc(64 * 16);
  for (const ssid of [1, 2]) {
    const root = f.alloc(4096);
    f.map(root, 1, 0x1000n, BigInt(0x8080_0000 + ssid * 0x1000), 3, S.S1_PAGE);
    f.writeWords(table + ssid * 64, S.cd({ root, asid: ssid }));
  }
  const ste = S.steS1(table);
  // S1CDMax = 4, S1DSS = 0b01: without a SubstreamID, stage 1 is skipped.
  ste[0]! |= 4n << 59n;
  ste[1]! |= EATS | 1n;
  f.setSte(3, ste);
  f.enable();
  const look = (ssid: number): readonly [number, bigint] => {
    const { source, pa } = f.dma(0x1000n, 0, 0, ssid);
    return [source, pa];
  };
  const fill = (): void => {
    for (const ssid of [1, 2, NO_SSID, 1, 2]) look(ssid);
  };
  fill();
  t.deepEqual(look(1), [ATC, 0x8080_1000n]);
  t.deepEqual(look(2), [ATC, 0x8080_2000n]);
  t.deepEqual(look(NO_SSID), [ATC, 0x1000n], 'identity, which the device caches as any other');
  const gone = (command: S.Command): number[] => {
    fill();
    f.command(command, S.sync());
    return [1, 2, NO_SSID].filter((ssid) => look(ssid)[0] !== ATC);
  };
  t.deepEqual(gone(S.atcInv(3, 0x1000n, 0, 1)), [1]);
  t.deepEqual(gone(S.atcInv(3, 0x1000n, 0, 1, true)), [1, 2, NO_SSID]);
  t.deepEqual(gone(S.atcInv(3, 0x1000n, 0)), [1, 2, NO_SSID], 'without a PASID it is for all');
  t.like(f.dma(0x1000n, 0, 0, 3), { status: CA }, 'a CD with V = 0');
  t.deepEqual(f.events(), []);
});

test('ats: faults of translation grant nothing and are not recorded; permission is granted in part', (t) => {
  const { f, root } = streams();
  t.is(f.dma(0x9000n).status, NOT_GRANTED);
  t.is(f.dma(0x2000n, WRITE).status, NOT_GRANTED);
  t.like(f.dma(0x2000n), { status: OK, source: ATC }, 'what was granted is kept');
  t.is(counter(f, at.atsDenied), 2);
  f.map(root, 1, 0x9000n, 0x8082_0000n, 3, S.S2_PAGE);
  t.is(f.dma(0x9000n).status, OK, 'and what was not, is asked for again');
  t.deepEqual(f.events(), []);
});

test('ats: a read-only translation is asked for again when a write comes', (t) => {
  const { f, root } = streams();
  t.is(f.dma(0x2000n).status, OK);
  f.map(root, 1, 0x2000n, 0x8081_0000n, 3, S.S2_PAGE);
  f.command(S.tlbi(0x28, 1), S.sync());
  t.like(f.dma(0x2000n, WRITE), { status: OK, source: 3 });
});

test('ats: a stream whose STE does not allow it gets UR and F_BAD_ATS_TREQ, every bit of it', (t) => {
  const { f } = streams();
  t.is(f.dma(0x1234n, WRITE, 1).status, UR);
  t.is(f.dma(0x1234n, WRITE | PRIVILEGED | TREQ, 1, 5).status, CA, 'C_BAD_SUBSTREAMID comes first');
  t.deepEqual(f.rawEvents(), [[0x05n | (4n << 32n), (0b1100n << 33n) | (1n << 44n), 0x1000n, 0n]]);
});

test('ats: what a request is answered by the configuration that it finds', (t) => {
  const { f } = streams();
  const answer = (ste: readonly bigint[], sid = 3): readonly [number, number] => {
    f.setSte(3, ste);
    f.command(S.CFGI_ALL, S.atcInv(3, 0n, 52), S.sync());
    f.begin(0, 0x1000n, TREQ, NO_SSID, sid);
    const { status } = f.finish(0);
    f.leave(0);
    return [status, f.events().length];
  };
  t.deepEqual(answer(S.STE_ABORT), [UR, 0]);
  t.deepEqual(answer(S.STE_BYPASS), [UR, 1]);
  t.deepEqual(answer([0n, 0n, 0n, 0n]), [CA, 0]);
  t.deepEqual(answer(S.STE_ABORT, 0x300), [CA, 0], 'beyond the table');
  const walkAborts = S.steS2({ root: 0x4000_0000, vmid: 1 });
  walkAborts[1]! |= EATS;
  t.deepEqual(answer(walkAborts), [CA, 0]);
});

test('ats: while the SMMU is disabled nothing of it works', (t) => {
  const { f } = streams(0b1100);
  t.is(f.dma(0x1000n).status, UR);
  t.is(f.dma(0x1000n, TRANSLATED).status, ABORT);
  t.deepEqual(
    f.events().map((e) => e.id),
    [0x05, 0x07],
  );
  f.mmio.write32(0x20, ON);
  f.run();
  f.dma(0x1000n);
  f.mmio.write32(0x20, 0b1100);
  f.run();
  t.is(f.dma(0x1000n).status, ABORT, 'what the device holds is no use');
  f.command(S.atcInv(3, 0n, 52), S.sync());
  f.mmio.write32(0x20, ON);
  f.run();
  t.is(f.dma(0x1000n).source, ATC, 'ATC_INV was ignored');
});

test('ats: without ATSCHK a translated address passes, whatever the stream; beyond the output size it aborts', (t) => {
  const { f } = streams();
  t.like(f.dma(0x9999_1234n, TRANSLATED, 1), { status: OK, pa: 0x9999_1234n });
  t.like(f.dma(1n << 48n, TRANSLATED, 1), { status: ABORT });
  t.deepEqual(f.events(), []);
});

test('ats: with ATSCHK a translated address passes where EATS allows it; else F_TRANSL_FORBIDDEN', (t) => {
  const { f } = streams(ON | ATSCHK);
  t.like(f.dma(0x9999_1234n, TRANSLATED), { status: OK, pa: 0x9999_1234n });
  t.is(f.dma(0x9999_1234n, TRANSLATED | WRITE, 1).status, ABORT);
  t.deepEqual(f.rawEvents(), [[0x07n | (4n << 32n), 0n, 0x9999_1234n, 0n]]);
  f.setSte(4, S.STE_ABORT);
  f.command(S.cfgiSte(4), S.sync());
  t.is(f.dma(0x9999_1234n, TRANSLATED, 1).status, ABORT);
  f.setSte(4, [0n, 0n, 0n, 0n]);
  f.command(S.cfgiSte(4), S.sync());
  t.is(f.dma(0x9999_1234n, TRANSLATED, 1).status, ABORT);
  t.deepEqual(f.events(), [], 'Config = 0b000 and a bad STE are silent');
});

test('ats: an ATC entry is no use to a stream that may use ATS no more', (t) => {
  const { f } = streams(ON | ATSCHK);
  t.is(f.dma(0x1000n).status, OK);
  f.setSte(3, S.STE_BYPASS);
  f.command(S.cfgiSte(3), S.sync());
  t.is(f.dma(0x1000n).status, ABORT);
  t.is(f.events()[0]!.id, 0x07);
});

test('ats: split stage, the device holds the IPA, and each access takes stage 2', (t) => {
  const f = new SmmuFixture({ ats: true, config: { ats: true } });
  const s2 = f.alloc(4096);
  f.map(s2, 1, 0x8000_0000n, 0x8000_0000n, 1, S.S2_BLOCK);
  f.map(s2, 1, 0x5000n, 0x8082_0000n, 3, S.S2_PAGE);
  const cd = f.alloc(64);
  const s1 = f.alloc(4096);
  f.writeWords(cd, S.cd({ root: s1, asid: 1 }));
  f.map(s1, 1, 0x1000n, 0x5000n, 3, S.S1_PAGE);
  const ste = S.steNested(cd, { root: s2, vmid: 1 });
  ste[1]! |= S1CHK;
  f.setSte(3, ste);
  f.enable(ON | ATSCHK);
  t.like(f.dma(0x1234n, WRITE), { status: OK, pa: 0x8082_0234n });
  t.is(f.memory.words.load64(f.ports[0]! + at.atc + 32 + 8), 0x5000n, 'the IPA');
  const told = f.logs.filter((line) => line.includes('split-stage ATS'));
  t.deepEqual(told, ['smmuv3: split-stage ATS (STE.EATS) answers with the permissions of stage 1 alone']);
  t.is(counter(f, at.hitsAtc), 0);
  // Stage 2 changes: the entry stays, and leads elsewhere.
  f.map(s2, 1, 0x5000n, 0x8083_0000n, 3, S.S2_PAGE);
  f.command(S.tlbi(0x28, 1), S.sync());
  t.like(f.dma(0x1234n), { status: OK, pa: 0x8083_0234n });
  t.is(counter(f, at.hitsAtc), 1);
  f.map(s2, 1, 0x5000n, 0n, 3, 0n);
  f.command(S.tlbi(0x28, 1), S.sync());
  t.is(f.dma(0x1234n).status, 0x10);
  t.like(f.events()[0], { id: 0x10, s2: true, class: 2, ipa: 0x5000 });
  // Without ATSCHK it is as if EATS were 0.
  f.mmio.write32(0x20, ON);
  f.run();
  f.command(S.atcInv(3, 0n, 52), S.sync());
  t.is(f.dma(0x1234n).status, UR);
});

test('ats: a batch of hits, misses, substreams, and other streams comes back slot by slot', (t) => {
  const { f } = streams();
  f.dma(0x1000n);
  const dma = f.dmaPort();
  const plan = [
    [0x1010n, 0, 3, NO_SSID, OK],
    [0x40_0000n, 0, 3, NO_SSID, OK],
    [0x9000n, 0, 3, NO_SSID, NOT_GRANTED],
    [0x1020n, WRITE, 3, NO_SSID, OK],
    [0x1030n, 0, 4, NO_SSID, OK],
    [0x1040n, 0, 3, 9, CA],
    [0x1050n, PRIVILEGED, 3, NO_SSID, OK],
    [0x1060n, 0, 3, NO_SSID, OK],
  ] as const;
  plan.forEach(([iova, flags, sid, ssid], slot) => {
    dma.prepare(slot, Number(iova), 0, flags, sid, ssid);
  });
  dma.translate(plan.length);
  t.deepEqual(
    plan.map((_, slot) => dma.status(slot)),
    plan.map(([, , , , status]) => status),
  );
  for (const slot of [0, 3, 4, 6, 7]) t.is(dma.pa(slot), 0x8080_0000 + Number(plan[slot]![0] & 0xfffn));
  dma.end();
});

test('ats: a device moves data with it; what it is not granted is a status', (t) => {
  const { f } = streams();
  const dma = f.dmaPort();
  const bytes = Uint8Array.from({ length: 3000 }, (_, i) => i & 0xff);
  t.is(dma.write(0x40_0800n, bytes), OK);
  const seen = new Uint8Array(3000);
  t.is(dma.read(0x40_0800n, seen), OK);
  t.deepEqual(seen, bytes);
  t.is(dma.write(0x2000n, bytes), NOT_GRANTED);
});

test('ats: disabled at the device it sends ordinary requests; enabled again, its ATC is empty', (t) => {
  const { f } = streams();
  const { ats } = f.dmaPort();
  t.true(ats.capable && ats.enabled);
  f.dma(0x1000n);
  ats.disable();
  t.is(f.dma(0x1000n, 0, 0).source, 2, 'the IOTLB');
  t.true(ats.enable());
  t.not(f.dma(0x1000n).source, ATC);
  t.is(f.dma(0x1000n).source, ATC);
  ats.disable();
  ats.enable();
  t.not(f.dma(0x1000n).source, ATC, 'also when nobody looked in between');
  const plain = streams(ON, { ats: false });
  t.false(plain.f.dmaPort().ats.enable());
  t.is(plain.f.dma(0x9000n).status, 0x10);
});

test('atc_inv: completes with the SYNC, when the device has left the batch that could have used it', (t) => {
  const { f } = streams();
  f.dma(0x1000n);
  f.begin(0, 0x1000n);
  t.is(f.finish(0).source, ATC);
  f.command(S.atcInv(3, 0x1000n, 0), S.sync());
  t.is(cons(f), 1);
  f.leave(0);
  f.run();
  t.is(cons(f), 2);
});

test('atc_inv: an answer that was under way when it came is used in its batch, and not kept', (t) => {
  const { f } = streams();
  f.begin(0, 0x1000n);
  f.model.step();
  f.command(S.atcInv(3, 0x1000n, 0));
  t.is(f.finish(0).status, OK);
  f.leave(0);
  t.not(f.dma(0x1000n).source, ATC);
});

test('atc_inv: a device that hangs holds up the SYNC until CERROR_ATC_INV_SYNC, and software goes on', (t) => {
  let now = 0;
  const { f } = streams(ON, { config: { atcTimeoutNs: 1000 } });
  Object.assign(f.env, { clock: { nowNs: () => now } });
  f.model = f.newModel();
  const { ats } = f.dmaPort();
  f.dma(0x1000n);
  ats.hang(true);
  f.command(S.atcInv(3, 0n, 52), S.cfgiSte(3), S.sync(1, 0, 0), S.cfgiSte(4));
  t.is(cons(f), 2);
  t.false(f.model.hasWork());
  t.is(f.dma(0x2000n).status, OK, 'others are served');
  now = 999;
  t.false(f.model.hasWork());
  now = 1000;
  t.true(f.model.hasWork());
  f.run();
  t.is(cons(f), 2 | (CERROR_ATC_INV_SYNC << 24), 'stands at the SYNC');
  t.is((f.mmio.read32(0x60) ^ f.mmio.read32(0x64)) & 1, 1);
  t.is(word(f, Smmuv3Layout.at.irqCmdSync), 0, 'no completion signal');
  t.false(f.model.hasWork());
  // Repeated, it completes: nothing waits for that device any more.
  f.mmio.write32(0x64, f.mmio.read32(0x60));
  f.run();
  t.is(cons(f), 4);
  t.is(f.dma(0x1000n).source, ATC, 'which still holds what was to go');
});

test('atc_inv: a device that stops hanging in time completes, with the DMA under way', (t) => {
  let now = 0;
  const { f } = streams(ON, { config: { atcTimeoutNs: 1000 } });
  Object.assign(f.env, { clock: { nowNs: () => now } });
  f.model = f.newModel();
  const { ats } = f.dmaPort();
  f.dma(0x1000n);
  ats.hang(true);
  f.command(S.atcInv(3, 0x1000n, 0), S.sync());
  f.begin(0, 0x1000n);
  t.is(f.finish(0).source, ATC);
  ats.hang(false);
  f.run();
  t.is(cons(f), 1, 'the batch that used it is not over');
  f.leave(0);
  f.run();
  t.is(cons(f), 2);
  now = 5000;
  f.run();
  t.is(f.mmio.read32(0x60), 0);
  t.not(f.dma(0x1000n).source, ATC);
});

test('atc_inv: a model that takes over waits for the device anew; one that is disabled is waited for no more', (t) => {
  let now = 0;
  const { f } = streams(ON, { config: { atcTimeoutNs: 1000 } });
  Object.assign(f.env, { clock: { nowNs: () => now } });
  f.model = f.newModel();
  const { ats } = f.dmaPort();
  ats.hang(true);
  f.command(S.atcInv(3, 0n, 52), S.sync());
  now = 1e9;
  f.model = f.newModel();
  f.run();
  t.is(cons(f), 1);
  ats.disable();
  f.run();
  t.is(cons(f), 2);
  f.command(S.atcInv(3, 0n, 52), S.sync());
  t.is(cons(f), 4);
});

test('atc_inv: skipAtcInv, the deliberate fault, leaves stale entries', (t) => {
  const { f } = streams(ON, { config: { bugs: { skipAtcInv: true } } });
  f.dma(0x1000n);
  f.command(S.atcInv(3, 0n, 52), S.sync());
  t.is(f.dma(0x1000n).source, ATC);
});

test('ats: a checker finds the entries of an ATC by frame and by page, while its device would use them', (t) => {
  const { f } = streams();
  const { kernel } = f;
  const port = f.ports[0]!;
  const byFrame = (pfn: number, pages = 1) => kernel.atcFindPa(port, pfn, pages);
  t.is(byFrame(0, 2 ** 40), null);
  const { fillSeq } = f.dma(0x1000n);
  f.dma(0x40_3000n);
  t.like(byFrame(0x8_0800), { page: 1, pfn: 0x8_0800, sizeLg2: 12, fillSeq });
  t.like(byFrame(0x8_0803), { page: 0x403, pfn: 0x8_0803, sizeLg2: 21 });
  t.like(byFrame(0x8_0801, 8), { page: 0x403 });
  t.is(byFrame(0x8_0801, 2), null);
  t.is(byFrame(0x8_0801, 0), null);
  t.like(kernel.atcFindPage(port, 0x400, 4), { pfn: 0x8_0803 });
  t.is(kernel.atcFindPage(port, 0x404, 4), null);
  const first = kernel.atcFindPage(port, 0, 2 ** 52)!;
  const second = kernel.atcFindPage(port, 0, 2 ** 52, first.index + 1)!;
  t.deepEqual([first.page, second.page].sort(), [0x403, 1].sort());
  t.is(kernel.atcFindPage(port, 0, 2 ** 52, second.index + 1), null);
  // Switched off, and on again: the next batch begins with an empty ATC, though the entries are there still.
  const control = port + at.atsControl;
  f.memory.words.add(control, 1);
  t.is(byFrame(0x8_0800), null);
  f.memory.words.add(control, 1);
  t.is(byFrame(0x8_0800), null);
  f.dma(0x1000n);
  t.like(byFrame(0x8_0800), { page: 1 });
  t.is(byFrame(0x8_0803), null);
  f.command(S.atcInv(3, 0x1000n, 0), S.sync());
  t.is(byFrame(0x8_0800), null);
});

test('ats: an ATC of garbage is the device’s own trouble: nothing outside the port changes', (t) => {
  const { f } = streams();
  const port = f.ports[0]!;
  const end = port + PortLayout.size;
  const after = f.memory.u8.slice(end, end + 4096);
  let seed = 99;
  const random = (): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12345) | 0;
    return seed;
  };
  const dma = f.dmaPort();
  for (let round = 0; round < 200; round++) {
    for (let i = 0; i < 256 * 8; i++) f.memory.words.store(port + at.atc + i * 4, random());
    f.command(S.atcInv(3, BigInt(random() >>> 0) << 12n, round % 53, round % 3 === 0 ? 5 : -1), S.sync());
    f.dma(BigInt(random() >>> 0), round & 1);
    dma.read(BigInt(random() >>> 0), new Uint8Array(100));
    f.rawEvents();
  }
  f.command(S.atcInv(3, 0n, 52), S.sync());
  for (let i = 0; i < 256; i++) t.is(f.memory.words.load(port + at.atc + i * 32) & 1, 0);
  t.deepEqual(f.memory.u8.subarray(end, end + 4096), after);
});
