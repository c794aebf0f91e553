import test from 'ava';
import { DmaPort } from '../../../hw/pci/dma-port.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { type Answer, OK, SmmuFixture, WRITE } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const ABORT = 0xff;
const STALLED = 0xfe;
const RAZ_WI = 0xfd;
const F_TRANSLATION = 0x10;
const NONE = 0;
const RETRY = 1;
const VERDICT_ABORT = 2;
const VERDICT_RAZ_WI = 3;

/** STE.S2S: bit 185. CD.S: bit 44. STE.S1STALLD: bit 91. */
const S2S = 1n << 57n;
const CD_S = 1n << 44n;
const S1STALLD = 1n << 27n;
const CD_A = 1n << 46n;
const CD_R = 1n << 45n;

const word = (f: SmmuFixture, at: number): number => f.memory.words.load(f.regions.smmu + at);
const held = (f: SmmuFixture): number => word(f, Smmuv3Layout.at.stallsHeld);

/** Streams 3 and 4, stage 2 with S2S (and without S2R: a stall is recorded all the same). */
function stage2(options: ConstructorParameters<typeof SmmuFixture>[0] = {}): {
  f: SmmuFixture;
  root: number;
} {
  const f = new SmmuFixture({ sids: [3, 4], config: { stalls: 'optional' }, ...options });
  const root = f.alloc(4096);
  f.map(root, 1, 0x1000n, 0x8080_0000n, 3, S.S2_PAGE);
  for (const sid of [3, 4]) {
    const ste = S.steS2({ root, vmid: 1, record: false });
    ste[2]! |= S2S;
    f.setSte(sid, ste);
  }
  f.enable();
  return { f, root };
}

function stage1(cdBits: bigint, steBits = 0n, stalls: 'optional' | 'forced' = 'optional'): SmmuFixture {
  const f = new SmmuFixture({ config: { stalls } });
  const cd = f.alloc(64);
  const words = S.cd({ root: f.alloc(4096), asid: 1 });
  words[0] = (words[0]! & ~(CD_A | CD_R)) | cdBits;
  f.writeWords(cd, words);
  const ste = S.steS1(cd);
  ste[1]! |= steBits;
  f.setSte(3, ste);
  f.enable();
  return f;
}

const stall = (f: SmmuFixture, iova: bigint, flags = 0, index = 0): number => {
  const answer: Answer = f.dma(iova, flags, index);
  if (answer.status !== STALLED) throw new Error(`status ${answer.status}`);
  return answer.level;
};

test('stall: recorded with Stall and its STAG, and in nobody’s way', (t) => {
  const { f } = stage2();
  const stag = stall(f, 0x5678n, WRITE);
  t.deepEqual(f.rawEvents(), [
    [
      BigInt(F_TRANSLATION) | (3n << 32n),
      BigInt(stag) | (1n << 31n) | (1n << 39n) | (2n << 40n),
      0x5678n,
      0x5000n,
    ],
  ]);
  t.is(f.dma(0x1000n).status, OK, 'others of the stream go on');
  f.command(S.sync());
  t.is(f.mmio.read32(0x9c), 1, 'a SYNC does not wait for it');
  t.is(f.dmaPort().verdict(stag), NONE);
  t.is(held(f), 1);
});

test('stall: RESUME tells the device what to do, once', (t) => {
  for (const [action, verdict] of [
    ['retry', RETRY],
    ['abort', VERDICT_ABORT],
    ['raz-wi', VERDICT_RAZ_WI],
  ] as const) {
    const { f, root } = stage2();
    const stag = stall(f, 0x5000n);
    f.map(root, 1, 0x5000n, 0x8081_0000n, 3, S.S2_PAGE);
    f.command(S.resume(3, stag, action));
    t.is(f.dmaPort().verdict(stag), verdict, action);
    t.is(held(f), 0);
    // The tag is used up: what comes later has no effect.
    f.command(S.resume(3, stag, 'abort'));
    t.is(f.dmaPort().verdict(stag), verdict);
    t.is(f.dma(0x5000n).status, OK, 'sent again, it finds what is there now');
  }
});

