/**
 * Ioctl structs that have a fair chance of being taken: flags and types that exist, objects that live, addresses that
 * hold memory; and now and then anything. What a field may be is told by its name, as in the header.
 */
import { namedValues } from '../../runtime/trace/field-names.js';
import type { AnyStruct } from '../../runtime/trace/ioctls.js';
import type { FieldKind, Scalar } from '../../uapi/abi/struct.js';
import type { Random } from '../stress/random.js';
import { plausibleWord } from './target.js';

/** Kinds of things that have IDs or descriptors. */
export type LiveKind =
  | 'ioas'
  | 'hwpt'
  | 'parent'
  | 'dev'
  | 'viommu'
  | 'vdevice'
  | 'fault'
  | 'veventq'
  | 'queue'
  | 'stdev'
  | 'access'
  | 'pages';

/** Numbers that calls have given out, some of which are gone again. */
export class LiveNumbers {
  readonly #byKind = new Map<LiveKind, number[]>();
  readonly #mappings: (readonly [bigint, bigint])[] = [];

  add(kind: LiveKind, id: number): void {
    const list = this.#byKind.get(kind) ?? [];
    this.#byKind.set(kind, list);
    list.push(id);
    if (list.length > MAX_LIVE) list.shift();
  }

  /** Something was mapped. */
  addMapping(iova: bigint, length: bigint): void {
    this.#mappings.push([iova, length]);
    if (this.#mappings.length > MAX_LIVE) this.#mappings.shift();
  }

  pickMapping(random: Random): readonly [iova: bigint, length: bigint] | undefined {
    return this.#mappings[random.below(this.#mappings.length)];
  }

  pick(random: Random, kinds: readonly LiveKind[]): number {
    const filled = kinds.filter((kind) => (this.#byKind.get(kind)?.length ?? 0) > 0);
    if (filled.length === 0 || random.chance(3)) return random.below(24);
    const list = this.#byKind.get(filled[random.below(filled.length)]!)!;
    return list[random.below(list.length)]!;
  }

  /** It was destroyed. */
  remove(id: number): void {
    for (const list of this.#byKind.values()) {
      const at = list.indexOf(id);
      if (at >= 0) list.splice(at, 1);
    }
  }
}

const MAX_LIVE = 24;

/** Where there is memory, and descriptors. */
export interface Surroundings {
  readonly live: LiveNumbers;
  /** User addresses of buffers. */
  readonly buffers: readonly bigint[];
  /** Filled anew before each call: what pointers to data lead to. */
  readonly scratch: bigint;
  /** Descriptors of open files. */
  readonly files: readonly number[];
  /** Those that are iommufds. */
  readonly iommufds: readonly number[];
}

const ANY: readonly LiveKind[] = [
  'ioas',
  'hwpt',
  'dev',
  'viommu',
  'vdevice',
  'fault',
  'veventq',
  'queue',
  'stdev',
  'access',
];
/** What a field names, by its name. */
const NAMES: Readonly<Record<string, readonly LiveKind[]>> = {
  id: ANY,
  ioasId: ['ioas'],
  dstIoasId: ['ioas'],
  srcIoasId: ['ioas'],
  objectId: ['ioas'],
  devId: ['dev'],
  ptId: ['ioas', 'hwpt', 'hwpt', 'viommu'],
  hwptId: ['hwpt', 'hwpt', 'viommu'],
  viommuId: ['viommu'],
  faultId: ['fault'],
  accessPagesId: ['pages'],
};
const POINTERS = new Set(['dataUptr', 'data', 'uptr', 'allowedIovas', 'tokenUuidPtr']);
const VAS = new Set(['userVa', 'vaddr']);
const IOVAS = new Set(['iova', 'dstIova', 'srcIova', 'start', 'addr', 'nestingParentIova', 'virtId']);
const LENGTHS = new Set(['length', 'size']);
const COUNTS = new Set([
  'dataLen',
  'entryLen',
  'entryNum',
  'numIovas',
  'veventqDepth',
  'index',
  'limit',
  'refs',
]);
const FDS = new Set(['fd', 'iommufd', 'dmabufFd']);
const PAGE = 4096;
const U64 = 0xffff_ffff_ffff_ffffn;

/** @returns bytes of a struct; its length is right, mostly */
export function plausibleStruct(struct: AnyStruct, random: Random, around: Surroundings): Uint8Array {
  const value: Record<string, unknown> = {};
  for (const [field, kind] of Object.entries(struct.fields))
    value[field] = fieldOf(struct, field, kind, random, around);
  if (random.chance(80)) RECIPES[struct.cName]?.(value, random, around);
  const [first] = Object.keys(struct.fields);
  if ((first === 'size' || first === 'argsz') && struct.fields[first] === 'u32') value[first] = struct.size;
  return struct.toBytes(value as never);
}

/** Damages a struct's bytes, and how many there are. */
export function damaged(bytes: Uint8Array, random: Random): Uint8Array {
  let out = bytes;
  if (random.chance(40)) {
    out = new Uint8Array(random.below(bytes.byteLength + 24));
    out.set(bytes.subarray(0, out.byteLength));
    if (out.byteLength >= 4 && random.chance(60)) setWord(out, 0, out.byteLength);
  }
  for (let n = random.below(3); n > 0 && out.byteLength >= 4; n--) {
    const at = random.below(out.byteLength >> 2) * 4;
    setWord(out, at, plausibleWord(random));
  }
  return out;
}

function setWord(bytes: Uint8Array, at: number, word: number): void {
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).setUint32(at, word >>> 0, true);
}

function fieldOf(
  struct: AnyStruct,
  field: string,
  kind: FieldKind,
  random: Random,
  around: Surroundings,
): unknown {
  if (typeof kind !== 'string')
    return Array.from({ length: kind[1] }, () =>
      /reserved/.test(field) ? zeroOf(kind[0]) : fitted(plausibleWord(random), kind[0]),
    );
  if (/^(reserved|pad|padding)\d*$/.test(field)) return random.chance(2) ? fitted(1, kind) : zeroOf(kind);
  const named = namedValues(struct.cName, field);
  if (named !== undefined) {
    let word = 0n;
    const values = [...named.byValue.keys()];
    if (named.kind === 'enum') word = values[random.below(values.length)]!;
    else for (const bit of values) if (random.chance(20)) word |= bit;
    return fitted(word, kind);
  }
  return fitted(numberOf(field, random, around), kind);
}

function numberOf(
  field: string,
  random: Random,
  { live, buffers, scratch, files, iommufds }: Surroundings,
): bigint | number {
  const kinds = NAMES[field];
  if (kinds !== undefined) return live.pick(random, kinds);
  if (POINTERS.has(field)) return random.chance(90) ? scratch + BigInt(random.below(4) * 16) : odd(random);
  if (VAS.has(field)) {
    const base = buffers[random.below(buffers.length)]!;
    return random.chance(90) ? base + BigInt(random.below(64) * PAGE) : odd(random);
  }
  if (IOVAS.has(field)) return iovaOf(random);
  if (LENGTHS.has(field)) return random.chance(90) ? BigInt((1 + random.below(24)) * PAGE) : odd(random);
  if (COUNTS.has(field)) return random.chance(90) ? random.below(48) : plausibleWord(random);
  if (field === 'pasid') return random.below(20);
  if (field === 'pageSize') return 1n << BigInt(11 + random.below(4));
  if (field === 'iommufd' && random.chance(90)) return iommufds[random.below(iommufds.length)] ?? 99;
  if (FDS.has(field)) return files.length > 0 && random.chance(90) ? files[random.below(files.length)]! : 99;
  if (field === 'flags') return random.chance(85) ? 0 : plausibleWord(random);
  if (field.startsWith('out')) return 0;
  return random.chance(50) ? random.below(8) : plausibleWord(random);
}

type Recipe = (value: Record<string, unknown>, random: Random, around: Surroundings) => void;

/** A range that is mapped whole, where there is one. */
const mappedRange: Recipe = (value, random, { live }) => {
  const range = live.pickMapping(random);
  if (range === undefined) return;
  const [iova, length] = range;
  for (const field of ['iova', 'srcIova', 'nestingParentIova']) if (field in value) value[field] = iova;
  for (const field of ['length', 'size']) if (typeof value[field] === 'bigint') value[field] = length;
};

/** Fields that only mean something together. */
const RECIPES: Readonly<Record<string, Recipe>> = {
  iommu_ioas_map: (value, random) => {
    value.flags = [6, 7, 7, 2, 4, 5][random.below(6)];
  },
  iommu_ioas_map_file: (value, random, { files }) => {
    Object.assign(value, { flags: [6, 7, 7, 4][random.below(4)], fd: files[random.below(2)] });
    value.start = BigInt(random.below(16) * PAGE);
  },
  iommu_ioas_copy: (value, random, around) => {
    value.flags = [6, 7, 7, 4][random.below(4)];
    mappedRange(value, random, around);
  },
  iommu_ioas_unmap: (value, random, around) => {
    if (random.chance(15)) Object.assign(value, { iova: 0n, length: U64 });
    else mappedRange(value, random, around);
  },
  iommu_option: (value, random, { live }) => {
    const huge = random.below(4);
    Object.assign(value, { optionId: huge === 0 ? 0 : 1, val64: BigInt(random.below(2)) });
    value.objectId = huge === 0 ? 0 : live.pick(random, ['ioas']);
  },
  iommu_hwpt_alloc: (value, random, { live, scratch }) => {
    if (random.chance(60)) {
      const flags = [0, 1, 2, 8, 1, 4, 12, 3][random.below(8)];
      Object.assign(value, { flags, dataType: 0, dataLen: 0, ptId: live.pick(random, ['ioas']) });
    } else
      Object.assign(value, {
        flags: [0, 0, 4, 8][random.below(4)],
        dataType: 2,
        dataLen: 16,
        dataUptr: scratch,
        ptId: live.pick(random, ['viommu', 'viommu', 'hwpt']),
      });
  },
  iommu_hw_info: (value, random) => {
    Object.assign(value, { flags: 0, dataLen: random.below(80) });
  },
  iommu_viommu_alloc: (value, random, { live }) => {
    value.hwptId = live.pick(random, ['parent']);
    Object.assign(value, {
      type: [1, 1, 2, 0xdead_beef][random.below(4)],
      dataLen: [0, 0, 16][random.below(3)],
    });
  },
  iommu_vdevice_alloc: (value, random) => {
    value.virtId = BigInt(random.below(6));
  },
  iommu_veventq_alloc: (value, random) => {
    Object.assign(value, {
      type: [1, 1, 2, 0xdead_beef][random.below(4)],
      veventqDepth: 1 + random.below(8),
    });
  },
  iommu_hwpt_invalidate: (value, random) => {
    Object.assign(value, { dataType: 1, entryLen: 16, entryNum: random.below(8) });
  },
  iommu_hwpt_get_dirty_bitmap: (value, random, around) => {
    mappedRange(value, random, around);
    value.pageSize = 4096n;
  },
  iommu_hw_queue_alloc: mappedRange,
  iommu_ioas_allow_iovas: (value, random) => {
    value.numIovas = random.below(3);
  },
  vfio_iommu_type1_dma_unmap: (value, random, around) => {
    if (random.chance(20)) Object.assign(value, { flags: 2, iova: 0n, size: 0n });
    else if (random.chance(50)) mappedRange(value, random, around);
  },
  'iommu_test_cmd.access_pages': mappedRange,
  'iommu_test_cmd.access_rw': mappedRange,
  'iommu_test_cmd.check_map': mappedRange,
  'iommu_test_cmd.dirty': mappedRange,
};

/** Few, so that they meet. */
export function iovaOf(random: Random): bigint {
  if (random.chance(5)) return odd(random);
  const half = random.chance(5) ? 2048n : 0n;
  return BigInt(0x100_0000 + random.below(64) * PAGE) + half;
}

/** An address or length at an edge, or anything. */
function odd(random: Random): bigint {
  switch (random.below(6)) {
    case 0:
      return 0n;
    case 1:
      return U64 - BigInt(random.below(3) * PAGE);
    case 2:
      return 1n << BigInt(random.below(64));
    case 3:
      return BigInt(random.below(PAGE));
    default:
      return (BigInt(plausibleWord(random)) << 32n) | BigInt(plausibleWord(random));
  }
}

const zeroOf = (scalar: Scalar): bigint | number => (scalar === 'u64' ? 0n : 0);

function fitted(value: bigint | number, scalar: Scalar): bigint | number {
  const wide = BigInt(value);
  switch (scalar) {
    case 'u64':
      return BigInt.asUintN(64, wide);
    case 's32':
      return Number(BigInt.asIntN(32, wide));
    case 'u32':
      return Number(BigInt.asUintN(32, wide));
    case 'u16':
      return Number(BigInt.asUintN(16, wide));
    default:
      return Number(BigInt.asUintN(8, wide));
  }
}
