/** iommufd_mock_domain: what a mapping leaves in one or two domains, from small pages, huge pages, and files. */
import { EBUSY, EFAULT, EINVAL, ENOENT, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES } from '../../uapi/iommufd/test.js';
import { fixture } from './fixture.js';
import { BUFFER_SIZE, HUGEPAGE_SIZE, PAGE, PAGE_SIZE, Program, READABLE } from './program.js';

const APERTURE_START = 0x100_0000n;
const MOCK_PAGE_SIZE = 2048;

interface Variant {
  readonly domains: 1 | 2;
  readonly hugepages: boolean;
  readonly file: boolean;
}

interface Self {
  readonly p: Program;
  readonly variant: Variant;
  readonly ioasId: number;
  readonly hwptIds: number[];
  readonly stdevIds: number[];
  readonly idevIds: number[];
  /** Of the buffer that a test maps parts of. */
  readonly bytes: number;
}

/** Memory of the variant's kind, and how to map a part of it. */
interface Source {
  readonly va: bigint;
  /** @returns the IOVA */
  map(ioasId: number, start: number, length: number): bigint;
  gone(): void;
}

function source({ p, variant }: Self, bytes: number): Source {
  if (!variant.file) {
    const va = p.alloc(bytes, variant.hugepages ? { chunkLg2: 21 } : {});
    return {
      va,
      map: (ioasId, start, length) => p.ok(p.map(ioasId, va + BigInt(start), length)).iova,
      gone: () => p.unmapUser(va, bytes),
    };
  }
  const memfd = p.memfd(bytes);
  return {
    va: memfd.va,
    map: (ioasId, start, length) => p.ok(p.mapFile(ioasId, memfd.fd, BigInt(start), length)).iova,
    gone: () => memfd.close(),
  };
}

/** The domains have at `iova` what the user has at `va`. */
function checkIova({ p, hwptIds }: Self, va: bigint, iova: bigint, length: number): void {
  for (const hwptId of hwptIds) {
    const errno = p.checkMap(hwptId, iova, length, va);
    if (errno !== 0) p.t.fail(`domain ${hwptId}, ${length} bytes at ${iova}: ${errno}`);
  }
}

/** Maps every part of the buffer that begins and ends on a page of the mock, one after the other. */
function everyPart(self: Self, whileMapped: (va: bigint, iova: bigint, length: number) => void): void {
  const { p, variant, ioasId, bytes } = self;
  const step = variant.hugepages ? bytes / 16 : MOCK_PAGE_SIZE;
  const memory = source(self, bytes);
  p.checkRefs(memory.va, bytes, 0);
  let parts = 0;
  for (let start = 0; start < bytes; start += step)
    for (
      let end = variant.hugepages ? bytes : start + MOCK_PAGE_SIZE;
      end < bytes || (variant.hugepages && end === bytes);
      end += MOCK_PAGE_SIZE
    ) {
      const length = end - start;
      const iova = memory.map(ioasId, start, length);
      whileMapped(memory.va + BigInt(start), iova, length);
      const firstPage = Math.floor(start / PAGE_SIZE) * PAGE_SIZE;
      const pinned = Math.floor(end / PAGE_SIZE) * PAGE_SIZE - firstPage;
      p.checkRefs(memory.va + BigInt(firstPage), pinned, 1);
      p.ok(p.unmap(ioasId, iova, length));
      parts++;
    }
  p.t.true(parts >= 16, `${parts} parts`);
  p.checkRefs(memory.va, bytes, 0);
  memory.gone();
}

