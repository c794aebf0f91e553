/**
 * Who may do what, and what hardware writes: privileges, instructions, regimes, HTTU, Translation Requests.
 * [DDI0487] D8.4, D8.5; [IHI0070] 3.9, 3.13, 5.2, 5.4.
 */
import test from 'ava';
import { type ContextFields, KernelBench, RAM_PA, type XlatResult } from '../../kit/kernel-bench.js';

const [S1, S2, NESTED, EL2] = [2, 3, 4, 5];
const [F_TRANSLATION, F_ACCESS, F_PERMISSION] = [0x10, 0x12, 0x13];
const [READ, WRITE, FETCH, PRIV, TRANSLATED, ATS] = [0, 1, 2, 4, 8, 16];
const [S1_HA, S1_HD, S2_HA, S2_HD] = [1 << 6, 1 << 7, 1 << 8, 1 << 9];
const [S1CHK, WXN, UWXN, PAN, HAD, E0PD, E2H, PTW] = [13, 14, 15, 16, 17, 18, 19, 20].map((n) => 1 << n) as [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
];
const PRIVCFG = (n: number): number => n << 24;
const INSTCFG = (n: number): number => n << 26;
const AF_FAULTS = 3;
const [STAGE2, TTD, IN, TABLE_WRITE] = [1, 2, 4, 8];
const AF = 1n << 10n;
const NG = 1n << 11n;
const DBM = 1n << 51n;
const PXN = 1n << 53n;
const XN = 1n << 54n;
const NORMAL = 0xfn << 2n;
const AP = (n: bigint): bigint => n << 6n;
const PAGE = 3n;
const IOVA = 0x40_1238n;
const LEAF = RAM_PA + 0x2000n + 8n;
const S2_LEAF = RAM_PA + 0x5000n + 0x100n * 8n;
const S2_TABLES = RAM_PA + 0x5000n;
const PA = 0x8010_0000n;

/**
 * Stage 1, three levels (39 bits): tables at RAM+0, +0x1000, +0x2000; the page is PA. Stage 2 alike at RAM+0x3000:
 * the first 2 MiB of RAM by pages to themselves, writable.
 */
function setUp(leaf: bigint, fields: Partial<ContextFields> & { kind?: number } = {}, upper = 0n) {
  const bench = new KernelBench();
  bench.setRam(RAM_PA, (RAM_PA + 0x1000n) | 3n | upper);
  bench.setRam(RAM_PA + 0x1000n + 2n * 8n, (RAM_PA + 0x2000n) | 3n);
  bench.setRam(LEAF, PA | leaf);
  bench.setRam(RAM_PA + 0x3000n + 2n * 8n, (RAM_PA + 0x4000n) | 3n);
  bench.setRam(RAM_PA + 0x4000n, S2_TABLES | 3n);
  for (let i = 0n; i < 512n; i++)
    bench.setRam(S2_TABLES + i * 8n, (RAM_PA + i * 4096n) | PAGE | AF | AP(3n) | NORMAL);
  const all = {
    kind: S1,
    tag: 1,
    s1Root: RAM_PA,
    s1InputBits: 39,
    s1StartLevel: 1,
    s2Root: RAM_PA + 0x3000n,
    s2InputBits: 39,
    s2StartLevel: 1,
    flags: AF_FAULTS,
    ...fields,
  };
  const context = bench.context(1, all);
  const ask = (flags: number, iova = all.kind === S2 ? PA + 0x238n : IOVA): XlatResult => {
    bench.ask(bench.scratch, iova, flags);
    bench.kernel.translate(bench.unit, context, bench.iotlb, bench.scratch);
    return bench.result(bench.scratch);
  };
  const may = (flags: number): boolean => {
    const got = ask(flags);
    return got.status === 0;
  };
  /** What unprivileged and privileged code may do, as in `rwx rwx`. */
  const rights = (): string =>
    [0, PRIV]
      .map((p) => (may(READ | p) ? 'r' : '-') + (may(WRITE | p) ? 'w' : '-') + (may(FETCH | p) ? 'x' : '-'))
      .join(' ');
  return { bench, context, all, ask, rights };
}

