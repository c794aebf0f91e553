/**
 * Page walks, on one thread, by the compiled kernel as the SMMU calls it: batches of 64 requests of one stream,
 * 4 levels of stage 1, or these with 4 levels of stage 2 under each access. Each batch has an ASID that none
 * before it had, so the IOTLB never knows the answer; it is looked up and filled all the same.
 *
 *   hot    64 pages again and again
 *   cold   random pages behind tables far larger than the cache
 *
 *   nested   IPA   | guest tables (4 KiB pages of stage 2) |  data, phantom, a frame each
 */
import { NO_SSID, PORT_BATCH, XLAT_BYTES, Xlat } from '../../hw/iotlb/port-layout.js';
import {
  CONTEXT_NESTED,
  CONTEXT_S1,
  contextsLayout,
  iotlbLayout,
  StreamContext,
  UnitLayout,
} from '../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../hw/kernel/kernel.js';
import { layout, raw } from '../../hw/memory/layout.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import { PageTable, PROT_READ, PROT_WRITE } from '../../hw/pagetable/aarch64.js';
import { PAGE_TABLE_BYTES, pageTablesLayout } from '../../hw/pagetable/page-table-layout.js';
import { FIRST_PAGE } from './machines.js';
import { type Case, type Group, must, repetitions, type Scale, watched } from './rounds.js';
import { answersHash, comparedFigure, comparedRound, onImage, type Yardstick } from './yardstick.js';

const PAGE = 4096;
const MIB2 = 2 ** 21;
const IOTLB_ENTRIES = 16;
/** Batches whose requests are written at a time, outside the measured time. */
const SEGMENT = 64;
const BITS = 48;
const STREAM = 0;
/** Where guest tables and guest data begin, as the guest sees them. */
const TABLES_IPA = 2 ** 32;
const DATA_IPA = 2 ** 40;
/** One frame off, so that no run of pages can become a block or be marked contiguous. */
const OFF = 1;

const HOT_PAGES = PORT_BATCH;
/** 2^24 leaf descriptors are 128 MiB of tables for each stage, four times a large last-level cache. */
const COLD_PAGES = 2 ** 24;
const HOT_BATCHES = 4000;
const COLD_BATCHES = 1024;

export const WALK_ROWS = [
  'walk, 4 levels, hot',
  'walk, nested 4 x 4, hot',
  'walk, 4 levels, tables larger than the cache',
  'walk, nested 4 x 4, tables larger than the cache',
] as const;

export type WalkKind = 'stage 1' | 'nested';

/** A stream and its tables, and a place for requests. Offsets in linear memory. */
export interface WalkImage {
  readonly memory: MachineMemory;
  readonly kernel: Kernel;
  readonly unit: number;
  readonly context: number;
  readonly iotlb: number;
  readonly xlats: number;
  readonly pages: number;
  /** The table whose input is the stream's addresses, its descriptor, and the last frame that may be one of its tables. */
  readonly stage1: PageTable;
  readonly stage1Descriptor: number;
  readonly lastTableFrame: number;
}