test('stall: a STAG of another stream, an unknown one and one of another use have no effect', (t) => {
  const { f } = stage2();
  const stag = stall(f, 0x5000n);
  f.command(S.resume(4, stag, 'abort'), S.resume(3, stag ^ 1, 'abort'), S.resume(3, stag ^ 0x100, 'abort'));
  f.command(S.resume(3, 0xffff, 'retry'), S.resume(0xffff_ffff, stag, 'retry'));
  t.is(f.dmaPort().verdict(stag), NONE);
  t.is(held(f), 1);
});

test('stall: sent again before it is resumed, it stalls again under another STAG', (t) => {
  const { f } = stage2();
  const first = stall(f, 0x5000n);
  const second = stall(f, 0x5000n);
  t.not(first, second);
  f.command(S.resume(3, second, 'retry'));
  t.deepEqual([f.dmaPort().verdict(first), f.dmaPort().verdict(second)], [NONE, RETRY]);
});

test('stall: STALL_TERM ends all of one stream', (t) => {
  const { f } = stage2();
  const tags = [0x5000n, 0x6000n].map((iova) => stall(f, iova));
  const other = stall(f, 0x5000n, 0, 1);
  f.command(S.stallTerm(3));
  t.deepEqual(
    tags.map((stag) => f.dmaPort(0).verdict(stag)),
    [VERDICT_ABORT, VERDICT_ABORT],
  );
  t.is(f.dmaPort(1).verdict(other), NONE);
  t.is(held(f), 1);
});

test('stall: a configuration that aborts does not end it, but its retry does', (t) => {
  const { f } = stage2();
  const stag = stall(f, 0x5000n);
  f.setSte(3, S.STE_ABORT);
  f.command(S.cfgiSte(3), S.sync());
  t.is(f.dmaPort().verdict(stag), NONE);
  f.command(S.resume(3, stag, 'retry'));
  t.is(f.dma(0x5000n).status, ABORT);
});

test('stall: SMMUEN = 0 ends all of them', (t) => {
  const { f } = stage2();
  const stag = stall(f, 0x5000n);
  const other = stall(f, 0x5000n, 0, 1);
  f.mmio.write32(0x20, 0b1100);
  f.run();
  t.deepEqual([f.dmaPort(0).verdict(stag), f.dmaPort(1).verdict(other)], [VERDICT_ABORT, VERDICT_ABORT]);
  t.is(held(f), 0);
});

test('stall: without room in the Event queue it waits, overflows nothing, and arrives anew', (t) => {
  const { f } = stage2({ evtqLog2: 1 });
  const recorded = [0x5000n, 0x6000n].map((iova) => stall(f, iova));
  const waiting = [0x7000n, 0x8000n, 0x9000n].map((iova) => stall(f, iova));
  t.is(f.mmio.read32(0x100a8), 2, 'no OVFLG');
  t.is(word(f, Smmuv3Layout.at.eventsLost), 0);
  t.false(f.model.hasWork());
  // Software was not told of them: no RESUME reaches them.
  f.command(S.resume(3, waiting[0]!, 'abort'));
  t.is(f.dmaPort().verdict(waiting[0]!), NONE);
  t.deepEqual(
    f.events().map((e) => e.stag),
    recorded,
  );
  t.true(f.model.hasWork());
  f.run();
  t.deepEqual(
    waiting.map((stag) => f.dmaPort().verdict(stag)),
    [RETRY, RETRY, RETRY],
  );
  // Two find room; the third waits once more.
  const again = [0x7000n, 0x8000n, 0x9000n].map((iova) => stall(f, iova));
  t.deepEqual(
    f.events().map((e) => [e.stag, e.inputAddr]),
    [
      [again[0], 0x7000n],
      [again[1], 0x8000n],
    ],
  );
  f.run();
  t.deepEqual(
    again.map((stag) => f.dmaPort().verdict(stag)),
    [NONE, NONE, RETRY],
  );
});

