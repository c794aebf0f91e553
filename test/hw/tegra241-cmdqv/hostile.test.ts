import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { Random, SEED } from '../../kit/random.js';
import { OK, SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const VA = 0x1000n;
const LOG2 = 5;
/** Streams 3 and 4 have VMIDs 1 and 2; VINTF 1 is a hostile guest's with VMID 1. */
const OTHER = 1;

test(`vcmdq: random commands and registers of one guest leave the other and the host alone (SEED=${SEED})`, (t) => {
  const random = new Random(SEED);
  const f = new SmmuFixture({ sids: [3, 4], cmdqv: { vintfs: 2 }, config: { atcTimeoutNs: 0 } });
  // The hostile guest's device has an ATC, which sometimes does not answer.
  for (const at of [PortLayout.at.ats, PortLayout.at.atsControl]) f.memory.words.store(f.ports[0]! + at, 1);
  const roots = [1, 2].map((vmid, i) => {
    const root = f.alloc(4096);
    const cd = f.alloc(4096);
    f.map(root, 1, VA, 0x8080_0000n, 3, S.S1_PAGE);
    f.writeWords(cd, S.cd({ root, asid: 7 }));
    f.setSte(3 + i, S.steS1(cd, vmid));
    return root;
  });
  f.enable();
  const host = f.cmdqv!.mmio;
  const base = f.alloc(16 * 2 ** LOG2);
  host.write32(0, 1);
  host.write32(0x1100, (1 << 1) | 1);
  host.write32(0x1140, (0x13 << 1) | 1);
  host.write32(0x1180, 3);
  for (const lvcmdq of [0, 1]) {
    host.write32(0x200 + 4 * (2 + lvcmdq), (1 << 15) | (lvcmdq << 1) | 1);
    f.run();
    host.write64(0x30000 + 0x20000 + 0x10000 + 0x80 * lvcmdq, BigInt(base) | BigInt(LOG2));
  }
  f.run();
  const { words } = f.memory;
  const page = f.cmdqv!.regions.pages + 0x10000;

  // The other guest's page is cached, and gone from its table: whoever reaches its VMID makes it fault.
  if (f.dma(VA, 0, OTHER).status !== OK) throw new Error('hostile: DMA');
  f.map(roots[OTHER]!, 1, VA, 0n, 3, 0n);

  const opcodes = [0x11, 0x12, 0x40, 0x46, 0x10, 0x13, 0x28, 0x2a, 0x30, 0x03, 0x04, 0x05, 0x44, 0x41, 0x01];
  for (let i = 0; i < 20_000; i++) {
    const kind = random.below(10);
    if (kind < 5) {
      const slot = base + random.below(2 ** LOG2) * 16;
      const opcode = random.chance(0.8) ? random.pick(opcodes) : random.below(256);
      const sid = random.chance(0.5) ? 0x13n << 32n : random.big(32) << 32n;
      f.write64(slot, BigInt(opcode) | (random.chance(0.5) ? sid : random.big(64) & ~0xffn));
      f.write64(slot + 8, random.chance(0.5) ? random.big(64) : 0x1001n);
    } else if (kind < 9) {
      // Enabled more often than not, and errors acknowledged.
      const at = page + 0x80 * random.below(2) + 4 * random.below(6);
      const value = random.chance(0.5) ? random.u32() : random.below(64);
      words.store(at, value | 0);
      if (random.chance(0.5)) words.store(page + 8, 1);
      if (random.chance(0.5)) words.store(page + 0x14, words.load(page + 0x10));
    } else words.store(page + 4, random.below(2 ** (LOG2 + 1)));
    f.memory.words.store(f.ports[0]! + PortLayout.at.atcHung, random.chance(0.1) ? 1 : 0);
    for (let steps = 0; steps < random.below(4); steps++) f.model.step();
    if (i % 100 !== 0) continue;
    // What a disabled queue left to wait for is the SMMU's own, as in Linux: answered, it is no error.
    f.memory.words.store(f.ports[0]! + PortLayout.at.atcHung, 0);
    t.is(f.dma(VA, 0, OTHER).status, OK, `${i}: the other guest's translation`);
    const cons = f.mmio.read32(0x9c);
    f.command(S.cfgiSte(9), S.sync());
    t.is(f.mmio.read32(0x9c), (cons + 2) & 0x3f, `${i}: the SMMU's own queue`);
    t.is(f.mmio.read32(0x60), 0, `${i}: no error of the SMMU`);
  }
  // Put in order again, the queue works.
  words.store(page + 8, 0);
  words.store(page + 0x88, 0);
  f.run();
  t.is(words.load(page + 0xc), 0, 'STATUS, whatever was written there');
  for (let i = 0; i < 2 ** LOG2; i++) f.writeWords(base + 16 * i, S.sync());
  words.store(page + 0x14, words.load(page + 0x10));
  words.store(page, 0);
  words.store(page + 4, 7);
  words.store(page + 8, 1);
  f.run();
  words.store(page + 0x14, words.load(page + 0x10));
  f.run();
  t.is(words.load(page), 7);
});
