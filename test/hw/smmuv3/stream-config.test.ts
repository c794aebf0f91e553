import test from 'ava';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { ABORT, type FixtureOptions, OK, SmmuFixture, WRITE } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const PA = 0x8080_0000n;
/** An SMMU without what the tests of this file call absent. */
const BARE = { granules: [12], httu: 'none', stalls: 'none' } as const;

function s1Fixture(
  sid = 3,
  options: Partial<S.Stage1> = {},
  config: FixtureOptions['config'] = {},
): { f: SmmuFixture; root: number; cdPa: number } {
  const f = new SmmuFixture({ sids: [sid], config });
  const root = f.alloc(4096);
  const cdPa = f.alloc(64);
  f.writeWords(cdPa, S.cd({ root, asid: 7, ...options }));
  f.setSte(sid, S.steS1(cdPa));
  f.map(root, 1, 0x1000n, PA, 3, S.S1_PAGE);
  f.enable();
  return { f, root, cdPa };
}

function s2Fixture(
  options: Partial<S.Stage2> = {},
  config: FixtureOptions['config'] = {},
): { f: SmmuFixture; root: number } {
  const f = new SmmuFixture({ config });
  const root = f.alloc(64 * 1024, 64 * 1024);
  f.setSte(3, S.steS2({ root, vmid: 9, ...options }));
  f.map(root, 1, 0x1000n, PA, 3, S.S2_PAGE);
  f.enable();
  return { f, root };
}

test('ste: Config 0b000 aborts silently', (t) => {
  const f = new SmmuFixture();
  f.setSte(3, S.STE_ABORT);
  f.enable();
  t.is(f.dma(0x1000n).status, ABORT);
  t.deepEqual(f.events(), []);
});

test('ste: bypass passes the address through, and one beyond the output size is F_ADDR_SIZE', (t) => {
  const f = new SmmuFixture({ config: { oasBits: 40 } });
  f.setSte(3, S.STE_BYPASS);
  f.enable();
  t.like(f.dma(0xff_1234_5678n), { status: OK, pa: 0xff_1234_5678n });
  t.is(f.dma(0x100_0000_0000n).status, 0x11);
  t.like(f.events()[0], { id: 0x11, sid: 3, s2: false, class: 2, inputAddr: 0x100_0000_0000n, rnw: true });
});

test('ste: V = 0 is C_BAD_STE, whose record names only the stream', (t) => {
  const f = new SmmuFixture();
  f.enable();
  t.is(f.dma(0x1000n, WRITE).status, 0x04);
  t.deepEqual(f.rawEvents(), [[0x04n | (3n << 32n), 0n, 0n, 0n]]);
});

test('stage 1: translates, caches the stream, and hits the IOTLB next time', (t) => {
  const { f } = s1Fixture();
  t.like(f.dma(0x1abcn), { status: OK, pa: PA | 0xabcn, sizeLg2: 12, source: 3 });
  const again = f.dma(0x1ff8n);
  t.like(again, { status: OK, pa: PA | 0xff8n });
  t.true(again.source === 1 || again.source === 2);
  t.deepEqual(f.events(), []);
});

test('stage 1: a 2 MiB block and a 48-bit table from level 0 translate', (t) => {
  const f = new SmmuFixture();
  const root = f.alloc(4096);
  const cdPa = f.alloc(64);
  f.writeWords(cdPa, S.cd({ root, asid: 1, t0sz: 16 }));
  f.setSte(3, S.steS1(cdPa));
  f.map(root, 0, 0x8000_0020_0000n, 0x4000_0000n, 2, S.S1_BLOCK);
  f.enable();
  t.like(f.dma(0x8000_0021_2345n), { status: OK, pa: 0x4001_2345n, sizeLg2: 21 });
});

test('stage 2: translates, with the IPA reported as the input', (t) => {
  const { f } = s2Fixture();
  t.like(f.dma(0x1010n), { status: OK, pa: PA | 0x10n, ipa: 0x1010n });
});

