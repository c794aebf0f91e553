/**
 * The page-table editor alone: runs of 512 pages mapped in 4 KiB leaves and unmapped again, as io-pgtable is
 * called. A run covers one last-level table, which comes and goes with it: its zeroing is part of the figure.
 */
import { Kernel } from '../../hw/kernel/kernel.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { PageTable, PROT_READ, PROT_WRITE } from '../../hw/pagetable/aarch64.js';
import { pageTablesLayout } from '../../hw/pagetable/page-table-layout.js';
import { type Group, must, repetitions, type Scale, watched } from './rounds.js';
import { comparedFigure, comparedRound, onImage, type Yardstick } from './yardstick.js';

const PAGE = 4096;
const MIB2 = 2 ** 21;
const RUN_PAGES = 512;
const RUNS = 256;
const FRAMES = 512;
const FIRST_PAGE = 2 ** 20;
/** Phantom, and one off: no run can become a block, nor part of one. */
const FIRST_PFN = 2 ** 30 + 1;
const BITS = 48;

export const PAGE_TABLE_ROWS = [
  'page-table map, runs of 512, per page',
  'page-table unmap, runs of 512, per page',
  'page-table map, against C',
  'page-table unmap, against C',
] as const;

/** A stage-1 table in its own memory, with frames on a stack. */
export function editorImage(frames: number) {
  const memory = MachineMemory.create({ ramBytes: MIB2 * 2, controlBytes: MIB2 });
  const { base: descriptor } = memory.allocRegion(pageTablesLayout(1), 'tables');
  const kernel = Kernel.load(memory);
  const first = memory.ram.basePa / PAGE;
  const free = Array.from({ length: frames }, (_, i) => first + frames - i);
  const table = new PageTable({
    memory,
    kernel,
    descriptor,
    stage: 1,
    inputBits: BITS,
    outputBits: BITS,
    startLevel: 0,
    root: memory.ram.basePa,
    frames: { alloc: () => free.pop() ?? -12, free: (pfn) => void free.push(pfn) },
  });
  return { memory, kernel, descriptor, table, firstFrame: first + 1 };
}

export async function pageTables(scale: Scale, yardstick: Yardstick): Promise<Group> {
  const { memory, descriptor, table, firstFrame } = editorImage(FRAMES);
  const c = await onImage(yardstick, memory);
  await c?.ask('frames', firstFrame * PAGE, FRAMES);
  const runs = repetitions(RUNS, scale);
  const n = runs * RUN_PAGES;
  let status = 0;
  let unmapped = 0;
  const map = (): void => {
    for (let i = 0; i < runs; i++)
      status |= table.map(
        FIRST_PAGE + i * RUN_PAGES,
        FIRST_PFN + i * RUN_PAGES,
        RUN_PAGES,
        PROT_READ | PROT_WRITE,
      );
  };
  const unmap = (): void => {
    for (let i = 0; i < runs; i++) {
      unmapped += table.unmap(FIRST_PAGE + i * RUN_PAGES, RUN_PAGES);
      table.releaseFreed();
    }
  };
  const [mapRow, unmapRow, mapAgainstC, unmapAgainstC] = PAGE_TABLE_ROWS;
  return {
    cases: [
      {
        figures: [
          { name: mapRow, unit: 'ns', goal: { kind: 'at-most', value: 2 } },
          { name: unmapRow, unit: 'ns', goal: { kind: 'at-most', value: 3 } },
          comparedFigure(mapAgainstC, yardstick),
          comparedFigure(unmapAgainstC, yardstick),
        ],
        round: async () => {
          const theirs = (await c?.ask('edit', descriptor, FIRST_PAGE, FIRST_PFN, RUN_PAGES, runs)) ?? null;
          must(theirs === null || (theirs.mapped === n && theirs.unmapped === n), 'C maps all, unmaps all');
          unmapped = 0;
          const mapping = watched(map);
          must(
            status === 0 && table.lookup(FIRST_PAGE) === FIRST_PFN && table.foundLg2 === 12,
            `map: ${status}`,
          );
          const unmapping = watched(unmap);
          must(unmapped === n, `unmap: ${unmapped} of ${n}`);
          const fields = [
            { ns: (mapping.ms * 1e6) / n, field: 'map' },
            { ns: (unmapping.ms * 1e6) / n, field: 'unmap' },
          ];
          const round = comparedRound(
            [...fields, ...fields],
            Math.min(mapping.share, unmapping.share),
            theirs,
          );
          return { ...round, ratios: [null, null, ...round.ratios!.slice(2)] };
        },
      },
    ],
    close: async () => {
      await c?.stop();
    },
  };
}