test('permissions: AP, UXN and PXN of the EL1&0 regime, and of EL2-E2H', (t) => {
  const cases: [bigint, string, string][] = [
    // What unprivileged code may write, privileged code may not run.
    [AP(0n), '--x rwx', 'AP 00'],
    [AP(1n), 'rwx rw-', 'AP 01'],
    [AP(2n), '--x r-x', 'AP 10'],
    [AP(3n), 'r-x r-x', 'AP 11'],
    [AP(3n) | XN, 'r-- r-x', 'UXN'],
    [AP(3n) | PXN, 'r-x r--', 'PXN'],
    [AP(1n) | XN | PXN, 'rw- rw-', 'both'],
  ];
  for (const [leaf, want, what] of cases)
    for (const regime of [
      {},
      { flags: AF_FAULTS | UWXN },
      { kind: EL2, flags: AF_FAULTS | E2H, tag: 0x3_0000 },
    ])
      t.is(setUp(leaf | PAGE | AF | NG, regime).rights(), want, what);
});

test('permissions: EL2 has one privilege: AP[1], PXN and APTable[0] mean nothing', (t) => {
  const rights = (leaf: bigint, upper = 0n): string =>
    setUp(leaf | PAGE | AF, { kind: EL2, tag: 0 }, upper).rights();
  t.is(rights(AP(0n)), 'rwx rwx');
  t.is(rights(AP(2n) | PXN), 'r-x r-x');
  t.is(rights(AP(1n) | XN), 'rw- rw-');
  t.is(rights(AP(1n), 1n << 61n), 'rwx rwx');
  t.is(rights(AP(1n), 1n << 62n), 'r-x r-x');
  t.is(rights(AP(1n), 1n << 60n), 'rw- rw-');
});

test('permissions: tables take away from everything below, but with HAD', (t) => {
  const cases: [bigint, string][] = [
    [1n << 59n, 'rwx rw-'],
    [1n << 60n, 'rw- rw-'],
    [1n << 61n, '--x rwx'],
    [1n << 62n, 'r-x r-x'],
  ];
  for (const [upper, want] of cases) {
    t.is(setUp(AP(1n) | PAGE | AF, {}, upper).rights(), want);
    t.is(setUp(AP(1n) | PAGE | AF, { flags: AF_FAULTS | HAD }, upper).rights(), 'rwx rw-');
  }
});

test('permissions: WXN, PAN and E0PD', (t) => {
  t.is(setUp(AP(1n) | PAGE | AF, { flags: AF_FAULTS | WXN }).rights(), 'rw- rw-');
  t.is(setUp(AP(0n) | PAGE | AF, { flags: AF_FAULTS | WXN }).rights(), '--x rw-');
  t.is(setUp(AP(3n) | PAGE | AF, { flags: AF_FAULTS | PAN }).rights(), 'r-x --x');
  t.is(setUp(AP(0n) | PAGE | AF, { flags: AF_FAULTS | PAN }).rights(), '--x rwx');
  const e0pd = setUp(AP(3n) | PAGE | AF, { flags: AF_FAULTS | E0PD });
  t.is(e0pd.rights(), '--- r-x');
  t.like(e0pd.ask(READ), { status: F_TRANSLATION, level: 0, fault: IN });
});

test('permissions: stage 2: S2AP and XN; what cannot be read is not run', (t) => {
  const rights = (s2: bigint): string => {
    const it = setUp(AP(1n) | PAGE | AF, { kind: NESTED });
    it.bench.setRam(S2_LEAF, PA | PAGE | AF | NORMAL | s2);
    return it.rights();
  };
  t.is(rights(AP(3n)), 'rwx rw-');
  t.is(rights(AP(1n)), 'r-x r--');
  t.is(rights(AP(2n)), '-w- -w-');
  t.is(rights(AP(3n) | XN), 'rw- rw-');
  // XNX is not reported: bit 53 alone says nothing.
  t.is(rights(AP(3n) | (1n << 53n)), 'rwx rw-');
  const alone = setUp(0n, { kind: S2 });
  alone.bench.setRam(S2_LEAF, PA | PAGE | AF | AP(1n) | XN);
  t.like(alone.ask(FETCH), { status: F_PERMISSION, fault: IN | STAGE2 });
  t.is(alone.ask(READ).status, 0);
});

