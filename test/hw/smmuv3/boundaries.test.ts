/** The first value that is out of range, and what one transaction must not leave behind for the next. */
import test from 'ava';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { EpochGate } from '../../../hw/smmuv3/epoch-gate.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { OK, SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const PA = 0x8080_0000n;
const C_BAD_STREAMID = 0x02;
const C_BAD_STE = 0x04;
const F_TRANSLATION = 0x10;
const NH_ASID = 0x11;
const S2_IPA = 0x2a;
const EPD0 = 1n << 14n;

function stage1(f: SmmuFixture, sid: number, or = 0n, record = true): void {
  const root = f.alloc(4096);
  const cd = f.alloc(64);
  const [word0, ...rest] = S.cd({ root, asid: sid, record });
  f.writeWords(cd, [word0! | or, ...rest]);
  f.setSte(sid, S.steS1(cd));
  f.map(root, 1, 0x1000n, PA, 3, S.S1_PAGE);
}

test('stream table: the first StreamID past a linear table is C_BAD_STREAMID', (t) => {
  const f = new SmmuFixture({ config: { sidBits: 9 }, sids: [0x100, 0xff] });
  f.setSte(0xff, S.STE_BYPASS);
  f.enable();
  t.is(f.dma(0x5000n).status, C_BAD_STREAMID);
  t.is(f.dma(0x5000n, 0, 1).status, OK);
});

test('stream table: the first StreamID past a span is C_BAD_STREAMID; low bits of the base are zero', (t) => {
  const f = new SmmuFixture({ config: { sidBits: 16 }, sids: [0x807, 0x808] });
  const l1 = f.alloc(8 * 1024, 8 * 1024);
  const l2 = f.alloc(4096);
  f.enable(0b1100);
  f.mmio.write64(0x80, BigInt(l1 + 0x40));
  f.mmio.write32(0x88, 16 | (8 << 6) | (1 << 16));
  f.mmio.write32(0x20, 0b1101);
  f.run();
  f.write64(l1 + 8 * 8, BigInt(l2) | 4n);
  for (const i of [7, 8]) f.writeWords(l2 + i * 64, S.STE_BYPASS);
  t.is(f.dma(0x5000n, 0, 0).status, OK);
  t.is(f.dma(0x5000n, 0, 1).status, C_BAD_STREAMID);
});

test('stage 2: a first level of more than 16 tables is C_BAD_STE', (t) => {
  for (const [t0sz, status] of [
    [30, F_TRANSLATION],
    [29, C_BAD_STE],
  ] as const) {
    const f = new SmmuFixture();
    f.setSte(3, S.steS2({ root: f.alloc(64 * 1024, 64 * 1024), vmid: 1, t0sz, sl0: 0 }));
    f.enable();
    t.is(f.dma(0x1000n).status, status, `T0SZ ${t0sz}`);
  }
});

test('faults: a C_BAD_STREAMID that is not recorded does not silence the next C_BAD_STE', (t) => {
  const f = new SmmuFixture({ sids: [0x1ff, 3] });
  f.enable(0b1100);
  f.mmio.write32(0x2c, 0);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  t.is(f.dma(0n, 0, 0).status, C_BAD_STREAMID);
  t.is(f.dma(0n, 0, 1).status, C_BAD_STE);
  t.deepEqual(
    f.events().map((event) => event.id),
    [C_BAD_STE],
  );
});

test('cd: EPD0 of one stream does not disable another, and R = 0 keeps its faults unrecorded', (t) => {
  const f = new SmmuFixture({ sids: [1, 2] });
  stage1(f, 1, EPD0, false);
  stage1(f, 2);
  f.enable();
  t.is(f.dma(0x1000n, 0, 1).status, OK);
  t.is(f.dma(0x1000n, 0, 0).status, F_TRANSLATION);
  t.deepEqual(f.events(), []);
  t.is(f.dma(0x1000n, 0, 1).status, OK);
  f.command(S.tlbi(0x30), S.sync());
  t.is(f.dma(0x1000n, 0, 0).status, F_TRANSLATION);
  t.like(f.dma(0x1000n, 0, 1), { status: OK, pa: PA });
});

