/** The driver's small parts, each alone. Encodings restated from [IHI0070] 4.4 and 5.2. */
import test from 'ava';
import type { TlbiRange } from '../../../../hw/smmuv3/command.js';
import { stage1Cd } from '../../../../runtime/drivers/smmuv3/cd.js';
import { convert } from '../../../../runtime/drivers/smmuv3/invalidate.js';
import {
  mergeInv,
  S1_ASID,
  S2_VMID,
  S2_VMID_VSMMU,
  unrefInv,
} from '../../../../runtime/drivers/smmuv3/invs.js';
import { validateVste } from '../../../../runtime/drivers/smmuv3/nested.js';
import { eachRange, tooBig } from '../../../../runtime/drivers/smmuv3/range.js';
import {
  abortSte,
  bypassSte,
  cdTableSte,
  nestedSte,
  stage2Ste,
} from '../../../../runtime/drivers/smmuv3/ste.js';
import { TagAllocator } from '../../../../runtime/drivers/smmuv3/tags.js';

const EIO = 5;
const ENOSPC = 28;

// ---- ranges ----

function covered(first: number, pages: number, leaf: boolean, ranged = true) {
  const commands: { page: number; pages: number; ttl: number; reserved: boolean }[] = [];
  eachRange(first, pages, leaf, ranged, (page, range) => {
    const n = range === undefined ? 1 : (range.num + 1) * 2 ** range.scale;
    const reserved = range !== undefined && range.num === 0 && range.scale === 0 && range.ttl === 0;
    commands.push({ page, pages: n, ttl: range?.ttl ?? 0, reserved });
  });
  return commands;
}

test('range: the commands cover every page once, and no encoding is reserved', (t) => {
  for (const pages of [1, 2, 31, 32, 33, 511, 512, 513, 1024, 4097, 0x12345, 2 ** 30 + 1, 2 ** 31 - 1])
    for (const leaf of [true, false]) {
      const commands = covered(0x1000, pages, leaf);
      t.false(commands.some((c) => c.reserved));
      let next = 0x1000;
      for (const c of commands) {
        t.is(c.page, next);
        next += c.pages;
      }
      const over = next - 0x1000 - pages;
      t.true(over === 0 || over === 1, `${pages} pages: ${over} too many`);
      t.true(commands.length <= 7);
    }
});

test('range: a level hint only where no block can have been', (t) => {
  t.is(covered(0, 511, true)[0]!.ttl, 3);
  t.is(covered(0, 512, true)[0]!.ttl, 0);
  t.is(covered(0, 1, false)[0]!.ttl, 0);
});

test('range: without range invalidation one command a page, all of the tag from 512 on', (t) => {
  t.is(covered(5, 7, true, false).length, 7);
  t.false(tooBig(511, false));
  t.true(tooBig(512, false));
  t.false(tooBig(512, true));
  t.true(tooBig(2 ** 31, true));
});

test('range: larger granules are counted and named, addresses stay in 4 KiB', (t) => {
  for (const [granuleLg2, tg, entries] of [
    [14, 2, 2048],
    [16, 3, 8192],
  ] as const) {
    const g = 2 ** (granuleLg2 - 12);
    for (const granules of [1, 33, entries - 1, entries, 3 * entries + 5]) {
      let next = 0x10_0000;
      const emit = (page: number, range: TlbiRange | undefined): void => {
        t.is(page, next);
        t.is(range!.tg, tg);
        t.is(range!.ttl, granules < entries ? 3 : 0);
        next += (range!.num + 1) * 2 ** range!.scale * g;
      };
      eachRange(0x10_0000, granules * g, true, true, emit, granuleLg2);
      const over = (next - 0x10_0000) / g - granules;
      t.true(over === 0 || (over === 1 && granules >= entries));
    }
    const pages: number[] = [];
    eachRange(0, 3 * g, true, false, (page) => pages.push(page), granuleLg2);
    t.deepEqual(pages, [0, g, 2 * g]);
    t.false(tooBig((entries - 1) * g, false, granuleLg2));
    t.true(tooBig(entries * g, false, granuleLg2));
  }
});

// ---- invalidation arrays ----

const smmu = (index: number) => ({ index });
const A = smmu(0);
const B = smmu(1);

