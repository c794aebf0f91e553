/**
 * A struct's bytes as named values, and back, whatever their length.
 *
 * Both forms of a trace, lines and JSON, carry the same tree. Its leaves are numbers and atoms:
 *
 *     40                                  up to 32 bits
 *     0x7f0000001000                      64 bits, and registers
 *     IOMMU_IOAS_MAP_READABLE|0x100       flags; what has no name is a number
 *     hex:0011ff                          bytes
 *
 * A reserved field is left out while it is 0. The struct is as long as its first field says (`size`, `argsz`; the
 * declared size, for a struct without), unless `bytes` says otherwise; `tail` is what no whole field covers, without
 * the zeros at its end.
 */
import type { FieldKind, Scalar } from '../../uapi/abi/struct.js';
import { TRACE_BYTES_MAX, TraceError } from './call.js';
import { cFieldName, inHex, type NamedValues, namedValues } from './field-names.js';
import type { AnyStruct } from './ioctls.js';

export type Tree = number | string | readonly Tree[] | TreeNode;
export interface TreeNode {
  readonly [name: string]: Tree;
}

interface Slot {
  readonly field: string;
  readonly cName: string;
  readonly at: number;
  readonly end: number;
  readonly scalar: Scalar;
  /** Elements; undefined: no array. */
  readonly count: number | undefined;
  readonly named: NamedValues | undefined;
  readonly hex: boolean;
  /** A row of bytes, written as one atom. */
  readonly raw: boolean;
}

const BYTES_OF: Readonly<Record<Scalar, number>> = { u8: 1, u16: 2, u32: 4, s32: 4, u64: 8 };
const RESERVED = /^(reserved|pad)\d*$/;
/** Fields that say how long their struct is. */
const LENGTHS = ['size', 'argsz'];
const slotsOf = new WeakMap<AnyStruct, readonly Slot[]>();

function slots(struct: AnyStruct): readonly Slot[] {
  let found = slotsOf.get(struct);
  if (found === undefined) {
    found = Object.entries(struct.fields).map(([field, kind]) => slot(struct, field, kind));
    slotsOf.set(struct, found);
  }
  return found;
}

function slot(struct: AnyStruct, field: string, kind: FieldKind): Slot {
  const [scalar, count] = typeof kind === 'string' ? [kind, undefined] : kind;
  const at = struct.offsets[field]!;
  const end = at + BYTES_OF[scalar] * (count ?? 1);
  const named = namedValues(struct.cName, field);
  const hex = scalar === 'u64' || (scalar === 'u32' && count !== undefined) || inHex(struct.cName, field);
  const raw = scalar === 'u8' && (count ?? 0) > 8;
  return { field, cName: cFieldName(field), at, end, scalar, count, named, hex, raw };
}

/** How long a struct is by what its first field says, or by its declaration. */
function usualLength(struct: AnyStruct, bytes: Uint8Array): number {
  const first = slots(struct)[0]!;
  if (!LENGTHS.includes(first.field)) return struct.size;
  return bytes.byteLength < first.end ? struct.size : (struct.getField(bytes, first.field) as number);
}

/** @param bytes  a struct, or part of one, or more than one */
export function structToTree(struct: AnyStruct, bytes: Uint8Array): TreeNode {
  const tree: Record<string, Tree> = {};
  const { byteLength } = bytes;
  if (byteLength !== usualLength(struct, bytes)) tree.bytes = byteLength;
  for (const slot of slots(struct)) {
    if (slot.end > byteLength) break;
    const value = leafOf(struct, slot, bytes);
    if (!RESERVED.test(slot.field) || !isZero(value)) tree[slot.cName] = value;
  }
  const tail = withoutZeros(bytes.subarray(tailAt(struct, byteLength)));
  if (tail.byteLength > 0) tree.tail = hexAtom(tail);
  return tree;
}

