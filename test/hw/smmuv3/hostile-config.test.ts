/**
 * Stream tables, STEs, CD tables and CDs written by an enemy: whatever they say, each transaction is answered, the
 * unit touches its own regions and RAM alone, and what a command invalidated is gone from the cache.
 */
import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import {
  CONTEXT_BYTES,
  CONTEXT_COUNT,
  contextsLayout,
  iotlbLayout,
  StreamContext,
  UnitLayout,
} from '../../../hw/iotlb/unit-layout.js';
import type { Smmuv3Config } from '../../../hw/smmuv3/config.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { ThreadTableLayout } from '../../../hw/sync/thread.js';
import { watchAccesses } from '../../kit/schedule-hook.js';
import { SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);
const ROUNDS = 4000;
const NO_SSID = 0xffff_ffff;

/** xorshift32. */
function random(seed: number): { u32: () => number; below: (n: number) => number; u64: () => bigint } {
  let x = (seed * 2654435761 + 1) >>> 0 || 1;
  const u32 = (): number => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    x >>>= 0;
    return x;
  };
  return { u32, below: (n) => u32() % n, u64: () => (BigInt(u32()) << 32n) | BigInt(u32()) };
}

/** Watches every atomic access of this thread. @returns those that were neither in the unit's regions nor in RAM */
function watch(f: SmmuFixture): { stray: number[]; stop: () => void } {
  const { ram } = f.memory;
  const regions: ReadonlyArray<readonly [number, number]> = [
    [f.regions.unit, UnitLayout.size],
    [f.regions.contexts, contextsLayout().size],
    [f.regions.iotlb, iotlbLayout(f.config.iotlbEntries).size],
    [f.regions.smmu, Smmuv3Layout.size],
    [f.memory.region(ThreadTableLayout, 'threads').base, ThreadTableLayout.size],
    [ram.linear, ram.bytes],
    ...f.ports.map((port) => [port, PortLayout.size] as const),
  ];
  const stray: number[] = [];
  watchAccesses((_, offset) => {
    if (!regions.some(([base, size]) => offset >= base && offset < base + size)) stray.push(offset);
  });
  return { stray, stop: () => watchAccesses(null) };
}

/** Contexts cached: [StreamID, SubstreamID]. */
function cached(f: SmmuFixture): Array<[number, number]> {
  const { u32 } = f.memory;
  const at = StreamContext.at;
  const found: Array<[number, number]> = [];
  for (let i = 0; i < CONTEXT_COUNT; i++) {
    const base = f.regions.contexts + i * CONTEXT_BYTES;
    if (u32[(base + at.valid) >>> 2] === 1)
      found.push([u32[(base + at.sid) >>> 2]!, u32[(base + at.ssid) >>> 2]!]);
  }
  return found;
}

/** What it is called, what it has, and which answers must come up. */
const MACHINES: ReadonlyArray<readonly [string, Partial<Smmuv3Config>, readonly number[]]> = [
  ['with everything', { oasBits: 52 }, [0, 2, 4, 6, 8, 9, 0x0a, 0x0b, 0x10]],
  [
    'with little',
    { oasBits: 40, ssidBits: 0, granules: [12], httu: 'none', asidBits: 8, vmidBits: 8 },
    [0, 2, 4, 8, 9, 0x0a, 0x10],
  ],
  ['with stage 1 alone', { stages: 's1', ssidBits: 5, httu: 'access' }, [0, 2, 4, 6, 8, 0x0a, 0x10]],
  ['with stage 2 alone', { stages: 's2', granules: [14, 16] }, [0, 2, 4, 8]],
];

