/**
 * The transitions that Linux checks (arm-smmu-v3-test.c), case by case: how many syncs, hitless or breaking, and
 * at every sync an image that acts as the old one or as the new one. Bits are restated from [IHI0070] 5.2 and 5.4.
 */
import test from 'ava';
import { cdUsed } from '../../../../runtime/drivers/smmuv3/cd.js';
import { type Entry, type EntryWriter, writeEntry } from '../../../../runtime/drivers/smmuv3/entry-writer.js';
import { steUpdateSafe, steUsed } from '../../../../runtime/drivers/smmuv3/ste-writer.js';

const V = 1n;
const config = (value: bigint): bigint => value << 1n;
const SHCFG_INCOMING = 1n << 44n;
const EATS = 1n << 28n;
const MEV = 1n << 19n;
const S1STALLD = 1n << 27n;
const CD_TABLE = 0xf0f0_f0f0_f0f0n & 0xf_ffff_ffff_ffc0n;

const entry = (...words: bigint[]): Entry => [...words, ...new Array<bigint>(8 - words.length).fill(0n)];

const ABORT = entry(V);
const BYPASS = entry(V | config(4n), SHCFG_INCOMING);

const S1DSS_BYPASS = 1n;
const S1DSS_SSID0 = 2n;

interface Extra {
  readonly ats?: boolean;
  readonly stall?: boolean;
}

/** CD table, 64 KiB two-level format, S1CDMax all ones. SHCFG counts with S1DSS bypass. */
function cdTable(s1dss: bigint, table = CD_TABLE, extra: Extra = { ats: true }): Entry {
  return entry(
    V | config(5n) | (2n << 4n) | table | (0x1fn << 59n),
    s1dss |
      (1n << 2n) |
      (1n << 4n) |
      (3n << 6n) |
      (extra.stall ? 0n : S1STALLD) |
      (extra.ats ? EATS : 0n) |
      (s1dss === S1DSS_BYPASS ? SHCFG_INCOMING : 0n),
  );
}

function stage2(extra: Extra = { ats: true }): Entry {
  const vtcr = 4n | (3n << 6n) | (2n << 8n) | (1n << 10n) | (3n << 12n) | (2n << 14n) | (1n << 16n);
  return entry(
    V | config(6n),
    (extra.ats ? EATS : 0n) | SHCFG_INCOMING,
    (vtcr << 32n) | (1n << 51n) | (1n << 54n) | (extra.stall ? 1n << 57n : 0n) | (1n << 58n),
    0xdaed_beef_dead_beefn & 0xf_ffff_ffff_fff0n,
  );
}

function nested(): Entry {
  const s1 = cdTable(S1DSS_BYPASS);
  const s2 = stage2();
  return [s1[0]! | config(7n), s1[1]! | MEV, ...s2.slice(2)];
}

const CLEAR = entry(0n);

/** An S1 CD; all attributes arbitrary but equal. */
function s1Cd(asid: bigint): Entry {
  return entry(
    4n |
      (2n << 6n) |
      (2n << 8n) |
      (1n << 10n) |
      (3n << 12n) |
      (1n << 30n) |
      (1n << 31n) |
      (1n << 32n) |
      (1n << 41n) |
      (7n << 45n) |
      (asid << 48n),
    0xdaed_beef_dead_beefn & 0xf_ffff_ffff_fff0n,
    0n,
    0x0abc_def0_1234_5678n,
  );
}

/** After the process is gone: EPD0, and the fields of TTB0 zero. */
function releasedCd(asid: bigint): Entry {
  return entry(
    (1n << 14n) | (1n << 30n) | (1n << 31n) | (1n << 41n) | (7n << 45n) | (asid << 48n),
    0n,
    0n,
    0x0abc_def0_1234_5678n,
  );
}

interface Outcome {
  readonly syncs: number;
  readonly hitless: boolean;
  readonly mixed: number;
  readonly final: Entry;
}

/** Whether the hardware would see `image` act differently from `as`, in the bits that `image` uses. */
function differs(image: Entry, as: Entry, used: Entry, safe: Entry): boolean {
  return image.some((word, i) => ((word ^ as[i]!) & used[i]! & ~safe[i]!) !== 0n);
}

function run(from: Entry, to: Entry, kind: 'ste' | 'cd'): Outcome {
  const now = [...from];
  const used = kind === 'ste' ? steUsed : cdUsed;
  const safe = (a: Entry, b: Entry): Entry => (kind === 'ste' ? steUpdateSafe(a, b) : CLEAR);
  let syncs = 0;
  let hitless = true;
  let mixed = 0;
  const writer: EntryWriter = {
    load: (i) => now[i]!,
    store: (i, value) => {
      now[i] = value;
    },
    used,
    ...(kind === 'ste' ? { updateSafe: steUpdateSafe } : {}),
    barrier: () => undefined,
    sync: () => {
      syncs++;
      if (now[0] === 0n) hitless = false;
      else if (differs(now, from, used(now), safe(now, from)) && differs(now, to, used(now), safe(now, to)))
        mixed++;
      return 0;
    },
  };
  writeEntry(writer, to);
  return { syncs, hitless, mixed, final: now };
}

