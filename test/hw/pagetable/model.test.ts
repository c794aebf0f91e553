/**
 * Random edits of tables of every geometry against plain arrays: what is mapped where, how, and what is dirty.
 * After each edit some pages, at the end all, are compared with the editor's look-up and with the plain walk.
 */
import test, { type ExecutionContext } from 'ava';
import type { ReplaceKind } from '../../../hw/pagetable/replacement.js';
import { Random, SEED } from '../../kit/random.js';
import { type Geometry, geometryName, TableFixture } from './table-fixture.js';

const EEXIST = 17;
const EINVAL = 22;
const DBM = 1 << 8;
const NO_AF = 1 << 9;
/** Level-2 entries that the edits stay within. */
const BLOCKS = 40;
const STEPS = 150;
const CHECKED = 4000;

const GEOMETRIES: readonly (Geometry & { contiguous: boolean })[] = [
  { stage: 1, granuleLg2: 12, inputBits: 48, outputBits: 48, startLevel: 0, contiguous: false },
  { stage: 2, granuleLg2: 12, inputBits: 40, outputBits: 40, startLevel: 1, contiguous: true },
  { stage: 1, granuleLg2: 12, inputBits: 30, outputBits: 36, startLevel: 2, contiguous: true },
  { stage: 2, granuleLg2: 14, inputBits: 48, outputBits: 48, startLevel: 1, contiguous: false },
  { stage: 1, granuleLg2: 14, inputBits: 36, outputBits: 48, startLevel: 2, contiguous: true },
  { stage: 2, granuleLg2: 16, inputBits: 52, outputBits: 52, startLevel: 1, contiguous: true },
  { stage: 1, granuleLg2: 16, inputBits: 42, outputBits: 48, startLevel: 2, contiguous: false },
];

/** Arrays by unit: a unit is a granule. pfn is in units too. */
class Model {
  readonly f: TableFixture;
  readonly t: ExecutionContext;
  readonly random: Random;
  readonly g: number;
  readonly perBlock: number;
  readonly units: number;
  readonly pfn: Float64Array;
  readonly prot: Uint16Array;
  /** Units of the leaf, and of the leaf with its group. */
  readonly leaf: Float64Array;
  readonly group: Float64Array;
  readonly dirty: Uint8Array;

  constructor(t: ExecutionContext, geometry: Geometry & { contiguous: boolean }, random: Random) {
    this.t = t;
    this.random = random;
    this.f = new TableFixture(geometry, { contiguous: geometry.contiguous });
    this.g = this.f.granulePages;
    this.perBlock = this.f.span(2) / this.g;
    this.units = this.perBlock * BLOCKS;
    this.pfn = new Float64Array(this.units).fill(-1);
    this.prot = new Uint16Array(this.units);
    this.leaf = new Float64Array(this.units).fill(1);
    this.group = new Float64Array(this.units).fill(1);
    this.dirty = new Uint8Array(this.units);
  }

  /** A range of units: often of whole blocks. */
  range(): [number, number] {
    const { random, units, perBlock } = this;
    const big = random.chance(0.5);
    const first = big ? random.below(BLOCKS) * perBlock : random.below(units);
    const most = big ? random.pick([2, 20]) * perBlock : random.pick([3, perBlock / 8, perBlock * 2]);
    const count = big ? (random.below(most / perBlock) + 1) * perBlock : random.below(most) + 1;
    return [first, Math.min(count, units - first)];
  }

  map(): void {
    const { random, f, g, t } = this;
    const [first, count] = this.range();
    const outUnits = 2 ** Math.min(f.geometry.outputBits - f.geometry.granuleLg2, 31);
    const alike =
      first + this.perBlock * 32 * random.below(Math.floor((outUnits - this.units) / this.perBlock / 32));
    const pfn = random.chance(0.7) ? alike : random.below(outUnits - count);
    const prot = random.pick([1, 3, 3 | DBM, 3 | DBM | NO_AF]);
    const taken = this.pfn.subarray(first, first + count).some((other) => other >= 0);
    t.is(f.table.map(first * g, pfn * g, count * g, prot), taken ? -EEXIST : 0);
    if (taken) return;
    for (let i = 0; i < count; i++) this.pfn[first + i] = pfn + i;
    this.prot.fill(prot & ~NO_AF, first, first + count);
    this.dirty.fill(0, first, first + count);
    this.resize(first, count);
    // No leaf and no group reaches out of the range it was mapped with.
    let inside = true;
    for (let i = first; i < first + count; i += this.leaf[i]!) {
      const size = this.group[i]!;
      inside &&= i - (i % size) >= first && i - (i % size) + size <= first + count;
    }
    t.true(inside);
  }