test('stall: while the Event queue is disabled, or shut by an abort, it waits too', (t) => {
  const { f } = stage2();
  f.mmio.write32(0x20, 0b1001);
  f.run();
  const stag = stall(f, 0x5000n);
  f.mmio.write64(0xa0, 0x4000_0000n | 4n);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  t.is(f.dmaPort().verdict(stag), RETRY, 'writable, as far as anyone knows');
  stall(f, 0x5000n);
  t.is(f.mmio.read32(0x60), 1 << 2);
  const shut = stall(f, 0x6000n);
  t.is(f.dmaPort().verdict(shut), NONE);
  f.mmio.write32(0x20, 0b1001);
  f.run();
  f.mmio.write64(0xa0, BigInt(f.evtq) | 4n);
  f.mmio.write32(0x64, 1 << 2);
  f.mmio.write32(0x20, 0b1101);
  f.run();
  t.is(f.dmaPort().verdict(shut), RETRY);
});

test('stall: when no more can be outstanding, the fault terminates, with a record that says so', (t) => {
  const { f } = stage2({ evtqLog2: 9 });
  const tags = new Set<number>();
  for (let i = 0n; i < 256n; i++) tags.add(stall(f, 0x10_0000n + i * 0x1000n));
  t.is(tags.size, 256);
  t.is(f.dma(0x5000n).status, F_TRANSLATION);
  t.like(f.events().at(-1)!, { stall: false, stag: 0, inputAddr: 0x5000n });
  const [first] = tags;
  f.command(S.resume(3, first!, 'retry'));
  const next = stall(f, 0x5000n);
  t.is(next & 0xff, first! & 0xff, 'the one free slot');
  t.not(next, first, 'and not the same tag');
});

test('stall: a device that looks late, when its tag’s slot has been used again, sends the transaction again', (t) => {
  const { f } = stage2({ evtqLog2: 9 });
  const late = stall(f, 0x5000n);
  f.command(S.resume(3, late, 'abort'));
  for (let i = 0; i < 256; i++) {
    const stag = stall(f, 0x6000n);
    f.events();
    f.command(S.resume(3, stag, 'abort'));
  }
  t.is(f.dmaPort().verdict(late), RETRY);
});

test('stall: stage 1 by CD.S, of which CD.R says nothing; terminated by CD.A', (t) => {
  for (const [bits, status, events] of [
    [CD_S, STALLED, 1],
    [CD_A | CD_R, F_TRANSLATION, 1],
    [CD_A, F_TRANSLATION, 0],
    [CD_R, RAZ_WI, 1],
    [0n, RAZ_WI, 0],
    // AFFD: no flag of the CD is left.
    [1n << 35n, RAZ_WI, 0],
  ] as const) {
    const f = stage1(bits);
    t.is(f.dma(0x5000n).status, status);
    const recorded = f.events();
    t.is(recorded.length, events);
    if (events === 1) t.like(recorded[0], { id: F_TRANSLATION, s2: false, stall: status === STALLED });
  }
});

test('stall: what is ILLEGAL by STALL_MODEL is a configuration error, which never stalls', (t) => {
  const statusOf = (...args: Parameters<typeof stage1>): number => stage1(...args).dma(0x5000n).status;
  t.is(statusOf(CD_S | CD_A, S1STALLD), 0x0a);
  t.is(statusOf(CD_A, S1STALLD), F_TRANSLATION);
  t.is(statusOf(CD_A, 0n, 'forced'), 0x0a);
  t.is(statusOf(CD_S | CD_A, 0n, 'forced'), STALLED);
  const f = new SmmuFixture({ config: { stalls: 'forced' } });
  f.setSte(3, S.steS2({ root: f.alloc(4096), vmid: 1 }));
  f.enable();
  t.is(f.dma(0x5000n).status, 0x04, 'S2S = 0');
});

test('stall: an external abort of a walk, and every configuration error, terminate', (t) => {
  const f = new SmmuFixture({ config: { stalls: 'optional' } });
  const ste = S.steS2({ root: 0x4000_0000, vmid: 1 });
  ste[2]! |= S2S;
  f.setSte(3, ste);
  f.enable();
  t.is(f.dma(0x5000n).status, 0x0b);
  t.is(f.events().length, 1);
  t.is(held(f), 0);
});