const CASES: readonly [string, 'ste' | 'cd', Entry, Entry, number, boolean][] = [
  ['bypass to abort', 'ste', BYPASS, ABORT, 2, true],
  ['abort to bypass', 'ste', ABORT, BYPASS, 2, true],
  ['CD table to abort', 'ste', cdTable(S1DSS_SSID0), ABORT, 2, true],
  ['abort to CD table', 'ste', ABORT, cdTable(S1DSS_SSID0), 2, true],
  ['CD table to bypass', 'ste', cdTable(S1DSS_SSID0), BYPASS, 3, true],
  ['bypass to CD table', 'ste', BYPASS, cdTable(S1DSS_SSID0), 3, true],
  ['S1DSS SSID0 to bypass', 'ste', cdTable(S1DSS_SSID0), cdTable(S1DSS_BYPASS), 1, true],
  ['S1DSS bypass to SSID0', 'ste', cdTable(S1DSS_BYPASS), cdTable(S1DSS_SSID0), 1, true],
  ['S1DSS bypass to STE bypass', 'ste', cdTable(S1DSS_BYPASS), BYPASS, 2, true],
  ['STE bypass to S1DSS bypass', 'ste', BYPASS, cdTable(S1DSS_BYPASS), 2, true],
  ['stage 2 to abort', 'ste', stage2(), ABORT, 2, true],
  ['abort to stage 2', 'ste', ABORT, stage2(), 2, true],
  ['stage 2 to bypass', 'ste', stage2(), BYPASS, 2, true],
  ['bypass to stage 2', 'ste', BYPASS, stage2(), 2, true],
  ['stage 1 to stage 2', 'ste', cdTable(S1DSS_SSID0), stage2(), 3, true],
  ['stage 2 to stage 1', 'ste', stage2(), cdTable(S1DSS_SSID0), 3, true],
  [
    'CD table pointer and S1DSS at once',
    'ste',
    cdTable(S1DSS_SSID0),
    cdTable(S1DSS_BYPASS, 0x4b_4b4b_4b40n),
    3,
    false,
  ],
  ['CD clear to stage 1', 'cd', CLEAR, s1Cd(1997n), 2, false],
  ['CD stage 1 to clear', 'cd', s1Cd(1997n), CLEAR, 2, false],
  ['CD changes ASID', 'cd', s1Cd(778n), s1Cd(1997n), 1, true],
  ['CD changes ASID back', 'cd', s1Cd(1997n), s1Cd(778n), 1, true],
  [
    'stage 1 to stage 2, stalling',
    'ste',
    cdTable(S1DSS_SSID0, CD_TABLE, { stall: true }),
    stage2({ stall: true }),
    3,
    true,
  ],
  [
    'stage 2 to stage 1, stalling',
    'ste',
    stage2({ stall: true }),
    cdTable(S1DSS_SSID0, CD_TABLE, { stall: true }),
    3,
    true,
  ],
  ['nested S1DSS bypass to stage 2 without EATS and MEV', 'ste', nested(), stage2({}), 3, true],
  ['stage 2 to nested S1DSS bypass with EATS and MEV', 'ste', stage2({}), nested(), 2, true],
  ['CD shared with a process to its release', 'cd', s1Cd(1997n), releasedCd(1997n), 2, true],
  ['CD released to shared again', 'cd', releasedCd(1997n), s1Cd(1997n), 2, true],
];

for (const [name, kind, from, to, syncs, hitless] of CASES)
  test(`${name}: ${syncs} syncs, ${hitless ? 'hitless' : 'breaking'}, no mixture at any of them`, (t) => {
    const outcome = run(from, to, kind);
    t.is(outcome.syncs, syncs);
    t.is(outcome.hitless, hitless);
    t.is(outcome.mixed, 0);
    t.deepEqual(outcome.final, [...to]);
  });

test('no change: no store and no sync', (t) => {
  t.is(run(stage2(), stage2(), 'ste').syncs, 0);
});

test('every single store of every transition leaves old, new or V = 0 behaviour', (t) => {
  for (const [name, kind, from, to] of CASES) {
    const used = kind === 'ste' ? steUsed : cdUsed;
    const safe = (a: Entry, b: Entry): Entry => (kind === 'ste' ? steUpdateSafe(a, b) : CLEAR);
    const now = [...from];
    writeEntry(
      {
        load: (i) => now[i]!,
        store: (i, value) => {
          now[i] = value;
          const image = [...now];
          if ((image[0]! & 1n) === 0n) return;
          const old = !differs(image, from, used(image), safe(image, from));
          const fresh = !differs(image, to, used(image), safe(image, to));
          t.true(old || fresh, `${name}: word ${i}`);
        },
        used,
        ...(kind === 'ste' ? { updateSafe: steUpdateSafe } : {}),
        barrier: () => undefined,
        sync: () => 0,
      },
      to,
    );
  }
});

test('a sync that times out is reported, and the target is in place', (t) => {
  const now = [...ABORT];
  const writer: EntryWriter = {
    load: (i) => now[i]!,
    store: (i, value) => {
      now[i] = value;
    },
    used: steUsed,
    updateSafe: steUpdateSafe,
    barrier: () => undefined,
    sync: () => -110,
  };
  t.is(writeEntry(writer, BYPASS), -110);
  t.deepEqual(now, [...BYPASS]);
});

test('EATS is ordered like any other field next to S1CHK or S2S', (t) => {
  const eats = 3n << 28n;
  t.is(steUpdateSafe(stage2(), stage2({}))[1]! & eats, EATS);
  const s1chk = [...stage2({})];
  s1chk[1]! |= 2n << 28n;
  t.is(steUpdateSafe(stage2(), s1chk)[1]! & eats, 0n);
  t.is(steUpdateSafe(stage2(), stage2({ stall: true }))[1]! & eats, 0n);
});
