import test from 'ava';
import { _IO, _IOC_NR, decodeIoctl, IOMMUFD_TYPE } from '../../../uapi/abi/ioctl.js';

test('_IO: type and number stand in the low two bytes', (t) => {
  t.is(_IO(';', 0x85), 0x3b85);
  t.is(_IO(0x3b, 0x85), 0x3b85);
  t.is(_IO(0xff, 0xff), 0xffff);
  t.is(IOMMUFD_TYPE, 0x3b);
});

test('_IO: what does not fit a byte is refused', (t) => {
  for (const type of ['', ';;', '\u1234', -1, 256, 1.5]) {
    t.throws(() => _IO(type, 0), { instanceOf: RangeError });
  }
  for (const nr of [-1, 256, 0.5, Number.NaN]) {
    t.throws(() => _IO(';', nr), { instanceOf: RangeError });
  }
});

test('decodeIoctl: takes every field apart, also with the top bit set', (t) => {
  t.deepEqual(decodeIoctl(0x3b94), { dir: 0, size: 0, type: 0x3b, nr: 0x94 });
  // _IOWR(';', 0x85, 40 bytes)
  t.deepEqual(decodeIoctl(0xc0283b85), { dir: 3, size: 40, type: 0x3b, nr: 0x85 });
  t.deepEqual(decodeIoctl(0xc0283b85 | 0), { dir: 3, size: 40, type: 0x3b, nr: 0x85 });
  t.deepEqual(decodeIoctl(0xffffffff), { dir: 3, size: 0x3fff, type: 0xff, nr: 0xff });
});

test('_IOC_NR: is the low byte of anything a guest sends', (t) => {
  t.is(_IOC_NR(0xc0283b85), 0x85);
  t.is(_IOC_NR(-1), 0xff);
  t.is(_IOC_NR(Number.NaN), 0);
});