test('stage 2: concatenated roots reach beyond one table', (t) => {
  // 43 input bits from level 1: 16 tables.
  const { f, root } = s2Fixture({ t0sz: 21 });
  f.map(root, 1, 0x7ff_c000_0000n, 0xc000_0000n, 1, S.S2_BLOCK);
  t.like(f.dma(0x7ff_c012_3456n), { status: OK, pa: 0xc012_3456n, sizeLg2: 30 });
});

function nested(): {
  f: SmmuFixture;
  s1Root: number;
  cdIpa: number;
  s2Root: number;
  toPa: (ipa: number) => number;
} {
  const f = new SmmuFixture();
  const guest = f.alloc(64 * 4096);
  const toPa = (ipa: number): number => guest + (ipa - 0x4000_0000);
  const s2Root = f.alloc(4096);
  for (let page = 0; page < 64; page++)
    f.map(s2Root, 1, BigInt(0x4000_0000 + page * 4096), BigInt(guest + page * 4096), 3, S.S2_PAGE);
  const s1Root = 0x4000_0000;
  const cdIpa = 0x4000_1040;
  f.writeWords(toPa(cdIpa), S.cd({ root: s1Root, asid: 5 }));
  f.setSte(3, S.steNested(cdIpa, { root: s2Root, vmid: 2 }));
  let next = 0x4000_8000;
  const table = (): number => {
    next += 4096;
    return next;
  };
  f.map(s1Root, 1, 0x7000n, 0x4002_0000n, 3, S.S1_PAGE, toPa, table);
  f.enable();
  return { f, s1Root, cdIpa, s2Root, toPa };
}

test('nested: the CD, the tables and the page are all found through stage 2', (t) => {
  const { f, toPa } = nested();
  t.like(f.dma(0x7123n), { status: OK, pa: BigInt(toPa(0x4002_0123)), ipa: 0x4002_0123n });
});

test('nested: a CD outside stage 2 is a stage-2 F_TRANSLATION of class CD, recorded per S2R', (t) => {
  const { f } = nested();
  f.setSte(3, S.steNested(0x5000_1040, { root: f.alloc(4096), vmid: 2 }));
  t.is(f.dma(0x7000n).status, 0x10);
  t.like(f.events()[0], { id: 0x10, s2: true, class: 0, ipa: 0x5000_1000, inputAddr: 0x7000n });
  f.setSte(3, S.steNested(0x5000_1040, { root: f.alloc(4096), vmid: 2, record: false }));
  t.is(f.dma(0x7000n).status, 0x10);
  t.deepEqual(f.events(), []);
});

test('nested: a stage-1 table outside stage 2 is of class TTD with the descriptor IPA page', (t) => {
  const { f, cdIpa, toPa } = nested();
  f.writeWords(toPa(cdIpa), S.cd({ root: 0x6000_0000, asid: 5 }));
  t.is(f.dma(0x7000n, WRITE).status, 0x10);
  t.like(f.events()[0], { id: 0x10, s2: true, class: 1, ipa: 0x6000_0000, rnw: false });
});

test('nested: a page outside stage 2 is of class IN, with its IPA', (t) => {
  const { f, s1Root, toPa } = nested();
  f.map(s1Root, 1, 0x8000n, 0x7000_0000n, 3, S.S1_PAGE, toPa);
  t.is(f.dma(0x8004n).status, 0x10);
  t.like(f.events()[0], { id: 0x10, s2: true, class: 2, ipa: 0x7000_0000, inputAddr: 0x8004n });
});

test('nested: a stage-1 fault has S2 = 0 and no IPA', (t) => {
  const { f } = nested();
  t.is(f.dma(0x9000n).status, 0x10);
  t.like(f.events()[0], { id: 0x10, s2: false, class: 2, ipa: 0 });
});

test('stream ids: out of range is C_BAD_STREAMID, recorded only with RECINVSID', (t) => {
  const f = new SmmuFixture({ sids: [0x1ff] });
  f.enable();
  t.is(f.dma(0n).status, 0x02);
  t.deepEqual(f.rawEvents(), [[0x02n | (0x1ffn << 32n), 0n, 0n, 0n]]);
  f.mmio.write32(0x20, 0b1100);
  f.run();
  f.mmio.write32(0x2c, 0);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  t.is(f.dma(0n).status, 0x02);
  t.deepEqual(f.events(), []);
});