test('stall: nested, a CD that stage 2 does not give stalls by S2S, of class CD, TTRnW = read', (t) => {
  const f = new SmmuFixture({ config: { stalls: 'optional' } });
  const ste = S.steNested(0x7_0000, { root: f.alloc(4096), vmid: 1, record: false });
  ste[2]! |= S2S;
  f.setSte(3, ste);
  f.enable();
  const stag = stall(f, 0x5000n, WRITE);
  t.like(f.events()[0], {
    ttrnw: true,
    id: F_TRANSLATION,
    stall: true,
    stag,
    s2: true,
    class: 0,
    ipa: 0x7_0000,
    rnw: false,
  });
});

test('stall: an event that stalls is never merged', (t) => {
  const f = new SmmuFixture({ config: { stalls: 'optional' } });
  const ste = S.steS2({ root: f.alloc(4096), vmid: 1 });
  ste[1]! |= 1n << 19n;
  ste[2]! |= S2S;
  f.setSte(3, ste);
  f.enable();
  stall(f, 0x5000n);
  stall(f, 0x5000n);
  t.is(f.events().length, 2);
});

test('stall: a model built on another thread finds the stalls of the last one', (t) => {
  const { f } = stage2({ evtqLog2: 1 });
  const stag = stall(f, 0x5000n);
  stall(f, 0x6000n);
  const waiting = stall(f, 0x7000n);
  f.model = f.newModel();
  f.command(S.resume(3, stag, 'retry'));
  t.is(f.dmaPort().verdict(stag), RETRY);
  f.events();
  f.run();
  t.is(f.dmaPort().verdict(waiting), RETRY);
});

test('device: where it may not wait, a stall is a status; called again after the verdict, it goes through', (t) => {
  const { f, root } = stage2();
  const dma = f.dmaPort();
  const bytes = new Uint8Array(3 * 4096).fill(7);
  f.map(root, 1, 0x2000n, 0x8081_0000n, 3, S.S2_PAGE);
  t.is(dma.write(0x1000n, bytes), STALLED);
  t.is(dma.stalled.length, 1);
  f.map(root, 1, 0x3000n, 0x8082_0000n, 3, S.S2_PAGE);
  f.command(S.resume(3, dma.stalled[0]!, 'retry'));
  t.is(dma.verdict(dma.stalled[0]!), RETRY);
  t.is(dma.write(0x1000n, bytes), OK);
  t.deepEqual(dma.stalled, []);
  t.is(f.read64(0x8082_0000), 0x0707_0707_0707_0707n);
});

test('device: RAZ/WI reads as zero and ignores what is written, as a success', (t) => {
  const f = stage1(CD_R);
  const dma = f.dmaPort();
  const into = new Uint8Array(5000).fill(9);
  t.is(dma.read(0x5000n, into), OK);
  t.true(into.every((byte) => byte === 0));
  t.is(dma.write(0x5000n, into), OK);
});

test('device: where it may wait, it waits for the verdict and goes on', (t) => {
  const { f, root } = stage2();
  // The thread may sleep, and somebody else steps the model: here, whenever the device looks at the clock.
  let looks = 0;
  const clock = {
    nowNs: (): number => {
      f.run();
      const [event] = f.events();
      if (event !== undefined) {
        f.map(root, 1, event.inputAddr & ~0xfffn, 0x8083_0000n, 3, S.S2_PAGE);
        f.command(S.resume(3, event.stag, looks++ === 0 ? 'retry' : 'abort'));
      }
      return 0;
    },
  };
  const dma = new DmaPort(
    { ...f.env, canPark: true, relax: undefined, clock },
    f.memory,
    f.kernel,
    'device',
    'port:0',
  );
  t.is(dma.write(0x5000n, new Uint8Array(8).fill(3)), OK);
  t.is(f.read64(0x8083_0000), 0x0303_0303_0303_0303n);
  t.is(dma.write(0x9000n, new Uint8Array(8)), ABORT);
  t.is(f.memory.words.load(f.ports[0]!), 0, 'outside the epoch');
});
