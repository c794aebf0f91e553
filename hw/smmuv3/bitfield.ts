/**
 * Fields of registers and of in-memory structures, declared once under the names and bit numbers that
 * [IHI0070] prints, and checked when the module loads: two fields that overlap, or one that leaves its word,
 * throw.
 *
 *   register   32 bits: fields read and write a Number. 64 bits: fields read and write a bigint (cold path).
 *   structure  a Uint32Array of the structure's little-endian words; bit 70 is bit 6 of word 2. A field that
 *              crosses words is a Number while it has at most 53 bits; `quad` fields are bigints.
 *
 * `put` throws on a value too wide for its field: it is a defect of the caller. Values from a guest arrive as
 * whole words and are only ever read through `get`.
 */
import { bug } from '../memory/bug.js';

export interface BitSpec {
  readonly hi: number;
  readonly lo: number;
  /** value: right-aligned. address: the bits in place, as a byte address. quad: right-aligned, a bigint. */
  readonly kind: 'value' | 'address' | 'quad';
}

export const bit = (n: number) => ({ hi: n, lo: n, kind: 'value' }) as const;
/** Bits hi..lo, right-aligned. */
export const bits = (hi: number, lo: number) => ({ hi, lo, kind: 'value' }) as const;
/** Bits hi..lo of an address, in place: a byte address whose low bits are zero. */
export const address = (hi: number, lo: number) => ({ hi, lo, kind: 'address' }) as const;
/** Bits hi..lo as a bigint. */
export const quad = (hi: number, lo: number) => ({ hi, lo, kind: 'quad' }) as const;

type Fields = Readonly<Record<string, BitSpec>>;

// ---- registers ------------------------------------------------------------------------------------------

export interface Field32 {
  readonly mask: number;
  get(word: number): number;
  put(word: number, value: number): number;
}

export interface Field64 {
  readonly mask: bigint;
  get(word: bigint): bigint;
  put(word: bigint, value: bigint): bigint;
}

export type Reg32<F extends Fields> = {
  readonly [K in keyof F]: Field32;
} & {
  readonly name: string;
  readonly offset: number;
  readonly bytes: 4;
};
export type Reg64<F extends Fields> = {
  readonly [K in keyof F]: Field64;
} & {
  readonly name: string;
  readonly offset: number;
  readonly bytes: 8;
};

export function reg32<F extends Fields>(name: string, offset: number, fields: F): Reg32<F> {
  check(name, fields, 32);
  const made: Record<string, unknown> = { name, offset, bytes: 4 };
  for (const [key, { hi, lo }] of Object.entries(fields)) made[key] = field32(`${name}.${key}`, hi, lo);
  return made as Reg32<F>;
}

export function reg64<F extends Fields>(name: string, offset: number, fields: F): Reg64<F> {
  check(name, fields, 64);
  const made: Record<string, unknown> = { name, offset, bytes: 8 };
  for (const [key, { hi, lo, kind }] of Object.entries(fields))
    made[key] = field64(`${name}.${key}`, hi, lo, kind);
  return made as Reg64<F>;
}

function field32(name: string, hi: number, lo: number): Field32 {
  const top = hi - lo === 31 ? 0xffff_ffff : 2 ** (hi - lo + 1) - 1;
  const mask = (top << lo) >>> 0;
  return {
    mask,
    get: (word) => ((word & mask) >>> lo) >>> 0,
    put: (word, value) => {
      if (!(value >= 0 && value <= top)) bug(`${name}: ${value} does not fit`);
      return ((word & ~mask) | (value << lo)) >>> 0;
    },
  };
}

function field64(name: string, hi: number, lo: number, kind: BitSpec['kind']): Field64 {
  const mask = (((1n << BigInt(hi - lo + 1)) - 1n) << BigInt(lo)) as bigint;
  const shift = kind === 'address' ? 0n : BigInt(lo);
  return {
    mask,
    get: (word) => (word & mask) >> shift,
    put: (word, value) => {
      const placed = value << shift;
      if ((placed & ~mask) !== 0n || value < 0n) bug(`${name}: ${value} does not fit`);
      return (word & ~mask) | placed;
    },
  };
}

// ---- structures -----------------------------------------------------------------------------------------

/** A field of a structure held in a Uint32Array; `at` is the index of the structure's first word. */
export interface StructField<T> {
  readonly hi: number;
  readonly lo: number;
  get(words: Uint32Array, at?: number): T;
  put(words: Uint32Array, value: T, at?: number): void;
}

type FieldValue<S extends BitSpec> = S['kind'] extends 'quad' ? bigint : number;

export type Struct<F extends Fields> = {
  readonly [K in keyof F]: StructField<FieldValue<F[K]>>;
} & {
  readonly name: string;
  readonly bytes: number;
  /** Size in 32-bit words. */
  readonly words: number;
};

/** @param bytes a multiple of 8. Names `name`, `bytes` and `words` are taken. */
export function struct<F extends Fields>(name: string, bytes: number, fields: F): Struct<F> {
  check(name, fields, bytes * 8);
  const made: Record<string, unknown> = { name, bytes, words: bytes / 4 };
  for (const [key, spec] of Object.entries(fields)) made[key] = structField(`${name}.${key}`, spec);
  return made as Struct<F>;
}