for (const split of [6, 8, 10])
  test(`stream table: two levels, split ${split}`, (t) => {
    const f = new SmmuFixture({ config: { sidBits: 16 }, sids: [0x805] });
    const l1 = f.alloc(8 * 1024, 8 * 1024);
    const span = 4; // 8 STEs
    const l2 = f.alloc(4096);
    const index = 0x805 >> split;
    f.enable(0b1100);
    f.mmio.write64(0x80, BigInt(l1));
    f.mmio.write32(0x88, 16 | (split << 6) | (1 << 16));
    f.mmio.write32(0x20, 0b1101);
    f.run();
    t.is(f.dma(0x5000n).status, 0x02, 'Span 0');
    f.write64(l1 + index * 8, BigInt(l2) | BigInt(span));
    f.writeWords(l2 + 5 * 64, S.STE_BYPASS);
    t.like(f.dma(0x5000n), { status: OK, pa: 0x5000n });
    f.command(S.CFGI_ALL);
    f.write64(l1 + index * 8, BigInt(l2) | 3n);
    t.is(f.dma(0x5000n).status, 0x02, 'beyond the span');
    f.write64(l1 + index * 8, BigInt(l2) | BigInt(split + 2));
    t.is(f.dma(0x5000n).status, 0x02, 'Span larger than the split');
    f.write64(l1 + index * 8, 0x4000_0000n | 4n);
    t.is(f.dma(0x5000n).status, 0x03, 'L2Ptr outside RAM');
    t.deepEqual(
      f.events().map((e) => [e.id, e.fetchAddr]),
      [
        [2, 0],
        [2, 0],
        [2, 0],
        [3, 0x4000_0000 + 5 * 64],
      ],
    );
  });

test('fetches outside RAM: F_STE_FETCH, F_CD_FETCH and F_WALK_EABT carry the address fetched', (t) => {
  const { f, cdPa } = s1Fixture(3, { root: 0x4000_0000 });
  t.is(f.dma(0x1000n).status, 0x0b);
  f.setSte(3, S.steS1(0x4000_0040));
  f.command(S.cfgiSte(3));
  t.is(f.dma(0x1000n).status, 0x09);
  f.mmio.write32(0x20, 0b1100);
  f.run();
  f.mmio.write64(0x80, 0x1000_0000n);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  t.is(f.dma(0x1000n).status, 0x03);
  const [walk, cdFetch, steFetch] = f.events();
  t.like(walk, { id: 0x0b, sid: 3, s2: false, class: 1, fetchAddr: 0x4000_0000, inputAddr: 0x1000n });
  t.like(cdFetch, { id: 0x09, sid: 3, fetchAddr: 0x4000_0040, inputAddr: 0n });
  t.like(steFetch, { id: 0x03, sid: 3, fetchAddr: 0x1000_0000 + 3 * 64 });
  t.true(cdPa > 0);
});

const or = (words: readonly bigint[], index: number, value: bigint): bigint[] =>
  words.map((word, i) => (i === index ? word | value : word));
const clear = (words: readonly bigint[], index: number, value: bigint): bigint[] =>
  words.map((word, i) => (i === index ? word & ~value : word));

