import test from 'ava';
import { CmdqvConfigError, cmdqvConfig } from '../../../hw/tegra241-cmdqv/config.js';
import { SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const [STATUS, VINTF1] = [0x8, 0x1100];
const ALLOC = (q: number): number => 0x200 + 4 * q;

function bench() {
  const f = new SmmuFixture({ cmdqv: { vintfs: 4, vcmdqsPerVintf: 2, sidsPerVintf: 8 } });
  return { f, host: f.cmdqv!.mmio };
}

test('cmdqv: PARAM says what there is', (t) => {
  const { host } = bench();
  t.is(host.read32(4), 1 | (3 << 4) | (2 << 8) | (3 << 12));
  host.write32(4, 0);
  t.is(host.read32(4), 1 | (3 << 4) | (2 << 8) | (3 << 12), 'read-only');
});

test('cmdqv: counts are powers of two that the registers have room for', (t) => {
  const error = (options: object) =>
    t.throws<CmdqvConfigError>(() => cmdqvConfig({ index: 0, ...options }), { instanceOf: CmdqvConfigError })
      ?.key;
  t.is(error({ vintfs: 3 }), 'vintfs');
  t.is(error({ vintfs: 128 }), 'vintfs');
  t.is(error({ vintfs: 64, vcmdqsPerVintf: 4 }), 'vcmdqsPerVintf');
  t.is(error({ sidsPerVintf: 32 }), 'sidsPerVintf');
  t.is(cmdqvConfig({ index: 0, vintfs: 64, vcmdqsPerVintf: 2 }).vintfs, 64);
});

test('cmdqv: STATUS follows CONFIG, a VINTF’s as well', (t) => {
  const { f, host } = bench();
  host.write32(0, 1);
  host.write32(VINTF1, (5 << 1) | 1);
  t.is(host.read32(STATUS), 0);
  f.run();
  t.is(host.read32(STATUS), 1);
  t.is(host.read32(VINTF1 + 4), 1);
  t.is(host.read32(VINTF1), (5 << 1) | 1);
  host.write32(VINTF1, 0);
  f.run();
  t.is(host.read32(VINTF1 + 4), 0);
});

test('cmdqv: a VCMDQ is seen by its global number and by its logical one', (t) => {
  const { f, host } = bench();
  host.write32(ALLOC(3), (1 << 15) | (1 << 1) | 1);
  f.run();
  host.write32(0x10000 + 3 * 0x80 + 4, 7);
  t.is(host.read32(0x30000 + 0x20000 + 0x80 + 4), 7);
  host.write64(0x30000 + 0x20000 + 0x10000 + 0x80, 0x8000_0044n);
  t.is(host.read64(0x20000 + 3 * 0x80), 0x8000_0044n);
  t.is(host.read32(0x10000 + 2 * 0x80 + 4), 0, 'not allocated: nothing there');
});

test('cmdqv: BASE is locked while the queue is enabled', (t) => {
  const { f, host } = bench();
  const base = f.alloc(4096);
  host.write32(0, 1);
  host.write32(VINTF1, 1);
  host.write32(ALLOC(2), (1 << 15) | 1);
  f.run();
  const page1 = 0x20000 + 2 * 0x80;
  host.write64(page1, BigInt(base) | 4n);
  host.write32(0x10000 + 2 * 0x80 + 8, 1);
  f.run();
  host.write64(page1, 0n);
  t.is(host.read64(page1), BigInt(base) | 4n);
  host.write32(ALLOC(2), 0);
  f.run();
  host.write64(page1, 0n);
  t.is(host.read64(page1), 0n, 'taken away, it is off');
});

test('cmdqv: what is not there reads as zero and is named once', (t) => {
  const { f, host } = bench();
  for (const offset of [
    0x10,
    0x1400,
    0x10000 + 8 * 0x80,
    0x30000 + 4 * 0x20000,
    0x30000 + 0x18,
    0xfff_fffc,
  ]) {
    t.is(host.read32(offset), 0);
    host.write32(offset, 1);
    t.is(host.read32(offset), 0);
  }
  t.is(f.logs.length, 6);
});

test('cmdqv: two VCMDQs in one logical place: the first has it', (t) => {
  const { f, host } = bench();
  host.write32(ALLOC(2), (1 << 15) | 1);
  host.write32(ALLOC(4), (1 << 15) | 1);
  host.write32(ALLOC(5), (63 << 15) | 1);
  f.run();
  t.is(f.logs.length, 2);
  t.regex(f.logs[0]!, /VCMDQ 4/);
});

test('cmdqv: a masked VINTF raises no interrupt, but is in the map', (t) => {
  const { f, host } = bench();
  const base = f.alloc(4096);
  f.enable();
  host.write32(0, 1);
  host.write32(0x1c, 1 << 1);
  host.write32(VINTF1, 1);
  host.write32(ALLOC(2), (1 << 15) | 1);
  f.run();
  host.write64(0x20000 + 2 * 0x80, BigInt(base) | 4n);
  host.write32(0x10000 + 2 * 0x80 + 8, 1);
  f.writeWords(base, S.tlbi(0x30));
  host.write32(0x10000 + 2 * 0x80 + 4, 1);
  f.run();
  t.is(host.read32(0x14), 1 << 1);
  t.deepEqual(f.interrupts, []);
});
