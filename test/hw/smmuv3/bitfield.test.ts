import test from 'ava';
import {
  address,
  bit,
  bits,
  getQuad,
  quad,
  reg32,
  reg64,
  setQuad,
  struct,
} from '../../../hw/smmuv3/bitfield.js';
import * as C from '../../../hw/smmuv3/command.js';
import { decodeEvent, type EventRecord, encodeEvent } from '../../../hw/smmuv3/event.js';
import { queueAdvance, queueEmpty, queueFull, queueSpace, queueUsed } from '../../../hw/smmuv3/queue.js';
import * as S from '../../kit/smmu-structures.js';

test('declarations: overlaps, stray bits and fields that cross a 64-bit word throw', (t) => {
  t.throws(() => reg32('R', 0, { A: bits(3, 0), B: bit(3) }), { message: /B overlaps A at bit 3/ });
  t.throws(() => reg32('R', 0, { A: bit(32) }), { message: /leave the word/ });
  t.throws(() => reg64('R', 0, { A: bits(3, 4) }), { message: /leave the word/ });
  t.throws(() => struct('S', 16, { A: bits(70, 60) }), { message: /crosses a 64-bit word/ });
  t.throws(() => struct('S', 8, { A: bits(60, 0) }), { message: /too wide/ });
  t.throws(() => struct('S', 8, { name: bit(0) }), { message: /taken/ });
});

test('registers: get and put, and a value too wide throws', (t) => {
  const R = reg32('R', 0, { A: bits(31, 31), B: bits(30, 4), C: bits(3, 0) });
  let word = 0xffff_ffff;
  word = R.B.put(word, 5);
  t.is(word, 0x8000_005f);
  t.is(R.A.get(word), 1);
  t.is(R.B.get(word), 5);
  t.is(R.A.mask, 0x8000_0000);
  t.throws(() => R.C.put(0, 16));
  const L = reg64('L', 0, { ADDR: address(51, 6), N: bits(4, 0), TOP: bit(63) });
  t.is(L.ADDR.put(0n, 0x8_0000_0000_0040n), 0x8_0000_0000_0040n);
  t.is(L.TOP.put(0n, 1n), 1n << 63n);
  t.throws(() => L.ADDR.put(0n, 0x20n));
});

test('structures: every kind of field writes its bits and no others', (t) => {
  const T = struct('T', 32, {
    A: bits(63, 12),
    B: bits(223, 192),
    C: address(115, 66),
    D: quad(191, 128),
    E: bits(127, 124),
  });
  for (const background of [0, 0xffff_ffff]) {
    const words = new Uint32Array(10).fill(background);
    const bg = BigInt(background) | (BigInt(background) << 32n);
    T.A.put(words, 0x9_8765_4321_0abc, 1);
    T.B.put(words, 0x8000_0001, 1);
    T.C.put(words, 0x7_1234_5678_9abc, 1);
    T.D.put(words, 0xfedc_ba98_7654_3210n, 1);
    T.E.put(words, 9, 1);
    t.is(getQuad(words, 1), (0x9_8765_4321_0abcn << 12n) | (bg & 0xfffn));
    t.is(T.A.get(words, 1), 0x9_8765_4321_0abc);
    t.is(T.B.get(words, 1), 0x8000_0001);
    t.is(T.C.get(words, 1), 0x7_1234_5678_9abc);
    t.is(T.D.get(words, 1), 0xfedc_ba98_7654_3210n);
    t.is(T.E.get(words, 1), 9);
    t.is(words[0], background);
    t.is(words[8], background);
    t.is(words[9], background);
  }
  t.throws(() => T.C.put(new Uint32Array(6), 2));
  t.throws(() => T.A.put(new Uint32Array(6), 2 ** 52));
});

test('commands: encoders agree with words built by hand', (t) => {
  const words = new Uint32Array(8);
  const is = (expected: S.Command): void => {
    t.is(getQuad(words, 4), expected[0]);
    t.is(getQuad(words, 6), expected[1]);
  };
  C.encodeCfgiSte(words, 4, 0xabcd_1234, true);
  is(S.cfgiSte(0xabcd_1234));
  C.encodeCfgiSteRange(words, 4, 0x40, 5);
  is(S.cfgiRange(0x40, 5));
  C.encodeCfgiAll(words, 4);
  is(S.CFGI_ALL);
  C.encodeCfgiCd(words, 4, 7, 0xfffff, true);
  is(S.cfgiCd(7, 0xfffff));
  C.encodeCfgiCdAll(words, 4, 7);
  is(S.cfgiCdAll(7));
  C.encodeTlbi(words, 4, 0x11, 0xfffe, 0xabcd);
  is(S.tlbi(0x11, 0xfffe, 0xabcd));
  C.encodeTlbiAddress(words, 4, 0x12, 1, 2, 0xf_ffff_ffff_ffff, true);
  is(S.tlbiVa(0x12, 1, 2, 0xffff_ffff_ffff_f000n));
  C.encodeTlbiAddress(words, 4, 0x2a, 1, 0, 0x12345, true, { num: 31, scale: 20, tg: 1, ttl: 3 });
  is(S.tlbiRange(0x2a, 1, 0, 0x1234_5000n, 31, 20, 1, 3));
  C.encodeSync(words, 4, 1, 0xf_ffff_ffff_fffc, 0xffff_ffff);
  is(S.sync(1, 0xf_ffff_ffff_fffc, 0xffff_ffff));
  t.deepEqual([...words.subarray(0, 4)], [0, 0, 0, 0]);
});

