/**
 * Which IOVAs are taken, which may not be used, which must stay usable, and where the next mapping goes when
 * the caller leaves that to us. The interval trees of struct io_pagetable.
 *
 *   areas     mapped or about to be
 *   reserved  cannot be mapped: outside a domain's aperture, or a device's reserved region
 *   allowed   must not become reserved, and automatic allocation stays inside
 *
 * @source drivers/iommu/iommufd/io_pagetable.c iopt_alloc_iova, iopt_check_iova, iopt_reserve_iova
 */
import { EADDRINUSE, EEXIST, EINVAL, ENOMEM, ENOSPC, EOVERFLOW } from '../../uapi/abi/errno.js';
import { firstIova, type IoptArea, lastIova, offsetOf, PAGE_SIZE, pageOf, U64_MAX } from './area.js';
import { OrderedSpans } from './ordered-spans.js';
import type { Span } from './span-chunk.js';

export interface ReservedRange extends Span {
  readonly owner: object;
}

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
  /** Sorted by first byte; ranges of several owners may overlap. */
  readonly #reserved: ReservedRange[] = [];
  /** What they cover, without overlaps: a look-up must not slow down with the number of devices. */
  readonly #covered = new OrderedSpans<Span>();
  /**
   * Below its hint, no mapping of that alignment and length fits. First fit stays first fit: room appears
   * only where something is unmapped, allowed or no longer reserved, and that moves the hints back. Only for
   * addresses of whole pages: with an offset Linux looks at each hole in one place that depends on where the hole
   * begins, so a place may open where something is mapped.
   */
  readonly #hints = new Map<string, bigint>();

  readonly #allocFails: (site: string) => boolean;

  /** @param allocFails  whether making a range is to fail */
  constructor(allocFails: (site: string) => boolean = () => false) {
    this.#allocFails = allocFails;
  }

  /** @returns 0 | -EINVAL unaligned or reserved | -EOVERFLOW | -EEXIST mapped */
  check(iova: bigint, length: bigint): number {
    if ((iova & BigInt(this.alignment - 1)) !== 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    if (this.#reservedIn(iova, last) !== undefined) return -EINVAL;
    const area = this.areas.firstIn(pageOf(iova), offsetOf(iova), pageOf(last), offsetOf(last));
    return area === undefined ? 0 : -EEXIST;
  }

  /** check() of whole pages, `lastPage` inclusive, while `alignment` is a page at most. @returns 0 | -EINVAL | -EEXIST */
  checkPages(firstPage: number, lastPage: number): number {
    if (this.#covered.firstIn(firstPage, 0, lastPage, PAGE_SIZE - 1) !== undefined) return -EINVAL;
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
    const key = `${alignment}/${length}`;
    const from = pageOffset === 0n ? (this.#hints.get(key) ?? PAGE) : PAGE;
    for (const { first, last } of this.#allowedRanges()) {
      if (last < from) continue;
      const start = place(first > from ? first : from, last, length, alignment, pageOffset);
      if (start === undefined) continue;
      const found = this.#firstHole(start, last, length, alignment, pageOffset);
      if (found === undefined) continue;
      if (pageOffset === 0n) {
        if (this.#hints.size >= MAX_HINTS) this.#hints.clear();
        this.#hints.set(key, found);
      }
      return found;
    }
    return BigInt(-ENOSPC);
  }

  insertArea(area: IoptArea): void {
    this.areas.insert(area);
  }

  /** Two areas for one, which together are what it was. */
  replaceArea(area: IoptArea, left: IoptArea, right: IoptArea): void {
    this.areas.remove(area);
    this.areas.insert(left);
    this.areas.insert(right);
  }

  removeArea(area: IoptArea): void {
    if (this.#hints.size > 0) {
      const previous = this.areas.previous(area);
      const room = previous === undefined ? PAGE : lastIova(previous) + 1n;
      for (const [key, hint] of this.#hints) if (room < hint) this.#hints.set(key, room);
    }
    this.areas.remove(area);
  }

  /** reserveBytes() of whole pages. */
  reserve(firstPage: number, lastPage: number, owner: object): number {
    return this.#reserve({ firstPage, firstOffset: 0, lastPage, lastOffset: PAGE_SIZE - 1, owner });
  }

  /**
   * Nothing is mapped in [first, last] until the owner gives it back.
   * @returns 0 | -EADDRINUSE something is mapped there, or must stay usable | -ENOMEM
   * @source iopt_reserve_iova
   */
  reserveBytes(first: bigint, last: bigint, owner: object): number {
    return this.#reserve({ ...spanOf(first, last), owner });
  }

  unreserve(owner: object): void {
    const kept = this.#reserved.filter((range) => range.owner !== owner);
    this.#reserved.splice(0, this.#reserved.length, ...kept);
    this.#cover();
    this.#hints.clear();
  }

  /** Replaces the allow list as one. @returns 0 | -EADDRINUSE part of it is reserved */
  setAllowed(allowed: OrderedSpans<Span>): number {
    for (const range of this.#reserved) if (touches(allowed, range)) return -EADDRINUSE;
    this.#allowed = allowed;
    this.#hints.clear();
    return 0;
  }

  /** What is not reserved, ascending; `last` inclusive. */
  *usableRanges(): Generator<{ start: bigint; last: bigint }> {
    let start = 0n;
    for (const range of this.#covered) {
      const first = firstIova(range);
      if (first > start) yield { start, last: first - 1n };
      start = lastIova(range) + 1n;
    }
    if (start <= U64_MAX) yield { start, last: U64_MAX };
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
      const reserved = this.#reservedIn(at, last);
      const areaFirst = area === undefined ? last + 1n : firstIova(area);
      const reservedFirst = reserved === undefined ? last + 1n : firstIova(reserved);
      if (area !== undefined && areaFirst <= at) {
        at = lastIova(area) + 1n;
        area = this.areas.next(area);
        continue;
      }
      if (reserved !== undefined && reservedFirst <= at) {
        at = lastIova(reserved) + 1n;
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

  #reserve(range: ReservedRange): number {
    if (touches(this.areas, range) || touches(this.#allowed, range)) return -EADDRINUSE;
    if (this.#allocFails('iopt_reserved')) return -ENOMEM;
    let at = this.#reserved.length;
    while (at > 0 && startsAfter(this.#reserved[at - 1]!, range)) at--;
    this.#reserved.splice(at, 0, range);
    this.#cover();
    return 0;
  }

  /** The first joined reserved range that touches [first, last]. */
  #reservedIn(first: bigint, last: bigint): Span | undefined {
    return this.#covered.firstIn(pageOf(first), offsetOf(first), pageOf(last), offsetOf(last));
  }

  #cover(): void {
    this.#covered.clear();
    let joined: { -readonly [K in keyof Span]: Span[K] } | undefined;
    for (const { firstPage, firstOffset, lastPage, lastOffset } of this.#reserved) {
      if (joined !== undefined && !isBeyond(firstPage, firstOffset, joined)) {
        if (lastPage > joined.lastPage || (lastPage === joined.lastPage && lastOffset > joined.lastOffset)) {
          joined.lastPage = lastPage;
          joined.lastOffset = lastOffset;
        }
        continue;
      }
      if (joined !== undefined) this.#covered.insert(joined);
      joined = { firstPage, firstOffset, lastPage, lastOffset };
    }
    if (joined !== undefined) this.#covered.insert(joined);
  }
}

const spanOf = (first: bigint, last: bigint): Span => ({
  firstPage: pageOf(first),
  firstOffset: offsetOf(first),
  lastPage: pageOf(last),
  lastOffset: offsetOf(last),
});

const touches = (set: OrderedSpans<Span>, { firstPage, firstOffset, lastPage, lastOffset }: Span): boolean =>
  set.firstIn(firstPage, firstOffset, lastPage, lastOffset) !== undefined;

const startsAfter = (a: Span, b: Span): boolean =>
  a.firstPage > b.firstPage || (a.firstPage === b.firstPage && a.firstOffset > b.firstOffset);

/** Whether there is at least a byte between the end of a span and a position. */
function isBeyond(page: number, offset: number, span: Span): boolean {
  if (page === span.lastPage) return offset > span.lastOffset + 1;
  if (page === span.lastPage + 1) return offset > 0 || span.lastOffset < PAGE_SIZE - 1;
  return page > span.lastPage;
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