test('permissions: PRIVCFG and INSTCFG override what a transaction says; a write is data', (t) => {
  const rights = (leaf: bigint, cfg: number): string =>
    setUp(leaf | PAGE | AF, { flags: AF_FAULTS | cfg }).rights();
  t.is(rights(AP(0n), PRIVCFG(2)), '--x --x');
  t.is(rights(AP(0n), PRIVCFG(3)), 'rwx rwx');
  t.is(rights(AP(0n), PRIVCFG(1)), '--x rwx');
  t.is(rights(AP(3n) | XN | PXN, INSTCFG(2)), 'r-x r-x');
  t.is(rights(AP(1n) | XN, INSTCFG(3)), '-w- -w-');
});

test('permissions: what is privileged or an instruction is never cached; an entry serves plain data alone', (t) => {
  const it = setUp(AP(0n) | PAGE | AF);
  t.is(it.ask(READ | PRIV).status, 0);
  t.is(it.ask(FETCH).status, 0);
  t.is(it.bench.kernel.iotlbCountVmid(it.bench.iotlb, 1), 0);
  const user = setUp(AP(1n) | PAGE | AF);
  t.is(user.ask(READ).status, 0);
  t.like(user.ask(FETCH | PRIV), { status: F_PERMISSION, source: 3 });
  t.like(user.ask(READ | PRIV), { status: 0, source: 3 });
  const overridden = setUp(AP(1n) | PAGE | AF, { flags: AF_FAULTS | PRIVCFG(3) });
  t.is(overridden.ask(READ).status, 0);
  t.is(overridden.bench.kernel.iotlbCountVmid(overridden.bench.iotlb, 1), 0);
});

test('faults: translation before address size, before access flag, before permission', (t) => {
  const far = 1n << 40n;
  const narrow = { s1OutputBits: 40 };
  const status = (leaf: bigint): number => {
    const it = setUp(0n, narrow);
    it.bench.setRam(LEAF, leaf);
    return it.ask(WRITE).status;
  };
  t.is(status(far | 0n), F_TRANSLATION);
  t.is(status(far | PAGE), 0x11);
  t.is(status(PA | PAGE), F_ACCESS);
  t.is(status(PA | PAGE | AF), F_PERMISSION);
  t.is(status(PA | PAGE | AF | AP(1n)), 0);
});

test('HTTU: the access flag is set in both stages when the access is allowed, and not when it is refused', (t) => {
  const flags = AF_FAULTS | S1_HA | S2_HA;
  const it = setUp(AP(3n) | PAGE, { kind: NESTED, flags });
  it.bench.setRam(S2_LEAF, PA | PAGE | AP(3n) | NORMAL);
  t.like(it.ask(WRITE), { status: F_PERMISSION, fault: IN });
  t.is(it.bench.ram(LEAF), PA | AP(3n) | PAGE);
  t.is(it.ask(READ).status, 0);
  t.is(it.bench.ram(LEAF), PA | AP(3n) | PAGE | AF);
  t.is(it.bench.ram(S2_LEAF), PA | PAGE | AP(3n) | NORMAL | AF);
  // Without HA it is a fault; with AFFD, nothing.
  const off = setUp(AP(3n) | PAGE);
  t.is(off.ask(READ).status, F_ACCESS);
  const affd = setUp(AP(3n) | PAGE, { flags: 0 });
  t.is(affd.ask(READ).status, 0);
  t.is(affd.bench.ram(LEAF), PA | AP(3n) | PAGE);
});

