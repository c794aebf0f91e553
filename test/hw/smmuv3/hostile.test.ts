/** A guest, or a broken driver, may write anything anywhere: the model answers, ends, and stays inside memory. */
import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);

/** xorshift32. */
class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 1) >>> 0 || 1;
  }
  u32(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }
  below(n: number): number {
    return this.u32() % n;
  }
  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }
}

/** Everything outside RAM and the unit's own regions must stay as it was. */
function guard(f: SmmuFixture): () => boolean {
  const { u8, ram } = f.memory;
  const low = u8.slice(0, 65536);
  const from = f.ports.at(-1)! + PortLayout.size;
  const to = Math.min(from + 1024 * 1024, ram.linear);
  return () => low.every((byte, i) => u8[i] === byte) && u8.subarray(from, to).every((byte) => byte === 0);
}

const plausible = (r: Random, f: SmmuFixture): bigint => {
  switch (r.below(4)) {
    case 0:
      return BigInt(f.memory.ram.basePa + r.below(4096) * 4096);
    case 1:
      return r.u64() & 0xf_ffff_ffff_f000n;
    case 2:
      return 0n;
    default:
      return r.u64();
  }
};

test(`random stream table entries and context descriptors never throw (seed ${SEED})`, (t) => {
  const r = new Random(SEED);
  const f = new SmmuFixture();
  const cd = f.alloc(4096);
  const root = f.alloc(64 * 1024, 64 * 1024);
  f.enable();
  const intact = guard(f);
  const seen = new Set<number>();
  for (let i = 0; i < 3000; i++) {
    const kind = r.below(4);
    const ste =
      kind === 0
        ? [r.u64() | 1n, r.u64(), r.u64(), r.u64()]
        : kind === 1
          ? S.steS1(cd)
          : kind === 2
            ? S.steS2({ root, vmid: r.below(65536) })
            : S.steNested(cd, { root, vmid: 1 });
    for (let flips = r.below(3); flips > 0; flips--) ste[r.below(4)]! ^= 1n << BigInt(r.below(64));
    const words = S.cd({ root, asid: r.below(65536) });
    for (let flips = r.below(3); flips > 0; flips--) words[r.below(8)]! ^= 1n << BigInt(r.below(64));
    if (r.below(4) === 0) words[1] = plausible(r, f);
    f.setSte(3, ste);
    f.writeWords(cd, words);
    for (let n = 0; n < 4; n++) f.write64(root + r.below(512) * 8, plausible(r, f) | BigInt(r.below(4)));
    f.push(S.cfgiSte(3), S.tlbi(0x30), S.sync());
    f.run();
    const answer = f.dma(plausible(r, f), r.below(8), 0, r.below(10) === 0 ? r.u32() : 0xffff_ffff);
    seen.add(answer.status);
    f.rawEvents();
  }
  t.true(intact());
  for (const status of [0, 0x04, 0x08, 0x0a, 0x10]) t.true(seen.has(status), `status ${status} was reached`);
});

test(`random commands never throw, and the queue always recovers (seed ${SEED})`, (t) => {
  const r = new Random(SEED ^ 0x5555);
  const f = new SmmuFixture();
  f.enable();
  const intact = guard(f);
  const opcodes = [1, 2, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x28, 0x2a, 0x30, 0x46, 0x40, 0x44];
  let errors = 0;
  for (let i = 0; i < 4000; i++) {
    const op = r.below(8) === 0 ? r.below(256) : opcodes[r.below(opcodes.length)]!;
    // MSIs may not land in the queues, the tables or the tables' pointers of this test.
    const high = op === 0x46 ? r.u64() & ~0xf_ffff_ffff_ffffn : r.u64();
    f.push([(r.u64() & ~0xffn) | BigInt(op), high]);
    f.run();
    if (((f.mmio.read32(0x60) ^ f.mmio.read32(0x64)) & 1) === 1) {
      errors++;
      f.mmio.write32(0x98, (f.mmio.read32(0x9c) & 0xfffff) >>> 0);
      f.mmio.write32(0x64, f.mmio.read32(0x60));
      f.run();
    }
    t.is(f.mmio.read32(0x98), f.mmio.read32(0x9c) & 0xfffff);
  }
  t.true(errors > 10 && errors < 3900);
  t.true(intact());
});

