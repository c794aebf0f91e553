/**
 * Tables that somebody else wrote into (a guest's, by DMA): whatever stands there, the editor stays in its window,
 * ends, and answers with an errno.
 */
import test from 'ava';
import { PageTable } from '../../../hw/pagetable/aarch64.js';
import type { ReplaceKind } from '../../../hw/pagetable/replacement.js';
import { KernelBench } from '../../kit/kernel-bench.js';
import { Random, SEED } from '../../kit/random.js';

const EFAULT = 14;
const WINDOW = 1 << 20;
const IPA = 0x4000_0000;
const KINDS: readonly ReplaceKind[] = ['split', 'collapse', 'ungroup', 'group'];

function garbage(random: Random, granuleLg2: number): bigint {
  const type = random.pick([0n, 1n, 3n, 3n]);
  const tables = WINDOW >> granuleLg2;
  const within = BigInt(IPA) + (BigInt(random.below(tables)) << BigInt(granuleLg2));
  const address = random.chance(0.8) ? within : random.big(52);
  return (address & 0x000f_ffff_ffff_f000n) | (random.big(12) & ~3n) | type | (random.big(4) << 51n);
}

for (const granuleLg2 of [12, 14, 16] as const)
  for (const stage of [1, 2] as const)
    test(`a table of garbage, granule 2^${granuleLg2}, stage ${stage}`, (t) => {
      t.log(`SEED=${SEED}`);
      const random = new Random(SEED + granuleLg2 + stage);
      const bench = new KernelBench({ ramBytes: 4 << 20 });
      const linear = bench.memory.ram.linear + WINDOW;
      const { u8, i64, ram } = bench.memory;
      u8.fill(0x5a, ram.linear, ram.linear + ram.bytes);
      let frame = 0;
      const g = 2 ** (granuleLg2 - 12);
      const table = new PageTable({
        memory: bench.memory,
        kernel: bench.kernel,
        descriptor: bench.tables,
        stage,
        granuleLg2,
        inputBits: 42,
        outputBits: granuleLg2 === 16 ? 52 : 48,
        startLevel: granuleLg2 === 12 ? (stage === 1 ? 0 : 1) : granuleLg2 === 14 ? 1 : 2,
        root: IPA,
        contiguous: random.chance(0.5),
        window: { base: IPA, linear, bytes: WINDOW },
        // A frame that is in use already, or none of the window's.
        frames: { alloc: () => IPA / 4096 + g * (frame++ % (300 / g)), free: () => undefined },
      });
      const errnos = new Set<number>();
      const note = (status: number): void => {
        if (status < 0) errnos.add(status);
      };
      for (let round = 0; round < 30; round++) {
        for (let n = 0; n < 4000; n++)
          i64[linear / 8 + random.below(WINDOW / 8)] = BigInt.asIntN(64, garbage(random, granuleLg2));
        for (let i = 0; i < 64; i++) i64[linear / 8 + i] = BigInt.asIntN(64, garbage(random, granuleLg2));
        for (let n = 0; n < 30; n++) {
          const page = g * random.below(random.pick([100, 2 ** 20 / g, 2 ** 30 / g]));
          const pages = g * (1 + random.below(random.pick([4, 3000, 60_000])));
          const dice = random.below(5);
          if (dice === 0)
            note(
              table.map(
                page,
                g * random.below(2 ** 20),
                Math.min(pages, 2 ** 30 - page),
                random.below(4) | (random.below(4) << 8),
              ),
            );
          else if (dice === 1) note(table.unmap(page, Math.min(pages, 2 ** 30 - page)));
          else if (dice === 2)
            note(table.readAndClearDirty(page, g, new Uint8Array(2), { noClear: random.chance(0.3) }));
          else if (dice === 3) note(table.lookup(page));
          else {
            const change = table.replace(random.pick(KINDS), page, random.below(4), random.chance(0.5));
            if (typeof change === 'number') note(change);
            else {
              i64[linear / 8 + random.below(WINDOW / 8)] = BigInt.asIntN(64, garbage(random, granuleLg2));
              note(change.finish());
            }
          }
          table.releaseFreed();
        }
      }
      t.true(errnos.has(-EFAULT));
      const [before, after] = [
        u8.subarray(ram.linear, linear),
        u8.subarray(linear + WINDOW, ram.linear + ram.bytes),
      ];
      t.true(before.every((byte) => byte === 0x5a));
      t.true(after.every((byte) => byte === 0x5a));
    });
