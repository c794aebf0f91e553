import test from 'ava';
import fc from 'fast-check';
import { type FieldKind, type Fields, type Scalar, struct, type TypeOf } from '../../../uapi/abi/struct.js';
import * as uapi from '../../../uapi/index.js';

const SEED = Number(process.env.SEED ?? (Math.random() * 0x7fff_ffff) | 0);

const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** One of each scalar, each in its natural place. */
const Mixed = struct(
  'mixed',
  { a: 'u8', b: 'u8', c: 'u16', d: 's32', e: 'u64', f: ['u16', 4], g: ['u32', 2], h: ['u64', 2] },
  { size: 48, last: 'e' },
);

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const typesAreExact: Equal<
  TypeOf<typeof Mixed>,
  { a: number; b: number; c: number; d: number; e: bigint; f: number[]; g: number[]; h: bigint[] }
> = true;

const VALUE: TypeOf<typeof Mixed> = {
  a: 0x01,
  b: 0xff,
  c: 0x1234,
  d: -2,
  e: 0x0102030405060708n,
  f: [1, 2, 3, 0xffff],
  g: [0xffffffff, 5],
  h: [U64_MAX, 1n],
};
// biome-ignore format: a line per field
const BYTES = Uint8Array.of(
  0x01,
  0xff,
  0x34, 0x12,
  0xfe, 0xff, 0xff, 0xff,
  0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
  0x01, 0x00, 0x02, 0x00, 0x03, 0x00, 0xff, 0xff,
  0xff, 0xff, 0xff, 0xff, 0x05, 0x00, 0x00, 0x00,
  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
);

test('struct: offsets, size and minSize follow the declaration', (t) => {
  t.true(typesAreExact);
  t.deepEqual(Mixed.offsets, { a: 0, b: 1, c: 2, d: 4, e: 8, f: 16, g: 24, h: 32 });
  t.is(Mixed.size, 48);
  t.is(Mixed.minSize, 16);
  t.is(struct('pair', { x: 'u32', y: 'u32' }, { size: 8 }).minSize, 8);
});

test('encode: writes these little-endian bytes', (t) => {
  const bytes = new Uint8Array(48);
  Mixed.encode(VALUE, bytes);
  t.deepEqual(bytes, BYTES);
});

test('decode: reads these little-endian bytes', (t) => {
  t.deepEqual(Mixed.decode(BYTES), VALUE);
});

test('decode and encode: work at an offset of a window on a larger buffer, and touch nothing else', (t) => {
  const backing = new Uint8Array(100).fill(0xaa);
  const window = backing.subarray(7, 7 + 3 + 48);
  Mixed.encode(VALUE, window, 3);
  t.deepEqual(backing.subarray(10, 58), BYTES);
  t.true(backing.subarray(0, 10).every((b) => b === 0xaa));
  t.true(backing.subarray(58).every((b) => b === 0xaa));
  t.deepEqual(Mixed.decode(window, 3), VALUE);
});

test('decode, encode, put and getField: work over shared memory', (t) => {
  const shared = new Uint8Array(new SharedArrayBuffer(64), 8, 48);
  Mixed.encode(VALUE, shared);
  t.deepEqual(Mixed.decode(shared), VALUE);
  Mixed.put(shared, 'e', 9n);
  t.is(Mixed.getField(shared, 'e'), 9n);
});

test('put: writes the bytes of its field and no others', (t) => {
  const bytes = new Uint8Array(48).fill(0xaa);
  Mixed.put(bytes, 'c', 0x1234);
  t.deepEqual([...bytes.subarray(0, 6)], [0xaa, 0xaa, 0x34, 0x12, 0xaa, 0xaa]);
  Mixed.put(bytes, 'g', [1, 2]);
  t.deepEqual([...bytes.subarray(22, 34)], [0xaa, 0xaa, 1, 0, 0, 0, 2, 0, 0, 0, 0xaa, 0xaa]);
});

test('put and getField: need only their own field inside the bytes', (t) => {
  const short = new Uint8Array(16);
  Mixed.put(short, 'e', U64_MAX);
  t.is(Mixed.getField(short, 'e'), U64_MAX);
  t.throws(() => Mixed.getField(short, 'f'), { instanceOf: RangeError, message: /mixed\.f: 8 bytes at 16/ });
  t.throws(() => Mixed.put(short, 'h', [0n, 0n]), { instanceOf: RangeError });
});