  /** Takes the leaves' sizes from the hardware's view. */
  resize(first: number, count: number): void {
    const { granuleLg2 } = this.f.geometry;
    for (let unit = first; unit < first + count; ) {
      const leaf = this.pfn[unit]! < 0 ? null : this.f.walk(unit * this.g);
      const size = leaf === null ? 1 : 2 ** (leaf.sizeLg2 - granuleLg2);
      const members = leaf?.contiguous
        ? granuleLg2 === 12
          ? 16
          : granuleLg2 === 14 && leaf.level === 3
            ? 128
            : 32
        : 1;
      const end = unit - (unit % size) + size;
      this.leaf.fill(size, unit, end);
      this.group.fill(size * members, unit, end);
      unit = end;
    }
  }

  cut(unit: number): boolean {
    return unit < this.units && this.pfn[unit]! >= 0 && unit % this.group[unit]! !== 0;
  }

  unmap(): void {
    const { f, g, t, random } = this;
    const [first, count] = this.range();
    const mapped = this.pfn.subarray(first, first + count).filter((pfn) => pfn >= 0).length;
    const cut = this.cut(first) || this.cut(first + count);
    const asked = random.chance(0.5);
    const status = asked
      ? f.table.unmapCutting(first * g, count * g, random.chance(0.5) ? () => 0 : null)
      : f.table.unmap(first * g, count * g);
    t.is(status, cut && !asked ? -EINVAL : mapped * g);
    if (status < 0) return;
    if (cut) for (const edge of [first, first + count]) this.spread(edge);
    this.pfn.fill(-1, first, first + count);
    this.dirty.fill(0, first, first + count);
    this.leaf.fill(1, first, first + count);
    this.group.fill(1, first, first + count);
    if (!cut) return;
    const from = Math.max(0, first - 32 * this.perBlock);
    const end = Math.min(this.units, first + count + 32 * this.perBlock);
    this.resize(from, first - from);
    this.resize(first + count, end - first - count);
  }

  /** What was one group of leaves at an edge is dirty as a whole. */
  spread(edge: number): void {
    if (!this.cut(edge)) return;
    const size = this.group[edge]!;
    this.merge(edge - (edge % size), size);
  }

  merge(first: number, count: number): void {
    const end = Math.min(first + count, this.units);
    if (this.dirty.subarray(first, end).includes(1)) this.dirty.fill(1, first, end);
  }

  replace(): void {
    const { f, g, t, random } = this;
    const kind = random.pick<ReplaceKind>(['split', 'collapse', 'ungroup', 'group']);
    const level = kind === 'split' || kind === 'collapse' ? 2 : random.pick([2, 3]);
    const unit = random.below(this.units);
    const size = level === 2 ? this.perBlock : 1;
    const lg2 = f.geometry.granuleLg2;
    const members = kind.endsWith('group') ? (lg2 === 12 ? 16 : lg2 === 14 && level === 3 ? 128 : 32) : 1;
    const first = unit - (unit % (size * members));
    const count = size * members;
    const change = f.table.replace(kind, unit * g, level, random.chance(0.3));
    if (first + count <= this.units)
      t.is(typeof change !== 'number', this.replaceable(kind, first, count, size), kind);
    if (typeof change === 'number') {
      t.is(change, -EINVAL);
      return;
    }
    t.deepEqual([change.firstPage, change.pages], [first * g, count * g]);
    if (f.walk(unit * g) === null && random.chance(0.2)) {
      change.cancel();
      return;
    }
    change.finish();
    if (kind !== 'split') this.merge(first, count);
    this.resize(first, Math.min(count, this.units - first));
    if (random.chance(0.3)) f.table.releaseFreed();
  }