test('HTTU: a write makes a clean page dirty, and until then it is cached for reading alone', (t) => {
  for (const flags of [S1_HA | S1_HD, S1_HD, S1_HA, 0]) {
    const clean = PA | AP(3n) | PAGE | AF | DBM;
    const it = setUp(AP(3n) | PAGE | AF | DBM, { flags: AF_FAULTS | flags });
    const works = flags === (S1_HA | S1_HD);
    t.is(it.ask(READ).status, 0);
    t.like(it.ask(READ), { status: 0, source: 2 });
    t.is(it.bench.ram(LEAF), clean);
    t.is(it.ask(WRITE).status, works ? 0 : F_PERMISSION);
    t.is(it.bench.ram(LEAF), works ? clean & ~(1n << 7n) : clean);
    if (works) t.like(it.ask(WRITE), { status: 0, source: 2 });
  }
  const s2 = setUp(0n, { kind: S2, flags: AF_FAULTS | S2_HA | S2_HD });
  s2.bench.setRam(S2_LEAF, PA | PAGE | AF | AP(1n) | DBM | NORMAL);
  t.is(s2.ask(READ).status, 0);
  t.is(s2.bench.ram(S2_LEAF), PA | PAGE | AF | AP(1n) | DBM | NORMAL);
  t.is(s2.ask(WRITE).status, 0);
  t.is(s2.bench.ram(S2_LEAF), PA | PAGE | AF | AP(3n) | DBM | NORMAL);
});

test('HTTU: a table that is read-only above stays clean below', (t) => {
  const it = setUp(AP(3n) | PAGE | AF | DBM, { flags: AF_FAULTS | S1_HA | S1_HD }, 1n << 62n);
  t.is(it.ask(WRITE).status, F_PERMISSION);
  t.is(it.bench.ram(LEAF), PA | AP(3n) | PAGE | AF | DBM);
});

test("HTTU: updating a stage-1 descriptor needs stage 2's write permission on its table, and dirties that page", (t) => {
  const tablePage = RAM_PA + 0x2000n;
  const s2OfTable = S2_TABLES + 2n * 8n;
  const clean = AP(3n) | PAGE | DBM;
  const refused = setUp(clean, { kind: NESTED, flags: AF_FAULTS | S1_HA | S1_HD });
  refused.bench.setRam(s2OfTable, tablePage | PAGE | AF | AP(1n) | NORMAL);
  t.like(refused.ask(READ), { status: F_PERMISSION, fault: TTD | STAGE2 | TABLE_WRITE, ipa: LEAF, level: 3 });
  t.is(refused.bench.ram(LEAF), PA | clean);
  const dirtied = setUp(clean, { kind: NESTED, flags: AF_FAULTS | S1_HA | S1_HD | S2_HA | S2_HD });
  dirtied.bench.setRam(s2OfTable, tablePage | PAGE | AP(1n) | DBM | NORMAL);
  t.is(dirtied.ask(READ).status, 0);
  t.is(dirtied.bench.ram(LEAF), PA | clean | AF);
  t.is(dirtied.bench.ram(s2OfTable), tablePage | PAGE | AF | AP(3n) | DBM | NORMAL);
  // Nothing to update: the table may be read-only.
  const settled = setUp(clean | AF, { kind: NESTED, flags: AF_FAULTS | S1_HA | S1_HD });
  settled.bench.setRam(s2OfTable, tablePage | PAGE | AF | AP(1n) | NORMAL);
  t.is(settled.ask(READ).status, 0);
  t.like(settled.ask(WRITE), { status: F_PERMISSION, fault: TTD | STAGE2 | TABLE_WRITE });
});

test('S2PTW: a table, or a CD, in Device memory is a permission fault of stage 2', (t) => {
  const s2OfTable = S2_TABLES + 2n * 8n;
  const device = (RAM_PA + 0x2000n) | PAGE | AF | AP(3n) | (1n << 2n);
  for (const [flags, status] of [
    [AF_FAULTS, 0],
    [AF_FAULTS | PTW, F_PERMISSION],
  ] as const) {
    const it = setUp(AP(1n) | PAGE | AF, { kind: NESTED, flags });
    it.bench.setRam(s2OfTable, device);
    t.is(it.ask(READ).status, status);
    if (status !== 0) t.like(it.ask(READ), { fault: TTD | STAGE2, level: 3, ipa: LEAF });
    it.bench.ask(it.bench.scratch, RAM_PA + 0x2000n);
    t.is(it.bench.kernel.translateIpa(it.context, it.bench.scratch), status);
    // What a device does to Device memory is its own affair.
    it.bench.setRam(s2OfTable, (RAM_PA + 0x2000n) | PAGE | AF | AP(3n) | NORMAL);
    it.bench.setRam(S2_LEAF, PA | PAGE | AF | AP(3n) | (1n << 2n));
    t.is(it.ask(READ).status, 0);
  }
});