const BAD_S2: ReadonlyArray<readonly [string, (words: bigint[]) => bigint[], RegExp | null]> = [
  ['S2AA64 clear', (w) => clear(w, 2, 1n << 51n), /AArch32/],
  ['S2ENDI', (w) => or(w, 2, 1n << 52n), /big-endian/],
  ['S2HD', (w) => or(w, 2, 1n << 55n), /HTTU/],
  ['S2HA', (w) => or(w, 2, 1n << 56n), /HTTU/],
  ['S2S', (w) => or(w, 2, 1n << 57n), /stalls/],
  ['S2TG 64K', (w) => or(w, 2, 1n << 46n), /granule/],
  ['S2T0SZ 15', (w) => or(clear(w, 2, 0x3fn << 32n), 2, 15n << 32n), null],
  ['S2T0SZ 40', (w) => or(clear(w, 2, 0x3fn << 32n), 2, 40n << 32n), null],
  ['S2SL0 3', (w) => or(w, 2, 3n << 38n), null],
  ['S2SL0 2 with 39 bits', (w) => or(clear(w, 2, 3n << 38n), 2, 2n << 38n), null],
  ['S2SL0 0 with 39 bits', (w) => clear(w, 2, 3n << 38n), null],
  ['S2TTB beyond S2PS', (w) => or(clear(w, 2, 7n << 48n), 3, 1n << 32n), null],
];

for (const [name, breakIt, refusal] of BAD_S2)
  test(`stage-2 STE: ${name} is C_BAD_STE${refusal ? ', refused by name once' : ''}`, (t) => {
    const { f, root } = s2Fixture({}, BARE);
    f.setSte(3, breakIt(S.steS2({ root, vmid: 9 })));
    f.command(S.cfgiSte(3));
    t.is(f.dma(0x1000n).status, 0x04);
    t.is(f.dma(0x1000n).status, 0x04);
    t.deepEqual(
      f.events().map((e) => e.id),
      [0x04, 0x04],
    );
    t.is(f.logs.filter((line) => refusal?.test(line)).length, refusal ? 1 : 0);
    // A faulting configuration is not cached: mended, it works without CFGI.
    f.setSte(3, S.steS2({ root, vmid: 9 }));
    t.is(f.dma(0x1000n).status, OK);
  });

const BAD_S1: ReadonlyArray<readonly [string, bigint, number, RegExp | null]> = [
  ['S1STALLD', 1n << 27n, 1, /stalls/],
  ['S1ContextPtr beyond the output size', 1n << 48n, 0, null],
];
for (const [name, value, index, refusal] of BAD_S1)
  test(`stage-1 STE: ${name} is C_BAD_STE`, (t) => {
    const { f, cdPa } = s1Fixture(3, {}, BARE);
    f.setSte(3, or(S.steS1(cdPa), index, value));
    f.command(S.cfgiSte(3));
    t.is(f.dma(0x1000n).status, 0x04);
    if (refusal) t.regex(f.logs.join('\n'), refusal);
    else t.deepEqual(f.logs, []);
  });

const BAD_CD: ReadonlyArray<readonly [string, (words: bigint[]) => bigint[], RegExp | null]> = [
  ['V clear', (w) => clear(w, 0, 1n << 31n), null],
  ['AA64 clear', (w) => clear(w, 0, 1n << 41n), /AArch32/],
  ['HD', (w) => or(w, 0, 1n << 42n), /HTTU/],
  ['HA', (w) => or(w, 0, 1n << 43n), /HTTU/],
  ['S', (w) => or(w, 0, 1n << 44n), /stalls/],
  ['EPD1 clear', (w) => clear(w, 0, 1n << 30n), /TTB1/],
  ['ENDI', (w) => or(w, 0, 1n << 15n), /big-endian/],
  ['TBI0', (w) => or(w, 0, 1n << 38n), /top-byte/],
  ['TG0 64K', (w) => or(w, 0, 1n << 6n), /granule/],
  ['T0SZ 15', (w) => or(clear(w, 0, 0x3fn), 0, 15n), null],
  ['T0SZ 40', (w) => or(clear(w, 0, 0x3fn), 0, 40n), null],
  ['TTB0 beyond IPS', (w) => or(clear(w, 0, 7n << 32n), 1, 1n << 32n), null],
];
for (const [name, breakIt, refusal] of BAD_CD)
  test(`cd: ${name} is C_BAD_CD`, (t) => {
    const { f, cdPa, root } = s1Fixture(3, {}, BARE);
    f.writeWords(cdPa, breakIt(S.cd({ root, asid: 7 })));
    t.is(f.dma(0x1000n).status, 0x0a);
    t.deepEqual(f.rawEvents(), [[0x0an | (3n << 32n), 0n, 0n, 0n]]);
    if (refusal) t.regex(f.logs.join('\n'), refusal);
    else t.deepEqual(f.logs, []);
  });