test('invs: sorted by SMMU, type and ID, users counted', (t) => {
  let invs = mergeInv([], { smmu: B, type: S2_VMID, id: 1 });
  invs = mergeInv(invs, { smmu: A, type: S2_VMID_VSMMU, id: 9 });
  invs = mergeInv(invs, { smmu: A, type: S1_ASID, id: 3 });
  invs = mergeInv(invs, { smmu: A, type: S2_VMID_VSMMU, id: 2 });
  invs = mergeInv(invs, { smmu: A, type: S2_VMID_VSMMU, id: 9 });
  t.deepEqual(
    invs.map((inv) => [inv.smmu.index, inv.type, inv.id, inv.users]),
    [
      [0, S1_ASID, 3, 1],
      [0, S2_VMID_VSMMU, 2, 1],
      [0, S2_VMID_VSMMU, 9, 2],
      [1, S2_VMID, 1, 1],
    ],
  );
});

test('invs: the last user takes the entry away, arrays in hand stay as they are', (t) => {
  const key = { smmu: A, type: S2_VMID, id: 1 } as const;
  const two = mergeInv(mergeInv([], key), key);
  const one = unrefInv(two, key);
  t.false(one.last);
  const none = unrefInv(one.invs, key);
  t.true(none.last);
  t.deepEqual(none.invs, []);
  t.is(two[0]!.users, 2);
  t.throws(() => unrefInv(none.invs, key), { message: /no invalidation entry/ });
});

// ---- tags ----

test('tags: 1 to 2^bits - 1, then -ENOSPC; a freed one is reused; the hook hears of each', (t) => {
  const heard: string[] = [];
  const tags = new TagAllocator(4, 'vmid', 8, (iommu, kind, id) => heard.push(`${iommu} ${kind} ${id}`));
  for (let id = 1; id < 256; id++) t.is(tags.allocate(), id);
  t.is(tags.allocate(), -ENOSPC);
  tags.free(7);
  t.is(tags.allocate(), 7);
  t.is(heard.length, 256);
  t.is(heard.at(-1), '4 vmid 7');
  t.throws(() => {
    tags.free(7);
    tags.free(7);
  });
});

// ---- virtual STEs ----

const ALLOWED0 = 1n | (7n << 1n) | (3n << 4n) | 0x000f_ffff_ffff_ffc0n | (0x1fn << 59n);
const ALLOWED1 = 0xffn | (1n << 27n) | (3n << 28n);
const S1 = 1n | (5n << 1n);

test('vSTE: V = 0 becomes all zero, whatever the rest says', (t) => {
  t.deepEqual(validateVste(~1n & 0xffff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn), {
    words: [0n, 0n],
    ats: false,
  });
});

test('vSTE: each bit is refused unless it is allowed', (t) => {
  for (let bit = 0n; bit < 64n; bit++) {
    const mask = 1n << bit;
    if (bit !== 0n && !(bit >= 1n && bit <= 3n))
      t.is(
        typeof validateVste(S1 | mask, 0n),
        (ALLOWED0 & mask) !== 0n ? 'object' : 'number',
        `word 0 bit ${bit}`,
      );
    // EATS = 2 is the one allowed bit with a value that is not.
    if (bit !== 29n)
      t.is(
        typeof validateVste(S1, mask),
        (ALLOWED1 & mask) !== 0n ? 'object' : 'number',
        `word 1 bit ${bit}`,
      );
  }
});

test('vSTE: Config is abort, bypass or stage 1; EATS is 0 or 1', (t) => {
  for (let config = 0n; config < 8n; config++)
    t.is(typeof validateVste(1n | (config << 1n), 0n), [0n, 4n, 5n].includes(config) ? 'object' : 'number');
  t.deepEqual(validateVste(S1, 1n << 28n), { words: [S1, 0n], ats: true });
  t.is(validateVste(S1, 2n << 28n), -EIO);
  t.is(validateVste(S1, 3n << 28n), -EIO);
});

// ---- images ----

const S2 = { vmid: 0x1234, root: 0x8000_0000, inputBits: 48, startLevel: 0, ps: 5, fwb: false };
const PLAIN = { attrTypesOvr: false };

test('STE images: the words of the specification', (t) => {
  t.deepEqual(abortSte().slice(0, 4), [1n, 0n, 0n, 0n]);
  t.deepEqual(bypassSte({ attrTypesOvr: true }).slice(0, 2), [9n, 1n << 44n]);
  const s1 = cdTableSte({ base: 0x8000_1000, s1Fmt: 0, s1CdMax: 0 }, { stalls: false, e2h: false });
  t.is(s1[0], 1n | (5n << 1n) | 0x8000_1000n);
  t.is(s1[1], 2n | (1n << 2n) | (1n << 4n) | (3n << 6n));
  const s2 = stage2Ste(S2, PLAIN);
  t.is(s2[0], 1n | (6n << 1n));
  t.is(s2[2]! & 0xffffn, 0x1234n);
  // T0SZ 16, SL0 2 (level 0), IR0, OR0 1, SH0 3, TG 4 KiB, PS 48 bits; AA64, PTW, R.
  t.is(
    s2[2]! >> 32n,
    16n |
      (2n << 6n) |
      (1n << 8n) |
      (1n << 10n) |
      (3n << 12n) |
      (5n << 16n) |
      (1n << 19n) |
      (1n << 22n) |
      (1n << 26n),
  );
  t.is(s2[3], 0x8000_0000n);
});

