/**
 * One SMMU under the driver, one device, and domains of every kind that lead the same address to a page of their own:
 * what a read returns tells by which configuration it went.
 */

import type { BugSwitches } from '../../hw/bugs/bug-switches.js';
import type { Words } from '../../hw/sync/words.js';
import type { Domain, DriverViommu, PagingDomain, ViommuOwner } from '../../runtime/drivers/contract.js';
import type { Smmuv3PagingDomain } from '../../runtime/drivers/smmuv3/domain.js';
import { DriverFixture } from '../kit/smmu-driver-fixture.js';
import { cd, S1_PAGE } from '../kit/smmu-structures.js';
import { dataOf } from '../kit/user-data.js';

/** IOMMU_HWPT_ALLOC_NEST_PARENT; IOMMU_HWPT_DATA_ARM_SMMUV3; read and write. */
const NEST_PARENT = 1;
const DATA_ARM_SMMUV3 = 2;
const ARM_SMMUV3 = 1;
const RW = 3;

const PAGE = 0x123;
const IOVA = BigInt(PAGE) << 12n;
/** Where the guest's own structures are, by its addresses. */
const GUEST_PAGE = 0x4_0000;

const NO_OWNER: ViommuOwner = { allocMmap: () => -12, freeMmap: () => undefined, allocFails: () => false };

/** What read() returns when there is no translation: aborted, or refused because V = 0 or S1DSS says so. */
export const ABORTED = -1;
/**
 * XLAT_ABORT; C_BAD_STREAMID, C_BAD_STE, F_STREAM_DISABLED, C_BAD_SUBSTREAMID, C_BAD_CD; a Translation Request's UR
 * and CA.
 */
const REFUSALS = [0xff, 0x02, 0x04, 0x06, 0x08, 0x0a, 0xfb, 0xfa];

export interface Target {
  readonly name: string;
  readonly domain: Domain | null;
  /** What a read returns when it goes by this configuration. */
  readonly reads: number;
  /** Whose table is under it. */
  readonly table: Smmuv3PagingDomain | null;
}

/** Frames of a leaf of the stream table. */
const LEAF_LG2 = 14;

export interface WorldOptions {
  readonly ats?: boolean;
  readonly pasidBits?: number;
  readonly bugs?: BugSwitches;
}

export class DriverWorld {
  readonly fixture: DriverFixture;
  readonly words: Words;
  readonly targets: readonly Target[];
  /** The model is at work: its accesses are not the driver's. */
  inModel = false;
  /** Of what the device sends; none when undefined. */
  pasid: number | undefined;

  #mark = 0x10;

  constructor({ ats = false, pasidBits = 0, bugs }: WorldOptions = {}) {
    this.fixture = new DriverFixture({ traits: { ats, pasidBits }, ...(bugs !== undefined && { bugs }) });
    this.words = this.fixture.memory.words;
    const step = this.fixture.step.bind(this.fixture);
    this.fixture.step = () => {
      const before = this.inModel;
      this.inModel = true;
      try {
        return step();
      } finally {
        this.inModel = before;
      }
    };
    this.targets = this.#makeTargets();
  }

  isRam(offset: number): boolean {
    const { linear, bytes } = this.fixture.memory.ram;
    return offset >= linear && offset < linear + bytes;
  }

  /** @returns the byte at IOVA | ABORTED | 0x1000 + any other fault */
  read(): number {
    const byte = new Uint8Array(1);
    const options = this.pasid === undefined ? {} : { pasid: this.pasid };
    const status = this.fixture.ports[0]!.read(IOVA, byte, options);
    if (status === 0) return byte[0]!;
    return REFUSALS.includes(status) ? ABORTED : 0x1000 + status;
  }

  /** Whether the domain that a read went by would tell this SMMU of an unmap: its translation may be cached now. */
  isTold(result: number): boolean {
    const target = this.targets.find(({ reads }) => reads === result);
    return (
      target?.table == null || target.table.invs.some(({ smmu }) => smmu === this.fixture.smmus[0]!.smmu)
    );
  }

  attach(target: Target): number {
    return this.fixture.smmus[0]!.attach(this.fixture.devices[0]!, target.domain);
  }

