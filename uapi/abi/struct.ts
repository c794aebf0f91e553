/**
 * Codec for the fixed-layout C structs of the uAPI.
 *
 * One declaration gives offsets, codec and TypeScript type:
 *
 *     export const IovaRange = struct('iommu_iova_range', { start: 'u64', last: 'u64' }, { size: 16 });
 *     export type IovaRange = TypeOf<typeof IovaRange>;        // { start: bigint; last: bigint }
 *
 * Fields are laid out in the order they are declared, packed, and must come out naturally aligned: where a C
 * compiler would insert padding the declaration throws, because the uAPI headers declare all padding as
 * reserved fields. The declared size is checked as well, so a wrong declaration never survives its import.
 *
 * Bytes are little-endian whatever the host. The bytes may lie over a SharedArrayBuffer that another thread
 * writes: decode once and use the value, never the bytes again.
 *
 * Not modelled: nested structs (none exists in these headers; arrays of structs are strided by the caller),
 * unions (the two names of one field get one name here), bit fields, and flexible array members.
 */

export type Scalar = 'u8' | 'u16' | 'u32' | 's32' | 'u64';
/** A scalar, or a fixed array of them: `['u64', 2]`. */
export type FieldKind = Scalar | readonly [Scalar, number];
export type Fields = Readonly<Record<string, FieldKind>>;

type ScalarValue<S extends Scalar> = S extends 'u64' ? bigint : number;
/** What a field decodes to: bigint for u64, else number; an array of them for an array. */
export type FieldValue<K extends FieldKind> = K extends Scalar
  ? ScalarValue<K>
  : K extends readonly [infer S extends Scalar, number]
    ? ScalarValue<S>[]
    : never;
/** What a field can be encoded from. */
export type FieldInput<K extends FieldKind> = K extends Scalar
  ? ScalarValue<K>
  : K extends readonly [infer S extends Scalar, number]
    ? readonly ScalarValue<S>[]
    : never;

export type StructValue<F extends Fields> = { -readonly [N in keyof F]: FieldValue<F[N]> };
export type StructInput<F extends Fields> = { readonly [N in keyof F]: FieldInput<F[N]> };
/** The decoded form of a struct: `type IoasMap = TypeOf<typeof IoasMap>`. */
export type TypeOf<S> = S extends Struct<infer F> ? StructValue<F> : never;

export interface StructOptions<F extends Fields> {
  /** sizeof in C, in bytes. */
  readonly size: number;
  /** The last field that the oldest accepted caller fills in; the final field unless told. */
  readonly last?: keyof F & string;
}

export interface Struct<F extends Fields> {
  /** The struct tag in the header. */
  readonly cName: string;
  /** sizeof in C, in bytes. */
  readonly size: number;
  /** End of field `last`: the smallest length that a caller may pass, in bytes. */
  readonly minSize: number;
  readonly fields: F;
  /** Byte offset of each field. */
  readonly offsets: { readonly [N in keyof F]: number };

  /**
   * Reads a whole struct.
   * @param at  byte offset in `bytes`
   * @throws RangeError when fewer than `size` bytes remain; pad a shorter caller's struct with zeros first
   */
  decode(bytes: Uint8Array, at?: number): StructValue<F>;

  /**
   * Writes a whole struct. Every field is checked before the first byte is written.
   * @throws RangeError when it does not fit in `bytes`, or a value not in its field
   */
  encode(value: StructInput<F>, bytes: Uint8Array, at?: number): void;

  /**
   * A value with the given fields, the rest zero. The `size` field is not filled in.
   * @throws RangeError on a name that is not a field
   */
  create(partial?: Partial<StructInput<F>>): StructValue<F>;

  /** `create` and `encode` into new bytes. */
  toBytes(partial?: Partial<StructInput<F>>): Uint8Array;

  /** Reads one field. Only that field's bytes must lie inside `bytes`. */
  getField<N extends keyof F & string>(bytes: Uint8Array, field: N, at?: number): FieldValue<F[N]>;

  /** Writes one field, typically an output, and no other byte. */
  put<N extends keyof F & string>(bytes: Uint8Array, field: N, value: FieldInput<F[N]>, at?: number): void;
}

type Wire = number | bigint;
type WireField = Wire | readonly Wire[];

interface ScalarCodec {
  readonly size: number;
  get(bytes: Uint8Array, at: number): Wire;
  /** Only called with a value that `fits`. */
  set(bytes: Uint8Array, at: number, value: Wire): void;
  fits(value: unknown): value is Wire;
}