test('ATS: a request is answered with what is permitted; a write that is not is no fault', (t) => {
  const [R, W, G, X] = [2, 4, 8, 16];
  const ask = (leaf: bigint, flags: number, fields: Partial<ContextFields> = {}): Partial<XlatResult> => {
    const { status, fault, pa, sizeLg2 } = setUp(leaf | PAGE | AF, fields).ask(ATS | flags);
    return { status, fault, pa, sizeLg2 };
  };
  const at = { status: 0, pa: PA + 0x238n, sizeLg2: 12 };
  t.deepEqual(ask(AP(1n) | NG, WRITE), { ...at, fault: R | W });
  t.deepEqual(ask(AP(1n), READ), { ...at, fault: R | W | G });
  t.deepEqual(ask(AP(3n) | NG, WRITE), { ...at, fault: R });
  t.deepEqual(ask(AP(3n) | NG, WRITE | FETCH), { ...at, fault: R | X });
  t.deepEqual(ask(AP(1n) | XN | NG, WRITE | FETCH), { ...at, fault: R | W });
  t.deepEqual(ask(AP(0n) | NG, WRITE | PRIV), { ...at, fault: R | W });
  t.like(ask(AP(0n) | NG, WRITE), { status: F_PERMISSION, fault: IN });
  t.like(setUp(0n).ask(ATS), { status: F_TRANSLATION, fault: IN });
  // NW = 0 is a write to come: the page becomes dirty. With NW = 1 it stays clean, and is not writable.
  const httu = { flags: AF_FAULTS | S1_HA | S1_HD };
  t.deepEqual(ask(AP(3n) | NG | DBM, READ, httu), { ...at, fault: R });
  t.deepEqual(ask(AP(3n) | NG | DBM, WRITE, httu), { ...at, fault: R | W });
});

test('ATS: plain requests use and fill the IOTLB', (t) => {
  const it = setUp(AP(3n) | PAGE | AF | NG);
  t.like(it.ask(ATS | WRITE), { source: 3, fault: 2 });
  t.like(it.ask(READ), { source: 2 });
  t.like(it.ask(ATS), { source: 2, fault: 2 });
});

test('ATS: split stage answers with the IPA, and a translated transaction takes stage 2', (t) => {
  const it = setUp(AP(1n) | PAGE | AF | NG, { kind: NESTED, flags: AF_FAULTS | S1CHK, tag: 1 | (7 << 16) });
  it.bench.setRam(S2_LEAF, 0x9999_9000n | PAGE | AF | AP(1n) | NORMAL);
  t.like(it.ask(ATS | WRITE), { status: 0, pa: PA + 0x238n, fault: 2 | 4 });
  t.is(it.bench.kernel.iotlbCountVmid(it.bench.iotlb, 1), 0);
  t.like(it.ask(TRANSLATED, PA + 0x238n), { status: 0, pa: 0x9999_9238n, ipa: PA + 0x238n });
  t.like(it.ask(TRANSLATED | WRITE, PA + 0x238n), {
    status: F_PERMISSION,
    fault: IN | STAGE2,
    ipa: PA + 0x238n,
  });
  // It is cached as stage 2 alone, which the commands of stage 2 remove.
  t.like(it.ask(TRANSLATED, PA + 0x238n), { source: 2 });
  t.is(it.bench.kernel.iotlbInvalidateVmid(it.bench.iotlb, 1, true), 0);
  t.is(it.bench.kernel.iotlbInvalidateIpa(it.bench.unit, it.bench.iotlb, 1, Number(PA >> 12n), 1), 1);
  const full = setUp(AP(1n) | PAGE | AF, { kind: NESTED });
  t.like(full.ask(TRANSLATED | WRITE, 0x1234_5678n), { status: 0, pa: 0x1234_5678n });
});