test('bounds: a struct that leaves its window is refused even if the buffer goes on', (t) => {
  const window = new Uint8Array(new ArrayBuffer(200), 0, 47);
  t.throws(() => Mixed.decode(window), {
    instanceOf: RangeError,
    message: /48 bytes at 0 exceed a buffer of 47/,
  });
  t.throws(() => Mixed.encode(VALUE, window), { instanceOf: RangeError });
  const enough = new Uint8Array(48);
  for (const at of [1, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    t.throws(() => Mixed.decode(enough, at), { instanceOf: RangeError });
  }
  t.throws(() => Mixed.getField(window.subarray(4), 'c', -2), { instanceOf: RangeError }, 'field before');
});

test('encode: a value that does not fit is named and nothing is written', (t) => {
  const cases: [Partial<Record<keyof typeof VALUE, unknown>>, RegExp][] = [
    [{ a: 256 }, /mixed\.a: 256 is not a u8/],
    [{ b: -1 }, /mixed\.b: -1 is not a u8/],
    [{ c: 65536 }, /mixed\.c: 65536 is not a u16/],
    [{ c: 1.5 }, /mixed\.c: 1\.5 is not a u16/],
    [{ c: Number.NaN }, /mixed\.c: NaN is not a u16/],
    [{ d: 0x8000_0000 }, /mixed\.d: 2147483648 is not a s32/],
    [{ d: -0x8000_0001 }, /mixed\.d: -2147483649 is not a s32/],
    [{ e: U64_MAX + 1n }, /mixed\.e: 18446744073709551616n is not a u64/],
    [{ e: -1n }, /mixed\.e: -1n is not a u64/],
    [{ e: 1 }, /mixed\.e: 1 is not a u64/],
    [{ a: 1n }, /mixed\.a: 1n is not a u8/],
    [{ a: undefined }, /mixed\.a: undefined is not a u8/],
    [{ g: [1, 2, 3] }, /mixed\.g: 1,2,3 is not an array of 2 u32/],
    [{ g: 1 }, /mixed\.g: 1 is not an array of 2 u32/],
    [{ g: [1, 0x1_0000_0000] }, /mixed\.g\[1\]: 4294967296 is not a u32/],
    [{ h: [1n, -1n] }, /mixed\.h\[1\]: -1n is not a u64/],
  ];
  for (const [wrong, message] of cases) {
    const bytes = new Uint8Array(48);
    const value = { ...VALUE, ...wrong } as typeof VALUE;
    t.throws(() => Mixed.encode(value, bytes), { instanceOf: RangeError, message });
    t.true(
      bytes.every((b) => b === 0),
      String(message),
    );
  }
});

test('create: fills with zeros and copies arrays', (t) => {
  t.deepEqual(Mixed.create(), {
    a: 0,
    b: 0,
    c: 0,
    d: 0,
    e: 0n,
    f: [0, 0, 0, 0],
    g: [0, 0],
    h: [0n, 0n],
  });
  const h = [1n, 2n];
  const value = Mixed.create({ h, a: 3 });
  h[0] = 9n;
  t.deepEqual(value.h, [1n, 2n]);
  t.is(value.a, 3);
});

test('create: a name that is not a field is refused', (t) => {
  const typo: object = { aa: 1 };
  t.throws(() => Mixed.create(typo), { instanceOf: RangeError, message: /mixed: no field named aa/ });
});

test('toBytes: is create and encode', (t) => {
  t.deepEqual(Mixed.toBytes(VALUE), BYTES);
  t.deepEqual(Mixed.toBytes(), new Uint8Array(48));
});

/** A declaration that the type system would reject, as JavaScript could make it. */
function declare(fields: Record<string, unknown>, options: { size: number; last?: string }): () => unknown {
  return () => struct('bad', fields as Fields, options);
}

test('declaration: implicit padding is refused', (t) => {
  t.throws(declare({ a: 'u32', b: 'u64' }, { size: 16 }), { message: /bad\.b: u64 at offset 4/ });
  t.throws(declare({ a: 'u8', b: 'u16' }, { size: 3 }), { message: /bad\.b: u16 at offset 1/ });
  t.throws(declare({ a: 'u64', b: 'u32' }, { size: 12 }), { message: /not a multiple of 8/ });
});

test('declaration: a wrong size is refused', (t) => {
  t.throws(declare({ a: 'u32' }, { size: 8 }), { message: /fields end at 4, declared size is 8/ });
  t.throws(declare({ a: 'u32', b: 'u32' }, { size: 4 }), { message: /fields end at 8, declared size is 4/ });
  t.throws(declare({ a: 'u32' }, { size: Number.NaN }));
});

test('declaration: unknown kinds, names and counts are refused', (t) => {
  t.throws(declare({ a: 'u24' }, { size: 3 }), { message: /bad\.a: unknown kind u24/ });
  t.throws(declare({ a: ['u32', 0] }, { size: 0 }), { message: /bad\.a: array of 0/ });
  t.throws(declare({ a: ['u8', 1.5] }, { size: 2 }), { message: /bad\.a: array of 1\.5/ });
  t.throws(declare({ a: 'u32' }, { size: 4, last: 'b' }), { message: /bad: no field named b/ });
  t.throws(declare({}, { size: 0 }), { message: /bad: no fields/ });
});

test('declaration: a name that JavaScript would move to the front is refused', (t) => {
  t.throws(declare({ a: 'u32', 1: 'u32' }, { size: 8 }), { message: /bad: field name 1 is a number/ });
});

const SCALARS: Readonly<Record<Scalar, fc.Arbitrary<number | bigint>>> = {
  u8: fc.integer({ min: 0, max: 0xff }),
  u16: fc.integer({ min: 0, max: 0xffff }),
  u32: fc.integer({ min: 0, max: 0xffff_ffff }),
  s32: fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }),
  u64: fc.oneof(fc.constantFrom(0n, 1n, 1n << 63n, U64_MAX), fc.bigInt({ min: 0n, max: U64_MAX })),
};

