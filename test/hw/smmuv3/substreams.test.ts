/** Substreams from device to page: CD tables of every format, S1DSS, and what CFGI commands drop. [IHI0070] 3.3.2, 4.3, 5.2-5.3 */
import test from 'ava';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { OK, SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const NO_SSID = 0xffff_ffff;
const F_STREAM_DISABLED = 0x06;
const C_BAD_SUBSTREAMID = 0x08;
const F_CD_FETCH = 0x09;
const C_BAD_CD = 0x0a;
const F_TRANSLATION = 0x10;
const VA = 0x1000n;

/** Page of substream n: told apart by where it leads. */
const pageOf = (n: number): bigint => 0x8080_0000n + BigInt(n) * 0x1000n;

interface Table {
  readonly f: SmmuFixture;
  /** Writes the CD of a substream, with a page table of its own. */
  readonly addCd: (ssid: number) => void;
  readonly cdPa: (ssid: number) => number;
  readonly l1: number;
}

/** A stream with 2^max CDs. */
function table(
  format: 0 | 1 | 2,
  max: number,
  dss = 0,
  sid = 3,
  f = new SmmuFixture({ sids: [3, 4] }),
): Table {
  const split = [20, 6, 10][format]!;
  const l1 = f.alloc(format === 0 ? 64 * 2 ** max : 8 * 2 ** Math.max(0, max - split), 128 * 1024);
  const l2s = new Map<number, number>();
  const cdPa = (ssid: number): number => {
    if (format === 0) return l1 + ssid * 64;
    const i = ssid >> split;
    let l2 = l2s.get(i);
    if (l2 === undefined) {
      l2 = f.alloc(64 * 2 ** split, 64 * 2 ** split);
      l2s.set(i, l2);
      f.write64(l1 + i * 8, BigInt(l2) | 1n);
    }
    return l2 + (ssid % 2 ** split) * 64;
  };
  const addCd = (ssid: number): void => {
    const root = f.alloc(4096);
    f.map(root, 1, VA, pageOf(ssid), 3, S.S1_PAGE);
    f.writeWords(cdPa(ssid), S.cd({ root, asid: ssid + 1 }));
  };
  const ste = S.steS1(l1);
  ste[0]! |= (BigInt(format) << 4n) | (BigInt(max) << 59n);
  ste[1]! |= BigInt(dss);
  f.setSte(sid, ste);
  return { f, addCd, cdPa, l1 };
}

const word = (f: SmmuFixture, at: number): number => f.memory.words.load(f.regions.smmu + at);
const fetches = (f: SmmuFixture): number => word(f, Smmuv3Layout.at.configFetches);

for (const [format, max, ssids] of [
  [0, 7, [1, 5, 127]],
  [1, 5, [1, 31]],
  [1, 12, [1, 63, 64, 4095]],
  [2, 9, [1, 511]],
  [2, 20, [1, 1023, 1024, 0xf_ffff]],
] as const)
  test(`cd table: format ${format}, 2^${max} CDs: each substream has its own tables`, (t) => {
    const { f, addCd } = table(format, max);
    for (const ssid of ssids) addCd(ssid);
    f.enable();
    for (let round = 0; round < 2; round++)
      for (const ssid of ssids) t.like(f.dma(VA, 0, 0, ssid), { status: OK, pa: pageOf(ssid) }, `${ssid}`);
    t.is(fetches(f), ssids.length, 'and a configuration cached under its SubstreamID');
    if (max < 20) t.is(f.dma(VA, 0, 0, 2 ** max).status, C_BAD_SUBSTREAMID);
    t.is(f.dma(VA, 0, 0, 2).status, format === 0 || ssids[0] >> (format === 1 ? 6 : 10) === 0 ? C_BAD_CD : 0);
  });

test('cd table: an L1CD that is not valid, or points beyond the output size, is C_BAD_SUBSTREAMID', (t) => {
  const { f, l1 } = table(1, 12, 2);
  f.enable();
  t.is(f.dma(VA, 0, 0, 64).status, C_BAD_SUBSTREAMID);
  f.write64(l1 + 8, (1n << 48n) | 1n);
  t.is(f.dma(VA, 0, 0, 64).status, C_BAD_SUBSTREAMID);
  t.is(f.dma(VA).status, C_BAD_SUBSTREAMID, 'S1DSS = SSID 0');
  t.deepEqual(
    f.events().map(({ id, ssid, sid }) => [id, ssid, sid]),
    [
      [C_BAD_SUBSTREAMID, 64, 3],
      [C_BAD_SUBSTREAMID, 64, 3],
      [C_BAD_SUBSTREAMID, 0, 3],
    ],
  );
});

test('cd table: fetches outside RAM are F_CD_FETCH with the address, of L1CD and of CD', (t) => {
  const { f, l1 } = table(1, 12);
  f.enable();
  f.write64(l1 + 8, 0x4000_0000n | 1n);
  t.is(f.dma(VA, 0, 0, 65).status, F_CD_FETCH);
  const ste = S.steS1(0x2000_0000);
  ste[0]! |= (1n << 4n) | (12n << 59n);
  f.setSte(3, ste);
  t.is(f.dma(VA, 0, 0, 130).status, F_CD_FETCH);
  t.deepEqual(
    f.events().map(({ id, fetchAddr, ssv, ssid }) => [id, fetchAddr, ssv, ssid]),
    [
      [F_CD_FETCH, 0x4000_0040, true, 65],
      [F_CD_FETCH, 0x2000_0010, true, 130],
    ],
  );
});

test('cd table: its low address bits are zero, at every level', (t) => {
  const { f, addCd, l1, cdPa } = table(2, 14);
  addCd(2047);
  const ste = S.steS1(l1 + 64);
  ste[0]! |= (2n << 4n) | (14n << 59n);
  f.setSte(3, ste);
  f.write64(l1 + 8, BigInt(cdPa(1024) + 4096) | 1n);
  f.enable();
  t.like(f.dma(VA, 0, 0, 2047), { status: OK, pa: pageOf(2047) });
});

test('s1dss: traffic without a SubstreamID is terminated, bypasses, or uses CD 0', (t) => {
  for (const [dss, expected] of [
    [0, { status: F_STREAM_DISABLED }],
    [1, { status: OK, pa: VA, source: 4 }],
    [2, { status: OK, pa: pageOf(0) }],
    [3, { status: F_STREAM_DISABLED }],
  ] as const) {
    const { f, addCd } = table(0, 3, dss);
    addCd(0);
    addCd(1);
    f.enable();
    t.like(f.dma(VA), expected, `S1DSS ${dss}`);
    t.like(f.dma(VA), expected, `S1DSS ${dss}, again`);
    const zero = f.dma(VA, 0, 0, 0);
    if (dss === 2) t.is(zero.status, F_STREAM_DISABLED);
    else t.like(zero, { status: OK, pa: pageOf(0) });
    t.like(f.dma(VA, 0, 0, 1), { status: OK, pa: pageOf(1) });
    const disabled = f.rawEvents();
    t.is(disabled.length, dss === 2 ? 1 : dss === 1 ? 0 : 2);
    for (const [first] of disabled) t.is(first! & 0xffn, 6n);
  }
});

test('s1dss: bypass of stage 1 still checks the address size, and goes through stage 2 when nested', (t) => {
  const { f, l1 } = table(0, 3, 1);
  f.enable();
  t.is(f.dma(1n << 48n).status, 0x11);
  t.like(f.events()[0], { id: 0x11, s2: false, inputAddr: 1n << 48n });
  const root = f.alloc(4096);
  f.map(root, 1, 0x7000n, 0x8090_0000n, 3, S.S2_PAGE);
  const nested = S.steNested(l1, { root, vmid: 5 });
  nested[0]! |= 3n << 59n;
  nested[1]! |= 1n;
  f.setSte(3, nested);
  f.command(S.cfgiSte(3));
  t.like(f.dma(0x7123n), { status: OK, pa: 0x8090_0123n, ipa: 0x7123n });
  t.is(f.dma(0x9000n).status, F_TRANSLATION);
  t.like(f.events()[0], { s2: true, class: 2, ipa: 0x9000 });
});

test('nested: L1CD and CD are fetched through stage 2, with faults of class CD', (t) => {
  const f = new SmmuFixture();
  const guest = f.alloc(64 * 4096);
  const toPa = (ipa: number): number => guest + (ipa - 0x4000_0000);
  const root = f.alloc(4096);
  const skip = new Set([0x4000_5000]);
  for (let page = 0; page < 64; page++) {
    const ipa = 0x4000_0000 + page * 4096;
    if (!skip.has(ipa)) f.map(root, 1, BigInt(ipa), BigInt(toPa(ipa)), 3, S.S2_PAGE);
  }
  let next = 0x4000_8000;
  const tableIpa = (): number => {
    next += 4096;
    return next;
  };
  f.map(0x4000_0000, 1, 0x7000n, 0x4002_0000n, 3, S.S1_PAGE, toPa, tableIpa);
  const l1 = 0x4000_2000;
  f.write64(toPa(l1), 0x4000_3001n);
  f.write64(toPa(l1) + 8, 0x4000_5001n);
  f.write64(toPa(l1) + 16, 0x7000_0001n | (1n << 50n));
  f.writeWords(toPa(0x4000_3000) + 9 * 64, S.cd({ root: 0x4000_0000, asid: 5 }));
  const ste = S.steNested(l1, { root, vmid: 2 });
  ste[0]! |= (1n << 4n) | (9n << 59n);
  f.setSte(3, ste);
  f.enable();
  t.like(f.dma(0x7004n, 0, 0, 9), { status: OK, pa: BigInt(toPa(0x4002_0004)), ipa: 0x4002_0004n });
  t.is(f.dma(0x7004n, 0, 0, 64 + 3).status, F_TRANSLATION);
  t.is(f.dma(0x7004n, 0, 0, 128).status, F_TRANSLATION, 'an L2Ptr beyond IAS is for stage 2');
  t.is(f.dma(0x7004n, 0, 0, 200).status, C_BAD_SUBSTREAMID);
  const other = S.steNested(0x6000_0000, { root, vmid: 2 });
  other[0]! |= (1n << 4n) | (9n << 59n);
  f.setSte(3, other);
  t.is(f.dma(0x7004n, 0, 0, 64).status, F_TRANSLATION);
  t.deepEqual(
    f.events().map(({ id, s2, class: cls, ipa, ssid }) => [id, s2, cls, ipa, ssid]),
    [
      [F_TRANSLATION, true, 0, 0x4000_5000, 67],
      [F_TRANSLATION, true, 0, 0x4_0000_7000_0000, 128],
      [C_BAD_SUBSTREAMID, false, 0, 0, 200],
      [F_TRANSLATION, true, 0, 0x6000_0000, 64],
    ],
  );
});

test('ssidsize 0: S1CDMax and S1Fmt are ignored, and any SubstreamID is C_BAD_SUBSTREAMID', (t) => {
  const { f, addCd } = table(0, 3, 0, 3, new SmmuFixture({ config: { ssidBits: 0 } }));
  addCd(0);
  f.enable();
  t.like(f.dma(VA), { status: OK, pa: pageOf(0) });
  t.is(f.dma(VA, 0, 0, 1).status, C_BAD_SUBSTREAMID);
});

/** Which of the configurations of three substreams and none are still cached. */
function cached(f: SmmuFixture, index = 0): string {
  return [NO_SSID, 0, 1, 2]
    .map((ssid) => {
      const before = fetches(f);
      f.dma(VA, 0, index, ssid);
      return fetches(f) === before ? 'c' : '-';
    })
    .join('');
}

test('cfgi: each command drops what it names, and no more', (t) => {
  const f = new SmmuFixture({ sids: [3, 4] });
  for (const sid of [3, 4]) {
    // Without SSIDs: bypass of stage 1, so that SSID 0 has a CD of its own to be cached.
    const { addCd } = table(0, 3, 1, sid, f);
    for (const ssid of [0, 1, 2]) addCd(ssid);
  }
  f.enable();
  const warm = (): void => {
    for (const index of [0, 1]) cached(f, index);
    t.is(cached(f, 0) + cached(f, 1), 'cccccccc');
  };
  const after = (command: S.Command): string => {
    warm();
    f.command(command, S.sync());
    return `${cached(f, 0)} ${cached(f, 1)}`;
  };
  t.is(after(S.cfgiCd(3, 1)), 'cc-c cccc');
  t.is(after(S.cfgiCd(3, 0)), '--cc cccc', 'traffic without SubstreamID may use CD 0');
  t.is(after(S.cfgiCd(3, 9)), 'cccc cccc');
  t.is(after([0x05n | (2n << 12n) | (4n << 32n), 0n]), 'cccc ccc-', 'Leaf = 0');
  t.is(after(S.cfgiCdAll(3)), '---- cccc');
  t.is(after(S.cfgiSte(4)), 'cccc ----');
  t.is(after([0x03n | (3n << 32n), 0n]), '---- cccc', 'Leaf = 0');
  t.is(after(S.cfgiRange(2, 0)), '---- cccc', 'streams 2 and 3');
  t.is(after(S.cfgiRange(0, 2)), '---- ----', 'streams 0 to 7');
  t.is(after(S.cfgiRange(8, 2)), 'cccc cccc');
  t.is(after(S.CFGI_ALL), '---- ----');
});

test('cfgi: what a command dropped is fetched anew, and what it left is not', (t) => {
  const { f, addCd, cdPa } = table(0, 3, 0);
  addCd(1);
  addCd(2);
  f.enable();
  for (const ssid of [1, 2]) t.is(f.dma(VA, 0, 0, ssid).status, OK);
  for (const ssid of [1, 2]) f.write64(cdPa(ssid), 0n);
  f.command(S.cfgiCd(3, 1), S.sync());
  t.is(f.dma(VA, 0, 0, 1).status, C_BAD_CD);
  t.is(f.dma(VA, 0, 0, 2).status, OK);
});

test('cfgi: thousands of substreams come and go, and the count of those cached stays true', (t) => {
  const { f, addCd, cdPa } = table(2, 14);
  addCd(1);
  const template = Array.from({ length: 8 }, (_, i) => f.read64(cdPa(1) + i * 8));
  for (let ssid = 0; ssid < 3000; ssid += 7) f.writeWords(cdPa(ssid), template);
  f.enable();
  const counted = (): number => word(f, Smmuv3Layout.at.ssidContexts);
  for (let round = 0; round < 2; round++) {
    for (let ssid = 0; ssid < 3000; ssid += 7) t.is(f.dma(VA, 0, 0, ssid).status, OK);
    t.true(counted() > 100 && counted() <= 429);
    f.command(S.cfgiSte(3), S.sync());
    t.is(counted(), 0);
  }
});

test('devices: a substream whose entry lies in the slot of its stream is not taken for the stream', (t) => {
  const { f, addCd } = table(2, 20, 2);
  // contextIndex: the hash of this SubstreamID is 0 in its low 10 bits.
  let ssid = 1;
  while (((Math.imul(ssid + 1, 0x9e37_79b1) >>> 20) & 1023) !== 0) ssid++;
  addCd(0);
  addCd(ssid);
  f.enable();
  for (let round = 0; round < 3; round++) {
    t.like(f.dma(VA, 0, 0, ssid), { status: OK, pa: pageOf(ssid) });
    t.like(f.dma(VA), { status: OK, pa: pageOf(0) });
  }
});