for (const [name, config, statuses] of MACHINES)
  test(`hostile configuration: an SMMU ${name} (seed ${SEED})`, (t) => {
    const r = random(SEED ^ (name.length * 0x1234_567));
    const sids = [3, 4, 0x83];
    const f = new SmmuFixture({ config: { iotlbEntries: 64, ...config }, sids });
    const { basePa, bytes } = f.memory.ram;
    const root = f.alloc(64 * 1024, 64 * 1024);
    const s2 = f.alloc(64 * 1024, 64 * 1024);
    const cds = f.alloc(64 * 1024, 64 * 1024);
    const l1 = f.alloc(4096);
    for (let i = 0; i < 4; i++)
      f.write64(s2 + (basePa / 2 ** 30) * 8 + i * 8, BigInt(basePa + i * 2 ** 30) | S.S2_BLOCK);
    /** RAM, its edges, and beyond. */
    const address = (): number =>
      [
        () => cds + r.below(1024) * 64,
        () => basePa + r.below(bytes / 64) * 64,
        () => basePa + bytes - 64 + r.below(3) * 8,
        () => basePa - 8 + r.below(2) * 4,
        () => l1,
        () => r.u32(),
        () => r.u32() * 2 ** 20,
      ][r.below(7)]!();
    const flip = (words: bigint[], most: number): bigint[] => {
      for (let n = r.below(most + 1); n > 0; n--) words[r.below(words.length)]! ^= 1n << BigInt(r.below(64));
      return words;
    };
    const makeSte = (): bigint[] => {
      const pointer = Math.floor((r.below(2) === 0 ? cds : address()) / 64) * 64;
      const ste = [
        () => S.steS1(r.below(2) === 0 ? l1 : pointer, r.below(300)),
        () => S.steNested(pointer, { root: s2, vmid: r.below(300) }),
        () => S.steS2({ root: s2, vmid: r.below(300) }),
        () => [r.u64() | 1n, r.u64(), r.u64(), r.u64()],
        () => [...S.STE_BYPASS],
      ][r.below(5)]!();
      ste[0]! |= (BigInt(r.below(3)) << 4n) | (BigInt(r.below(4) === 0 ? r.below(32) : r.below(8)) << 59n);
      ste[1]! |= BigInt(r.below(4));
      return flip(ste, 2);
    };
    const ssid = (): number => [NO_SSID, NO_SSID, 0, 1, r.below(64), r.below(2 ** 20), r.u32()][r.below(7)]!;
    f.enable();
    const seen = new Set<number>();
    const { stray, stop } = watch(f);
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const index = r.below(3);
        const sid = sids[index]!;
        switch (r.below(4)) {
          case 0:
            f.setSte(sid, makeSte());
            break;
          case 1:
            f.write64(l1 + r.below(512) * 8, BigInt(address()) | BigInt(r.below(2)));
            break;
          default:
            f.writeWords(cds + r.below(64) * 64, flip(S.cd({ root, asid: r.below(300) }), 2));
            f.write64(root + r.below(512) * 8, BigInt(address()) | BigInt(r.below(2048)));
        }
        if (r.below(64) === 0) {
          // Another Stream table, of any format, then the good one.
          f.mmio.write32(0x20, 0b1100);
          f.run();
          f.mmio.write64(0x80, r.u64());
          f.mmio.write32(0x88, r.u32());
          f.mmio.write32(0x2c, r.u32());
          f.mmio.write32(0x20, 0b1101);
          f.run();
          for (let n = 0; n < 4; n++) seen.add(f.dma(r.u64(), r.below(8), r.below(3), ssid()).status);
          f.mmio.write32(0x20, 0b1100);
          f.run();
          f.enable();
        }
        for (let n = 0; n < 3; n++) {
          const iova = r.below(2) === 0 ? BigInt(r.below(512) * 4096) : r.u64();
          seen.add(f.dma(iova, r.below(8), index, ssid()).status);
        }
        if (r.below(2) === 0) {
          const named = ssid() & 0xf_ffff;
          const range = r.below(32);
          const span = 2 ** (range + 1);
          const first = Math.floor(sid / span) * span;
          const [command, gone] = [
            [S.cfgiSte(sid), ([s]: [number, number]) => s === sid],
            [S.cfgiCdAll(sid), ([s]: [number, number]) => s === sid],
            [
              S.cfgiCd(sid, named),
              ([s, p]: [number, number]) => s === sid && (p === named || (named === 0 && p === NO_SSID)),
            ],
            [
              S.cfgiRange(sid, range),
              ([s]: [number, number]) => range === 31 || (s >= first && s < first + span),
            ],
          ][r.below(4)] as [S.Command, (context: [number, number]) => boolean];
          const before = cached(f);
          f.command(command, S.sync());
          // An SMMU without stage 1 may refuse the commands on CDs.
          if ((f.mmio.read32(0x60) & 1) !== (f.mmio.read32(0x64) & 1)) {
            f.mmio.write32(0x98, f.mmio.read32(0x9c) & 0xfffff);
            f.mmio.write32(0x64, f.mmio.read32(0x60));
            f.run();
          } else {
            t.deepEqual(
              cached(f),
              before.filter((one) => !gone(one)),
            );
          }
        }
        f.rawEvents();
      }
    } finally {
      stop();
    }
    t.deepEqual(stray, []);
    const counted = f.memory.words.load(f.regions.smmu + Smmuv3Layout.at.ssidContexts);
    t.is(counted, cached(f).filter(([, one]) => one !== NO_SSID).length);
    for (const status of statuses) t.true(seen.has(status), `status ${status} was reached`);
    // And it works.
    f.setSte(3, S.STE_BYPASS);
    f.command(S.CFGI_ALL, S.tlbi(0x30), S.sync());
    t.is(f.dma(0x1000n).pa, 0x1000n);
  });
