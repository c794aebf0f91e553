/** A page table of any geometry in a small machine, with frames that count, and the hardware's view of it. */
import type { BugSwitches } from '../../../hw/bugs/bug-switches.js';
import { PageTable, type TableFrames } from '../../../hw/pagetable/aarch64.js';
import { KernelBench } from '../../kit/kernel-bench.js';
import { type PlainLeaf, type PlainTable, plainWalk } from './plain-walk.js';

const RAM_PFN = 0x80000;
const ENOMEM = 12;
/** What a root may take: 16 tables of 64 KiB. */
const ROOT_BYTES = 1 << 20;

export interface Geometry {
  readonly stage: 1 | 2;
  readonly granuleLg2: 12 | 14 | 16;
  readonly inputBits: number;
  readonly outputBits: number;
  readonly startLevel: number;
}

export const geometryName = ({ stage, granuleLg2, inputBits, outputBits, startLevel }: Geometry): string =>
  `stage ${stage}, ${2 ** (granuleLg2 - 10)} KiB, ${inputBits} to ${outputBits} bits, from level ${startLevel}`;

/** Frames of one granule each; dirty on purpose, as an allocator's frames are. */
export class Frames implements TableFrames {
  readonly #idle: number[] = [];
  readonly #bench: KernelBench;
  readonly #pages: number;
  used = 0;

  constructor(bench: KernelBench, granuleLg2: number, count: number) {
    this.#bench = bench;
    this.#pages = 2 ** (granuleLg2 - 12);
    for (let i = 0; i < count; i++) this.#idle.push(RAM_PFN + ROOT_BYTES / 4096 + i * this.#pages);
  }

  alloc(): number {
    const pfn = this.#idle.pop();
    if (pfn === undefined) return -ENOMEM;
    this.used++;
    const linear = this.#bench.memory.ram.linear + (pfn - RAM_PFN) * 4096;
    this.#bench.memory.u8.fill(0xff, linear, linear + this.#pages * 4096);
    return pfn;
  }

  free(pfn: number): void {
    if (this.#idle.includes(pfn)) throw new Error(`frame ${pfn} freed twice`);
    this.#idle.push(pfn);
    this.used--;
  }
}

export class TableFixture {
  readonly bench: KernelBench;
  readonly table: PageTable;
  readonly frames: Frames;
  readonly geometry: Geometry;
  readonly plain: PlainTable;

  constructor(
    geometry: Geometry,
    options: { count?: number; contiguous?: boolean; bugs?: BugSwitches } = {},
  ) {
    const { count = 160, contiguous = false, bugs } = options;
    const bytes = ROOT_BYTES + count * 2 ** geometry.granuleLg2;
    this.bench = new KernelBench({ ramBytes: Math.ceil(bytes / 2 ** 21) * 2 ** 21, bugs });
    this.frames = new Frames(this.bench, geometry.granuleLg2, count);
    this.geometry = geometry;
    const root = RAM_PFN * 4096;
    this.plain = { ...geometry, root: BigInt(root) };
    const { memory, kernel, tables } = this.bench;
    this.table = new PageTable({
      memory,
      kernel,
      descriptor: tables,
      ...geometry,
      root,
      contiguous,
      frames: this.frames,
    });
  }

  /** 4 KiB pages in a granule. */
  get granulePages(): number {
    return 2 ** (this.geometry.granuleLg2 - 12);
  }

  /** 4 KiB pages that an entry spans. */
  span(level: number): number {
    const { granuleLg2 } = this.geometry;
    return 2 ** (granuleLg2 - 12 + (granuleLg2 - 3) * (3 - level));
  }

  walk(page: number): PlainLeaf | null {
    return plainWalk(this.plain, BigInt(page) * 4096n, (pa) => this.bench.ram(pa));
  }

  /** pfn that hardware finds, or -1. */
  pfn(page: number): number {
    const leaf = this.walk(page);
    return leaf === null ? -1 : Number(leaf.pa >> 12n);
  }

  /** A write by a device, as hardware that manages dirty and access flags does it. @returns whether it may */
  write(page: number): boolean {
    const leaf = this.walk(page);
    if (leaf === null || !leaf.writable) return false;
    const accessed = leaf.descriptor | (1n << 10n);
    const bit7 = 1n << 7n;
    const now = !leaf.tracked ? accessed : this.geometry.stage === 2 ? accessed | bit7 : accessed & ~bit7;
    this.bench.setRam(leaf.slot, now);
    return true;
  }
}