interface Slot {
  readonly name: string;
  readonly scalarName: Scalar;
  readonly codec: ScalarCodec;
  readonly offset: number;
  /** Elements; undefined for a plain scalar. */
  readonly count: number | undefined;
  readonly bytes: number;
}

const U64_MAX = 0xffff_ffff_ffff_ffffn;

const fitsInteger =
  (min: number, max: number) =>
  (value: unknown): value is Wire =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max;

/** Passing through here is much cheaper than a DataView for every struct that is read or written. */
const quad = new DataView(new ArrayBuffer(8));

/** The u32 at `at`, whatever its alignment; it must lie inside `bytes`. */
export function u32At(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

function setU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

const CODECS: Readonly<Record<Scalar, ScalarCodec>> = {
  u8: {
    size: 1,
    get: (bytes, at) => bytes[at]!,
    set: (bytes, at, value) => {
      bytes[at] = Number(value);
    },
    fits: fitsInteger(0, 0xff),
  },
  u16: {
    size: 2,
    get: (bytes, at) => bytes[at]! | (bytes[at + 1]! << 8),
    set: (bytes, at, value) => {
      bytes[at] = Number(value);
      bytes[at + 1] = Number(value) >>> 8;
    },
    fits: fitsInteger(0, 0xffff),
  },
  u32: {
    size: 4,
    get: u32At,
    set: (bytes, at, value) => setU32(bytes, at, Number(value)),
    fits: fitsInteger(0, 0xffff_ffff),
  },
  s32: {
    size: 4,
    get: (bytes, at) => u32At(bytes, at) | 0,
    set: (bytes, at, value) => setU32(bytes, at, Number(value)),
    fits: fitsInteger(-0x8000_0000, 0x7fff_ffff),
  },
  u64: {
    size: 8,
    get: (bytes, at) => {
      quad.setUint32(0, u32At(bytes, at), true);
      quad.setUint32(4, u32At(bytes, at + 4), true);
      return quad.getBigUint64(0, true);
    },
    set: (bytes, at, value) => {
      quad.setBigUint64(0, BigInt(value), true);
      setU32(bytes, at, quad.getUint32(0, true));
      setU32(bytes, at + 4, quad.getUint32(4, true));
    },
    fits: (value): value is Wire => typeof value === 'bigint' && value >= 0n && value <= U64_MAX,
  },
};

/**
 * Declares a struct.
 * @param cName   the tag in the header, for messages
 * @param fields  in header order; reserved fields too
 * @throws Error when the layout is not what a C compiler would produce, or not of the declared size
 */
export function struct<const F extends Fields>(
  cName: string,
  fields: F,
  options: StructOptions<F>,
): Struct<F> {
  const slots = layOut(cName, fields);
  const byName = new Map(slots.map((slot) => [slot.name, slot]));
  checkSize(cName, slots, options.size);
  const last = options.last === undefined ? slots.at(-1) : byName.get(options.last);
  if (last === undefined) throw new Error(`${cName}: no field named ${options.last}`);

  const slotOf = (name: string): Slot => {
    const slot = byName.get(name);
    if (slot === undefined) throw new RangeError(`${cName}: no field named ${name}`);
    return slot;
  };

  const { size } = options;
  const zeros = Object.fromEntries(slots.map((slot) => [slot.name, zeroOf(slot)]));
  const self: Struct<F> = {
    cName,
    size,
    minSize: last.offset + last.bytes,
    fields,
    offsets: Object.fromEntries(slots.map((slot) => [slot.name, slot.offset])) as Struct<F>['offsets'],

    decode(bytes, at = 0) {
      checkWindow(cName, bytes, at, 0, size);
      // Every field exists from the start: an object that grows field by field is slow to build.
      const value: Record<string, WireField> = { ...zeros };
      for (const slot of slots) value[slot.name] = readSlot(slot, bytes, at + slot.offset);
      return value as StructValue<F>;
    },

    encode(value, bytes, at = 0) {
      checkWindow(cName, bytes, at, 0, size);
      for (const slot of slots) checkValue(cName, slot, value[slot.name]);
      for (const slot of slots) writeSlot(slot, bytes, at + slot.offset, value[slot.name] as WireField);
    },

    create(partial = {}) {
      for (const name of Object.keys(partial)) slotOf(name);
      const value: Record<string, WireField> = {};
      for (const slot of slots) {
        const given = partial[slot.name] as WireField | undefined;
        if (given === undefined) value[slot.name] = zeroOf(slot);
        else value[slot.name] = typeof given === 'object' ? [...given] : given;
      }
      return value as StructValue<F>;
    },

    toBytes(partial = {}) {
      const bytes = new Uint8Array(size);
      self.encode(self.create(partial) as StructInput<F>, bytes);
      return bytes;
    },

    getField(bytes, field, at = 0) {
      const slot = slotOf(field);
      checkWindow(cName, bytes, at, slot.offset, slot.bytes, field);
      return readSlot(slot, bytes, at + slot.offset) as FieldValue<F[typeof field]>;
    },

    put(bytes, field, value, at = 0) {
      const slot = slotOf(field);
      checkWindow(cName, bytes, at, slot.offset, slot.bytes, field);
      checkValue(cName, slot, value);
      writeSlot(slot, bytes, at + slot.offset, value as WireField);
    },
  };
  return Object.freeze(self);
}

function layOut(cName: string, fields: Fields): Slot[] {
  const slots: Slot[] = [];
  if (Object.keys(fields).length === 0) throw new Error(`${cName}: no fields`);
  let offset = 0;
  for (const [name, kind] of Object.entries(fields)) {
    // Such keys are enumerated before all others, so the declared order would be lost.
    if (/^\d+$/.test(name)) throw new Error(`${cName}: field name ${name} is a number`);
    const [scalarName, count] = typeof kind === 'string' ? [kind, undefined] : kind;
    const codec: ScalarCodec | undefined = CODECS[scalarName];
    if (codec === undefined) throw new Error(`${cName}.${name}: unknown kind ${String(scalarName)}`);
    if (count !== undefined && (!Number.isInteger(count) || count < 1)) {
      throw new Error(`${cName}.${name}: array of ${count} elements`);
    }
    if (offset % codec.size !== 0) {
      throw new Error(`${cName}.${name}: ${scalarName} at offset ${offset}; declare the padding before it`);
    }
    const bytes = codec.size * (count ?? 1);
    slots.push({ name, scalarName, codec, offset, count, bytes });
    offset += bytes;
  }
  return slots;
}

function checkSize(cName: string, slots: readonly Slot[], size: number): void {
  const end = slots.reduce((sum, slot) => sum + slot.bytes, 0);
  const align = Math.max(...slots.map((slot) => slot.codec.size));
  if (end !== size) throw new Error(`${cName}: fields end at ${end}, declared size is ${size}`);
  if (end % align !== 0) {
    throw new Error(`${cName}: size ${end} is not a multiple of ${align}; declare the padding at its end`);
  }
}

/** A struct must stay inside `bytes`, which may be a small window on memory that belongs to somebody else. */
function checkWindow(
  cName: string,
  bytes: Uint8Array,
  at: number,
  offset: number,
  length: number,
  field?: string,
): void {
  const start = at + offset;
  if (Number.isInteger(at) && at >= 0 && start + length <= bytes.byteLength) return;
  const what = field === undefined ? cName : `${cName}.${field}`;
  throw new RangeError(`${what}: ${length} bytes at ${start} exceed a buffer of ${bytes.byteLength}`);
}

function readSlot(slot: Slot, bytes: Uint8Array, at: number): WireField {
  const { codec, count } = slot;
  if (count === undefined) return codec.get(bytes, at);
  return Array.from({ length: count }, (_, i) => codec.get(bytes, at + i * codec.size));
}

function writeSlot(slot: Slot, bytes: Uint8Array, at: number, value: WireField): void {
  const { codec } = slot;
  if (typeof value !== 'object') codec.set(bytes, at, value);
  else value.forEach((element, i) => void codec.set(bytes, at + i * codec.size, element));
}

function checkValue(cName: string, slot: Slot, value: unknown): void {
  const { codec, count } = slot;
  if (count === undefined) {
    if (!codec.fits(value)) throw misfit(cName, slot.name, value, `a ${slot.scalarName}`);
    return;
  }
  if (!Array.isArray(value) || value.length !== count) {
    throw misfit(cName, slot.name, value, `an array of ${count} ${slot.scalarName}`);
  }
  for (let i = 0; i < count; i++) {
    if (!codec.fits(value[i])) throw misfit(cName, `${slot.name}[${i}]`, value[i], `a ${slot.scalarName}`);
  }
}

function misfit(cName: string, field: string, value: unknown, kind: string): RangeError {
  const shown = typeof value === 'bigint' ? `${value}n` : String(value);
  return new RangeError(`${cName}.${field}: ${shown} is not ${kind}`);
}

function zeroOf(slot: Slot): WireField {
  const zero = slot.scalarName === 'u64' ? 0n : 0;
  return slot.count === undefined ? zero : new Array<Wire>(slot.count).fill(zero);
}
