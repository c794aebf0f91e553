import test, { type ExecutionContext } from 'ava';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { OK, SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const NH_ALL = 0x10;
const NH_ASID = 0x11;
const NH_VA = 0x12;
const NH_VAA = 0x13;
const S12_VMALL = 0x28;
const S2_IPA = 0x2a;
const NSNH_ALL = 0x30;

const CERROR_ILL = 1;
const CERROR_ABT = 2;

/**
 * Five streams, one page 0x1000 each (and 0x2000 global on stream 1), all translated once.
 *   1: S1 vmid 1 asid 10    2: S1 vmid 1 asid 11    3: S1 vmid 2 asid 10    4: S2 vmid 1    5: nested vmid 1 asid 12
 */
class Streams {
  readonly f = new SmmuFixture({ sids: [1, 2, 3, 4, 5] });
  readonly #leaves: number[] = [];

  constructor() {
    const { f } = this;
    for (const [sid, vmid, asid] of [
      [1, 1, 10],
      [2, 1, 11],
      [3, 2, 10],
    ] as const) {
      const root = f.alloc(4096);
      const cd = f.alloc(64);
      f.writeWords(cd, S.cd({ root, asid }));
      f.setSte(sid, S.steS1(cd, vmid));
      f.map(root, 1, 0x1000n, 0x8080_0000n, 3, S.S1_PAGE);
      f.map(root, 1, 0x2000n, 0x8080_0000n, 3, S.S1_PAGE_GLOBAL);
      f.map(root, 1, 0x40_0000n, 0x8080_0000n, 2, S.S1_BLOCK);
      this.#leaves.push(root);
    }
    const s2 = f.alloc(4096);
    f.map(s2, 1, 0x1000n, 0x8080_0000n, 3, S.S2_PAGE);
    f.map(s2, 1, 0x5000n, 0x8080_1000n, 3, S.S2_PAGE);
    f.setSte(4, S.steS2({ root: s2, vmid: 1 }));
    const guest = f.alloc(16 * 4096);
    f.map(s2, 1, 0x8000_0000n, 0x8000_0000n, 1, S.S2_BLOCK);
    const cd = f.alloc(64);
    f.writeWords(cd, S.cd({ root: guest, asid: 12 }));
    f.setSte(5, S.steNested(cd, { root: s2, vmid: 1 }));
    f.map(guest, 1, 0x1000n, 0x8080_0000n, 3, S.S1_PAGE);
    f.enable();
    this.fill();
  }

  /** Every page of every stream into the IOTLB. */
  fill(): void {
    for (const index of [0, 1, 2, 3, 4]) this.touch(index, 0x1000n);
    for (const index of [0, 1, 2]) {
      this.touch(index, 0x2000n);
      this.touch(index, 0x40_0000n);
    }
    this.touch(3, 0x5000n);
  }

  touch(index: number, iova: bigint): number {
    const { status, source } = this.f.dma(iova, 0, index);
    if (status !== OK) throw new Error(`stream ${index + 1}: status ${status}`);
    return source;
  }

  /** Which (sid, page) had to be walked anew. A device's own micro-TLB is emptied by the SYNC. */
  walkedAfter(command: S.Command): string[] {
    this.fill();
    this.f.command(command, S.sync());
    const walked: string[] = [];
    const look = (index: number, iova: bigint): void => {
      if (this.touch(index, iova) === 3) walked.push(`${index + 1}:${iova.toString(16)}`);
    };
    for (const index of [0, 1, 2, 3, 4]) look(index, 0x1000n);
    for (const index of [0, 1, 2]) {
      look(index, 0x2000n);
      look(index, 0x40_0000n);
    }
    look(3, 0x5000n);
    return walked.sort();
  }
}

const VMID1_S1 = ['1:1000', '1:2000', '1:400000', '2:1000', '2:2000', '2:400000', '5:1000'];
const ALL = [...VMID1_S1, '3:1000', '3:2000', '3:400000', '4:1000', '4:5000'].sort();

const SCOPES: ReadonlyArray<readonly [string, S.Command, readonly string[]]> = [
  ['NH_ALL: stage 1 of the VMID, nested included', S.tlbi(NH_ALL, 1), VMID1_S1],
  ['NH_ASID: one ASID, not its global pages', S.tlbi(NH_ASID, 1, 10), ['1:1000', '1:400000']],
  ['NH_VA: one page of one ASID', S.tlbiVa(NH_VA, 1, 10, 0x1000n), ['1:1000']],
  ['NH_VA: an address within a block', S.tlbiVa(NH_VA, 1, 11, 0x41_3000n), ['2:400000']],
  ['NH_VA: a global page whatever the ASID', S.tlbiVa(NH_VA, 2, 99, 0x2000n), ['3:2000']],
  ['NH_VAA: every ASID of the VMID', S.tlbiVa(NH_VAA, 1, 0, 0x1000n), ['1:1000', '2:1000', '5:1000']],
  ['S12_VMALL: both stages of the VMID', S.tlbi(S12_VMALL, 1), [...VMID1_S1, '4:1000', '4:5000'].sort()],
  ['S2_IPA: stage-2-only entries, nested ones stay', S.tlbiVa(S2_IPA, 1, 0, 0x1000n), ['4:1000']],
  ['NSNH_ALL: everything', S.tlbi(NSNH_ALL), ALL],
  [
    'range: 2 pages from 0x1000, the second global',
    S.tlbiRange(NH_VA, 1, 10, 0x1000n, 1, 0),
    ['1:1000', '1:2000', '2:2000'],
  ],
  [
    'range: 3 << 9 pages',
    S.tlbiRange(NH_VAA, 1, 0, 0n, 2, 9),
    ['1:1000', '1:2000', '1:400000', '2:1000', '2:2000', '2:400000', '5:1000'],
  ],
  ['range: a level hint alone', S.tlbiRange(S2_IPA, 1, 0, 0x5000n, 0, 0, 1, 3), ['4:5000']],
  ['range: IPAs', S.tlbiRange(S2_IPA, 1, 0, 0x1000n, 4, 0), ['4:1000', '4:5000']],
  ['range: 64 KiB granules count 16 pages', S.tlbiRange(S2_IPA, 1, 0, 0n, 0, 0, 3, 3), ['4:1000', '4:5000']],
  [
    'range: the largest one does not overflow',
    S.tlbiRange(NH_VAA, 2, 0, 0n, 31, 31, 3),
    ['3:1000', '3:2000', '3:400000'],
  ],
  [
    'range: at the top of the address space',
    S.tlbiRange(NH_VAA, 2, 0, 0xffff_ffff_ffff_f000n, 31, 31, 3),
    [],
  ],
  ['another VMID', S.tlbi(S12_VMALL, 7), []],
  ['CFGI leaves translations alone', S.CFGI_ALL, []],
];
for (const [name, command, expected] of SCOPES)
  test(`tlbi ${name}`, (t) => {
    const walked = new Streams().walkedAfter(command);
    t.deepEqual(walked, [...expected].sort());
  });

test('skipTlbi: the deliberate fault leaves stale entries', (t) => {
  const f = new SmmuFixture({ config: { bugs: { skipTlbi: true } } });
  const root = f.alloc(4096);
  f.map(root, 1, 0x1000n, 0x8080_0000n, 3, S.S2_PAGE);
  f.setSte(3, S.steS2({ root, vmid: 1 }));
  f.enable();
  t.is(f.dma(0x1000n).status, OK);
  f.map(root, 1, 0x1000n, 0n, 3, 0n);
  f.command(S.tlbi(S12_VMALL, 1), S.tlbiVa(S2_IPA, 1, 0, 0x1000n), S.tlbi(NSNH_ALL), S.sync());
  t.is(f.dma(0x1000n).status, OK);
});

const CFGI: ReadonlyArray<readonly [string, S.Command, readonly number[]]> = [
  ['STE', S.cfgiSte(0x11), [0x11]],
  ['STE of another stream', S.cfgiSte(0x12), []],
  ['STE of a stream that shares the cache slot', S.cfgiSte(0x411), []],
  ['STE_RANGE 0: an aligned pair', S.cfgiRange(0x10, 0), [0x11]],
  ['STE_RANGE 3: sixteen', S.cfgiRange(0x1f, 3), [0x11]],
  ['STE_RANGE 30', S.cfgiRange(0x7fff_ffff, 30), [0x11, 0x21]],
  ['ALL', S.CFGI_ALL, [0x11, 0x21]],
  ['CD', S.cfgiCd(0x11), [0x11]],
  ['CD_ALL', S.cfgiCdAll(0x21), [0x21]],
];
for (const [name, command, dropped] of CFGI)
  test(`cfgi ${name}`, (t) => {
    const f = new SmmuFixture({ sids: [0x11, 0x21] });
    f.setSte(0x11, S.STE_BYPASS);
    f.setSte(0x21, S.STE_BYPASS);
    f.enable();
    const status = (): number[] => [f.dma(0n, 0, 0).status, f.dma(0n, 0, 1).status];
    t.deepEqual(status(), [OK, OK]);
    f.setSte(0x11, S.STE_ABORT);
    f.setSte(0x21, S.STE_ABORT);
    t.deepEqual(status(), [OK, OK], 'cached until invalidated');
    f.command(command, S.sync());
    t.deepEqual(
      status(),
      [0x11, 0x21].map((sid) => (dropped.includes(sid) ? 0xff : OK)),
    );
  });

test('cfgi STE_RANGE ends where it says', (t) => {
  const f = new SmmuFixture({ sids: [0x10, 0x11, 0x12, 0x0f] });
  for (const sid of f.sids) f.setSte(sid, S.STE_BYPASS);
  f.enable();
  const status = (): number[] => f.sids.map((_, i) => f.dma(0n, 0, i).status);
  t.deepEqual(status(), [OK, OK, OK, OK]);
  for (const sid of f.sids) f.setSte(sid, S.STE_ABORT);
  f.command(S.cfgiRange(0x11, 0), S.sync());
  t.deepEqual(status(), [0xff, 0xff, OK, OK]);
});

test('configuration cache: streams that share a slot do not share a configuration', (t) => {
  const f = new SmmuFixture({ config: { sidBits: 16 }, sids: [1, 0x401] });
  const table = f.alloc(64 * 2048, 64 * 2048);
  f.writeWords(table + 64, S.STE_BYPASS);
  f.writeWords(table + 0x401 * 64, S.STE_ABORT);
  f.enable(0b1100);
  f.mmio.write64(0x80, BigInt(table));
  f.mmio.write32(0x88, 11);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  for (let i = 0; i < 3; i++) {
    t.is(f.dma(0n, 0, 0).status, OK);
    t.is(f.dma(0n, 0, 1).status, 0xff);
  }
});

test('tlbi: with 8-bit VMIDs and ASIDs the upper bits are no part of the match', (t) => {
  const f = new SmmuFixture({ config: { vmidBits: 8, asidBits: 8 } });
  const root = f.alloc(4096);
  const cd = f.alloc(64);
  f.writeWords(cd, S.cd({ root, asid: 0x22 }));
  f.setSte(3, S.steS1(cd, 0x11));
  f.map(root, 1, 0x1000n, 0x8080_0000n, 3, S.S1_PAGE);
  f.enable();
  t.is(f.dma(0x1000n).source, 3);
  f.command(S.tlbi(NH_ASID, 0x3311, 0x4422), S.sync());
  t.is(f.dma(0x1000n).source, 3);
});

test('prefetch: the configuration, and translations a stride apart, so that a device finds them', (t) => {
  const f = new SmmuFixture();
  const root = f.alloc(4096);
  for (const page of [0n, 1n, 2n, 3n, 8n])
    f.map(root, 1, 0x1_0000n + page * 0x1000n, 0x8080_0000n + page * 0x1000n, 3, S.S2_PAGE);
  f.setSte(3, S.steS2({ root, vmid: 1 }));
  f.enable();
  f.command([0x01n | (3n << 32n), 0n]);
  const fetches = (): number => f.memory.words.load(f.regions.smmu + Smmuv3Layout.at.configFetches);
  t.is(fetches(), 1);
  // Size 1: two translations; Stride 1: 8 KiB apart.
  f.command([0x02n | (3n << 32n), 0x1_0000n | (1n << 5n) | 1n]);
  t.deepEqual(
    [0n, 2n, 1n, 3n].map((page) => f.dma(0x1_0000n + page * 0x1000n).source),
    [2, 2, 3, 3],
  );
  t.is(fetches(), 1);
});

test('prefetch: what is wrong is silent, and no state of the queue', (t) => {
  const f = new SmmuFixture({ config: { ssidBits: 4 } });
  f.setSte(3, S.steS2({ root: f.alloc(4096), vmid: 1 }));
  f.setSte(4, [0n, 0n, 0n, 0n]);
  f.enable();
  for (const sid of [3n, 4n, 200n, 0xffff_ffffn])
    f.command(
      [0x01n | (sid << 32n), 0n],
      [0x01n | (1n << 11n) | (5n << 12n) | (sid << 32n), 0n],
      [0x02n | (sid << 32n), 0x1000n | 31n | (31n << 5n)],
      [0x02n | (sid << 32n), 0xffff_ffff_ffff_f000n | 3n],
    );
  t.is(f.mmio.read32(0x9c), 16);
  t.deepEqual(f.events(), []);
});

function stopsAt(t: ExecutionContext, f: SmmuFixture, index: number, reason: number): void {
  t.is(f.mmio.read32(0x9c), index | (reason << 24));
  t.is((f.mmio.read32(0x60) ^ f.mmio.read32(0x64)) & 1, 1);
}

const ILLEGAL: ReadonlyArray<readonly [string, S.Command]> = [
  ['reserved opcode 0', [0n, 0n]],
  ['reserved opcode 0xff', [0xffn, 0n]],
  ['CFGI_STE with SSec', [0x03n | (1n << 10n), 0n]],
  ['PREFETCH with SSec', [0x01n | (1n << 10n), 0n]],
  ['CFGI_VMS_PIDM', [0x07n, 0n]],
  ['TLBI_EL3_ALL', [0x18n, 0n]],
  ['TLBI_EL3_VA', [0x1an, 0n]],
  ['TLBI_EL2_ALL', [0x20n, 0n]],
  ['TLBI_EL2_ASID', [0x21n, 0n]],
  ['TLBI_EL2_VA', [0x22n, 0n]],
  ['TLBI_EL2_VAA', [0x23n, 0n]],
  ['ATC_INV', [0x40n, 0n]],
  ['PRI_RESP', [0x41n, 0n]],
  ['RESUME', [0x44n, 0n]],
  ['STALL_TERM', [0x45n, 0n]],
  ['SYNC with CS 3', S.sync(3)],
  ['Secure TLBI', [0x60n, 0n]],
  ['TG without range and hint', S.tlbiRange(NH_VA, 0, 0, 0n, 0, 0, 1, 0)],
  ['TG 16K with the reserved level hint', S.tlbiRange(NH_VA, 0, 0, 0n, 0, 0, 2, 1)],
];
const BARE = { ats: false, pri: false, stalls: 'none', hyp: false } as const;
for (const [name, command] of ILLEGAL)
  test(`cerror_ill: ${name} stops the queue until GERRORN follows`, (t) => {
    const f = new SmmuFixture({ config: BARE });
    f.enable();
    f.command(S.sync(), command, S.sync());
    stopsAt(t, f, 1, CERROR_ILL);
    t.false(f.model.hasWork());
    // Replace the bad command, acknowledge: the rest runs, once.
    f.write64(f.cmdq + 16, 0x46n);
    f.write64(f.cmdq + 24, 0n);
    f.mmio.write32(0x64, f.mmio.read32(0x60));
    t.true(f.model.hasWork());
    f.run();
    t.is(f.mmio.read32(0x9c), 3);
    t.is(f.mmio.read32(0x60), f.mmio.read32(0x64));
  });

const ILLEGAL_FORMS: ReadonlyArray<readonly [string, S.Command]> = [
  ['ATC_INV of more than every address', S.atcInv(3, 0n, 53)],
  ['ATC_INV with SSec', [0x40n | (1n << 10n), 0n]],
  ['PRI_RESP with the reserved response', S.priResp(3, 0, 3)],
  ['PRI_RESP with SSec', [0x41n | (1n << 10n), 0n]],
  ['RESUME with SSec', [0x44n | (1n << 10n), 0n]],
  ['STALL_TERM with SSec', [0x45n | (1n << 10n), 0n]],
  ['an EL2 range without range and hint', S.tlbiRange(0x22, 0, 0, 0n, 0, 0, 1, 0)],
  ['CFGI_VMS_PIDM', [0x07n, 0n]],
];
for (const [name, command] of ILLEGAL_FORMS)
  test(`cerror_ill: where everything is there, ${name}`, (t) => {
    const f = new SmmuFixture({ config: { ats: true, pri: true, stalls: 'optional', hyp: true } });
    f.enable();
    f.command(command);
    stopsAt(t, f, 0, CERROR_ILL);
  });

test('commands of ATS, PRI and stalls that name nobody are consumed', (t) => {
  const f = new SmmuFixture({ config: { ats: true, pri: true, stalls: 'optional' }, ats: true, pri: true });
  f.enable();
  const commands = [S.atcInv(99, 0n, 52), S.priResp(99, 1, 2), S.resume(3, 0xffff, 'retry'), S.stallTerm(3)];
  f.command(
    ...commands,
    S.resume(99, 0, 'abort'),
    S.priResp(3, 511, 0),
    S.atcInv(3, 0n, 0, 7, true),
    S.sync(),
  );
  t.is(f.mmio.read32(0x9c), 8);
});

test('cerror_ill: an absent command is named in the log, once', (t) => {
  const f = new SmmuFixture({ config: BARE });
  f.enable();
  for (let i = 0; i < 2; i++) {
    f.command([0x40n, 0n]);
    f.mmio.write32(0x64, f.mmio.read32(0x60));
    f.run();
  }
  t.is(f.logs.filter((line) => line.includes('CMD_ATC_INV')).length, 1);
});

test('cerror_ill: stage commands on an SMMU without that stage', (t) => {
  for (const [stages, op] of [
    ['s2', NH_ALL],
    ['s2', NH_VA],
    ['s1', S2_IPA],
    ['s1', S12_VMALL],
    ['s2', 0x05],
    ['s2', 0x06],
  ] as const) {
    const f = new SmmuFixture({ config: { stages } });
    f.enable();
    f.command(S.tlbi(op));
    stopsAt(t, f, 0, CERROR_ILL);
  }
});

test('cerror_abt: a queue outside RAM; mended, it goes on', (t) => {
  const f = new SmmuFixture();
  f.enable(0);
  f.mmio.write64(0x90, 0x4000_0000n | 4n);
  f.mmio.write32(0x20, 0b1000);
  f.run();
  f.mmio.write32(0x98, 1);
  f.run();
  stopsAt(t, f, 0, CERROR_ABT);
  f.mmio.write32(0x20, 0);
  f.run();
  f.mmio.write64(0x90, BigInt(f.cmdq) | 5n);
  f.write64(f.cmdq, 0x46n);
  f.mmio.write32(0x64, 1);
  f.mmio.write32(0x20, 0b1000);
  f.run();
  t.is(f.mmio.read32(0x9c), 1);
});

test('queue: wraps, takes a full ring, and consumes in order', (t) => {
  const f = new SmmuFixture({ cmdqLog2: 2, trace: true });
  f.enable();
  const sent: bigint[] = [];
  for (let round = 0; round < 5; round++) {
    const commands = [0, 1, 2, 3].map((i) => S.cfgiSte(round * 4 + i));
    sent.push(...commands.map(([low]) => low >> 32n));
    f.push(...commands);
    t.is((f.mmio.read32(0x98) ^ f.mmio.read32(0x9c)) & 7, 4, 'full');
    f.run();
    t.is(f.mmio.read32(0x98), f.mmio.read32(0x9c), 'empty');
  }
  const { trace } = f.model;
  t.is(trace.lastCommand(), 20);
  t.deepEqual(
    Array.from({ length: 20 }, (_, i) => BigInt(trace.findCommand(i + 1)!.words[1])),
    sent,
  );
});

test('queue: nothing is consumed while CMDQEN is 0, and CONS is software’s then', (t) => {
  const f = new SmmuFixture();
  f.enable(0);
  f.push(S.sync());
  f.run();
  t.is(f.mmio.read32(0x9c), 0);
  f.mmio.write32(0x9c, 1);
  t.is(f.mmio.read32(0x9c), 1);
  f.mmio.write32(0x20, 0b1000);
  f.run();
  f.mmio.write32(0x9c, 5);
  t.is(f.mmio.read32(0x9c), 1, 'read-only while enabled');
});

test('queue: LOG2SIZE beyond IDR1.CMDQS counts as the largest', (t) => {
  const f = new SmmuFixture({ config: { cmdqLog2: 3 } });
  f.enable(0);
  f.mmio.write64(0x90, BigInt(f.cmdq) | 19n);
  f.mmio.write32(0x20, 0b1000);
  for (let i = 0; i < 8; i++) f.write64(f.cmdq + i * 16, 0x46n);
  f.mmio.write32(0x98, 9);
  f.run();
  t.is(f.mmio.read32(0x9c), 9);
});

test('tlbi: the EL2 commands take entries of EL2 and no others, with ASIDs where CR2.E2H says so', (t) => {
  const [EL2_ALL, EL2_ASID, EL2_VA, EL2_VAA] = [0x20, 0x21, 0x22, 0x23];
  for (const e2h of [false, true]) {
    const f = new SmmuFixture({ sids: [1, 2, 4], config: { hyp: true } });
    // Stream 1 and 2: EL2, ASID 10 and 11. Stream 4: EL1, VMID 0, ASID 10.
    for (const [sid, asid] of [
      [1, 10],
      [2, 11],
      [4, 10],
    ] as const) {
      const root = f.alloc(4096);
      const cd = f.alloc(64);
      f.writeWords(cd, S.cd({ root, asid }));
      const ste = S.steS1(cd);
      if (sid !== 4) ste[1]! |= 2n << 30n;
      f.setSte(sid, ste);
      f.map(
        root,
        1,
        0x1000n,
        0x8080_0000n + BigInt(sid) * 0x1000n,
        3,
        e2h || sid === 4 ? S.S1_PAGE : S.S1_PAGE_GLOBAL,
      );
    }
    f.enable(0b1100);
    f.mmio.write32(0x2c, e2h ? 0b11 : 0b10);
    f.mmio.write32(0x20, 0b1101);
    f.run();
    const left = (command: S.Command): string => {
      for (const i of [0, 1, 2]) t.is(f.dma(0x1000n, 0, i).status, OK);
      f.command(command, S.sync());
      return [0, 1, 2].map((i) => (f.dma(0x1000n, 0, i).source === 3 ? 'walked' : 'kept')).join(' ');
    };
    // Without E2H both streams' entries are of one regime without ASIDs, and one stands for both.
    t.is(left(S.tlbi(NH_ALL, 0)), 'kept kept walked');
    t.is(left(S.tlbi(NH_ASID, 0, 10)), 'kept kept walked');
    t.is(left(S.tlbi(S12_VMALL, 0)), 'kept kept walked');
    t.is(left(S.tlbi(EL2_ALL)), e2h ? 'walked walked kept' : 'walked kept kept');
    t.is(left(S.tlbiVa(EL2_VA, 0, 11, 0x1000n)), e2h ? 'kept walked kept' : 'walked kept kept');
    t.is(left(S.tlbiVa(EL2_VAA, 0, 0, 0x1000n)), e2h ? 'walked walked kept' : 'walked kept kept');
    t.is(left(S.tlbiVa(EL2_VAA, 0, 0, 0x2000n)), 'kept kept kept');
    t.is(left(S.tlbiRange(EL2_VA, 0, 10, 0n, 3, 0)), e2h ? 'walked kept kept' : 'walked kept kept');
    if (e2h) t.is(left(S.tlbi(EL2_ASID, 0, 11)), 'kept walked kept');
  }
});