function anyValueOf(kind: FieldKind): fc.Arbitrary<unknown> {
  if (typeof kind === 'string') return SCALARS[kind];
  return fc.array(SCALARS[kind[0]], { minLength: kind[1], maxLength: kind[1] });
}

interface AnyStruct {
  readonly cName: string;
  readonly size: number;
  readonly fields: Fields;
  readonly offsets: Readonly<Record<string, number>>;
  decode(bytes: Uint8Array, at?: number): Record<string, unknown>;
  encode(value: Record<string, unknown>, bytes: Uint8Array, at?: number): void;
}

function isStruct(value: unknown): value is AnyStruct {
  return typeof value === 'object' && value !== null && 'cName' in value && 'decode' in value;
}

const STRUCTS = Object.values(uapi as Record<string, unknown>).filter(isStruct);

test('round trip: any value of any struct survives encode and decode', (t) => {
  t.log(`SEED=${SEED}`);
  t.is(STRUCTS.length, 49);
  for (const s of STRUCTS) {
    const values = fc.record(
      Object.fromEntries(Object.entries(s.fields).map(([name, kind]) => [name, anyValueOf(kind)])),
    );
    fc.assert(
      fc.property(values, (value) => {
        const bytes = new Uint8Array(s.size);
        s.encode(value, bytes);
        t.deepEqual(s.decode(bytes), { ...value });
      }),
      { seed: SEED, numRuns: 30 },
    );
  }
});

test('round trip: any bytes of any struct survive decode and encode', (t) => {
  t.log(`SEED=${SEED}`);
  for (const s of STRUCTS) {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: s.size, maxLength: s.size }), (bytes) => {
        const again = new Uint8Array(s.size);
        s.encode(s.decode(bytes), again);
        t.deepEqual(again, new Uint8Array(bytes));
      }),
      { seed: SEED, numRuns: 30 },
    );
  }
});

test('round trip: all ones decode to each kind at its extreme', (t) => {
  const ones = Mixed.decode(new Uint8Array(48).fill(0xff));
  t.deepEqual(ones, {
    a: 0xff,
    b: 0xff,
    c: 0xffff,
    d: -1,
    e: U64_MAX,
    f: [0xffff, 0xffff, 0xffff, 0xffff],
    g: [0xffffffff, 0xffffffff],
    h: [U64_MAX, U64_MAX],
  });
});
