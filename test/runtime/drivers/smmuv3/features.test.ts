/** What the driver reads from the ID registers. Bits restated from [IHI0070] 6.3.1 to 6.3.6. */
import test from 'ava';
import { probeFeatures, type SmmuFeatures } from '../../../../runtime/drivers/smmuv3/features.js';

const ENXIO = 6;
/** Both stages, AArch64, little-endian, no stalls; 14-bit queues, 16-bit StreamIDs; 4 KiB, 48 bits. */
const IDR0 = 0b11 | (2 << 2) | (2 << 21) | (1 << 24);
const IDR1 = 16 | (14 << 16) | (14 << 21);
const IDR5 = 5 | (1 << 4);

function probed(
  over: { idr0?: number; idr1?: number; idr3?: number; idr5?: number },
  vhe = true,
): SmmuFeatures | number {
  const values = new Map([
    [0x0, over.idr0 ?? IDR0],
    [0x4, over.idr1 ?? IDR1],
    [0xc, over.idr3 ?? 0],
    [0x14, over.idr5 ?? IDR5],
  ]);
  return probeFeatures({ read32: (offset) => values.get(offset) ?? 0 }, vhe);
}

const features = (over: Parameters<typeof probed>[0], vhe = true): SmmuFeatures => {
  const found = probed(over, vhe);
  if (typeof found === 'number') throw new Error(`probe said ${found}`);
  return found;
};

test('features: a plain SMMU has none of the optional ones', (t) => {
  t.like(features({}), {
    stage1: true,
    stage2: true,
    ats: false,
    pri: false,
    stalls: false,
    stallForce: false,
    httuAccess: false,
    httuDirty: false,
    hyp: false,
    e2h: false,
    btm: false,
    twoLevelCdTable: false,
    vax: false,
    bbml: 0,
    ssidBits: 0,
    granulesLg2: [12],
  });
});

test('features: each bit says what it says', (t) => {
  t.true(features({ idr0: IDR0 | (1 << 10) }).ats);
  t.true(features({ idr0: IDR0 | (1 << 16) }).pri);
  t.true(features({ idr0: IDR0 | (1 << 5) }).btm);
  t.true(features({ idr0: IDR0 | (1 << 14) }).sev);
  t.true(features({ idr0: IDR0 | (1 << 19) }).twoLevelCdTable);
  t.is(features({ idr1: IDR1 | (20 << 6) }).ssidBits, 20);
  t.is(features({ idr1: IDR1 | (9 << 11) }).priqLg2, 9);
  t.is(features({ idr3: 2 << 11 }).bbml, 2);
  t.true(features({ idr5: IDR5 | (1 << 10) }).vax);
  t.is(features({ idr5: IDR5 | (0xabc << 16) }).stallMax, 0xabc);
});

test('features: HTTU, stall model and EL2 as Linux reads them', (t) => {
  const httu = [0, 1, 2, 3].map((n) => features({ idr0: IDR0 | (n << 6) }));
  t.deepEqual(
    httu.map((f) => [f.httuAccess, f.httuDirty]),
    [
      [false, false],
      [true, false],
      [true, true],
      [false, false],
    ],
  );
  const stall = [0, 1, 2, 3].map((n) => features({ idr0: (IDR0 & ~(3 << 24)) | (n << 24) }));
  t.deepEqual(
    stall.map((f) => [f.stalls, f.stallForce]),
    [
      [true, false],
      [false, false],
      [true, true],
      [false, false],
    ],
  );
  const hyp = IDR0 | (1 << 9);
  t.like(features({ idr0: hyp }), { hyp: true, e2h: true });
  t.like(features({ idr0: hyp }, false), { hyp: true, e2h: false });
});

test('features: granules, and an SMMU without any is refused', (t) => {
  t.deepEqual(features({ idr5: 5 | (7 << 4) }).granulesLg2, [12, 14, 16]);
  t.deepEqual(features({ idr5: 5 | (4 << 4) }).granulesLg2, [16]);
  t.is(probed({ idr5: 5 }), -ENXIO);
});

test('features: what this driver cannot drive is -ENXIO', (t) => {
  t.is(probed({ idr0: IDR0 & ~0b11 }), -ENXIO);
  t.is(probed({ idr0: (IDR0 & ~(3 << 2)) | (1 << 2) }), -ENXIO);
  t.is(probed({ idr0: (IDR0 & ~(3 << 21)) | (3 << 21) }), -ENXIO);
  for (const bit of [28, 29, 30]) t.is(probed({ idr1: IDR1 | (1 << bit) }), -ENXIO);
  t.is(probed({ idr1: 16 | (14 << 16) | (6 << 21) }), -ENXIO);
});

test('features: 52-bit addresses count where the smallest granule is 64 KiB', (t) => {
  const [GRAN4K, GRAN16K, GRAN64K, OAS_52] = [1 << 4, 1 << 5, 1 << 6, 6];
  for (const [granules, granulesLg2, oasBits] of [
    [GRAN64K, [16], 52],
    [GRAN16K | GRAN64K, [14, 16], 48],
    [GRAN4K | GRAN16K | GRAN64K, [12, 14, 16], 48],
  ] as const)
    t.like(features({ idr5: OAS_52 | granules }), { granulesLg2: [...granulesLg2], oasBits });
});
