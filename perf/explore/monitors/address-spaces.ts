/**
 * R14: areas, page tables, pins and charges say the same, when all programs are through.
 *
 *   IOAS areas  ==  the leaves of every page table that mirrors it: each page at its frame, and no other page
 *   what pages are pinned for areas  ==  what their process and user are charged for
 */

import { OBJ_IOAS } from '../../../runtime/core/objects-layout.js';
import { Smmuv3PagingDomain } from '../../../runtime/drivers/smmuv3/domain.js';
import { ACCOUNT_USER } from '../../../runtime/iova/accounting.js';
import { unitsPerPage } from '../../../runtime/iova/area.js';
import type { IoptPages } from '../../../runtime/iova/pages.js';
import type { Machine } from '../../../runtime/machine.js';
import type { Ioas } from '../../../runtime/objects/ioas.js';
import type { EndMonitor, Expect } from './monitor.js';
import { pagingDomains, walkOf } from './tagged-tables.js';

export const addressSpaces: EndMonitor = {
  name: 'address spaces',
  about: 'areas, page tables, pins and charges agree',
  checks: ['R14'],
  look(machine: Machine, expect: Expect): void {
    const pages = new Set<IoptPages>();
    for (const ctx of machine.core.opened)
      for (const ioas of ctx.published(OBJ_IOAS) as Ioas[])
        for (const area of ioas.iopt.space.areas) {
          expect('R14', area.pages !== null, () => `IOAS ${ioas.id} has an area that is nobody's`);
          if (area.pages !== null) pages.add(area.pages);
        }
    checkTables(machine, expect);
    checkCharges(machine, pages, expect);
  },
};

function checkTables(machine: Machine, expect: Expect): void {
  for (const { id, ioas, domain } of pagingDomains(machine)) {
    if (!(domain instanceof Smmuv3PagingDomain) || unitsPerPage(domain.unitLg2) !== 1) continue;
    const wanted = framesOf(ioas);
    let mapped = 0;
    walkOf(machine.memory, domain, domain.home).each(({ page, pages, pfn }) => {
      for (let i = 0; i < pages; i++) {
        const frame = wanted.get(page + i);
        mapped++;
        expect('R14', frame === pfn + i, () => {
          const is = frame === undefined ? 'no area has it' : `the area has frame 0x${frame.toString(16)}`;
          return `page table ${id} maps page 0x${(page + i).toString(16)} to frame 0x${(pfn + i).toString(16)}, but ${is}`;
        });
      }
    });
    expect(
      'R14',
      mapped === wanted.size,
      () => `page table ${id} maps ${mapped} pages, IOAS ${ioas.id} ${wanted.size}`,
    );
  }
}

/** By page of IOVA. */
function framesOf(ioas: Ioas): Map<number, number> {
  const frames = new Map<number, number>();
  for (const { pages, pagesFirst, pagesLast, firstPage } of ioas.iopt.space.areas) {
    // A dma-buf that was taken back is mapped nowhere.
    if (pages === null || pages.revoked) continue;
    pages.forEachRun(pagesFirst, pagesLast, (index, pfn, count) => {
      for (let i = 0; i < count; i++) frames.set(firstPage + (index - pagesFirst) + i, pfn + i);
      return 0;
    });
  }
  return frames;
}

/** Of the machine's own process; pages that an access alone keeps pinned are not in any area, and not in the sum. */
function checkCharges({ core }: Machine, pages: ReadonlySet<IoptPages>, expect: Expect): void {
  const own = [...pages].filter(({ owner }) => owner === core.own);
  const sum = (some: readonly IoptPages[]): number => some.reduce((n, { npinned }) => n + npinned, 0);
  const charged = sum(own.filter(({ accountMode }) => accountMode === ACCOUNT_USER));
  const { lockedVm } = core.own.user;
  expect(
    'R14',
    lockedVm === charged,
    () => `the user is charged for ${lockedVm} pages, ${charged} are pinned`,
  );
  const pinned = sum(own.filter(({ type }) => type !== 'dmabuf'));
  const { pinnedVm } = core.own.mm.account;
  expect(
    'R14',
    pinnedVm === pinned,
    () => `the process has ${pinnedVm} pages counted as pinned, ${pinned} are`,
  );
}
