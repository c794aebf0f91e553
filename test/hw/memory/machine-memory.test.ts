import test from 'ava';
import { i32, layout, raw } from '../../../hw/memory/layout.js';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';

const MIB = 2 ** 20;
const Shape = layout('shape', 1, { a: i32(), b: raw(100) });

test('create: RAM begins at a 2 MiB boundary behind the control regions', (t) => {
  const { ram, buffer } = MachineMemory.create({ ramBytes: 4 * MIB, controlBytes: 3 * MIB });
  t.is(ram.linear % (2 * MIB), 0);
  t.true(ram.linear >= 3 * MIB);
  t.is(ram.linear + ram.bytes, buffer.byteLength);
  t.is(ram.basePa, 0x8000_0000);
});

test('create: a memory of 4 GiB is usable to its last word', (t) => {
  const controlBytes = MIB;
  const { words, buffer } = MachineMemory.create({ ramBytes: 2 ** 32 - 2 * MIB, controlBytes });
  t.is(buffer.byteLength, 2 ** 32);
  words.store(2 ** 32 - 4, 7);
  t.is(words.load(2 ** 32 - 4), 7);
  words.store64(2 ** 32 - 8, 9n);
  t.is(words.load64(2 ** 32 - 8), 9n);
});

test('create: sizes that make no sense are refused', (t) => {
  for (const ramBytes of [0, -2 * MIB, MIB, 2.5, Number.NaN, 2 ** 53])
    t.throws(() => MachineMemory.create({ ramBytes }), { instanceOf: RangeError }, `${ramBytes}`);
  t.throws(() => MachineMemory.create({ ramBytes: 2 * MIB, ramBasePa: 4096 }), { instanceOf: RangeError });
  t.throws(() => MachineMemory.create({ ramBytes: 2 ** 32 }), {
    message: /4294967296 bytes of RAM, and 34 MiB to manage them/,
  });
});

test('allocRegion: regions do not overlap, and an unknown or second key is refused', (t) => {
  const memory = MachineMemory.create({ ramBytes: 2 * MIB, controlBytes: MIB });
  const a = memory.allocRegion(Shape, 'a');
  const b = memory.allocRegion(Shape, 'b');
  t.true(b.base >= a.base + a.size);
  t.is(a.base % 64, 0);
  t.throws(() => memory.allocRegion(Shape, 'a'), { message: /'a' exists/ });
  t.throws(() => memory.region(Shape, 'c'), { message: /no region 'c'/ });
  t.true(memory.hasRegion('a'));
  t.false(memory.hasRegion('c'));
});

test('allocRegion: what does not fit before RAM is refused', (t) => {
  const memory = MachineMemory.create({ ramBytes: 2 * MIB, controlBytes: MIB });
  t.throws(() => memory.allocRegion(layout('big', 1, { a: raw(4 * MIB) }), 'big'), {
    message: /raise controlBytes/,
  });
});

test('attach: the other side sees the same bytes at the same region', (t) => {
  const memory = MachineMemory.create({ ramBytes: 2 * MIB, controlBytes: MIB });
  const region = memory.allocRegion(Shape, 'a');
  const other = MachineMemory.attach(memory.handle());
  memory.words.store(region.base, 77);
  t.is(other.words.load(other.region(Shape, 'a').base), 77);
  t.true(other.allocRegion(Shape, 'later').base >= region.base + region.size);
});

test('region: another layout, version or size is refused', (t) => {
  const memory = MachineMemory.create({ ramBytes: 2 * MIB, controlBytes: MIB });
  memory.allocRegion(Shape, 'a');
  t.throws(() => memory.region(layout('other', 1, { a: i32(), b: raw(100) }), 'a'), {
    message: /not a other/,
  });
  t.throws(() => memory.region(layout('shape', 2, { a: i32(), b: raw(100) }), 'a'), { message: /version 1/ });
  t.throws(() => memory.region(layout('shape', 1, { a: raw(300) }), 'a'), { message: /expects version 1/ });
});

test('linearOf: an address that is not wholly RAM is -1', (t) => {
  const memory = MachineMemory.create({ ramBytes: 2 * MIB, controlBytes: MIB });
  const { linear } = memory.ram;
  t.is(memory.linearOf(0x8000_0000, 1), linear);
  t.is(memory.linearOf(0x8000_0000 + 2 * MIB - 8, 8), linear + 2 * MIB - 8);
  t.is(memory.linearOf(0x8000_0000 + 2 * MIB - 8, 9), -1);
  t.is(memory.linearOf(0x7fff_ffff, 1), -1);
  t.is(memory.linearOf(2 ** 52, 8), -1);
});
