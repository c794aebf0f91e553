import test from 'ava';
import { EVENT_NAMES } from '../../../hw/smmuv3/event.js';
import { InterruptLines } from '../../../hw/smmuv3/interrupt-lines.js';
import { Smmuv3 } from '../../../hw/smmuv3/model.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { INSTRUCTION, OK, PRIVILEGED, SmmuFixture, WRITE } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const word = (f: SmmuFixture, at: number): number => f.memory.words.load(f.regions.smmu + at);

/** Stage 2 with a read-only page at 0x1000, an AF = 0 page at 0x2000, an output beyond S2PS at 0x3000. */
function stage2(evtqLog2 = 4): SmmuFixture {
  const f = new SmmuFixture({ evtqLog2 });
  const root = f.alloc(4096);
  f.map(root, 1, 0x1000n, 0x8080_0000n, 3, S.S2_PAGE_RO);
  f.map(root, 1, 0x2000n, 0x8080_0000n, 3, S.S2_PAGE & ~(1n << 10n));
  f.map(root, 1, 0x3000n, 1n << 40n, 3, S.S2_PAGE);
  f.setSte(3, S.steS2({ root, vmid: 1, ps: 2 }));
  f.enable();
  return f;
}

/** RnW 99, InD 98, PnU 97, S2 103, CLASS 105:104. */
const access = (rnw: number, ind: number, pnu: number, s2: number, cls: number): bigint =>
  (BigInt(pnu) << 33n) |
  (BigInt(ind) << 34n) |
  (BigInt(rnw) << 35n) |
  (BigInt(s2) << 39n) |
  (BigInt(cls) << 40n);

const FAULTS = [
  ['F_TRANSLATION', 0x10, 0x5678n, 0, access(1, 0, 0, 1, 2), 0x5000n],
  ['F_TRANSLATION beyond the input size', 0x10, 1n << 39n, WRITE, access(0, 0, 0, 1, 2), 1n << 39n],
  ['F_ADDR_SIZE', 0x11, 0x3008n, 0, access(1, 0, 0, 1, 2), 0x3000n],
  ['F_ACCESS', 0x12, 0x2ff8n, WRITE | PRIVILEGED, access(0, 0, 1, 1, 2), 0x2000n],
  ['F_PERMISSION', 0x13, 0x1004n, WRITE | INSTRUCTION, access(0, 0, 0, 1, 2), 0x1000n],
  ['an instruction fetch', 0x10, 0x9000n, INSTRUCTION | PRIVILEGED, access(1, 1, 1, 1, 2), 0x9000n],
] as const;
for (const [name, id, iova, flags, bits, ipa] of FAULTS)
  test(`stage-2 event: ${name}, every bit of the record`, (t) => {
    const f = stage2();
    t.is(f.dma(iova, flags).status, id);
    t.deepEqual(f.rawEvents(), [[BigInt(id) | (3n << 32n), bits, iova, ipa]]);
  });

test('stage-1 events: S2 = 0, the 64-bit input address, no IPA', (t) => {
  const f = new SmmuFixture();
  const root = f.alloc(4096);
  const cd = f.alloc(64);
  f.writeWords(cd, S.cd({ root, asid: 1, ips: 1 }));
  f.setSte(3, S.steS1(cd));
  f.map(root, 1, 0x1000n, 0x8080_0000n, 3, S.S1_PAGE_RO);
  f.map(root, 1, 0x2000n, 0x8080_0000n, 3, S.S1_PAGE & ~(1n << 10n));
  f.map(root, 1, 0x3000n, 1n << 36n, 3, S.S1_PAGE);
  f.enable();
  const cases = [
    [0xffff_ffff_ffff_f123n, 0, 0x10],
    [0x1008n, WRITE, 0x13],
    [0x2008n, 0, 0x12],
    [0x3008n, 0, 0x11],
  ] as const;
  for (const [iova, flags, id] of cases) t.is(f.dma(iova, flags).status, id);
  t.deepEqual(
    f.rawEvents(),
    cases.map(([iova, flags, id]) => [
      BigInt(id) | (3n << 32n),
      access(flags === WRITE ? 0 : 1, 0, 0, 0, 2),
      iova,
      0n,
    ]),
  );
});

