/**
 * Which IOVAs are taken, which may not be used, which must stay usable, and where the next mapping goes when
 * the caller leaves that to us. The interval trees of struct io_pagetable.
 *
 *   areas     mapped or about to be
 *   reserved  cannot be mapped: outside a domain's aperture, or a device's reserved region; whole pages
 *   allowed   must not become reserved, and automatic allocation stays inside
 *
 * @source drivers/iommu/iommufd/io_pagetable.c iopt_alloc_iova, iopt_check_iova, iopt_reserve_iova
 */
import { EADDRINUSE, EEXIST, EINVAL, ENOSPC, EOVERFLOW } from '../../uapi/abi/errno.js';
import {
  addressOf,
  firstIova,
  type IoptArea,
  lastIova,
  offsetOf,
  PAGE_SIZE,
  pageOf,
  U64_MAX,
} from './area.js';
import { OrderedSpans } from './ordered-spans.js';
import type { Span } from './span-chunk.js';

export interface ReservedRange {
  readonly firstPage: number;
  /** Inclusive. */
  readonly lastPage: number;
  readonly owner: object;
}

/** The last page of a 64-bit address space. */
export const LAST_PAGE = 2 ** 52 - 1;
/** Automatic IOVAs keep at most this alignment: the size of a transparent huge page. */
const HPAGE_SIZE = 2n * 1024n * 1024n;
const PAGE = BigInt(PAGE_SIZE);
/** Hints kept; one for each size of mapping in use. */
const MAX_HINTS = 16;

export class IovaSpace {
  readonly areas = new OrderedSpans<IoptArea>();
  /** Bytes, a power of two: what IOVAs and lengths must be multiples of. */
  alignment = 1;
  #allowed = new OrderedSpans<Span>();
  /** Sorted by first page; ranges of several owners may overlap. */
  readonly #reserved: ReservedRange[] = [];
  /** What they cover, without overlaps: a look-up must not slow down with the number of devices. */
  readonly #covered = new OrderedSpans<Span>();
  /**
   * Below its hint, no mapping of that alignment and length fits. First fit stays first fit: room appears
   * only where something is unmapped, allowed or no longer reserved, and that moves the hints back.
   */
  readonly #hints = new Map<string, bigint>();