test('cd: EPD0 makes every stage-1 translation an F_TRANSLATION', (t) => {
  const { f, cdPa, root } = s1Fixture();
  f.writeWords(cdPa, or(S.cd({ root, asid: 7 }), 0, 1n << 14n));
  t.is(f.dma(0x1000n).status, 0x10);
  t.is(f.dma(0n).status, 0x10);
  t.like(f.events()[0], { id: 0x10, s2: false, class: 2, inputAddr: 0x1000n });
});

test('cd: EPD0 is cached like any other configuration, and its fields of TTB0 are ignored', (t) => {
  const { f, cdPa } = s1Fixture(3, { root: 0x4000_0000, t0sz: 3 });
  f.writeWords(cdPa, or(S.cd({ root: 0x4000_0000, asid: 7, t0sz: 3 }), 0, (1n << 14n) | (1n << 15n)));
  for (const iova of [0n, 0x1000n, 0xffff_ffff_ffff_f000n]) t.is(f.dma(iova).status, 0x10);
  t.is(fetches(f), 1);
});

test('cd: R = 0 keeps stage-1 faults out of the Event queue', (t) => {
  const { f } = s1Fixture(3, { record: false });
  t.is(f.dma(0x5000n).status, 0x10);
  t.deepEqual(f.events(), []);
});

/** Configurations fetched from memory so far. */
const fetches = (f: SmmuFixture): number =>
  f.memory.words.load(f.regions.smmu + Smmuv3Layout.at.configFetches);

test('substreams: a transaction with one is C_BAD_SUBSTREAMID, but for a stream that aborts', (t) => {
  const { f } = s1Fixture();
  t.is(f.dma(0x1000n, 0, 0, 5).status, 0x08);
  t.like(f.events()[0], { id: 0x08, ssid: 5, sid: 3 });
  f.setSte(3, S.STE_ABORT);
  f.command(S.cfgiSte(3));
  t.is(f.dma(0x1000n, 0, 0, 5).status, ABORT);
  t.deepEqual(f.events(), []);
});

test('an SMMU with one stage refuses the other', (t) => {
  for (const [stages, ste] of [
    ['s2', S.steS1(0x8000_0000)],
    ['s1', S.steS2({ root: 0x8000_0000, vmid: 1 })],
  ] as const) {
    const f = new SmmuFixture({ config: { stages } });
    f.setSte(3, ste);
    f.enable();
    t.is(f.dma(0x1000n).status, 0x04);
    t.is(f.mmio.read32(0) & 3, stages === 's2' ? 1 : 2);
  }
});

test('8-bit VMIDs and ASIDs: a wider one in the STE or CD is illegal', (t) => {
  const f = new SmmuFixture({ config: { vmidBits: 8, asidBits: 8 } });
  const root = f.alloc(4096);
  const cd = f.alloc(64);
  f.map(root, 1, 0x1000n, PA, 3, S.S1_PAGE);
  f.writeWords(cd, S.cd({ root, asid: 0x100 }));
  f.setSte(3, S.steS1(cd, 0xff));
  f.enable();
  t.is(f.dma(0x1000n).status, 0x0a);
  f.writeWords(cd, S.cd({ root, asid: 0xff }));
  f.setSte(3, S.steS1(cd, 0x100));
  t.is(f.dma(0x1000n).status, 0x04);
  f.setSte(3, S.steS1(cd, 0xff));
  t.is(f.dma(0x1000n).status, OK);
});

test('stage 2 may start at level 0 only where addresses have more than 42 bits', (t) => {
  for (const [oasBits, status] of [
    [42, 0x04],
    [44, 0x10],
  ] as const) {
    const f = new SmmuFixture({ config: { oasBits } });
    f.setSte(3, S.steS2({ root: f.alloc(4096), vmid: 1, t0sz: 22, sl0: 2 }));
    f.enable();
    t.is(f.dma(0x1000n).status, status);
  }
});