test('F_PERMISSION of class TTD has TTRnW = read', (t) => {
  const f = new SmmuFixture();
  const root = f.alloc(4096);
  const cd = f.alloc(64);
  const none = 0x3n | (1n << 10n);
  f.map(root, 1, BigInt(cd), BigInt(cd), 3, S.S2_PAGE);
  f.map(root, 1, 0x5000n, 0x8080_0000n, 3, none);
  f.writeWords(cd, S.cd({ root: 0x5000, asid: 1 }));
  f.setSte(3, S.steNested(cd, { root, vmid: 1 }));
  f.enable();
  t.is(f.dma(0x1000n, WRITE).status, 0x13);
  t.deepEqual(f.rawEvents(), [[0x13n | (3n << 32n), access(0, 0, 0, 1, 1) | (1n << 44n), 0x1000n, 0x5000n]]);
});

test('S2R = 0: stage-2 faults are answered and not recorded', (t) => {
  const f = new SmmuFixture();
  f.setSte(3, S.steS2({ root: f.alloc(4096), vmid: 1, record: false }));
  f.enable();
  t.is(f.dma(0x5000n).status, 0x10);
  t.deepEqual(f.events(), []);
});

test('C_BAD_SUBSTREAMID has a SubstreamID and no SSV', (t) => {
  const f = stage2();
  f.dma(0x1000n, 0, 0, 0x54321);
  t.deepEqual(f.rawEvents(), [[0x08n | (0x54321n << 12n) | (3n << 32n), 0n, 0n, 0n]]);
});

test('event queue: wraps, keeping order', (t) => {
  const f = stage2(2);
  for (let round = 0; round < 5; round++) {
    const expected = [0, 1, 2].map((i) => BigInt(0x10_0000 + (round * 3 + i) * 0x1000));
    for (const iova of expected) f.dma(iova);
    t.deepEqual(
      f.events().map((e) => e.inputAddr),
      expected,
    );
  }
  t.is(f.mmio.read32(0x100a8), 15 & 7);
});

test('event queue: overflow toggles OVFLG once, loses the rest, and recovers', (t) => {
  const f = stage2(1);
  for (let i = 0; i < 5; i++) f.dma(0x10_0000n + BigInt(i) * 0x1000n);
  t.is(f.mmio.read32(0x100a8), (0x8000_0000 | 2) >>> 0);
  t.is(word(f, Smmuv3Layout.at.eventsLost), 3);
  t.is(f.events().length, 2);
  // Acknowledge: OVACKFLG follows OVFLG.
  f.mmio.write32(0x100ac, (0x8000_0000 | 2) >>> 0);
  f.dma(0x20_0000n);
  t.is(f.events()[0]!.inputAddr, 0x20_0000n);
  for (let i = 0; i < 4; i++) f.dma(0x30_0000n);
  t.is(f.mmio.read32(0x100a8) >>> 31, 0, 'the next overflow toggles back');
});

/** STE.MEV: bit 83. */
const MEV = 1n << 19n;

function merging(evtqLog2 = 4): SmmuFixture {
  const f = new SmmuFixture({ evtqLog2 });
  const ste = S.steS2({ root: f.alloc(4096), vmid: 1 });
  ste[1]! |= MEV;
  f.setSte(3, ste);
  f.enable();
  return f;
}

