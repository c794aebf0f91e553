/**
 * IOAS: a user-managed IOVA space, and the ioctls on it. struct iommufd_ioas.
 *
 * @source drivers/iommu/iommufd/ioas.c
 */
import { bug } from '../../hw/memory/bug.js';
import { EFAULT, EINVAL, EMSGSIZE, ENOENT, ENOMEM, EOPNOTSUPP, EOVERFLOW } from '../../uapi/abi/errno.js';
import { u32At } from '../../uapi/abi/struct.js';
import {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  type IoasAlloc,
  type IoasAllowIovas,
  type IoasCopy,
  type IoasIovaRanges,
  IoasMap,
  IoasUnmap,
  IovaRange,
} from '../../uapi/iommufd/ioas.js';
import type { IommufdCtx } from '../core/ctx.js';
import { IommufdObject } from '../core/iommufd-object.js';
import { OBJ_IOAS } from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import { IOMMU_READ, IOMMU_WRITE } from '../drivers/contract.js';
import { offsetOf, type PagesSlice, pageOf, U64_MAX } from '../iova/area.js';
import { IoPagetable } from '../iova/io-pagetable.js';
import { OrderedSpans } from '../iova/ordered-spans.js';
import type { Span } from '../iova/span-chunk.js';
import { decodeSourceIova } from '../test-ioctl/nth-area.js';
import type { HwptPaging } from './hwpt.js';

/** What a map may ask for. */
export const MAP_FLAGS = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;
const MAP_AT = IoasMap.offsets;
const UNMAP_AT = IoasUnmap.offsets;
const RANGE_BYTES = 16n;
/** An allow list longer than this is refused with ENOMEM, as a memory cgroup would. */
const MAX_ALLOWED = 1 << 16;

export class Ioas extends IommufdObject {
  readonly iopt: IoPagetable;
  /** Page tables that mirror this IOAS, oldest first. */
  readonly hwpts = new Set<HwptPaging>();

  constructor(ctx: IommufdCtx, id: number) {
    super(ctx, id, OBJ_IOAS);
    const { context } = ctx;
    this.iopt = new IoPagetable(
      {
        ioasId: id,
        observer: context.observer,
        bugs: context.bugs,
        zoo: ctx.core.bugs,
        largePages: true,
        log: (message) => context.log(message),
        allocFails: (site) => ctx.core.allocFails(site),
      },
      ctx,
    );
  }

  override destroy(): void {
    const { status } = this.iopt.unmapAll();
    if (status < 0 || this.iopt.domains.length > 0) bug(`IOAS ${this.id} destroyed while in use`);
  }
}

/** @returns 0 | -EOPNOTSUPP any flag | -ENOMEM */
export function ioasAlloc(ucmd: UcmdOf<typeof IoasAlloc>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.flags !== 0) return -EOPNOTSUPP;
  const id = ctx.reserve(OBJ_IOAS);
  if (id < 0) return id;
  ucmd.newObject = new Ioas(ctx, id);
  cmd.outIoasId = id;
  return ucmd.respond();
}

/** What a direct handler says of a call that is not for it. */
export const NOT_DIRECT = 1;
/** What reaches the last page of a 64-bit address space is for the general handler: such lengths overflow. */
const PAGES_END = 2 ** 52 - 1;

/**
 * ioasMap() of whole pages at a fixed IOVA, straight from the caller's bytes: every word is read once, and
 * nothing is written back, because nothing changes.
 * @returns as ioasMap(), or NOT_DIRECT
 */
export function ioasMapDirect(ctx: IommufdCtx, bytes: Uint8Array): number {
  const flags = u32At(bytes, MAP_AT.flags);
  if ((flags & ~MAP_FLAGS) !== 0 || (flags & IOMMU_IOAS_MAP_FIXED_IOVA) === 0) return NOT_DIRECT;
  const prot = protOf(flags);
  if (prot === 0 || u32At(bytes, MAP_AT.reserved) !== 0) return NOT_DIRECT;
  const vaPage = pageAt(bytes, MAP_AT.userVa);
  const count = pageAt(bytes, MAP_AT.length);
  const iovaPage = pageAt(bytes, MAP_AT.iova);
  if (vaPage < 0 || iovaPage < 0 || count <= 0) return NOT_DIRECT;
  if (vaPage + count >= PAGES_END || iovaPage + count >= PAGES_END) return NOT_DIRECT;
  // More than SIZE_MAX - PAGE_SIZE is refused before anybody looks at the IOVA.
  if (count >= PAGES_END - 1) return NOT_DIRECT;
  const ioas = ctx.get<Ioas>(u32At(bytes, MAP_AT.ioasId), OBJ_IOAS);
  if (ioas === undefined) return -ENOENT;
  const status = ioas.iopt.mapWholePages(vaPage, count, iovaPage, prot);
  ctx.put(ioas);
  return status;
}