/** What of `after` is not as in `before`. */
export function changesToTree(struct: AnyStruct, before: Uint8Array, after: Uint8Array): TreeNode {
  const tree: Record<string, Tree> = {};
  const { byteLength } = after;
  if (byteLength !== before.byteLength) tree.bytes = byteLength;
  const was = resized(before, byteLength);
  for (const slot of slots(struct)) {
    if (slot.end > byteLength) break;
    if (!sameBytes(was, after, slot.at, slot.end)) tree[slot.cName] = leafOf(struct, slot, after);
  }
  const at = tailAt(struct, byteLength);
  if (!sameBytes(was, after, at, byteLength)) tree.tail = hexAtom(withoutZeros(after.subarray(at)));
  return tree;
}

/**
 * The bytes of a tree.
 * @param before  what they are where the tree says nothing; zero without it
 * @throws TraceError
 */
export function treeToStruct(struct: AnyStruct, tree: TreeNode, before?: Uint8Array): Uint8Array {
  const bytes = resized(before ?? new Uint8Array(0), lengthOf(struct, tree, before));
  const length = bytes.byteLength;
  const names = new Set(Object.keys(tree));
  for (const slot of slots(struct)) {
    if (!names.delete(slot.cName)) {
      // For who writes a struct by hand.
      if (before === undefined && slot.at === 0 && LENGTHS.includes(slot.field) && length >= slot.end)
        struct.put(bytes, slot.field, struct.size);
      continue;
    }
    if (slot.end > length)
      throw new TraceError(`${struct.cName} is ${length} bytes here, too short for ${slot.cName}`);
    putLeaf(struct, slot, bytes, tree[slot.cName]!);
  }
  names.delete('bytes');
  names.delete('about');
  if (names.delete('tail')) {
    const at = tailAt(struct, length);
    const tail = hexBytes(tree.tail!, 'tail');
    if (at + tail.byteLength > length) throw new TraceError(`${struct.cName}: its tail does not fit`);
    bytes.fill(0, at);
    bytes.set(tail, at);
  }
  for (const name of names) throw new TraceError(`${struct.cName} has no field '${name}'`);
  return bytes;
}

function lengthOf(struct: AnyStruct, tree: TreeNode, before: Uint8Array | undefined): number {
  const said = Object.hasOwn(tree, 'bytes') ? tree.bytes : undefined;
  if (said !== undefined) return checkLength(struct, integer(said, 'bytes'));
  if (before !== undefined) return before.byteLength;
  const first = slots(struct)[0]!;
  if (!LENGTHS.includes(first.field) || !Object.hasOwn(tree, first.cName)) return struct.size;
  return checkLength(struct, integer(tree[first.cName]!, first.cName));
}

function checkLength(struct: AnyStruct, length: bigint): number {
  if (length < 0n || length > TRACE_BYTES_MAX)
    throw new TraceError(`${struct.cName} of ${length} bytes: \`bytes\` says how many there are, if fewer`);
  return Number(length);
}

/** Where whole fields end. */
function tailAt(struct: AnyStruct, length: number): number {
  for (const slot of slots(struct)) if (slot.end > length) return Math.min(slot.at, length);
  return struct.size;
}

function leafOf(struct: AnyStruct, slot: Slot, bytes: Uint8Array): Tree {
  if (slot.raw) return hexAtom(bytes.subarray(slot.at, slot.end));
  const value = struct.getField(bytes, slot.field) as number | bigint | (number | bigint)[];
  if (typeof value === 'object') return value.map((element) => atomOf(slot, element));
  return atomOf(slot, value);
}

function atomOf({ named, hex }: Slot, value: number | bigint): number | string {
  if (named !== undefined) return namedAtom(named, BigInt(value));
  return hex || typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
}