/** @param pages  mapped from FIRST_PAGE on, 4 KiB each */
export function walkImage(kind: WalkKind, pages: number): WalkImage {
  const tableBytes = Math.ceil((pages + 2) / 512) * 8.1 * 512 + 64 * PAGE;
  // Guest tables have to be mapped by stage 2 themselves; its own tables come behind them.
  const guestBytes = roundUp(tableBytes, MIB2);
  const hostBytes = kind === 'nested' ? roundUp(tableBytes + guestBytes / 256, MIB2) : 0;
  const memory = MachineMemory.create({ ramBytes: guestBytes + hostBytes + MIB2, controlBytes: MIB2 });
  const { base: unit } = memory.allocRegion(UnitLayout, 'unit');
  const { base: context } = memory.allocRegion(contextsLayout(), 'contexts');
  const { base: iotlb } = memory.allocRegion(iotlbLayout(IOTLB_ENTRIES), 'iotlb');
  const requests = layout('requests', 1, { xlats: raw(XLAT_BYTES * PORT_BATCH * SEGMENT) });
  const { base: xlats } = memory.allocRegion(requests, 'requests');
  const { base: tables } = memory.allocRegion(pageTablesLayout(2), 'tables');
  const kernel = Kernel.load(memory);
  kernel.iotlbInit(unit, iotlb, IOTLB_ENTRIES);
  memory.words.store(unit + UnitLayout.at.gen, 1);
  const { linear, basePa } = memory.ram;
  const nested = kind === 'nested';
  const guest = {
    base: nested ? TABLES_IPA : basePa + OFF * PAGE,
    linear: linear + OFF * PAGE,
    bytes: guestBytes,
  };
  const dataPfn = DATA_IPA / PAGE;
  const stage1 = editedTable(memory, kernel, tables, 1, guest);
  fill(stage1, FIRST_PAGE, dataPfn, pages);
  const at = StreamContext.at;
  const put = (field: number, value: number): void => {
    memory.u32[(context + field) >>> 2] = value;
  };
  const put64 = (field: number, value: number): void => {
    put(field, value % 2 ** 32);
    put(field + 4, Math.floor(value / 2 ** 32));
  };
  put(at.sid, STREAM);
  put(at.ssid, NO_SSID);
  put(at.valid, 1);
  put(at.kind, nested ? CONTEXT_NESTED : CONTEXT_S1);
  put(at.tag, 1);
  put64(at.s1Root, stage1.root);
  for (const field of [at.s1InputBits, at.s1OutputBits, at.s2InputBits, at.s2OutputBits]) put(field, BITS);
  for (const field of [at.s1GranuleLg2, at.s2GranuleLg2]) put(field, 12);
  if (nested) {
    const host = { base: basePa + guestBytes + MIB2, linear: linear + guestBytes + MIB2, bytes: hostBytes };
    const stage2 = editedTable(memory, kernel, tables + PAGE_TABLE_BYTES, 2, host);
    fill(stage2, TABLES_IPA / PAGE, basePa / PAGE + OFF, guestBytes / PAGE);
    // Phantom frames: translated, never touched.
    fill(stage2, dataPfn, dataPfn + 2 ** 28 + OFF, pages);
    put64(at.s2Root, stage2.root);
  }
  const lastTableFrame = (guest.base + guest.bytes) / PAGE - 1;
  return {
    memory,
    kernel,
    unit,
    context,
    iotlb,
    xlats,
    pages,
    stage1,
    stage1Descriptor: tables,
    lastTableFrame,
  };
}

interface Window {
  readonly base: number;
  readonly linear: number;
  readonly bytes: number;
}

/** A table whose frames, the root the first of them, come one after the other out of a window. */
function editedTable(
  memory: MachineMemory,
  kernel: Kernel,
  descriptor: number,
  stage: 1 | 2,
  window: Window,
): PageTable {
  let next = window.base / PAGE;
  const end = (window.base + window.bytes) / PAGE;
  return new PageTable({
    memory,
    kernel,
    descriptor,
    stage,
    inputBits: BITS,
    outputBits: BITS,
    startLevel: 0,
    root: next++ * PAGE,
    window,
    frames: { alloc: () => (next < end ? next++ : -12), free: () => undefined },
  });
}

function fill(table: PageTable, page: number, pfn: number, pages: number): void {
  const status = table.map(page, pfn, pages, PROT_READ | PROT_WRITE);
  must(status === 0, `mapping ${pages} pages gave ${status}`);
  for (const at of [page, page + pages - 1]) {
    must(table.lookup(at) === pfn + (at - page), 'the page is mapped');
    must(table.foundLg2 === 12, 'in 4 KiB pages');
  }
}

const roundUp = (n: number, multiple: number): number => Math.ceil(n / multiple) * multiple;

/** xorshift32, as baseline/main.c has it. */
function nextRandom(state: number): number {
  let x = state;
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  return x >>> 0;
}

/**
 * Writes and answers batches.
 * @param seed  0: the first pages in turn; else random ones
 * @returns ns per translation, and the share of the time this thread had its processor
 */
