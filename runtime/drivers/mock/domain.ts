/**
 * Paging domains of the mock IOMMU, over the mock page table.
 *
 * @source drivers/iommu/iommufd/selftest.c mock_domain_alloc_pgtable
 */
import { EINVAL } from '../../../uapi/abi/errno.js';
import { MOCK_APERTURE_LAST, MOCK_APERTURE_START, MOCK_PAGE_SIZE } from '../../../uapi/iommufd/test.js';
import { type DirtyTracking, type Gather, IOMMU_READ, IOMMU_WRITE, type PagingDomain } from '../contract.js';
import { MOCK_TABLE_UNITS, MOCK_UNIT_LG2, MockPageTable } from './page-table.js';

export const MOCK_DRIVER = 'mock';

/** Every power of two from 2 KiB to 128 GiB. */
const DEFAULT_SIZES_LG2 = Array.from({ length: 27 }, (_, i) => MOCK_UNIT_LG2 + i);
/** The CPU's page size, without which iommufd takes no domain, and 1 MiB. */
const HUGE_SIZES_LG2 = [12, 20];

export class MockDomain implements PagingDomain {
  readonly kind = 'paging';
  readonly driver = MOCK_DRIVER;
  readonly nestParent: boolean;
  readonly pageSizesLg2: readonly number[];
  readonly unitLg2: number;
  readonly aperture: { readonly firstUnit: number; readonly lastUnit: number };
  readonly dirty: DirtyTracking | undefined;
  handlesFaults = false;
  /** Dirty tracking is on. */
  tracking = false;
  readonly #table: MockPageTable;
  /** Log2 of the table's units in one unit of this domain. */
  readonly #shift: number;

  /** @param tracksDirty  it can */
  constructor(huge: boolean, nestParent: boolean, tracksDirty: boolean, allocFails: () => boolean) {
    this.nestParent = nestParent;
    this.pageSizesLg2 = huge ? HUGE_SIZES_LG2 : DEFAULT_SIZES_LG2;
    this.unitLg2 = this.pageSizesLg2[0]!;
    this.#shift = this.unitLg2 - MOCK_UNIT_LG2;
    const unit = 2 ** this.unitLg2;
    this.aperture = huge
      ? { firstUnit: 0, lastUnit: MOCK_TABLE_UNITS / 2 ** this.#shift - 1 }
      : { firstUnit: MOCK_APERTURE_START / unit, lastUnit: (MOCK_APERTURE_LAST + 1) / unit - 1 };
    this.#table = new MockPageTable(
      this.pageSizesLg2.map((lg2) => lg2 - MOCK_UNIT_LG2),
      allocFails,
    );
    this.dirty = tracksDirty ? this.#dirtyTracking() : undefined;
  }

  map(iovaUnit: number, paUnit: number, units: number, prot: number): number {
    // As its page table in Linux (generic_pt/iommu_pt.h map_range).
    if ((prot & (IOMMU_READ | IOMMU_WRITE)) === 0) return -EINVAL;
    const scale = 2 ** this.#shift;
    return this.#table.map(iovaUnit * scale, paUnit * scale, units * scale, prot);
  }

  unmap(iovaUnit: number, units: number, gather: Gather): number {
    const scale = 2 ** this.#shift;
    const unmapped = this.#table.unmap(iovaUnit * scale, units * scale) / scale;
    if (unmapped > 0) gathered(gather, iovaUnit, unmapped);
    return unmapped;
  }

  /** Nothing is cached. */
  sync(_gather: Gather): number {
    return 0;
  }

  lookup(iovaUnit: number): number {
    const found = this.#table.lookup(iovaUnit * 2 ** this.#shift);
    return found < 0 ? -1 : Math.floor(found / 2 ** this.#shift);
  }

  /** A device writes there. @param iova  bytes */
  setDirty(iova: bigint): void {
    const unit = iova >> BigInt(MOCK_UNIT_LG2);
    if (unit < BigInt(MOCK_TABLE_UNITS)) this.#table.setDirty(Number(unit));
  }

  /** iommu_iova_to_phys of a byte. @returns 0 where nothing is mapped */
  physicalOf(iova: bigint): number {
    const unit = this.#table.lookup(Number(iova >> BigInt(MOCK_UNIT_LG2)));
    return unit < 0 ? 0 : unit * MOCK_PAGE_SIZE + Number(iova % BigInt(MOCK_PAGE_SIZE));
  }

  free(): void {
    // The table goes with the object.
  }

  #dirtyTracking(): DirtyTracking {
    return {
      setTracking: (enable) => {
        this.tracking = enable;
        return 0;
      },
      readAndClear: (iovaUnit, units, clear, report, gather) => {
        const scale = 2 ** this.#shift;
        this.#table.readDirty(iovaUnit * scale, units * scale, clear, (at, count) => {
          // A huge domain's leaves are whole units of its own.
          report(at / scale, count / scale);
          if (clear) gathered(gather, at / scale, count / scale);
        });
        return 0;
      },
    };
  }
}

function gathered(gather: Gather, firstUnit: number, units: number): void {
  gather.firstUnit = Math.min(gather.firstUnit, firstUnit);
  gather.lastUnit = Math.max(gather.lastUnit, firstUnit + units - 1);
}