test('tlbi S2_IPA: address bits above 51 are no part of the IPA', (t) => {
  const f = new SmmuFixture();
  const root = f.alloc(4096);
  f.setSte(3, S.steS2({ root, vmid: 9 }));
  f.map(root, 1, 0x1000n, PA, 3, S.S2_PAGE);
  f.enable();
  const cached = f.dma(0x1000n).source;
  t.not(f.dma(0x1000n).source, cached);
  f.command(S.tlbiVa(S2_IPA, 9, 0, (1n << 60n) | 0x1000n), S.sync());
  t.is(f.dma(0x1000n).source, cached, 'walked again');
});

test('tlbi: without stage 2 the VMID is no part of the match', (t) => {
  const f = new SmmuFixture({ config: { stages: 's1' } });
  stage1(f, 3);
  f.enable();
  const walk = f.dma(0x1000n).source;
  t.not(f.dma(0x1000n).source, walk);
  f.command(S.tlbi(NH_ASID, 5, 3), S.sync());
  t.is(f.dma(0x1000n).source, walk);
});

test('sync: CS = SEV wakes waiters and marks no interrupt', (t) => {
  const f = new SmmuFixture();
  f.enable();
  const load = (at: number): number => f.memory.words.load(f.regions.smmu + at);
  const before = load(Smmuv3Layout.at.irq);
  f.command([0x46n | (2n << 12n), 0n]);
  t.is(load(Smmuv3Layout.at.irq), before + 1);
  t.is(load(Smmuv3Layout.at.irqPending), 0);
});

test('epochs: generations go round 2^32 and are never 0', (t) => {
  const { memory, regions } = new SmmuFixture();
  const { words } = memory;
  const gate = new EpochGate(words, regions.unit);
  words.store(regions.unit + UnitLayout.at.gen, -1);
  t.is(gate.begin(), 1);
  t.is(words.load(regions.unit + UnitLayout.at.gen), 1);
});

test('epochs: DMA that began before generations turned negative is still waited for', (t) => {
  const f = new SmmuFixture();
  f.setSte(3, S.STE_BYPASS);
  f.enable();
  const { words } = f.memory;
  words.store(f.regions.unit + UnitLayout.at.gen, 0x7fff_ffff);
  f.begin(0, 0x1000n);
  t.is(f.finish(0).status, OK);
  const gate = new EpochGate(words, f.regions.unit);
  const generation = gate.begin();
  t.is(generation, -0x8000_0000);
  t.false(gate.passed(generation));
  f.leave(0);
  t.true(gate.passed(generation));
});

test('mmio: an interrupt’s registers stay locked until its disabling is acknowledged', (t) => {
  const f = new SmmuFixture();
  f.mmio.write32(0x50, 1);
  f.run();
  f.mmio.write32(0x50, 0);
  f.mmio.write32(0x70, 0x1234);
  t.is(f.mmio.read32(0x70), 0);
  f.run();
  f.mmio.write32(0x70, 0x1234);
  t.is(f.mmio.read32(0x70), 0x1234);
});

test('mmio: reserved bits of GERRORN stay zero, and CR1’s queue half is locked by the Event queue', (t) => {
  const f = new SmmuFixture();
  f.mmio.write32(0x64, 0xffff_ffff);
  t.is(f.mmio.read32(0x64) & ~0x48, 0x1b5);
  f.mmio.write32(0x28, 0x3f);
  t.is(f.mmio.read32(0x28), 0x3f);
  f.mmio.write32(0x20, 0b100);
  f.run();
  f.mmio.write32(0x28, 0);
  t.is(f.mmio.read32(0x28), 0x3f);
});

test('mmio: a guest that touches every offset leaves a log of bounded length', (t) => {
  const f = new SmmuFixture();
  for (let i = 0; i < 1000; i++) f.mmio.read32(0x2000 + i * 4);
  t.is(f.logs.length, 256);
});

test('interrupts: a global error raises none while GERROR_IRQEN is 0', (t) => {
  const f = new SmmuFixture();
  f.enable();
  f.command([0n, 0n]);
  t.is(f.mmio.read32(0x60) & 1, 1);
  t.is(f.memory.words.load(f.regions.smmu + Smmuv3Layout.at.irqGerror), 0);
});