test(`random register traffic never throws and never wedges the model (seed ${SEED})`, (t) => {
  const r = new Random(SEED ^ 0xaaaa);
  const f = new SmmuFixture({ sids: [3, 200] });
  const intact = guard(f);
  const offsets = [
    0x20, 0x28, 0x2c, 0x44, 0x50, 0x64, 0x68, 0x80, 0x84, 0x88, 0x90, 0x94, 0x98, 0x9c, 0xa0, 0xa4,
  ];
  const more = [0xb0, 0xb8, 0xc0, 0x100a8, 0x100ac, 0x100c8, 0x100cc, 0, 4, 0x60, 0x24];
  const all = [...offsets, ...more];
  for (let i = 0; i < 6000; i++) {
    const offset = r.below(50) === 0 ? r.below(0x20000) & ~3 : all[r.below(all.length)]!;
    const value = r.below(3) === 0 ? Number(plausible(r, f) & 0xffff_ffffn) : r.below(64);
    // Interrupt messages go nowhere in this test: addresses above RAM.
    const safe = offset === 0x68 || offset === 0xb0 ? 0 : value;
    if (r.below(3) === 0 && offset % 8 === 0 && safe !== 0) f.mmio.write64(offset, plausible(r, f));
    else f.mmio.write32(offset, safe);
    f.mmio.read64(offset & ~7);
    if (r.below(3) === 0) f.model.step();
    if (r.below(16) === 0) t.true(f.dma(r.u64() & 0xffff_ffffn, r.below(8), r.below(2)).status < 0x100);
  }
  // Whatever was written, a driver that resets the unit finds it working.
  f.mmio.write32(0x20, 0);
  f.run();
  f.mmio.write32(0x64, f.mmio.read32(0x60));
  f.mmio.write32(0x98, 0);
  f.mmio.write32(0x9c, 0);
  f.enable();
  t.is(f.mmio.read32(0x24), 0b1101);
  f.command(S.CFGI_ALL, S.sync());
  t.is(f.mmio.read32(0x9c), 2);
  t.true(intact());
});

test('a PROD far beyond the queue is consumed once round, not for ever', (t) => {
  const f = new SmmuFixture({ cmdqLog2: 3 });
  f.enable();
  for (let i = 0; i < 8; i++) f.write64(f.cmdq + i * 16, 0x46n);
  f.mmio.write32(0x98, 0xffff_ffff);
  f.run();
  t.is(f.mmio.read32(0x9c), 15);
});

test('ports: nonsense in ring indexes and port counts is survived', (t) => {
  const f = new SmmuFixture();
  f.enable();
  const { words } = f.memory;
  words.store(f.ports[0]! + PortLayout.at.reqProd, 0x7fff_ffff);
  f.run();
  words.store(f.ports[0]! + PortLayout.at.reqCons, 5);
  f.run();
  t.is(f.mmio.read32(0x24), 0b1101);
  f.command(S.sync());
  t.is(f.mmio.read32(0x9c), 1);
});

test('bases that are not aligned to their size lose their low bits', (t) => {
  const f = new SmmuFixture();
  f.setSte(3, S.STE_BYPASS);
  f.enable(0);
  f.mmio.write64(0x80, BigInt(f.strtab + 64));
  f.mmio.write64(0x90, BigInt(f.cmdq + 32) | 5n);
  f.mmio.write64(0xa0, BigInt(f.evtq + 32) | 4n);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  t.is(f.dma(0x1000n).status, 0);
  f.command(S.sync());
  t.is(f.mmio.read32(0x9c), 1);
  f.dma(0x1000n, 0, 0, 1);
  t.is(f.read64(f.evtq) & 0xffn, 0x08n);
});