/** ioasUnmap() of whole pages, mostly what one ioasMapDirect() mapped. @returns as ioasUnmap(), or NOT_DIRECT */
export function ioasUnmapDirect(ctx: IommufdCtx, bytes: Uint8Array): number {
  const iovaPage = pageAt(bytes, UNMAP_AT.iova);
  const count = pageAt(bytes, UNMAP_AT.length);
  if (iovaPage < 0 || count <= 0 || iovaPage + count >= PAGES_END) return NOT_DIRECT;
  const ioas = ctx.get<Ioas>(u32At(bytes, UNMAP_AT.ioasId), OBJ_IOAS);
  if (ioas === undefined) return -ENOENT;
  let status = ioas.iopt.unmapWholePages(iovaPage, count);
  if (status > 0) {
    const result = unmapFrom(ioas.iopt, BigInt(iovaPage) << 12n, BigInt(count) << 12n);
    if (result.status === 0) IoasUnmap.put(bytes, 'length', result.bytes);
    status = result.status;
  }
  ctx.put(ioas);
  return status;
}

/** The page number in a u64 of bytes, -1 when it is not a multiple of a page. */
function pageAt(bytes: Uint8Array, at: number): number {
  const low = u32At(bytes, at);
  return (low & 0xfff) !== 0 ? -1 : u32At(bytes, at + 4) * 2 ** 20 + (low >>> 12);
}

/** @source ioas.c iommufd_ioas_map */
export function ioasMap(ucmd: UcmdOf<typeof IoasMap>): number {
  const { ctx, cmd } = ucmd;
  if ((cmd.flags & ~MAP_FLAGS) !== 0 || cmd.reserved !== 0) return -EOPNOTSUPP;
  if (cmd.iova >= U64_MAX || cmd.length >= U64_MAX) return -EOVERFLOW;
  const prot = protOf(cmd.flags);
  if (prot === 0) return -EINVAL;
  const ioas = ctx.get<Ioas>(cmd.ioasId, OBJ_IOAS);
  if (ioas === undefined) return -ENOENT;
  const iova = ioas.iopt.mapUserPages(cmd.userVa, cmd.length, fixedIova(cmd.flags, cmd.iova), prot);
  ctx.put(ioas);
  if (iova < 0n) return Number(iova);
  cmd.iova = iova;
  return ucmd.respond();
}

/** @source ioas.c iommufd_ioas_copy */
export function ioasCopy(ucmd: UcmdOf<typeof IoasCopy>): number {
  const { ctx, cmd } = ucmd;
  if (ctx.context.mock !== undefined) decodeSourceIova(ctx, cmd);
  if ((cmd.flags & ~MAP_FLAGS) !== 0) return -EOPNOTSUPP;
  if (cmd.length >= U64_MAX || cmd.srcIova >= U64_MAX || cmd.dstIova >= U64_MAX) return -EOVERFLOW;
  const prot = protOf(cmd.flags);
  if (prot === 0) return -EINVAL;
  const source = ctx.get<Ioas>(cmd.srcIoasId, OBJ_IOAS);
  if (source === undefined) return -ENOENT;
  const slices = source.iopt.getPages(cmd.srcIova, cmd.length);
  ctx.put(source);
  if (typeof slices === 'number') return slices;
  const iova = copyInto(ucmd, slices, prot);
  for (const { pages } of slices) pages.put();
  if (iova < 0n) return Number(iova);
  cmd.dstIova = iova;
  return ucmd.respond();
}

function copyInto(ucmd: UcmdOf<typeof IoasCopy>, slices: readonly PagesSlice[], prot: number): bigint {
  const { ctx, cmd } = ucmd;
  const target = ctx.get<Ioas>(cmd.dstIoasId, OBJ_IOAS);
  if (target === undefined) return BigInt(-ENOENT);
  const iova = target.iopt.mapPages(slices, cmd.length, fixedIova(cmd.flags, cmd.dstIova), prot);
  ctx.put(target);
  return iova;
}