function structField(name: string, { hi, lo, kind }: BitSpec): StructField<number> | StructField<bigint> {
  if (kind === 'quad') return new QuadField(name, hi, lo);
  if (hi >> 5 === lo >> 5 && kind === 'value') return new WordField(name, hi, lo);
  return new SpanField(name, hi, lo, kind === 'address');
}

/** Within one 32-bit word: the hot path. */
class WordField implements StructField<number> {
  readonly name: string;
  readonly hi: number;
  readonly lo: number;
  readonly #word: number;
  readonly #shift: number;
  /** As an int32, so that masking stays integer arithmetic. */
  readonly #mask: number;

  constructor(name: string, hi: number, lo: number) {
    this.name = name;
    this.hi = hi;
    this.lo = lo;
    this.#word = lo >> 5;
    this.#shift = lo & 31;
    this.#mask = (2 ** (hi - lo + 1) - 1) | 0;
  }

  get(words: Uint32Array, at = 0): number {
    return ((words[at + this.#word]! >>> this.#shift) & this.#mask) >>> 0;
  }

  put(words: Uint32Array, value: number, at = 0): void {
    if (!(value >= 0 && value <= this.#mask >>> 0)) bug(`${this.name}: ${value} does not fit`);
    const i = at + this.#word;
    words[i] = (words[i]! & ~(this.#mask << this.#shift)) | (value << this.#shift);
  }
}

/** Across the two halves of a 64-bit word. */
class SpanField implements StructField<number> {
  readonly name: string;
  readonly hi: number;
  readonly lo: number;
  readonly #loWord: number;
  readonly #shift: number;
  readonly #hiMask: number;
  readonly #inPlace: boolean;

  constructor(name: string, hi: number, lo: number, inPlace: boolean) {
    if (hi >> 6 !== lo >> 6) bug(`${name} crosses a 64-bit word`);
    if (inPlace ? hi % 64 >= 53 : hi - lo >= 53) bug(`${name} is too wide for a Number`);
    this.name = name;
    this.hi = hi;
    this.lo = lo;
    this.#loWord = (lo >> 6) * 2;
    this.#shift = lo & 63;
    this.#hiMask = 2 ** ((hi & 63) - 31) - 1;
    this.#inPlace = inPlace;
    if (this.#shift > 31 || (hi & 63) < 32) bug(`${name} does not cross the halves of its word`);
  }

  get(words: Uint32Array, at = 0): number {
    const low = words[at + this.#loWord]! >>> this.#shift;
    const high = (words[at + this.#loWord + 1]! & this.#hiMask) >>> 0;
    const value = high * 2 ** (32 - this.#shift) + low;
    return this.#inPlace ? value * 2 ** this.#shift : value;
  }

  put(words: Uint32Array, value: number, at = 0): void {
    const placed = this.#inPlace ? value / 2 ** this.#shift : value;
    const high = Math.floor(placed / 2 ** (32 - this.#shift));
    if (!(Number.isSafeInteger(placed) && placed >= 0 && high <= this.#hiMask))
      bug(`${this.name}: ${value} does not fit`);
    const low = placed - high * 2 ** (32 - this.#shift);
    const i = at + this.#loWord;
    const keep = this.#shift === 0 ? 0 : 2 ** this.#shift - 1;
    words[i] = ((words[i]! & keep) | (low << this.#shift)) >>> 0;
    words[i + 1] = ((words[i + 1]! & ~this.#hiMask) | high) >>> 0;
  }
}

/** A bigint, within one 64-bit word. */
class QuadField implements StructField<bigint> {
  readonly name: string;
  readonly hi: number;
  readonly lo: number;
  readonly #loWord: number;
  readonly #field: Field64;

  constructor(name: string, hi: number, lo: number) {
    if (hi >> 6 !== lo >> 6) bug(`${name} crosses a 64-bit word`);
    this.name = name;
    this.hi = hi;
    this.lo = lo;
    this.#loWord = (lo >> 6) * 2;
    this.#field = field64(name, hi & 63, lo & 63, 'value');
  }

  get(words: Uint32Array, at = 0): bigint {
    return this.#field.get(getQuad(words, at + this.#loWord));
  }

  put(words: Uint32Array, value: bigint, at = 0): void {
    const i = at + this.#loWord;
    setQuad(words, i, this.#field.put(getQuad(words, i), value));
  }
}

/** The 64-bit word at index `i` (of its low half): what one atomic access moves. */
export function getQuad(words: Uint32Array, i: number): bigint {
  return (BigInt(words[i + 1]!) << 32n) | BigInt(words[i]!);
}

export function setQuad(words: Uint32Array, i: number, value: bigint): void {
  words[i] = Number(value & 0xffff_ffffn);
  words[i + 1] = Number((value >> 32n) & 0xffff_ffffn);
}

function check(name: string, fields: Fields, width: number): void {
  const seen = new Map<number, string>();
  for (const [key, { hi, lo, kind }] of Object.entries(fields)) {
    if (key === 'name' || key === 'offset' || key === 'bytes' || key === 'words')
      bug(`${name}.${key}: the name is taken`);
    if (!(lo >= 0 && hi >= lo && hi < width)) bug(`${name}.${key}: bits ${hi}:${lo} leave the word`);
    if (kind === 'quad' && hi >> 6 !== lo >> 6) bug(`${name}.${key} crosses a 64-bit word`);
    for (let i = lo; i <= hi; i++) {
      const other = seen.get(i);
      if (other !== undefined) bug(`${name}.${key} overlaps ${other} at bit ${i}`);
      seen.set(i, key);
    }
  }
}
