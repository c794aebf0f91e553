import test from 'ava';
import { byteSize } from '../../../runtime/core/byte-size.js';

test('sizes: numbers, bigints and binary units', (t) => {
  t.is(byteSize(4096, 'x'), 4096n);
  t.is(byteSize(1n << 40n, 'x'), 1n << 40n);
  t.is(byteSize('512', 'x'), 512n);
  t.is(byteSize('512B', 'x'), 512n);
  t.is(byteSize('4KiB', 'x'), 4096n);
  t.is(byteSize(' 16 MiB ', 'x'), 16n << 20n);
  t.is(byteSize('2GiB', 'x'), 2n << 30n);
  t.is(byteSize('3TiB', 'x'), 3n << 40n);
});

test('sizes: what is not a size is refused, naming what it was for', (t) => {
  for (const bad of ['', '16MB', '-1', '1.5KiB', 'MiB', '0x10', 1.5, -1, Number.NaN, 2 ** 60, -1n, 1n << 64n])
    t.throws(() => byteSize(bad, 'memory'), { instanceOf: RangeError, message: /^memory: / });
});
