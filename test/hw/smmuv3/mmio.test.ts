import test from 'ava';
import { smmuv3Config } from '../../../hw/smmuv3/config.js';
import { Mmio } from '../../../hw/smmuv3/mmio.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { OK, SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

test('identification registers ignore writes', (t) => {
  const f = new SmmuFixture();
  const before = f.mmio.read32(0);
  f.mmio.write32(0, 0xffff_ffff);
  t.is(f.mmio.read32(0), before);
});

test('cr0: only modelled enables exist, and CR0ACK follows when the model steps', (t) => {
  const f = new SmmuFixture();
  f.mmio.write32(0x20, 0xffff_ffff);
  f.mmio.write32(0x20, 0b1101);
  t.is(f.mmio.read32(0x20), 0b1101);
  t.is(f.mmio.read32(0x24), 0);
  t.true(f.model.hasWork());
  f.run();
  t.is(f.mmio.read32(0x24), 0b1101);
  t.false(f.model.hasWork());
});

test('cr0: an update of SMMUEN waits for the DMA before it', (t) => {
  const f = new SmmuFixture();
  f.setSte(3, S.STE_BYPASS);
  f.enable();
  f.begin(0, 0x1000n);
  f.finish(0);
  f.mmio.write32(0x20, 0b1100);
  f.run();
  t.is(f.mmio.read32(0x24), 0b1101);
  f.leave(0);
  f.run();
  t.is(f.mmio.read32(0x24), 0b1100);
});

test('gbpa: bypass, abort, and back; a write without Update is ignored', (t) => {
  const f = new SmmuFixture({ config: { oasBits: 36 } });
  t.like(f.dma(0x1234_5678n), { status: OK, pa: 0x1234_5678n });
  t.is(f.dma(1n << 36n).status, 0xff, 'beyond the output size');
  f.mmio.write32(0x44, 1 << 20);
  f.run();
  t.is(f.mmio.read32(0x44), 0);
  f.mmio.write32(0x44, (1 << 31) | (1 << 20));
  t.is(f.mmio.read32(0x44) >>> 31, 1);
  f.mmio.write32(0x44, 1 << 31);
  f.run();
  t.is(f.mmio.read32(0x44), 1 << 20, 'the write during the update was ignored');
  t.is(f.dma(0x1000n).status, 0xff);
  f.setSte(3, S.STE_BYPASS);
  f.enable();
  t.is(f.dma(0x1000n).status, OK, 'the stream table rules once enabled');
  f.mmio.write32(0x20, 0b1100);
  f.run();
  t.is(f.dma(0x1000n).status, 0xff, 'and GBPA again, cached streams or not');
  t.deepEqual(f.events(), []);
});

test('guards: tables and queues are locked from enable to acknowledged disable', (t) => {
  const f = new SmmuFixture();
  f.enable();
  const locked = [
    [0x80, BigInt(f.strtab)],
    [0x90, BigInt(f.cmdq) | 5n],
    [0xa0, BigInt(f.evtq) | 4n],
  ] as const;
  const attempt = (): bigint[] => {
    for (const [offset] of locked) f.mmio.write64(offset, 0x7000_0000n);
    return locked.map(([offset]) => f.mmio.read64(offset));
  };
  t.deepEqual(
    attempt(),
    locked.map(([, value]) => value),
  );
  f.mmio.write32(0x20, 0);
  t.deepEqual(
    attempt(),
    locked.map(([, value]) => value),
    'CR0ACK has not followed yet',
  );
  f.run();
  t.deepEqual(attempt(), [0x7000_0000n, 0x7000_0000n, 0x7000_0000n]);
});

test('guards: CR1 halves, CR2 and EVENTQ_PROD', (t) => {
  const f = new SmmuFixture();
  f.mmio.write32(0x28, 0xffff_ffff);
  t.is(f.mmio.read32(0x28), 0xfff);
  f.enable(0b0001);
  f.mmio.write32(0x28, 0);
  t.is(f.mmio.read32(0x28), 0xfc0, 'table attributes are locked, queue attributes are not');
  f.mmio.write32(0x2c, 0);
  t.is(f.mmio.read32(0x2c), 2);
  f.mmio.write32(0x100a8, 5);
  t.is(f.mmio.read32(0x100a8), 5);
  f.enable(0b0101);
  f.mmio.write32(0x100a8, 0);
  t.is(f.mmio.read32(0x100a8), 5);
});

test('64-bit registers: halves and wholes agree', (t) => {
  const f = new SmmuFixture();
  f.mmio.write32(0x80, 0x1234_5678);
  f.mmio.write32(0x84, 0xffff_ffff);
  t.is(f.mmio.read64(0x80), 0x400f_ffff_1234_5640n);
  t.is(f.mmio.read32(0x84), 0x400f_ffff);
  t.is(f.mmio.read64(0x88), 0n);
  f.mmio.write64(0x98, 3n | (7n << 32n));
  t.is(f.mmio.read64(0x98), 3n | (7n << 32n), 'two 32-bit registers side by side');
});