/** (0, U64_MAX) is everything, and succeeds when there is nothing. @source ioas.c iommufd_ioas_unmap */
export function ioasUnmap(ucmd: UcmdOf<typeof IoasUnmap>): number {
  const { ctx, cmd } = ucmd;
  const ioas = ctx.get<Ioas>(cmd.ioasId, OBJ_IOAS);
  if (ioas === undefined) return -ENOENT;
  const result = unmapFrom(ioas.iopt, cmd.iova, cmd.length);
  ctx.put(ioas);
  if (result.status < 0) return result.status;
  cmd.length = result.bytes;
  return ucmd.respond();
}

function unmapFrom(iopt: IoPagetable, iova: bigint, length: bigint): { status: number; bytes: bigint } {
  if (iova === 0n && length === U64_MAX) return iopt.unmapAll();
  if (iova >= U64_MAX || length >= U64_MAX) return { status: -EOVERFLOW, bytes: 0n };
  const result = iopt.unmap(iova, length);
  if (result.status === 0 && result.bytes === 0n) return { status: -ENOENT, bytes: 0n };
  return result;
}

/** @source ioas.c iommufd_ioas_iova_ranges */
export function ioasIovaRanges(ucmd: UcmdOf<typeof IoasIovaRanges>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.reserved !== 0) return -EOPNOTSUPP;
  const ioas = ctx.get<Ioas>(cmd.ioasId, OBJ_IOAS);
  if (ioas === undefined) return -ENOENT;
  const room = cmd.numIovas;
  let found = 0;
  let status = 0;
  for (const range of ioas.iopt.space.usableRanges()) {
    if (found < room && status === 0) {
      const at = cmd.allowedIovas + BigInt(found) * RANGE_BYTES;
      status = ctx.core.current.mm.copyOut(at, IovaRange.toBytes(range));
    }
    found++;
  }
  cmd.outIovaAlignment = BigInt(ioas.iopt.space.alignment);
  ctx.put(ioas);
  if (status < 0) return -EFAULT;
  cmd.numIovas = found;
  const told = ucmd.respond();
  if (told < 0) return told;
  return found > room ? -EMSGSIZE : 0;
}

/** @source ioas.c iommufd_ioas_allow_iovas */
export function ioasAllowIovas(ucmd: UcmdOf<typeof IoasAllowIovas>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.reserved !== 0) return -EOPNOTSUPP;
  const ioas = ctx.get<Ioas>(cmd.ioasId, OBJ_IOAS);
  if (ioas === undefined) return -ENOENT;
  const allowed = new OrderedSpans<Span>();
  let status = loadRanges(ctx, cmd.allowedIovas, cmd.numIovas, allowed);
  if (status === 0) status = ioas.iopt.space.setAllowed(allowed);
  ctx.put(ioas);
  return status;
}

function loadRanges(ctx: IommufdCtx, uptr: bigint, count: number, into: OrderedSpans<Span>): number {
  const bytes = new Uint8Array(Number(RANGE_BYTES));
  for (let i = 0; i < count; i++) {
    if (i >= MAX_ALLOWED) return -ENOMEM;
    if (ctx.core.current.mm.copyIn(uptr + BigInt(i) * RANGE_BYTES, bytes) < 0) return -EFAULT;
    const { start, last } = IovaRange.decode(bytes);
    if (start >= last) return -EINVAL;
    const span: Span = {
      firstPage: pageOf(start),
      firstOffset: offsetOf(start),
      lastPage: pageOf(last),
      lastOffset: offsetOf(last),
    };
    if (into.firstIn(span.firstPage, span.firstOffset, span.lastPage, span.lastOffset)) return -EINVAL;
    if (ctx.core.allocFails('iopt_allowed')) return -ENOMEM;
    into.insert(span);
  }
  return 0;
}

/** IOMMU_READ | IOMMU_WRITE of a map's flags. */
export function protOf(flags: number): number {
  return (
    ((flags & IOMMU_IOAS_MAP_READABLE) !== 0 ? IOMMU_READ : 0) |
    ((flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0 ? IOMMU_WRITE : 0)
  );
}

function fixedIova(flags: number, iova: bigint): bigint | null {
  return (flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0 ? iova : null;
}