/** Flags, or an enumerator, by name. */
function namedAtom({ kind, byName, byValue }: NamedValues, value: bigint): number | string {
  if (kind === 'enum') return byValue.get(value) ?? Number(value);
  let rest = value;
  const parts: string[] = [];
  for (const [name, bit] of byName)
    if ((rest & bit) !== 0n) {
      parts.push(name);
      rest &= ~bit;
    }
  if (rest !== 0n) parts.push(`0x${rest.toString(16)}`);
  return parts.length === 0 ? 0 : parts.join('|');
}

function putLeaf(struct: AnyStruct, slot: Slot, bytes: Uint8Array, tree: Tree): void {
  const { count, cName, scalar } = slot;
  if (slot.raw) {
    const row = hexBytes(tree, cName);
    if (row.byteLength !== count) throw new TraceError(`${struct.cName}.${cName} is ${count} bytes`);
    bytes.set(row, slot.at);
    return;
  }
  const plain = (leaf: Tree): number | bigint => {
    const value = integer(leaf, cName, slot.named);
    return scalar === 'u64' ? value : Number(value);
  };
  if (count !== undefined && (!Array.isArray(tree) || tree.length !== count))
    throw new TraceError(`${struct.cName}.${cName} is a list of ${count}`);
  const value = count === undefined ? plain(tree) : (tree as readonly Tree[]).map(plain);
  try {
    struct.put(bytes, slot.field, value as never);
  } catch (error) {
    if (error instanceof RangeError) throw new TraceError(error.message);
    throw error;
  }
}

/**
 * The number that a leaf stands for.
 * @param named  names that it may consist of
 * @throws TraceError
 */
export function integer(leaf: Tree, what: string, named?: NamedValues): bigint {
  if (typeof leaf === 'number' && Number.isSafeInteger(leaf)) return BigInt(leaf);
  if (typeof leaf !== 'string') throw new TraceError(`${what}: not a number`);
  let value = 0n;
  for (const part of leaf.split('|')) {
    const text = part.trim();
    const known = named?.byName.get(text);
    if (known !== undefined) value |= known;
    else if (/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text)) value |= BigInt(text);
    else if (/^-\d{1,10}$/.test(text) && text === leaf.trim()) value = BigInt(text);
    else throw new TraceError(`${what}: '${clip(text)}' is no value of it`);
  }
  return value;
}

// ---- bytes ------------------------------------------------------------------------------------------------

export function hexAtom(bytes: Uint8Array): string {
  let text = 'hex:';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

/** @param leaf  `hex:` and digits, two a byte. @throws TraceError */
export function hexBytes(leaf: Tree, what: string): Uint8Array {
  if (typeof leaf !== 'string' || !leaf.startsWith('hex:'))
    throw new TraceError(`${what}: bytes are written hex:0011ff`);
  return bytesOfHex(leaf.slice('hex:'.length), what);
}

/** @throws TraceError */
export function bytesOfHex(digits: string, what: string): Uint8Array {
  if (digits.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(digits))
    throw new TraceError(`${what}: '${clip(digits)}' is no row of bytes in hexadecimal`);
  if (digits.length / 2 > TRACE_BYTES_MAX)
    throw new TraceError(`${what}: more than ${TRACE_BYTES_MAX} bytes`);
  const bytes = new Uint8Array(digits.length / 2);
  for (let i = 0; i < bytes.byteLength; i++) bytes[i] = Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** For a message: no more of a hostile text than tells which it is. */
export function clip(text: string): string {
  const printable = text.replace(/[^\x20-\x7e]/g, '?');
  return printable.length <= 40 ? printable : `${printable.slice(0, 37)}...`;
}

function resized(bytes: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length);
  out.set(bytes.subarray(0, length));
  return out;
}

function withoutZeros(bytes: Uint8Array): Uint8Array {
  let end = bytes.byteLength;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return bytes.subarray(0, end);
}

function sameBytes(a: Uint8Array, b: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (a[i] !== b[i]) return false;
  return true;
}

function isZero(value: Tree): boolean {
  return Array.isArray(value) ? value.every(isZero) : value === 0 || value === '0x0';
}