test('events: what is encoded decodes to the same, and fields an event lacks stay zero', (t) => {
  const full: EventRecord = {
    id: 0x13,
    sid: 0xffff_fffe,
    ssv: true,
    ssid: 0xabcde,
    stag: 0xbeef,
    stall: true,
    pnu: true,
    ind: true,
    rnw: true,
    nsipa: true,
    s2: true,
    class: 2,
    ttrnw: true,
    inputAddr: 0xffff_0000_1234_5678n,
    ipa: 0xf_ffff_ffff_f000,
    reason: 0x1234,
    fetchAddr: 0xf_ffff_ffff_fff8,
    permissions: 9,
    span: 0xa5,
  };
  const none = { permissions: 0, span: 0 };
  const words = new Uint32Array(16);
  encodeEvent(words, 8, full);
  t.deepEqual(decodeEvent(words, 8), { ...full, ...none, reason: 0, fetchAddr: 0 });
  encodeEvent(words, 8, { ...full, id: 0x0b });
  t.deepEqual(decodeEvent(words, 8), {
    ...full,
    ...none,
    id: 0x0b,
    stag: 0,
    stall: false,
    nsipa: false,
    ttrnw: false,
    ipa: 0,
  });
  encodeEvent(words, 8, { ...full, id: 0x04 });
  t.is(getQuad(words, 8), 0x04n | (1n << 11n) | (0xabcden << 12n) | (0xffff_fffen << 32n));
  t.is(getQuad(words, 10) | getQuad(words, 12) | getQuad(words, 14), 0n);
});

/** The high half of the first word, and the other three, of a record with every field set. */
const RECORDS = [
  ['F_UUT', 0x01, true, [0xe_0000_1234n, 0xffff_0000_1234_5678n, 0n]],
  ['C_BAD_STREAMID', 0x02, true, [0n, 0n, 0n]],
  ['F_STE_FETCH', 0x03, true, [0x1234n, 0n, 0xf_ffff_ffff_fff8n]],
  ['F_BAD_ATS_TREQ', 0x05, true, [(9n << 33n) | (0xa5n << 44n), 0xffff_0000_1234_5000n, 0n]],
  ['F_STREAM_DISABLED', 0x06, false, [0n, 0n, 0n]],
  ['F_TRANSL_FORBIDDEN', 0x07, true, [0xe_0000_0000n, 0xffff_0000_1234_5678n, 0n]],
  ['C_BAD_SUBSTREAMID', 0x08, 'no SSV', [0n, 0n, 0n]],
  ['F_CD_FETCH', 0x09, true, [0x1234n, 0n, 0xf_ffff_ffff_fff8n]],
  ['C_BAD_CD', 0x0a, true, [0n, 0n, 0n]],
  ['F_WALK_EABT', 0x0b, true, [0x28e_0000_1234n, 0xffff_0000_1234_5678n, 0xf_ffff_ffff_fff8n]],
  [
    'F_TRANSLATION',
    0x10,
    true,
    [0x28e_8000_beefn | (1n << 44n) | (1n << 36n), 0xffff_0000_1234_5678n, 0xf_ffff_ffff_f000n],
  ],
  [
    'F_TLB_CONFLICT',
    0x20,
    true,
    [0x8e_0000_1234n | (1n << 36n), 0xffff_0000_1234_5678n, 0xf_ffff_ffff_f000n],
  ],
  ['F_CFG_CONFLICT', 0x21, true, [0x1234n, 0n, 0n]],
  ['E_PAGE_REQUEST', 0x24, true, [(9n << 34n) | (0xa5n << 44n), 0xffff_0000_1234_5000n, 0n]],
  ['F_VMS_FETCH', 0x25, true, [0x1234n, 0n, 0xf_ffff_ffff_fff8n]],
] as const;
for (const [name, id, substream, rest] of RECORDS)
  test(`events: ${name} has its own fields and no others`, (t) => {
    const words = new Uint32Array(8);
    const record = {
      id,
      sid: 0x1_0002,
      ssv: true,
      ssid: 0xabcde,
      stag: 0xbeef,
      stall: true,
      pnu: true,
      ind: true,
      rnw: true,
      nsipa: true,
      s2: true,
      class: 2,
      ttrnw: true,
      inputAddr: 0xffff_0000_1234_5678n,
      ipa: 0xf_ffff_ffff_f000,
      reason: 0x1234,
      fetchAddr: 0xf_ffff_ffff_fff8,
      permissions: 9,
      span: 0xa5,
    };
    encodeEvent(words, 0, record);
    const ssid = substream === false ? 0n : (0xabcden << 12n) | (substream === true ? 1n << 11n : 0n);
    t.deepEqual(
      [0, 2, 4, 6].map((i) => getQuad(words, i)),
      [BigInt(id) | ssid | (0x1_0002n << 32n), ...rest],
    );
    const decoded = decodeEvent(words);
    encodeEvent(words, 0, decoded);
    t.deepEqual(decodeEvent(words), decoded);
  });

test('queues: empty, full, used and wrap for every position', (t) => {
  for (const log2 of [0, 1, 3]) {
    const size = 2 ** log2;
    for (let cons = 0; cons < 2 * size; cons++)
      for (let used = 0; used <= size; used++) {
        const prod = queueAdvance(cons, log2, used);
        t.is(queueEmpty(prod, cons, log2), used === 0);
        t.is(queueFull(prod, cons, log2), used === size);
        t.is(queueUsed(prod, cons, log2), used);
        t.is(queueSpace(prod, cons, log2), size - used);
      }
  }
  t.is(queueAdvance(0x8000_0007, 2), 0x8000_0000, 'the overflow flag stays');
});

test('quads: both halves, unsigned', (t) => {
  const words = new Uint32Array(2);
  setQuad(words, 0, 0xffff_ffff_8000_0001n);
  t.deepEqual([...words], [0x8000_0001, 0xffff_ffff]);
  t.is(getQuad(words, 0), 0xffff_ffff_8000_0001n);
});