  replaceable(kind: ReplaceKind, first: number, count: number, size: number): boolean {
    const { pfn, prot, leaf, group } = this;
    const mapped = pfn[first]! >= 0;
    if (kind === 'split') return mapped && leaf[first] === size && group[first] === size;
    if (kind === 'ungroup') return mapped && leaf[first] === size && group[first] === count;
    for (let i = 0; i < count; i++)
      if (pfn[first + i] !== pfn[first]! + i || prot[first + i] !== prot[first] || !mapped) return false;
    if (pfn[first]! % count !== 0) return false;
    return kind === 'collapse'
      ? leaf[first]! < size
      : leaf[first] === size && group[first] === size && this.alike(first, count, size);
  }

  alike(first: number, count: number, size: number): boolean {
    for (let i = 0; i < count; i += size)
      if (this.leaf[first + i] !== size || this.group[first + i] !== size) return false;
    return true;
  }

  write(): void {
    const { f, g, t, random } = this;
    for (let i = 0; i < 10; i++) {
      const unit = random.below(this.units);
      t.is(f.write(unit * g), this.pfn[unit]! >= 0 && (this.prot[unit]! & 2) !== 0);
      if (this.pfn[unit]! < 0 || (this.prot[unit]! & DBM) === 0) continue;
      const size = this.group[unit]!;
      const first = unit - (unit % size);
      this.dirty.fill(1, first, first + size);
    }
  }

  scan(): void {
    const { f, g, t, random } = this;
    const [first, count] = this.range();
    const noClear = random.chance(0.4);
    const bitmap = new Uint8Array(Math.ceil(count / 8));
    const options = { unitLg2: f.geometry.granuleLg2, noClear };
    t.true(f.table.readAndClearDirty(first * g, count * g, bitmap, options) >= 0);
    const want = new Uint8Array(bitmap.length);
    for (let i = 0; i < count; i++) if (this.dirty[first + i] === 1) want[i >> 3]! |= 1 << (i & 7);
    t.true(Buffer.compare(bitmap, want) === 0, `dirty bits of ${first}+${count}`);
    if (noClear) return;
    for (let unit = first; unit < first + count; ) {
      const size = this.group[unit]!;
      const from = unit - (unit % size);
      if (from >= first && from + size <= first + count) this.dirty.fill(0, from, from + size);
      unit = from + size;
    }
  }

  check(unit: number): void {
    const { f, g } = this;
    const found = f.table.lookup(unit * g);
    const hardware = f.walk(unit * g);
    const want = this.pfn[unit]! < 0 ? -1 : this.pfn[unit]! * g;
    const seen = hardware === null ? -1 : Number(hardware.pa >> 12n);
    const prot = this.prot[unit]!;
    const same =
      hardware === null ||
      (hardware.readable &&
        hardware.writable === ((prot & 2) !== 0) &&
        hardware.tracked === ((prot & DBM) !== 0));
    if (found !== want || seen !== want || !same)
      this.t.fail(`unit ${unit}: look-up ${found}, hardware ${seen}, want ${want} (${prot})`);
  }
}

for (const geometry of GEOMETRIES)
  test(`random edits agree with arrays and with hardware: ${geometryName(geometry)}${geometry.contiguous ? ', contiguous' : ''}`, (t) => {
    t.log(`SEED=${SEED}`);
    const random = new Random(SEED + GEOMETRIES.indexOf(geometry));
    const model = new Model(t, geometry, random);
    for (let step = 0; step < STEPS; step++) {
      const dice = random.below(10);
      if (dice < 3) model.map();
      else if (dice < 5) model.unmap();
      else if (dice < 8) model.replace();
      else if (dice < 9) model.write();
      else model.scan();
      for (let i = 0; i < 10; i++) model.check(random.below(model.units));
    }
    const stride = Math.max(1, Math.floor(model.units / CHECKED));
    for (let unit = 0; unit < model.units; unit += stride) model.check(unit);
    model.f.table.destroy();
    t.is(model.f.frames.used, 0);
  });