test('unmodelled offsets: RAZ/WI, logged once each', (t) => {
  const f = new SmmuFixture();
  for (let i = 0; i < 3; i++) {
    f.mmio.write32(0x100, 1);
    t.is(f.mmio.read32(0x100), 0);
    t.is(f.mmio.read32(0x8000), 0);
  }
  t.is(f.logs.length, 2);
  t.regex(f.logs[0]!, /0x100/);
});

const [HYP, ATS, PRI] = [1 << 9, 1 << 10, 1 << 16] as const;
/** An SMMU whose IDR0 has, or has not, these bits. */
function featured(set: number): SmmuFixture {
  const f = new SmmuFixture();
  const { words } = f.memory;
  const idr0 = f.regions.smmu + Smmuv3Layout.at.idr0;
  words.store(idr0, (words.load(idr0) & ~(HYP | ATS | PRI)) | set);
  const mmio = new Mmio(f.env, f.regions, (message) => void f.logs.push(message));
  f.model = f.newModel();
  return Object.assign(f, { mmio });
}

test('features: enables, CR2 and errors have the bits that IDR0 reports', (t) => {
  for (const [set, cr0, cr2, irq, gerrorn] of [
    [0, 0b0_1101, 0b10, 0b101, 0x1b5],
    [HYP, 0b0_1101, 0b11, 0b101, 0x1b5],
    [ATS, 0b1_1101, 0b10, 0b101, 0x1b5],
    [ATS | PRI, 0b1_1111, 0b10, 0b111, 0x1fd],
  ] as const) {
    const f = featured(set);
    for (const offset of [0x2c, 0x50, 0x64, 0x20]) f.mmio.write32(offset, 0xffff_ffff);
    f.run();
    t.deepEqual(
      [0x20, 0x24, 0x2c, 0x50, 0x54, 0x64].map((offset) => f.mmio.read32(offset)),
      [cr0, cr0, cr2, irq, irq, gerrorn],
    );
  }
});

test('features: the PRI queue’s registers are there with PRI only, locked while it is enabled', (t) => {
  const offsets = [0xc0, 0xd0, 0xd8, 0xdc, 0x100c8, 0x100cc];
  const poke = (f: SmmuFixture, value: number): number[] =>
    offsets.map((offset) => {
      f.mmio.write32(offset, value);
      return f.mmio.read32(offset);
    });
  const without = featured(ATS);
  t.deepEqual(poke(without, 0xffff_ffff), [0, 0, 0, 0, 0, 0]);
  t.is(without.logs.length, 6);
  const f = featured(ATS | PRI);
  const all = [0xffff_ffff, 0xffff_fffc, 0xffff_ffff, 0x8000_003f, 0x800f_ffff, 0x800f_ffff];
  t.deepEqual(poke(f, 0xffff_ffff), all);
  f.mmio.write32(0x50, 2);
  f.mmio.write32(0x20, 2);
  f.run();
  t.deepEqual(poke(f, 0), [...all.slice(0, 5), 0], 'but PRIQ_CONS');
  t.is(f.logs.length, 0);
});

test('cr0: a change of ATSCHK drops configurations, which may hold the old one', (t) => {
  const f = featured(ATS);
  f.setSte(3, S.STE_BYPASS);
  f.enable();
  t.is(f.dma(0x1000n).status, OK);
  f.setSte(3, S.STE_ABORT);
  t.is(f.dma(0x1000n).status, OK);
  f.mmio.write32(0x20, 0b1_1101);
  f.run();
  t.is(f.mmio.read32(0x24), 0b1_1101);
  t.is(f.dma(0x1000n).status, 0xff);
});

test('config: what makes no sense is refused, naming the key', (t) => {
  for (const [key, value] of [
    ['sidBits', 0],
    ['sidBits', 33],
    ['iotlbEntries', 100],
    ['oasBits', 50],
    ['ssidBits', 21],
    ['priqLog2', 15],
    ['granules', []],
    ['granules', [13]],
    ['httu', 'yes'],
    ['stalls', 'sometimes'],
    ['ats', 1],
    ['atcTimeoutNs', -1],
    ['cmdqLog2', 15],
    ['evtqLog2', 0],
    ['vmidBits', 12],
    ['asidBits', 0],
    ['stages', 'none'],
    ['index', -1],
  ] as const)
    t.throws(() => smmuv3Config({ index: 0, [key]: value } as never), { message: new RegExp(key) });
});