test('nested STE: the guest’s stage 1 over the host’s stage 2, MEV set', (t) => {
  const ste = nestedSte(S2, PLAIN, [S1 | 0x5000n, 1n << 27n]);
  t.is(ste[0], 1n | (7n << 1n) | 0x5000n);
  t.is(ste[1], (1n << 27n) | (1n << 19n));
  t.deepEqual(ste.slice(2), stage2Ste(S2, PLAIN).slice(2));
});

test('stage-1 CD: the words of the specification', (t) => {
  const cd = stage1Cd({ asid: 0xbeef, root: 0x8000_2000, inputBits: 48, ips: 5 });
  t.is(
    cd[0],
    16n |
      (1n << 8n) |
      (1n << 10n) |
      (3n << 12n) |
      (1n << 30n) |
      (1n << 31n) |
      (5n << 32n) |
      (1n << 41n) |
      (7n << 45n) |
      (0xbeefn << 48n),
  );
  t.is(cd[1], 0x8000_2000n);
});

test('images: granule and start level are encoded as STE.S2TG, STE.S2SL0 and CD.TG0 have them', (t) => {
  // [granule, start level, S2TG, S2SL0]
  for (const [granuleLg2, startLevel, tg, sl0] of [
    [12, 0, 0n, 2n],
    [12, 1, 0n, 1n],
    [12, 2, 0n, 0n],
    [12, 3, 0n, 3n],
    [14, 1, 2n, 2n],
    [14, 2, 2n, 1n],
    [16, 1, 1n, 2n],
    [16, 3, 1n, 0n],
  ] as const) {
    const word = stage2Ste({ ...S2, granuleLg2, startLevel }, PLAIN)[2]!;
    t.is((word >> 46n) & 3n, tg);
    t.is((word >> 38n) & 3n, sl0);
  }
  const tg0 = ([12, 14, 16] as const).map(
    (granuleLg2) => (stage1Cd({ asid: 1, root: 0, inputBits: 48, granuleLg2, ips: 5 })[0]! >> 6n) & 3n,
  );
  t.deepEqual(tg0, [0n, 2n, 1n]);
});

// ---- guest commands ----

const VMID = 0x77;
const table = { find: (vsid: number) => (vsid === 0x4000_0001 ? 0x9000_0002 : -1) };

/** @returns the four words after conversion, or the errno */
function converted(word0: number, word1: number, word2 = 0, word3 = 0): number[] | number {
  const cmds = Uint32Array.of(word0, word1, word2, word3);
  const status = convert(cmds, 0, VMID, table);
  return status === 0 ? [...cmds] : status;
}

test('guest command: TLBI_NSNH_ALL becomes TLBI_NH_ALL of the VMID and nothing else', (t) => {
  t.deepEqual(converted(0xffff_ff30, 0xdead_beef, 1, 2), [0x10, VMID, 0, 0]);
});

for (const [name, opcode] of [
  ['NH_ALL', 0x10],
  ['NH_ASID', 0x11],
  ['NH_VA', 0x12],
  ['NH_VAA', 0x13],
] as const)
  test(`guest command: TLBI_${name} keeps all but its VMID`, (t) => {
    t.deepEqual(converted(0x0010_2000 | opcode, 0xabcd_ffff, 0x1234_5401, 0x77), [
      0x0010_2000 | opcode,
      0xabcd_0077,
      0x1234_5401,
      0x77,
    ]);
  });

for (const [name, opcode] of [
  ['CFGI_CD', 0x05],
  ['CFGI_CD_ALL', 0x06],
  ['ATC_INV', 0x40],
] as const)
  test(`guest command: ${name} gets the pSID; an unknown vSID is -EIO`, (t) => {
    t.deepEqual(converted(opcode, 0x4000_0001, 5, 6), [opcode, 0x9000_0002, 5, 6]);
    t.is(converted(opcode, 0x4000_0002), -EIO);
  });

test('guest command: every other opcode is -EIO', (t) => {
  const allowed = new Set([0x30, 0x10, 0x11, 0x12, 0x13, 0x05, 0x06, 0x40]);
  for (let opcode = 0; opcode < 256; opcode++)
    if (!allowed.has(opcode)) t.is(converted(opcode, 0x4000_0001), -EIO, `opcode 0x${opcode.toString(16)}`);
});