test('merging: with MEV, one unread record stands for all that say the same of a page', (t) => {
  const f = merging();
  for (const offset of [0n, 8n, 0xff8n]) f.dma(0x5000n + offset);
  t.is(word(f, Smmuv3Layout.at.eventsMerged), 2);
  // Another page, another kind of access, and then the first again: no longer the last one.
  f.dma(0x6000n);
  f.dma(0x6000n, WRITE);
  f.dma(0x5000n);
  t.deepEqual(
    f.events().map((e) => [e.inputAddr, e.rnw]),
    [
      [0x5000n, true],
      [0x6000n, true],
      [0x6000n, false],
      [0x5000n, true],
    ],
  );
  // Read: the next one is a new record.
  f.dma(0x5000n);
  t.is(f.events().length, 1);
});

test('merging: never without MEV', (t) => {
  const f = stage2();
  f.dma(0x5000n);
  f.dma(0x5000n);
  t.is(f.events().length, 2);
});

test('merging: what merges into a full queue is no overflow', (t) => {
  const f = merging(1);
  f.dma(0x5000n);
  f.dma(0x6000n);
  f.dma(0x6000n);
  t.is(f.mmio.read32(0x100a8), 2);
  f.dma(0x5000n);
  t.is(f.mmio.read32(0x100a8), (0x8000_0000 | 2) >>> 0);
});

test('event queue: unacknowledged, an overflow does not keep records out', (t) => {
  const f = stage2(1);
  for (let i = 0; i < 3; i++) f.dma(0x10_0000n);
  const prod = f.mmio.read32(0x100a8);
  t.is(prod, (0x8000_0000 | 2) >>> 0);
  f.mmio.write32(0x100ac, 2);
  f.dma(0x20_0000n);
  t.is(f.mmio.read32(0x100a8), (0x8000_0000 | 3) >>> 0);
});

test('event queue: outside RAM is EVENTQ_ABT_ERR, and stays shut until acknowledged', (t) => {
  const f = stage2();
  f.mmio.write32(0x20, 0b1001);
  f.run();
  f.mmio.write64(0xa0, 0x4000_0000n | 4n);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  f.dma(0x5000n);
  f.dma(0x5000n);
  t.is(f.mmio.read32(0x60), 1 << 2);
  t.is(f.mmio.read32(0x100a8), 0);
  f.mmio.write32(0x20, 0b1001);
  f.run();
  f.mmio.write64(0xa0, BigInt(f.evtq) | 4n);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  f.dma(0x5000n);
  t.is(f.mmio.read32(0x100a8), 0, 'not writable while the error is active');
  f.mmio.write32(0x64, 1 << 2);
  f.dma(0x5000n);
  t.is(f.events().length, 1);
});

test('event queue: disabled, events are lost without a trace in PROD', (t) => {
  const f = stage2();
  f.mmio.write32(0x20, 0b1001);
  f.run();
  t.is(f.dma(0x5000n).status, 0x10);
  t.is(f.mmio.read32(0x100a8), 0);
});

test('interrupts: EVTQ on empty to non-empty, GERROR on activation, both only when enabled', (t) => {
  const f = stage2();
  const { irqEventq, irqGerror, irqPending } = Smmuv3Layout.at;
  f.dma(0x5000n);
  t.is(word(f, irqPending), 0);
  f.events();
  const msi = f.alloc(4096);
  f.mmio.write64(0xb0, BigInt(msi));
  f.mmio.write32(0xb8, 0x55);
  f.mmio.write64(0x68, BigInt(msi + 8));
  f.mmio.write32(0x70, 0x66);
  f.mmio.write32(0x50, 0b101);
  f.run();
  t.is(f.mmio.read32(0x54), 0b101);
  f.dma(0x5000n);
  f.dma(0x5000n);
  t.is(word(f, irqEventq), 1);
  t.is(f.read64(msi), 0x55n);
  f.events();
  f.dma(0x5000n);
  t.is(word(f, irqEventq), 2);
  f.command([0n, 0n]);
  t.is(word(f, irqGerror), 1);
  t.is(f.read64(msi + 8), 0x66n);
  t.is(word(f, irqPending), 0b011);
  f.mmio.write64(0xb0, 0x9999_9000n);
  t.is(f.mmio.read64(0xb0), BigInt(msi), 'configuration is locked while enabled');
});