fixture('iommufd_mock_domain', {
  variants: {
    one_domain: { domains: 1, hugepages: false, file: false },
    two_domains: { domains: 2, hugepages: false, file: false },
    one_domain_hugepage: { domains: 1, hugepages: true, file: false },
    two_domains_hugepage: { domains: 2, hugepages: true, file: false },
    one_domain_file: { domains: 1, hugepages: false, file: true },
    one_domain_file_hugepage: { domains: 1, hugepages: true, file: true },
  } as const,
  setup: (t, variant: Variant): Self => {
    const p = new Program(t);
    const bytes = variant.hugepages ? 2 * HUGEPAGE_SIZE : 8 * PAGE_SIZE;
    const self = { p, variant, ioasId: p.ioasAlloc(), hwptIds: [], stdevIds: [], idevIds: [], bytes } as Self;
    for (let i = 0; i < variant.domains; i++) {
      const { errno, hwptId, stdevId, deviceId } = p.mockDomain(self.ioasId);
      t.is(errno, 0);
      self.hwptIds.push(hwptId);
      self.stdevIds.push(stdevId);
      self.idevIds.push(deviceId);
      p.checkDevCache(self.idevIds[0]!, [0xbaddad, 0xbaddad, 0xbaddad, 0xbaddad]);
    }
    return self;
  },
  teardown: (_t, { p }) => p.finish(),
  tests: {
    basic: (t, self) => {
      const { p, variant, ioasId, bytes } = self;
      const one = source(self, PAGE_SIZE);
      checkIova(self, one.va, one.map(ioasId, 0, PAGE_SIZE), PAGE_SIZE);
      if (variant.file) {
        const memfd = p.memfd(bytes);
        t.is(p.mapFile(ioasId, memfd.fd, 0n, bytes + 1).errno, EINVAL, 'past the end of the file');
        memfd.close();
        const short = p.memfd(PAGE_SIZE);
        t.is(p.mapFile(ioasId, short.fd, 0n, bytes).errno, EINVAL, 'a file that has become shorter');
        short.close();
        return;
      }
      const half = p.alloc(bytes / 2);
      t.is(p.map(ioasId, half, bytes).errno, EFAULT, 'nothing is there from the middle on');
      p.unmapUser(half, bytes / 2);
      t.is(p.map(ioasId, half, bytes).errno, EFAULT, 'nothing is there at all');
    },

    ro_unshare: (_t, self) => {
      const { p, ioasId } = self;
      const va = p.alloc(PAGE_SIZE);
      const { iova } = p.ok(p.map(ioasId, va, PAGE, undefined, READABLE));
      checkIova(self, va, iova, PAGE_SIZE);
      p.write(va, new Uint8Array(PAGE_SIZE).fill(1));
      checkIova(self, va, iova, PAGE_SIZE);
      p.unmapUser(va, PAGE_SIZE);
    },

    all_aligns: (_t, self) => {
      everyPart(self, (va, iova, length) => checkIova(self, va, iova, length));
    },

    all_aligns_copy: (t, self) => {
      const { p, ioasId } = self;
      everyPart(self, (va, iova, length) => {
        const { errno, stdevId, hwptId } = p.mockDomain(ioasId);
        t.is(errno, 0);
        checkIova({ ...self, hwptIds: [self.hwptIds[0]!, hwptId] }, va, iova, length);
        t.is(p.destroy(stdevId), 0);
      });
    },

    user_copy: (t, self) => {
      const { p, ioasId } = self;
      const memory = source(self, BUFFER_SIZE);
      const first = p.ioasAlloc();
      let iova = memory.map(first, 0, BUFFER_SIZE);
      const access = p.createAccess(first, MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
      p.ok(p.accessPages(access, iova, BUFFER_SIZE, memory.va));
      p.ok(p.copy(ioasId, APERTURE_START, first, iova, BUFFER_SIZE));
      checkIova(self, memory.va, APERTURE_START, BUFFER_SIZE);

      const second = p.ioasAlloc();
      iova = memory.map(second, 0, BUFFER_SIZE);
      t.is(p.accessReplaceIoas(access, second), 0);
      p.ok(p.unmap(ioasId, APERTURE_START, BUFFER_SIZE));
      t.is(p.destroy(first), 0);

      const { outAccessPagesId } = p.ok(p.accessPages(access, iova, BUFFER_SIZE, memory.va));
      p.ok(p.copy(ioasId, APERTURE_START, second, iova, BUFFER_SIZE));
      checkIova(self, memory.va, APERTURE_START, BUFFER_SIZE);
      t.is(p.destroyAccessPages(access, outAccessPagesId), 0);
      p.closeFd(access);
      t.is(p.destroy(second), 0);
    },

    replace: (t, { p, variant, ioasId, stdevIds, hwptIds }) => {
      const stdevId = stdevIds[0]!;
      const other = p.ioasAlloc();
      t.is(p.mockReplace(stdevId, other), 0);
      if (variant.domains === 1) t.is(p.mockReplace(stdevId, hwptIds[0]!), ENOENT, 'it went with its device');
      t.is(p.mockReplace(stdevId, other), 0);
      if (variant.domains === 2)
        for (const index of [1, 1, 0]) t.is(p.mockReplace(stdevId, hwptIds[index]!), 0);
      t.is(p.mockReplace(stdevId, ioasId), 0);
      t.is(p.destroy(other), 0);
    },

    alloc_hwpt: (t, { p, ioasId, stdevIds, idevIds }) => {
      const NEST_PARENT = 1;
      stdevIds.forEach((stdevId, i) => {
        const idevId = idevIds[i]!;
        t.is(p.hwptAlloc(idevId, ioasId, ~NEST_PARENT >>> 0).errno, EOPNOTSUPP);
        const plain = p.ok(p.hwptAlloc(idevId, ioasId)).outHwptId;
        const parent = p.ok(p.hwptAlloc(idevId, ioasId, NEST_PARENT)).outHwptId;
        for (const hwptId of [plain, parent]) {
          t.is(p.mockReplace(stdevId, hwptId), 0);
          t.is(p.destroy(hwptId), EBUSY);
        }
        t.is(p.mockReplace(stdevId, ioasId), 0);
        t.is(p.destroy(parent), 0);
        const another = p.mockDomain(plain);
        t.is(another.errno, 0);
        t.is(p.destroy(another.stdevId), 0);
        t.is(p.destroy(plain), 0);
      });
    },
  },
});