  /** @returns 0 | -EINVAL unaligned or reserved | -EOVERFLOW | -EEXIST mapped */
  check(iova: bigint, length: bigint): number {
    if ((iova & BigInt(this.alignment - 1)) !== 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    if (this.#reservedIn(pageOf(iova), pageOf(last)) !== undefined) return -EINVAL;
    const area = this.areas.firstIn(pageOf(iova), offsetOf(iova), pageOf(last), offsetOf(last));
    return area === undefined ? 0 : -EEXIST;
  }

  /** check() of whole pages, `lastPage` inclusive, while `alignment` is a page at most. @returns 0 | -EINVAL | -EEXIST */
  checkPages(firstPage: number, lastPage: number): number {
    if (this.#reservedIn(firstPage, lastPage) !== undefined) return -EINVAL;
    return this.areas.firstIn(firstPage, 0, lastPage, PAGE_SIZE - 1) === undefined ? 0 : -EEXIST;
  }

  /**
   * The lowest free block that is allowed, never 0; it keeps the page offset of `address`, and its alignment
   * up to a huge page, so that large leaves can be used.
   * @param address  user address of the first byte
   * @returns the IOVA, or -EOVERFLOW | -EINVAL | -ENOSPC as a negative bigint
   */
  allocate(address: bigint, length: bigint): bigint {
    if (length === 0n || length >= U64_MAX / 2n) return BigInt(-EOVERFLOW);
    let alignment = roundUpPow2(length);
    if (address !== 0n) alignment = min(alignment, address & -address);
    alignment = min(alignment, HPAGE_SIZE);
    if (alignment < BigInt(this.alignment)) return BigInt(-EINVAL);
    const pageOffset = address & (PAGE - 1n);
    const key = `${alignment}/${pageOffset}/${length}`;
    const from = this.#hints.get(key) ?? PAGE;
    for (const { first, last } of this.#allowedRanges()) {
      if (last < from) continue;
      const start = place(first > from ? first : from, last, length, alignment, pageOffset);
      if (start === undefined) continue;
      const found = this.#firstHole(start, last, length, alignment, pageOffset);
      if (found === undefined) continue;
      if (this.#hints.size >= MAX_HINTS) this.#hints.clear();
      this.#hints.set(key, found);
      return found;
    }
    return BigInt(-ENOSPC);
  }

  insertArea(area: IoptArea): void {
    this.areas.insert(area);
  }

  removeArea(area: IoptArea): void {
    if (this.#hints.size > 0) {
      const previous = this.areas.previous(area);
      const room = previous === undefined ? PAGE : lastIova(previous) + 1n;
      for (const [key, hint] of this.#hints) if (room < hint) this.#hints.set(key, room);
    }
    this.areas.remove(area);
  }

  /** @returns 0 | -EADDRINUSE something is mapped there, or must stay usable */
  reserve(firstPage: number, lastPage: number, owner: object): number {
    if (this.areas.firstIn(firstPage, 0, lastPage, PAGE_SIZE - 1) !== undefined) return -EADDRINUSE;
    if (this.#allowed.firstIn(firstPage, 0, lastPage, PAGE_SIZE - 1) !== undefined) return -EADDRINUSE;
    let at = this.#reserved.length;
    while (at > 0 && this.#reserved[at - 1]!.firstPage > firstPage) at--;
    this.#reserved.splice(at, 0, { firstPage, lastPage, owner });
    this.#cover();
    return 0;
  }

  unreserve(owner: object): void {
    const kept = this.#reserved.filter((range) => range.owner !== owner);
    this.#reserved.splice(0, this.#reserved.length, ...kept);
    this.#cover();
    this.#hints.clear();
  }

  get reservedCount(): number {
    return this.#reserved.length;
  }

  /** Replaces the allow list as one. @returns 0 | -EADDRINUSE part of it is reserved */
  setAllowed(allowed: OrderedSpans<Span>): number {
    for (const { firstPage, lastPage } of this.#reserved)
      if (allowed.firstIn(firstPage, 0, lastPage, PAGE_SIZE - 1) !== undefined) return -EADDRINUSE;
    this.#allowed = allowed;
    this.#hints.clear();
    return 0;
  }

  /** What is not reserved, ascending; `last` inclusive. */
  *usableRanges(): Generator<{ start: bigint; last: bigint }> {
    let page = 0;
    for (const { firstPage, lastPage } of this.#reserved) {
      if (firstPage > page) yield { start: addressOf(page, 0), last: addressOf(firstPage, 0) - 1n };
      page = Math.max(page, lastPage + 1);
    }
    if (page <= LAST_PAGE) yield { start: addressOf(page, 0), last: U64_MAX };
  }

  /** Allowed ranges with neighbours joined, or everything but the first and last page when there is no list. */
  *#allowedRanges(): Generator<{ first: bigint; last: bigint }> {
    const end = U64_MAX - PAGE;
    if (this.#allowed.size === 0) {
      yield { first: PAGE, last: end };
      return;
    }
    let joined: { first: bigint; last: bigint } | undefined;
    for (const span of this.#allowed) {
      const first = firstIova(span) < PAGE ? PAGE : firstIova(span);
      const last = min(lastIova(span), end);
      if (first > last) continue;
      if (joined !== undefined && joined.last + 1n === first) joined.last = last;
      else {
        if (joined !== undefined) yield joined;
        joined = { first, last };
      }
    }
    if (joined !== undefined) yield joined;
  }

  /** Walks the holes between areas and reserved ranges inside [start, last]. */
  #firstHole(
    start: bigint,
    last: bigint,
    length: bigint,
    alignment: bigint,
    pageOffset: bigint,
  ): bigint | undefined {
    let at = start;
    let area = this.areas.firstIn(pageOf(at), offsetOf(at), pageOf(last), offsetOf(last));
    while (at <= last) {
      const reserved = this.#reservedIn(pageOf(at), pageOf(last));
      const areaFirst = area === undefined ? last + 1n : firstIova(area);
      const reservedFirst = reserved === undefined ? last + 1n : addressOf(reserved.firstPage, 0);
      if (area !== undefined && areaFirst <= at) {
        at = lastIova(area) + 1n;
        area = this.areas.next(area);
        continue;
      }
      if (reserved !== undefined && reservedFirst <= at) {
        at = addressOf(reserved.lastPage, PAGE_SIZE - 1) + 1n;
        while (area !== undefined && lastIova(area) < at) area = this.areas.next(area);
        continue;
      }
      const holeLast = min(min(areaFirst, reservedFirst), last + 1n) - 1n;
      const found = place(at, holeLast, length, alignment, pageOffset);
      if (found !== undefined) return found;
      at = holeLast + 1n;
    }
    return undefined;
  }

  /** The first run of reserved pages that touches [first, last]. */
  #reservedIn(first: number, last: number): Span | undefined {
    return this.#covered.firstIn(first, 0, last, PAGE_SIZE - 1);
  }

  #cover(): void {
    this.#covered.clear();
    let first = -1;
    let last = -1;
    const close = (): void => {
      if (first < 0) return;
      const span: Span = { firstPage: first, firstOffset: 0, lastPage: last, lastOffset: PAGE_SIZE - 1 };
      this.#covered.insert(span);
    };
    for (const range of this.#reserved) {
      if (first >= 0 && range.firstPage <= last + 1) {
        last = Math.max(last, range.lastPage);
        continue;
      }
      close();
      first = range.firstPage;
      last = range.lastPage;
    }
    close();
  }
}

/** Where in [start, last] a block goes, as __alloc_iova_check_range puts it. */
function place(
  start: bigint,
  last: bigint,
  length: bigint,
  alignment: bigint,
  pageOffset: bigint,
): bigint | undefined {
  if (start + alignment - 1n > U64_MAX) return undefined;
  const aligned = ((start + alignment - 1n) & -alignment) | pageOffset;
  if (aligned >= last || last - aligned < length - 1n) return undefined;
  return aligned;
}

function roundUpPow2(value: bigint): bigint {
  let power = 1n;
  while (power < value) power <<= 1n;
  return power;
}

function min(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
