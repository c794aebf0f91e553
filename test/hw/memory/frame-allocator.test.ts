import test from 'ava';
import { FrameAllocator } from '../../../hw/memory/frame-allocator.js';
import { framesLayout } from '../../../hw/memory/frames-layout.js';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';

const MIB = 2 ** 20;
const ENOMEM = 12;
const FIRST = 0x8000_0000 / 4096;

function frames(ramBytes: number, oasBits?: number) {
  const memory = MachineMemory.create({ ramBytes, controlBytes: 4 * MIB });
  const region = memory.allocRegion(framesLayout(ramBytes), 'frames');
  return { memory, region, allocator: FrameAllocator.init(memory, region, oasBits) };
}

/** A small deterministic generator: the tests may not depend on Math.random. */
function random(seed: number): (below: number) => number {
  let state = seed | 0;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

test('a new allocator has every RAM frame free', (t) => {
  const { allocator } = frames(16 * MIB);
  t.is(allocator.freePages(), 4096);
});

test('alloc: the default is one frame, of RAM, on the bus', (t) => {
  const { allocator } = frames(2 * MIB);
  const pfn = allocator.alloc();
  t.true(pfn >= FIRST && pfn < FIRST + 512);
  t.is(allocator.freePages(), 511);
  t.true(allocator.isAllocated(pfn));
});

test('alloc: a block is aligned to its own size, whatever was taken before', (t) => {
  const { allocator } = frames(64 * MIB);
  for (let sizeLg2 = 12; sizeLg2 <= 24; sizeLg2++) {
    allocator.alloc();
    t.is(allocator.alloc(sizeLg2) % 2 ** (sizeLg2 - 12), 0, `2^${sizeLg2}`);
  }
});

test('alloc: RAM that is used up is ENOMEM and changes nothing', (t) => {
  const { allocator } = frames(2 * MIB);
  const pfn = allocator.alloc(21);
  t.is(pfn, FIRST);
  t.is(allocator.alloc(), -ENOMEM);
  t.is(allocator.alloc(30), -ENOMEM);
  t.is(allocator.freePages(), 0);
  allocator.free(pfn, 512);
  t.is(allocator.alloc(21), FIRST);
});

test('alloc: a size outside 4 KiB..1 GiB is a bug', (t) => {
  const { allocator } = frames(2 * MIB);
  t.throws(() => allocator.alloc(11), { message: /2\^11/ });
  t.throws(() => allocator.alloc(31), { message: /2\^31/ });
});

test('alloc: 1 GiB is handed out whole', (t) => {
  const { allocator } = frames(1024 * MIB + 2 * MIB);
  t.is(allocator.alloc(30), FIRST);
  t.is(allocator.alloc(30), -ENOMEM);
  t.is(allocator.alloc(21), FIRST + 2 ** 18);
  t.is(allocator.freePages(), 0);
});

test('allocRun: takes exactly the frames asked for, at the alignment asked for', (t) => {
  const { allocator } = frames(16 * MIB);
  allocator.alloc();
  const pfn = allocator.allocRun(700, 16);
  t.is(pfn % 16, 0);
  t.is(allocator.freePages(), 4096 - 1 - 700);
  t.false(allocator.isAllocated(pfn + 700));
});

test('allocRun: finds a run that no single block covers', (t) => {
  const { allocator } = frames(8 * MIB);
  const all = allocator.allocRun(2048);
  // Free in the middle: 600 frames from 900 to 1500 lie on both sides of every 1024-frame block's border.
  allocator.free(all + 900, 600);
  t.is(allocator.allocRun(601), -ENOMEM);
  t.is(allocator.allocRun(600, 512), -ENOMEM);
  t.is(allocator.allocRun(400, 64), all + 960);
  t.is(allocator.allocRun(600), -ENOMEM);
  t.is(allocator.freePages(), 200);
});

test('allocRun: more than the RAM is ENOMEM', (t) => {
  const { allocator } = frames(8 * MIB);
  t.is(allocator.allocRun(2049), -ENOMEM);
  t.is(allocator.allocRun(2048), FIRST);
});

test('free: buddies join until the whole RAM is one block again', (t) => {
  const { allocator } = frames(4 * MIB);
  const pfns = Array.from({ length: 1024 }, () => allocator.alloc());
  t.is(new Set(pfns).size, 1024);
  for (const pfn of pfns.filter((_, i) => i % 2 === 0)) allocator.free(pfn, 1);
  t.is(allocator.alloc(13), -ENOMEM);
  for (const pfn of pfns.filter((_, i) => i % 2 === 1)) allocator.free(pfn, 1);
  t.is(allocator.alloc(22), FIRST);
});

test('free: twice, of a foreign frame, or past the RAM is a bug', (t) => {
  const { allocator } = frames(4 * MIB);
  const pfn = allocator.alloc(21);
  allocator.free(pfn + 7, 1);
  t.throws(() => allocator.free(pfn + 7, 1), { message: /double free of frame/ });
  t.throws(() => allocator.free(pfn, 512), { message: new RegExp(`double free of frame ${pfn + 7}`) });
  t.throws(() => allocator.free(3, 1), { message: /not this machine's RAM/ });
  t.throws(() => allocator.free(FIRST + 1023, 2), { message: /not this machine's RAM/ });
  t.throws(() => allocator.free(pfn, 0), { message: /run of 0 frames/ });
  t.is(allocator.freePages(), 1024 - 511);
});

test('reserve: reserved frames are never handed out, and only free ones can be', (t) => {
  const { allocator } = frames(2 * MIB);
  allocator.reserve(FIRST + 5, 9);
  t.throws(() => allocator.reserve(FIRST + 13, 2), { message: /not all free/ });
  t.is(allocator.freePages(), 503);
  for (let n = 0; n < 503; n++) {
    const pfn = allocator.alloc();
    t.false(pfn >= FIRST + 5 && pfn < FIRST + 14);
  }
  t.is(allocator.alloc(), -ENOMEM);
});

test('zero: clears the bytes of the frames and no other', (t) => {
  const { memory, allocator } = frames(2 * MIB);
  const pfn = allocator.allocRun(3);
  const at = memory.linearOf(pfn * 4096, 3 * 4096);
  memory.u8.fill(0xaa, at, at + 3 * 4096);
  allocator.zero(pfn + 1, 1);
  t.is(memory.u8[at + 4095], 0xaa);
  t.is(memory.u8[at + 4096], 0);
  t.is(memory.u8[at + 8191], 0);
  t.is(memory.u8[at + 8192], 0xaa);
});

test('phantom: frames lie past RAM and below the output address size', (t) => {
  const { allocator } = frames(2 * MIB, 32);
  const end = FIRST + 512;
  t.false(allocator.isPhantom(end - 1));
  t.true(allocator.isPhantom(end));
  const total = 2 ** 20 - end;
  const pfn = allocator.allocPhantom(total);
  t.is(pfn, end);
  t.is(allocator.allocPhantom(1), -ENOMEM);
  allocator.free(pfn, total);
  t.is(allocator.allocPhantom(1, 1024) % 1024, 0);
  t.is(allocator.freePages(), 512);
});

test('phantom: 48 bits reach 256 TiB', (t) => {
  const { allocator } = frames(2 * MIB);
  const pfn = allocator.allocPhantom(2 ** 35, 2 ** 35);
  t.is(pfn, 2 ** 35);
  t.is(allocator.allocPhantom(2 ** 35), -ENOMEM);
  t.not(allocator.allocPhantom(2 ** 34), -ENOMEM);
});

test('phantom: freed twice, or never allocated, is a bug', (t) => {
  const { allocator } = frames(2 * MIB);
  const pfn = allocator.allocPhantom(10);
  allocator.allocPhantom(1);
  allocator.free(pfn + 2, 4);
  t.throws(() => allocator.free(pfn + 5, 1), { message: /double free of phantom/ });
  t.throws(() => allocator.free(pfn + 1, 2), { message: /double free of phantom/ });
  t.throws(() => allocator.free(pfn + 11, 1), { message: /never allocated/ });
});

test('another thread that attaches sees the same frames', (t) => {
  const { memory, allocator } = frames(4 * MIB);
  const pfn = allocator.alloc();
  const other = MachineMemory.attach(memory.handle());
  const view = new FrameAllocator(other, other.region(framesLayout(4 * MIB), 'frames'));
  t.is(view.freePages(), 1023);
  t.true(view.isAllocated(pfn));
});

test('random: frames never overlap and all of them come back', (t) => {
  const seed = Number(process.env.SEED ?? 0x5eed);
  t.log(`SEED=${seed}`);
  const below = random(seed);
  // 22 MiB: blocks at the top that have no buddy.
  const { allocator } = frames(22 * MIB, 33);
  const total = (22 * MIB) / 4096;
  const owner = new Map<number, number>();
  const held: { pfn: number; pages: number }[] = [];
  let ramPages = 0;
  const own = (pfn: number, pages: number, id: number): void => {
    for (let at = pfn; at < pfn + pages; at++) {
      if (owner.has(at)) t.fail(`frame ${at} handed out twice`);
      owner.set(at, id);
    }
    if (!allocator.isPhantom(pfn)) ramPages += pages;
    held.push({ pfn, pages });
  };
  for (let step = 0; step < 6000; step++) {
    const what = below(10);
    if (what < 5 || held.length === 0) {
      const alignPages = 2 ** below(6);
      const pages = 1 + below(below(8) === 0 ? 900 : 40);
      const sizeLg2 = 12 + below(9);
      const [pfn, got, align] =
        what < 2
          ? [allocator.alloc(sizeLg2), 2 ** (sizeLg2 - 12), 2 ** (sizeLg2 - 12)]
          : what < 4
            ? [allocator.allocRun(pages, alignPages), pages, alignPages]
            : [allocator.allocPhantom(pages, alignPages), pages, alignPages];
      if (pfn === -ENOMEM) continue;
      if (pfn % align !== 0) t.fail(`frame ${pfn} is not aligned to ${align}`);
      own(pfn, got, step);
    } else {
      const [run] = held.splice(below(held.length), 1);
      const { pfn, pages } = run!;
      // Sometimes only a part goes back.
      const part = below(3) === 0 ? 1 + below(pages) : pages;
      allocator.free(pfn, part);
      for (let at = pfn; at < pfn + part; at++) owner.delete(at);
      if (!allocator.isPhantom(pfn)) ramPages -= part;
      if (part < pages) held.push({ pfn: pfn + part, pages: pages - part });
    }
    if (allocator.freePages() !== total - ramPages) t.fail(`step ${step}: freePages is wrong`);
  }
  for (const { pfn, pages } of held) allocator.free(pfn, pages);
  t.is(allocator.freePages(), total);
  t.is(allocator.alloc(24), FIRST);
  t.is(allocator.alloc(22), FIRST + 4096);
  t.is(allocator.alloc(21), FIRST + 4096 + 1024);
  t.is(allocator.allocPhantom(2 ** 21 - FIRST - total), FIRST + total);
});