test('EL2: entries that only the EL2 invalidations remove, and they nothing else', (t) => {
  const fields = { kind: EL2, flags: AF_FAULTS | E2H, tag: 5 << 16 };
  const it = setUp(AP(1n) | PAGE | AF | NG, fields);
  const { kernel, unit, iotlb } = it.bench;
  const fill = (): void => {
    t.is(it.ask(READ).status, 0);
    t.like(it.ask(READ), { source: 2, ipa: 0n });
  };
  fill();
  // The same VMID and ASID of EL1 is another regime.
  const guest = it.bench.context(2, { ...it.all, kind: S1, tag: 5 << 16 });
  it.bench.ask(it.bench.scratch, IOVA);
  kernel.translate(unit, guest, iotlb, it.bench.scratch);
  t.is(it.bench.result(it.bench.scratch).source, 3);
  t.is(kernel.iotlbCountVmid(iotlb, 0), 1);
  t.is(kernel.iotlbCountEl2(iotlb), 1);
  const page = Number(IOVA >> 12n);
  t.is(kernel.iotlbInvalidateVmid(iotlb, 0, false), 1);
  t.is(kernel.iotlbInvalidateAsid(iotlb, 0, 5), 0);
  t.is(kernel.iotlbInvalidateVa(unit, iotlb, 0, 5, page, 1), 0);
  t.is(kernel.iotlbInvalidateVa(unit, iotlb, 0, -1, page, 1), 0);
  t.is(kernel.iotlbInvalidateIpa(unit, iotlb, 0, page, 1), 0);
  t.is(kernel.iotlbInvalidateEl2Asid(iotlb, 6), 0);
  t.is(kernel.iotlbInvalidateEl2Va(unit, iotlb, 6, page, 1), 0);
  t.is(kernel.iotlbInvalidateEl2Va(unit, iotlb, 5, page + 1, 1), 0);
  t.is(kernel.iotlbCountEl2(iotlb), 1);
  for (const invalidate of [
    () => kernel.iotlbInvalidateEl2All(iotlb),
    () => kernel.iotlbInvalidateEl2Asid(iotlb, 5),
    () => kernel.iotlbInvalidateEl2Va(unit, iotlb, 5, page, 1),
    () => kernel.iotlbInvalidateEl2Va(unit, iotlb, -1, page, 1),
  ]) {
    it.ask(READ);
    kernel.translate(unit, guest, iotlb, it.bench.scratch);
    t.is(invalidate(), 1);
    t.is(kernel.iotlbCountVmid(iotlb, 0), 1);
  }
});

test('EL2: a global page survives its ASID, and goes by address under any', (t) => {
  const it = setUp(AP(1n) | PAGE | AF, { kind: EL2, flags: AF_FAULTS | E2H, tag: 5 << 16 });
  const { kernel, unit, iotlb } = it.bench;
  t.is(it.ask(READ).status, 0);
  t.is(kernel.iotlbInvalidateEl2Asid(iotlb, 5), 0);
  t.is(kernel.iotlbInvalidateEl2Va(unit, iotlb, 6, Number(IOVA >> 12n), 1), 1);
  // Without E2H there are no ASIDs, and nothing is global.
  const plain = setUp(AP(1n) | PAGE | AF, { kind: EL2, tag: 0 });
  t.is(plain.ask(READ).status, 0);
  const other = plain.bench;
  const index = other.kernel.iotlbProbe(other.unit, other.iotlb, 0, 0, Number(IOVA >> 12n));
  t.like(other.kernel.iotlbReadEntry(other.iotlb, index), { global: false, stage1: false, stage2: false });
});

test('global: an entry serves the ASID it was walked for, and no other', (t) => {
  const it = setUp(AP(1n) | PAGE | AF, { tag: 1 | (5 << 16) });
  t.is(it.ask(READ).status, 0);
  const other = it.bench.context(2, { ...it.all, tag: 1 | (6 << 16) });
  it.bench.setRam(LEAF, 0x9999_9000n | AP(1n) | PAGE | AF);
  it.bench.ask(it.bench.scratch, IOVA);
  it.bench.kernel.translate(it.bench.unit, other, it.bench.iotlb, it.bench.scratch);
  t.like(it.bench.result(it.bench.scratch), { pa: 0x9999_9238n, source: 3 });
  t.like(it.ask(READ), { pa: PA + 0x238n, source: 2 });
  const { kernel, unit, iotlb } = it.bench;
  t.is(kernel.iotlbInvalidateVa(unit, iotlb, 1, 9, Number(IOVA >> 12n), 1), 2, 'by address, both');
});