  attachPasid(pasid: number, target: Target): number {
    return this.fixture.smmus[0]!.attachPasid(
      this.fixture.devices[0]!,
      pasid,
      target.domain as PagingDomain | null,
    );
  }

  /** Fills the frames that the next leaf of the stream table gets with STEs that let everything through. */
  soilNextLeaf(): void {
    const { frames, memory } = this.fixture;
    const pfn = frames.alloc(LEAF_LG2);
    for (let pa = pfn * 4096; pa < pfn * 4096 + 2 ** LEAF_LG2; pa += 64)
      this.words.store64(memory.linearOf(pa, 8), 1n | (4n << 1n));
    frames.free(pfn, 2 ** LEAF_LG2 / 4096);
  }

  target(name: string): Target {
    const found = this.targets.find((target) => target.name === name);
    if (found === undefined) throw new Error(`no target ${name}`);
    return found;
  }

  #makeTargets(): Target[] {
    const { fixture } = this;
    const device = fixture.devices[0]!;
    const paging = (name: string, flags: number): Target => {
      const domain = fixture.paging(0, flags) as Smmuv3PagingDomain;
      return { name, domain, reads: this.#map(domain, PAGE), table: domain };
    };
    const parent = fixture.paging(0, NEST_PARENT) as Smmuv3PagingDomain;
    const viommu = device.iommu.allocViommu(device, parent, ARM_SMMUV3, null, NO_OWNER);
    if (typeof viommu === 'number') throw new Error(`allocViommu said ${viommu}`);
    if (viommu.vdeviceInit(device, 0x10n) !== 0) throw new Error('vdeviceInit');
    return [
      { name: 'blocked', domain: null, reads: ABORTED, table: null },
      paging('s1', 0),
      paging('s1, other', 0),
      paging('s2', NEST_PARENT),
      paging('s2, other', NEST_PARENT),
      {
        name: 's2 of guest',
        domain: this.#nested(viommu, 4, 0),
        reads: this.#map(parent, PAGE),
        table: parent,
      },
      this.#guest('nested', viommu, parent, GUEST_PAGE),
      this.#guest('nested, other CDs', viommu, parent, GUEST_PAGE + 0x100),
    ];
  }

  /** Maps a page with a byte of its own. @returns the byte */
  #map(domain: PagingDomain, page: number): number {
    const mark = this.#mark++;
    const pfn = this.fixture.pages(1);
    const { memory } = this.fixture;
    memory.u8[memory.linearOf(pfn * 4096, 4096)] = mark;
    if (domain.map(page, pfn, 1, RW) !== 0) throw new Error('map');
    return mark;
  }

  #nested(viommu: DriverViommu, config: number, contextPtr: number): Domain {
    const bytes = new Uint8Array(16);
    new DataView(bytes.buffer).setBigUint64(0, 1n | (BigInt(config) << 1n) | BigInt(contextPtr), true);
    const made = viommu.allocNested(dataOf(DATA_ARM_SMMUV3, bytes), 0);
    if (typeof made === 'number') throw new Error(`allocNested said ${made}`);
    return made;
  }

  /** A guest's CD, three levels of tables and a page, from `at` on in its own addresses. */
  #guest(name: string, viommu: DriverViommu, parent: Smmuv3PagingDomain, at: number): Target {
    const { fixture } = this;
    const ram = fixture.pages(4);
    if (parent.map(at, ram, 4, RW) !== 0) throw new Error('map');
    const reads = this.#map(parent, at + 4);
    const ipa = (page: number): number => (at + page) * 4096;
    const write64 = (page: number, index: number, value: bigint): void =>
      fixture.write64((ram + page) * 4096 + index * 8, value);
    cd({ root: ipa(1), asid: at & 0xfff }).forEach((word, i) => {
      write64(0, i, word);
    });
    write64(1, Math.floor(PAGE / 2 ** 18), BigInt(ipa(2)) | 3n);
    write64(2, Math.floor(PAGE / 2 ** 9) % 512, BigInt(ipa(3)) | 3n);
    write64(3, PAGE % 512, BigInt(ipa(4)) | S1_PAGE);
    return { name, domain: this.#nested(viommu, 5, ipa(0)), reads, table: parent };
  }
}
