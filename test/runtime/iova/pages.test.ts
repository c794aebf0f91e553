import test from 'ava';
import { IoptPages } from '../../../runtime/iova/pages.js';
import type { PinnableMemory } from '../../../runtime/iova/pinnable-memory.js';
import { pagesHost, processOver } from '../../kit/processes.js';

const EFAULT = 14;

const pagesOf = (memory: PinnableMemory, npages: number) =>
  new IoptPages(pagesHost(processOver(memory)), memory, 0, npages, true);

/** User memory whose page n lies in frame frames[n]; undefined is a hole. */
function userMemory(frames: readonly (number | undefined)[]) {
  const pins = new Map<number, number>();
  const memory: PinnableMemory = {
    runAt(vaPage, out) {
      const pfn = frames[vaPage];
      if (pfn === undefined) return -EFAULT;
      let pages = 1;
      while (frames[vaPage + pages] === pfn + pages) pages++;
      out.pfn = pfn;
      out.pages = pages;
      return 0;
    },
    pin(pfn, pages) {
      for (let i = 0; i < pages; i++) pins.set(pfn + i, (pins.get(pfn + i) ?? 0) + 1);
    },
    unpin(pfn, pages) {
      for (let i = 0; i < pages; i++) {
        const left = pins.get(pfn + i)! - 1;
        if (left === 0) pins.delete(pfn + i);
        else pins.set(pfn + i, left);
      }
    },
  };
  return { memory, pins };
}

function runsOf(pages: IoptPages, first: number, last: number): [number, number, number][] {
  const runs: [number, number, number][] = [];
  pages.forEachRun(first, last, (index, pfn, count) => {
    runs.push([index, pfn, count]);
    return 0;
  });
  return runs;
}

test('acquire: overlapping areas pin each page once, and the last release unpins', (t) => {
  const { memory, pins } = userMemory([10, 11, 12, 13, 50, 51]);
  const pages = pagesOf(memory, 6);
  t.is(pages.acquire(0, 5), 0);
  t.is(pages.acquire(1, 4), 0);
  t.is(pages.acquire(4, 5), 0);
  t.deepEqual([...pins.values()], [1, 1, 1, 1, 1, 1]);
  pages.release(0, 5);
  t.deepEqual([...pins.keys()].sort(), [11, 12, 13, 50, 51]);
  pages.release(4, 5);
  t.deepEqual([...pins.keys()].sort(), [11, 12, 13, 50]);
  pages.release(1, 4);
  t.is(pins.size, 0);
  t.notThrows(() => pages.put());
});

test('forEachRun: gives the longest contiguous runs, across pins taken separately', (t) => {
  const { memory } = userMemory([10, 11, 12, 13, 50, 51]);
  const pages = pagesOf(memory, 6);
  pages.acquire(1, 2);
  pages.acquire(0, 5);
  t.deepEqual(runsOf(pages, 0, 5), [
    [0, 10, 4],
    [4, 50, 2],
  ]);
  t.deepEqual(runsOf(pages, 2, 4), [
    [2, 12, 2],
    [4, 50, 1],
  ]);
});

test('forEachRun: stops at the first failure and returns it', (t) => {
  const { memory } = userMemory([10, 20, 30]);
  const pages = pagesOf(memory, 3);
  pages.acquire(0, 2);
  let visits = 0;
  t.is(
    pages.forEachRun(0, 2, () => (++visits === 2 ? -5 : 0)),
    -5,
  );
  t.is(visits, 2);
});

test('acquire: EFAULT at a hole leaves the pins as they were', (t) => {
  const { memory, pins } = userMemory([10, 11, undefined, 13]);
  const pages = pagesOf(memory, 4);
  t.is(pages.acquire(1, 1), 0);
  t.is(pages.acquire(0, 3), -EFAULT);
  t.deepEqual([...pins], [[11, 1]]);
  pages.release(1, 1);
  t.is(pins.size, 0);
});

test('runs: frame numbers are those at pin time, whatever the user maps later', (t) => {
  const frames: (number | undefined)[] = [10, 11];
  const { memory } = userMemory(frames);
  const pages = pagesOf(memory, 2);
  pages.acquire(0, 1);
  frames[0] = undefined;
  t.deepEqual(runsOf(pages, 0, 1), [[0, 10, 2]]);
});

test('put: the last reference while something is pinned is a bug', (t) => {
  const { memory } = userMemory([10]);
  const pages = pagesOf(memory, 1);
  pages.acquire(0, 0);
  t.throws(() => pages.put(), { message: /freed while pinned/ });
});
