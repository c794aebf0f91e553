/** Each key of the configuration, and the bits of the identification registers that follow it. [IHI0070] 6.3.1-8 */
import test from 'ava';
import { identification, SMMUV3_DEFAULTS, type Smmuv3Config } from '../../../hw/smmuv3/config.js';
import { SmmuFixture } from '../../kit/smmu-fixture.js';

const idr = (keys: Partial<Smmuv3Config>) => {
  const all = { ...SMMUV3_DEFAULTS, ...NOTHING, index: 0, ...keys };
  const id = identification(all);
  return [id.idr0, id.idr1, 0, id.idr3, 0, id.idr5];
};

const NOTHING: Partial<Smmuv3Config> = {
  stages: 'both',
  granules: [12],
  oasBits: 32,
  httu: 'none',
  ssidBits: 0,
  stalls: 'none',
  ats: false,
  pri: false,
  hyp: false,
  sidBits: 1,
  asidBits: 8,
  vmidBits: 8,
  cmdqLog2: 1,
  evtqLog2: 1,
  priqLog2: 1,
};

test('idr: an SMMU with as little as possible', (t) => {
  const [idr0, idr1, , idr3, , idr5] = idr({});
  // S2P, S1P, TTF AArch64, COHACC, MSI, SEV, TTENDIAN little, no stalls, two-level stream table.
  const fixed = 3 | (2 << 2) | (1 << 4) | (3 << 13) | (2 << 21) | (1 << 24) | (1 << 27);
  t.is(idr0, fixed);
  t.is(idr1, 1 | (1 << 16) | (1 << 21) | (1 << 26), 'ATTR_PERMS_OVR');
  t.is(idr3, (1 << 2) | (1 << 8) | (1 << 10) | (2 << 11) | (1 << 13), 'HAD, FWB, RIL, BBML 2, E0PD');
  t.is(idr5, 1 << 4);
});

/** [keys, register, low bit, width, value]. */
const CASES: ReadonlyArray<readonly [Partial<Smmuv3Config>, number, number, number, number]> = [
  [{ stages: 's2' }, 0, 0, 2, 0b01],
  [{ stages: 's1' }, 0, 0, 2, 0b10],
  [{ stages: 's2' }, 3, 2, 1, 0],
  [{ stages: 's2' }, 3, 13, 1, 0],
  [{ httu: 'access' }, 0, 6, 2, 1],
  [{ httu: 'dirty' }, 0, 6, 2, 2],
  [{ hyp: true }, 0, 9, 1, 1],
  [{ ats: true }, 0, 10, 1, 1],
  [{ asidBits: 16 }, 0, 12, 1, 1],
  [{ ats: true, pri: true }, 0, 16, 1, 1],
  [{ vmidBits: 16 }, 0, 18, 1, 1],
  [{ ssidBits: 1 }, 0, 19, 1, 1],
  [{ stalls: 'optional' }, 0, 24, 2, 0],
  [{ stalls: 'forced' }, 0, 24, 2, 2],
  [{ sidBits: 32 }, 1, 0, 6, 32],
  [{ ssidBits: 20 }, 1, 6, 5, 20],
  [{ ats: true, pri: true, priqLog2: 9 }, 1, 11, 5, 9],
  [{ priqLog2: 9 }, 1, 11, 5, 0],
  [{ evtqLog2: 8 }, 1, 16, 5, 8],
  [{ cmdqLog2: 7 }, 1, 21, 5, 7],
  [{ oasBits: 36 }, 5, 0, 3, 1],
  [{ oasBits: 40 }, 5, 0, 3, 2],
  [{ oasBits: 42 }, 5, 0, 3, 3],
  [{ oasBits: 44 }, 5, 0, 3, 4],
  [{ oasBits: 48 }, 5, 0, 3, 5],
  [{ oasBits: 52, granules: [16] }, 5, 0, 3, 6],
  [{ granules: [12] }, 5, 4, 3, 0b001],
  [{ granules: [14] }, 5, 4, 3, 0b010],
  [{ granules: [12, 16] }, 5, 4, 3, 0b101],
  [{ oasBits: 48, granules: [16] }, 5, 10, 2, 0],
  [{ oasBits: 52, granules: [16] }, 5, 10, 2, 1],
  [{ stalls: 'none' }, 5, 16, 16, 0],
  [{ stalls: 'optional' }, 5, 16, 16, 256],
];

for (const [keys, register, low, width, value] of CASES)
  test(`idr: ${JSON.stringify(keys)} makes IDR${register}[${low + width - 1}:${low}] ${value}`, (t) => {
    t.is((idr(keys)[register]! >>> low) & (2 ** width - 1), value);
  });

test('idr: what is never modelled reads 0', (t) => {
  const everything: Partial<Smmuv3Config> = {
    granules: [12, 14, 16],
    oasBits: 52,
    httu: 'dirty',
    ssidBits: 20,
    stalls: 'optional',
    ats: true,
    pri: true,
    hyp: true,
  };
  const [idr0, idr1, , idr3, , idr5] = idr(everything);
  // TTF[0], BTM, DORMHINT, NS1ATS, ATOS, VMW, VATOS, ATSRECERR.
  for (const bit of [2, 5, 8, 11, 15, 17, 20, 23]) t.is((idr0! >>> bit) & 1, 0, `IDR0[${bit}]`);
  for (const bit of [27, 28, 29, 30, 31]) t.is((idr1! >>> bit) & 1, 0, `IDR1[${bit}]`);
  // PBHA, XNX, MPAM, STT, PTWNNC and all above.
  for (const bit of [3, 4, 7, 9, 14, 15, 16, 17, 18, 19, 20]) t.is((idr3! >>> bit) & 1, 0, `IDR3[${bit}]`);
  t.is((idr3! >>> 5) & 1, 1, 'PPS');
  // DS, D128.
  for (const bit of [7, 8, 9]) t.is((idr5! >>> bit) & 1, 0, `IDR5[${bit}]`);
});

test('idr: the register file shows them, with no vendor and SMMUv3.2', (t) => {
  const f = new SmmuFixture({ config: { sidBits: 12, cmdqLog2: 9 } });
  const id = identification(f.config);
  t.deepEqual(
    [0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x1c].map((offset) => f.mmio.read32(offset)),
    [id.idr0, id.idr1, 0, id.idr3, 0, id.idr5, 0xffe | (1 << 20), 2],
  );
  t.is(f.mmio.read32(0x04) & 0x3f, 12);
});