export function runWalks(image: WalkImage, batches: number, seed: number): { ns: number; share: number } {
  const { memory, kernel, unit, context, iotlb, xlats, pages } = image;
  const { u32 } = memory;
  const tagWord = (context + StreamContext.at.tag) >>> 2;
  const fillWord = (unit + UnitLayout.at.fillSeq) >>> 2;
  const first = u32[fillWord]!;
  let state = seed;
  let ms = 0;
  let had = 0;
  let faults = 0;
  const write = (n: number): void => {
    for (let i = 0; i < n; i++) {
      if (seed !== 0) state = nextRandom(state);
      const page = FIRST_PAGE + (seed === 0 ? i % PORT_BATCH : state % pages);
      const word = (xlats + i * XLAT_BYTES) >>> 2;
      u32[word] = page << 12;
      u32[word + 1] = page >>> 20;
      u32[word + Xlat.at.flags / 4] = 0;
      u32[word + Xlat.at.sid / 4] = STREAM;
      u32[word + Xlat.at.ssid / 4] = NO_SSID;
    }
  };
  const translate = (n: number, stride: number): void => {
    const { ms: took, share } = watched(() => {
      for (let batch = 0; batch < n; batch++) {
        u32[tagWord] = u32[tagWord]! + 0x1_0000;
        faults += kernel.translateBatch(unit, context, iotlb, xlats + batch * stride, PORT_BATCH);
      }
    });
    ms += took;
    had += took * share;
  };
  if (seed === 0) {
    write(PORT_BATCH);
    translate(batches, 0);
  } else {
    for (let done = 0; done < batches; done += SEGMENT) {
      const some = Math.min(SEGMENT, batches - done);
      write(some * PORT_BATCH);
      translate(some, PORT_BATCH * XLAT_BYTES);
    }
  }
  const n = batches * PORT_BATCH;
  must(faults === 0, `${faults} of ${n} walks faulted`);
  // Random pages may come twice in a batch, and then once from the IOTLB.
  const walked = (u32[fillWord]! - first) >>> 0;
  must(walked >= n * 0.9, `${walked} of ${n} requests were walked`);
  return { ns: (ms * 1e6) / n, share: had / ms };
}

async function walkCase(
  name: string,
  image: WalkImage,
  options: { batches: number; random: boolean; atLeast: number; yardstick: Yardstick },
): Promise<{ made: Case; stop: () => Promise<void> }> {
  const { batches, random, atLeast, yardstick } = options;
  const c = await onImage(yardstick, image.memory);
  const { unit, context, iotlb, xlats, pages } = image;
  let seed = random ? 1 : 0;
  const askC = (n: number) =>
    c?.ask('walks', unit, context, iotlb, xlats, PORT_BATCH, n, FIRST_PAGE, pages, seed) ?? null;
  if (c !== null) {
    runWalks(image, 1, seed);
    await askC(1);
    const { hash } = await c.ask('answers', xlats, PORT_BATCH);
    must(hash === answersHash(image.memory, xlats, PORT_BATCH), `${name}: C answers otherwise`);
  }
  const made: Case = {
    figures: [comparedFigure(name, yardstick, atLeast)],
    round: async () => {
      if (random) seed = nextRandom(seed);
      const theirs = await askC(batches);
      const { ns, share } = runWalks(image, batches, seed);
      return comparedRound([{ ns, field: 'ns' }], share, theirs);
    },
  };
  return { made, stop: () => c?.stop() ?? Promise.resolve() };
}

async function walkGroup(
  names: readonly [string, string],
  pages: number,
  options: { batches: number; random: boolean; atLeast: number; yardstick: Yardstick },
): Promise<Group> {
  const one = await walkCase(names[0], walkImage('stage 1', pages), options);
  const two = await walkCase(names[1], walkImage('nested', pages), options);
  return {
    cases: [one.made, two.made],
    close: async () => {
      await one.stop();
      await two.stop();
    },
  };
}

export const hotWalks = (scale: Scale, yardstick: Yardstick): Promise<Group> =>
  walkGroup([WALK_ROWS[0], WALK_ROWS[1]], HOT_PAGES, {
    batches: repetitions(HOT_BATCHES, scale),
    random: false,
    atLeast: 0.8,
    yardstick,
  });

export const coldWalks = (scale: Scale, yardstick: Yardstick): Promise<Group> =>
  walkGroup(
    [WALK_ROWS[2], WALK_ROWS[3]],
    Math.max(2 ** 12, Math.min(COLD_PAGES, Math.round(COLD_PAGES * 4 * scale.work))),
    {
      batches: repetitions(COLD_BATCHES, scale),
      random: true,
      atLeast: 1,
      yardstick,
    },
  );