test('interrupts: a callback inside step, and lines that any number of observers read', (t) => {
  const f = stage2();
  const called: string[] = [];
  f.model = new Smmuv3(f.env, f.memory, f.kernel, f.regions, f.config, {
    // What the interrupt tells of is there to be seen.
    onInterrupt: (source) => called.push(`${source} ${f.mmio.read32(0x100a8)} ${f.mmio.read32(0x60)}`),
  });
  const [a, b] = [new InterruptLines(f.env, f.regions), new InterruptLines(f.env, f.regions)];
  f.mmio.write32(0x50, 0b101);
  f.run();
  f.dma(0x5000n);
  t.deepEqual(called, ['eventq 1 0']);
  t.true(a.pending());
  t.deepEqual(a.take(), ['eventq']);
  t.deepEqual(a.take(), []);
  f.command(S.sync(1), [0n, 0n]);
  t.deepEqual(called.slice(1), ['cmd-sync 1 0', 'gerror 1 1']);
  t.deepEqual(a.take(), ['gerror', 'cmd-sync']);
  t.deepEqual(b.take(), ['eventq', 'gerror', 'cmd-sync']);
  t.is(b.wait(0), -110);
});

test('interrupts: an aborted MSI is a global error', (t) => {
  const f = stage2();
  f.mmio.write64(0xb0, 0x1000n);
  f.mmio.write64(0x68, 0x1000n);
  f.mmio.write32(0x50, 0b101);
  f.run();
  f.dma(0x5000n);
  t.is(f.mmio.read32(0x60), (1 << 5) | (1 << 7));
  f.events();
  f.dma(0x5000n);
  t.is(f.mmio.read32(0x60), (1 << 5) | (1 << 7), 'an error that is active is not toggled again');
  f.mmio.write32(0x64, (1 << 5) | (1 << 7));
  f.events();
  f.dma(0x5000n);
  t.is(f.mmio.read32(0x60), 0, 'acknowledged, it is');
});

test('F_WALK_EABT is recorded whatever S2R says', (t) => {
  const f = new SmmuFixture();
  f.setSte(3, S.steS2({ root: 0x4000_0000, vmid: 1, record: false }));
  f.enable();
  t.is(f.dma(0x5000n).status, 0x0b);
  t.like(f.events()[0], { id: 0x0b, s2: true, class: 2, fetchAddr: 0x4000_0000, inputAddr: 0x5000n });
});

test('translations of several ports are answered in turn, whatever the others do', (t) => {
  const f = new SmmuFixture({ sids: [1, 2, 3] });
  f.setSte(1, S.STE_BYPASS);
  f.setSte(3, S.STE_ABORT);
  f.enable();
  for (const index of [0, 1, 2]) f.begin(index, 0x1000n);
  t.deepEqual(
    [0, 1, 2].map((index) => f.finish(index).status),
    [OK, 0x04, 0xff],
  );
  for (const index of [0, 1, 2]) f.leave(index);
});

test('a request for a stream that is not the port’s is answered with that stream’s configuration', (t) => {
  const f = new SmmuFixture({ sids: [1] });
  f.setSte(1, S.STE_BYPASS);
  f.setSte(9, S.STE_ABORT);
  f.enable();
  f.begin(0, 0x1000n, 0, 0xffff_ffff, 9);
  t.is(f.finish(0).status, 0xff);
  f.leave(0);
});

test('every event of the spec has its name', (t) => {
  for (const [id, name] of [
    [0x02, 'C_BAD_STREAMID'],
    [0x04, 'C_BAD_STE'],
    [0x0a, 'C_BAD_CD'],
    [0x0b, 'F_WALK_EABT'],
    [0x10, 'F_TRANSLATION'],
    [0x13, 'F_PERMISSION'],
    [0x25, 'F_VMS_FETCH'],
  ] as const)
    t.is(EVENT_NAMES[id], name);
});
