import test from 'ava';
import { IoptPages } from '../../../runtime/iova/pages.js';
import { pagesHost, processOver } from '../../kit/processes.js';
import { Random, SEED } from '../../kit/random.js';

const [ENOMEM, EFAULT] = [12, 14];
const PAGES = 40;
const LIMIT = 30;

/** Memory of which some pages are missing; counts the pins of each frame. */
function memoryOf(frames: readonly (number | undefined)[]) {
  const pins = new Map<number, number>();
  const count = (pfn: number, pages: number, by: number): void => {
    for (let i = pfn; i < pfn + pages; i++) pins.set(i, (pins.get(i) ?? 0) + by);
  };
  return {
    pins,
    runAt(page: number, out: { pfn: number; pages: number }): number {
      const pfn = frames[page];
      if (pfn === undefined) return -EFAULT;
      let pages = 1;
      while (frames[page + pages] === pfn + pages) pages++;
      out.pfn = pfn;
      out.pages = pages;
      return 0;
    },
    pin: (pfn: number, pages: number) => count(pfn, pages, 1),
    unpin: (pfn: number, pages: number) => count(pfn, pages, -1),
  };
}

interface Hold {
  readonly first: number;
  readonly last: number;
  readonly access: boolean;
}

test('areas and accesses at random: pins, frames and charges are those of a plain count', (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  for (let round = 0; round < 60; round++) {
    const frames: (number | undefined)[] = [];
    for (let page = 0, pfn = 100; page < PAGES; page++) {
      if (random.below(5) === 0) pfn += 1 + random.below(9);
      // Missing pages become present, as a process may map and unmap.
      frames.push(random.below(25) === 0 ? undefined : pfn++);
    }
    const memory = memoryOf(frames);
    const task = processOver(memory);
    task.memlockBytes = LIMIT * 4096;
    const pages = new IoptPages(pagesHost(task), memory, 0, PAGES, true);
    const holds: Hold[] = [];
    /** The frame of each page that is held, as it was when it was first held. */
    const held = new Map<number, number>();
    const heldBy = (page: number) => holds.filter(({ first, last }) => page >= first && page <= last).length;

    for (let step = 0; step < 120; step++) {
      if (random.below(12) === 0) {
        const page = random.below(PAGES);
        frames[page] = frames[page] === undefined ? 1000 + round * 200 + step : undefined;
      }
      if (holds.length > 0 && random.below(2) === 0) {
        const [{ first, last, access }] = holds.splice(random.below(holds.length), 1) as [Hold];
        if (access) pages.removeAccess(first, last);
        else pages.release(first, last);
        for (let page = first; page <= last; page++) if (heldBy(page) === 0) held.delete(page);
      } else {
        const first = random.below(PAGES);
        const last = Math.min(PAGES - 1, first + random.below(12));
        const access = random.below(2) === 0;
        const wanted: number[] = [];
        for (let page = first; page <= last; page++) if (!held.has(page)) wanted.push(page);
        let expected = 0;
        if (held.size + wanted.length > LIMIT) expected = -ENOMEM;
        if (wanted.some((page) => frames[page] === undefined)) expected = -EFAULT;
        const out: number[] = [];
        const status = access ? pages.addAccess(first, last, out, 1) : pages.acquire(first, last);
        if (status !== expected) t.fail(`round ${round}, step ${step}: ${status}, not ${expected}`);
        if (status < 0) continue;
        for (const page of wanted) held.set(page, frames[page]!);
        holds.push({ first, last, access });
        if (access && out.some((pfn, i) => pfn !== held.get(first + i)))
          t.fail(`round ${round}, step ${step}: frames of the access`);
      }
      const pinned = [...memory.pins]
        .filter(([, count]) => count !== 0)
        .map(([pfn, count]) => `${pfn}x${count}`);
      const counts = new Map<number, number>();
      for (const pfn of held.values()) counts.set(pfn, (counts.get(pfn) ?? 0) + 1);
      const expected = [...counts].map(([pfn, count]) => `${pfn}x${count}`);
      if (pinned.sort().join() !== expected.sort().join()) t.fail(`round ${round}, step ${step}: ${pinned}`);
      const charged = [pages.npinned, task.user.lockedVm, task.mm.account.pinnedVm];
      if (charged.some((count) => count !== held.size))
        t.fail(`round ${round}, step ${step}: charged ${charged}`);
      for (const { first, last } of holds)
        pages.forEachRun(first, last, (index, pfn, count) => {
          for (let i = 0; i < count; i++)
            if (held.get(index + i) !== pfn + i) t.fail(`round ${round}, step ${step}: page ${index + i}`);
          return 0;
        });
    }
    for (const { first, last, access } of holds)
      if (access) pages.removeAccess(first, last);
      else pages.release(first, last);
    t.is(task.user.lockedVm, 0);
    t.notThrows(() => pages.put());
  }
});
