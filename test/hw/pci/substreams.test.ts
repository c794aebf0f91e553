import test from 'ava';
import { OK, SmmuFixture, WRITE } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const NO_SSID = 0xffff_ffff;
const C_BAD_SUBSTREAMID = 0x08;

/** Stream 3: SubstreamIDs 1 and 2 with tables of their own, none with that of 0 (S1DSS = 0b10). */
function device(): SmmuFixture {
  const f = new SmmuFixture({ config: { ssidBits: 3 } });
  const table = f.alloc(64 * 8);
  for (const ssid of [0, 1, 2]) {
    const root = f.alloc(4096);
    f.map(root, 1, 0x1000n, BigInt(0x8080_0000 + ssid * 0x1000), 3, S.S1_PAGE);
    f.writeWords(table + ssid * 64, S.cd({ root, asid: 10 + ssid }));
  }
  const ste = S.steS1(table);
  ste[0]! |= 3n << 59n;
  ste[1]! |= 2n;
  f.setSte(3, ste);
  f.enable();
  return f;
}

test('PASID: each transfer goes where its substream’s tables say', (t) => {
  const f = device();
  const dma = f.dmaPort();
  t.is(dma.write(0x1000n, new Uint8Array(8).fill(0x11), { pasid: 1 }), OK);
  t.is(dma.write(0x1000n, new Uint8Array(8).fill(0x22), { pasid: 2 }), OK);
  t.is(dma.write(0x1000n, new Uint8Array(8).fill(0x99)), OK);
  t.deepEqual(
    [0x8080_0000, 0x8080_1000, 0x8080_2000].map((pa) => f.read64(pa) & 0xffn),
    [0x99n, 0x11n, 0x22n],
  );
  t.is(dma.read(0x1000n, new Uint8Array(1), { pasid: 9 }), C_BAD_SUBSTREAMID);
  t.throws(() => dma.read(0x1000n, new Uint8Array(1), { pasid: -1 }), { instanceOf: RangeError });
});

test('PASID: a batch that mixes them, and none, keeps them apart, cold and from every cache', (t) => {
  const f = device();
  const dma = f.dmaPort();
  const plan = [1, 1, NO_SSID, 2, NO_SSID, NO_SSID, 1, 2, 2, 1, NO_SSID, 5, 1];
  const expected = plan.map((ssid) => (ssid === 5 ? 'fault' : ssid === NO_SSID ? 0 : ssid));
  for (let round = 0; round < 4; round++) {
    plan.forEach((ssid, slot) => {
      dma.prepare(slot, 0x1010, 0, slot & 1 ? WRITE : 0, 3, ssid);
    });
    dma.translate(plan.length);
    t.deepEqual(
      plan.map((_, slot) => (dma.status(slot) === OK ? (dma.pa(slot) - 0x8080_0010) / 0x1000 : 'fault')),
      expected,
      `round ${round}`,
    );
    dma.end();
    if (round === 1) f.command(S.sync());
  }
});

test('PASID: an instruction and a privileged access ask for their own permission', (t) => {
  const f = device();
  const dma = f.dmaPort();
  // The leaf is for unprivileged code as well: readable, and executable as UXN is clear.
  t.is(dma.read(0x1000n, new Uint8Array(1), { pasid: 1, instruction: true }), OK);
  t.is(dma.read(0x1000n, new Uint8Array(1), { pasid: 1, privileged: true }), OK);
  // Writable by unprivileged code: never executable by privileged code.
  t.is(dma.read(0x1000n, new Uint8Array(1), { pasid: 1, privileged: true, instruction: true }), 0x13);
  t.like(f.events()[0], { id: 0x13, ssv: true, ssid: 1, ind: true, pnu: true, rnw: true });
});

test('CFGI_STE with Leaf = 0: a level-2 table that was not there is found', (t) => {
  const f = new SmmuFixture({ sids: [3, 70] });
  const l1 = f.alloc(64, 64);
  const l2 = [f.alloc(64 * 64), f.alloc(64 * 64)];
  // SPLIT 6: Span 7 is all 64 entries.
  f.write64(l1, BigInt(l2[0]!) | 7n);
  f.writeWords(l2[0]! + 3 * 64, S.STE_BYPASS);
  f.enable(0b1100);
  f.mmio.write64(0x80, BigInt(l1));
  f.mmio.write32(0x88, 8 | (6 << 6) | (1 << 16));
  f.mmio.write32(0x20, 0b1101);
  f.run();
  t.deepEqual([f.dma(0x1000n, 0, 0).status, f.dma(0x1000n, 0, 1).status], [OK, 0x02]);
  f.writeWords(l2[1]! + 6 * 64, S.STE_BYPASS);
  f.write64(l1 + 8, BigInt(l2[1]!) | 7n);
  f.command([0x03n | (70n << 32n), 0n], S.sync());
  t.is(f.dma(0x1000n, 0, 1).status, OK);
});
