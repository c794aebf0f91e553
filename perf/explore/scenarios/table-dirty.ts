/**
 * A device writes while the core reads what is dirty and clears it. Each write is in this read or in the next: one
 * that ended before the read began in either, one that began after it returned in the next.
 */
import { machineScenario } from '../machine-scenario.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PAGE, smallHost, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const MINE = 1;
const TRACK = 2;
const PAGES = 6;
const LENGTH = BigInt(PAGES) * PAGE;
/** Beside them. */
const OTHER = IOVA + LENGTH;
/** Ghost words: the first read has returned; the pages that a write to began before, or after that, as bits. */
const READ_DONE = 0;
const WROTE_BEFORE = 1;
const WROTE_AFTER = 2;

const bits = (pages: number): string => pages.toString(2).padStart(PAGES, '0');

/** @param cached  whether the device wrote to the page shortly before, so that its translation is cached as dirty */
function dirtyScenario(name: string, about: string, cached: boolean) {
  return machineScenario({
    name,
    about,
    checks: ['R16'],
    machine: smallMachine([{}], { httu: 'dirty' }),
    core(ctx, machine) {
      const { fd, ioasId, vfios, devIds, map, warm } = smallHost(ctx, machine);
      const { hwptId } = fd.hwptAlloc({ devId: devIds[0]!, ptId: ioasId, flags: TRACK });
      vfios[0]!.attach(hwptId);
      for (let i = 0n; i <= PAGES; i++) map(IOVA + i * PAGE, MINE);
      fd.hwptSetDirtyTracking(hwptId, true);
      warm(0, cached ? IOVA : OTHER);
      const read = (): number => fd.hwptGetDirtyBitmap({ hwptId, iova: IOVA, length: LENGTH })[0]!;
      let first = 0;
      return {
        run() {
          first = read();
          ctx.ghost[READ_DONE] = 1;
        },
        check() {
          machine.hostInline(true);
          const second = read();
          const story = (when: string) => () =>
            `a write that began ${when} the end of the first read is in neither: ${bits(first)}, ${bits(second)}`;
          ctx.check('R16', (ctx.ghost[WROTE_AFTER]! & ~second) === 0, story('after'));
          ctx.check('R16', (ctx.ghost[WROTE_BEFORE]! & ~(first | second)) === 0, story('before'));
        },
      };
    },
    threads: {
      device(ctx, thread) {
        const device = new PageAccess(ctx, thread, 0);
        return () => {
          for (let i = 0; i < PAGES; i++) {
            const word = ctx.ghost[READ_DONE] === 1 ? WROTE_AFTER : WROTE_BEFORE;
            const page = cached ? 0 : i;
            device.make(IOVA + BigInt(page) * PAGE, WRITE, () => {
              ctx.ghost[word]! |= 1 << page;
            });
          }
        };
      },
    },
  });
}

export const dirtyCached = dirtyScenario(
  'dirty-cached',
  'a device writes through a cached translation while dirty marks are read and cleared',
  true,
);

export const dirtyFirstWrite = dirtyScenario(
  'dirty-first-write',
  'a device writes to pages that are clean while dirty marks are read and cleared',
  false,
);
