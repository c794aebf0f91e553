/** iommufd_ioas: what happens in one IOAS, without domains, with one, with two, and with little memory for batches. */
import type { ExecutionContext } from 'ava';
import {
  EADDRINUSE,
  EBUSY,
  EEXIST,
  EFAULT,
  EINVAL,
  EMSGSIZE,
  ENODEV,
  ENOENT,
  ENOSPC,
  EOPNOTSUPP,
} from '../../uapi/abi/errno.js';
import { HwInfo, IOMMU_GET_HW_INFO } from '../../uapi/iommufd/hw-info.js';
import { IOMMU_OPTION, Option } from '../../uapi/iommufd/option.js';
import * as uapi from '../../uapi/iommufd/test.js';
import { checkAccessRw, otherProcess } from './access.js';
import { allocHwptNested } from './alloc-hwpt-nested.js';
import { fixture } from './fixture.js';
import { BUFFER_SIZE, HUGEPAGE_SIZE, PAGE, PAGE_SIZE, Program, U64_MAX } from './program.js';

const APERTURE_START = 0x100_0000n;
const APERTURE_LAST = 0x7fff_ffffn;
const MOCK_PAGE = 2048n;
const DEFAULT_LIMIT = 65536;

interface Variant {
  readonly mockDomains: number;
  readonly memoryLimit?: number;
  readonly pasidCapable?: boolean;
}

export interface IoasSelf {
  readonly p: Program;
  readonly ioasId: number;
  /** 0 without a domain; those of the last one. */
  stdevId: number;
  hwptId: number;
  deviceId: number;
  devicePasidId: number;
  baseIova: bigint;
}

function setup(t: ExecutionContext, variant: Variant): IoasSelf {
  const p = new Program(t);
  const self: IoasSelf = {
    p,
    ioasId: p.ioasAlloc(),
    stdevId: 0,
    hwptId: 0,
    deviceId: 0,
    devicePasidId: 0,
    baseIova: 0n,
  };
  p.memoryLimit(variant.memoryLimit ?? DEFAULT_LIMIT);
  for (let i = 0; i < variant.mockDomains; i++) {
    Object.assign(self, mock(p, self.ioasId));
    p.checkDevCache(self.deviceId, [0xbaddad, 0xbaddad, 0xbaddad, 0xbaddad]);
    self.baseIova = APERTURE_START;
  }
  if (variant.pasidCapable) self.devicePasidId = mock(p, self.ioasId, uapi.MOCK_FLAGS_DEVICE_PASID).deviceId;
  return self;
}

function mock(p: Program, ptId: number, flags?: number) {
  const { errno, ...made } = p.mockDomain(ptId, flags);
  p.t.is(errno, 0);
  return made;
}

/** IOMMU_OPTION_HUGE_PAGES of the IOAS. @param val64  undefined to ask */
function hugePages({ p, ioasId }: IoasSelf, val64?: bigint) {
  const op = val64 === undefined ? 1 : 0;
  return p.call(IOMMU_OPTION, Option, { optionId: 1, op, objectId: ioasId, val64: val64 ?? 3n });
}

/** Ten maps of 1 to 10 pages each, each aligned to the largest power of two in its length; then all unmapped. */
function tenAligned(
  { p, ioasId }: IoasSelf,
  userVa: bigint,
  check: (iova: bigint, length: bigint) => void,
): void {
  const made: [bigint, bigint][] = [];
  for (let pages = 1n; pages <= 10n; pages++) {
    const length = pages * PAGE;
    const { iova } = p.ok(p.map(ioasId, userVa, length));
    p.t.is(iova % (length & -length), 0n, `${length} bytes at ${iova}`);
    check(iova, length);
    made.push([iova, length]);
  }
  for (const [iova, length] of made) p.ok(p.unmap(ioasId, iova, length));
}

fixture('iommufd_ioas', {
  variants: {
    no_domain: { mockDomains: 0 },
    mock_domain: { mockDomains: 1, pasidCapable: true },
    two_mock_domain: { mockDomains: 2 },
    mock_domain_limit: { mockDomains: 1, memoryLimit: 16 },
  } as Record<'no_domain' | 'mock_domain' | 'two_mock_domain' | 'mock_domain_limit', Variant>,
  setup,
  teardown: (_t, { p }) => {
    p.memoryLimit(DEFAULT_LIMIT);
    p.finish();
  },
  tests: {
    ioas_auto_destroy: (t) => {
      t.pass('teardown finds nothing left');
    },

    ioas_destroy: (t, { p, ioasId, stdevId }) => {
      t.is(p.destroy(ioasId), stdevId === 0 ? 0 : EBUSY);
    },

    alloc_hwpt_nested: (_t, self) => allocHwptNested(self),

    hwpt_attach: (t, { p, hwptId, stdevId }) => {
      t.is(p.mockDomain(hwptId).errno, stdevId === 0 ? ENOENT : 0);
    },

    ioas_area_destroy: (t, { p, ioasId, stdevId, baseIova }) => {
      p.ok(p.map(ioasId, p.buffer, PAGE, baseIova));
      t.is(p.destroy(ioasId), stdevId === 0 ? 0 : EBUSY);
    },

    ioas_area_auto_destroy: (t, { p, ioasId, baseIova }) => {
      for (let i = 0n; i < 10n; i++) p.ok(p.map(ioasId, p.buffer, PAGE, baseIova + i * PAGE));
      t.pass('teardown finds nothing left');
    },

    get_hw_info: (t, { p, deviceId, devicePasidId }, { pasidCapable }) => {
      const SELFTEST = 0xfeedbeef;
      const at = p.buffer;
      /** Room of `len` bytes in memory full of 0xff. */
      const ask = (dev: number, len: number, type = 0) => {
        p.write(at, new Uint8Array(32).fill(0xff));
        return p.call(IOMMU_GET_HW_INFO, HwInfo, {
          flags: type === 0 ? 0 : 1,
          devId: dev,
          dataLen: len,
          dataUptr: len === 0 ? 0n : at,
          dataType: type,
        });
      };
      const words = () => new Uint32Array(p.read(at, 16).slice().buffer);
      if (deviceId === 0) {
        t.is(ask(0, 8).errno, ENOENT);
        t.is(ask(0, 16).errno, ENOENT);
        return;
      }
      t.is(p.ok(ask(deviceId, 0)).dataLen, 8, 'how long it is, without room for it');
      const exact = p.ok(ask(deviceId, 8));
      t.is(exact.dataType, SELFTEST);
      t.deepEqual([...words()], [0, 0xdeadbeef, 0xffffffff, 0xffffffff]);
      t.is(ask(deviceId, 8, SELFTEST + 1).errno, EOPNOTSUPP);
      p.ok(ask(deviceId, 8, SELFTEST));
      p.ok(ask(deviceId, 16));
      t.deepEqual([...words()], [0, 0xdeadbeef, 0, 0], 'what is too long is zeroed');
      p.ok(ask(deviceId, 4));
      t.deepEqual([...words()], [0, 0xffffffff, 0xffffffff, 0xffffffff], 'as much as there is room for');
      t.is(exact.outMaxPasidLog2, 0);
      if (pasidCapable) t.is(p.ok(ask(devicePasidId, 0)).outMaxPasidLog2, 20);
    },

    area: (t, { p, ioasId, baseIova }) => {
      for (let i = 0n; i < 10n; i++) t.is(p.unmap(ioasId, i * PAGE, PAGE).errno, ENOENT);
      for (let i = 0n; i < 10n; i++) p.ok(p.map(ioasId, p.buffer, PAGE, baseIova + i * PAGE));
      for (let i = 0n; i < 10n; i++) p.ok(p.unmap(ioasId, baseIova + i * PAGE, PAGE));
      const at = (page: bigint) => baseIova + page * PAGE;
      p.ok(p.map(ioasId, p.buffer, 2n * PAGE, at(16n)));
      t.is(p.unmap(ioasId, at(16n), PAGE).errno, ENOENT, 'the first half');
      t.is(p.unmap(ioasId, at(17n), PAGE).errno, ENOENT, 'the second half');
      for (const [page, pages] of [
        [16n, 2n],
        [16n, 1n],
        [17n, 1n],
        [15n, 2n],
        [15n, 3n],
      ] as const)
        t.is(p.map(ioasId, p.buffer, pages * PAGE, at(page)).errno, EEXIST, `${pages} pages at ${page}`);
      t.is(p.ok(p.unmap(ioasId, 0n, U64_MAX)).length, 2n * PAGE);
      t.is(p.ok(p.unmap(ioasId, 0n, U64_MAX)).length, 0n);
    },

    unmap_fully_contained_areas: (t, { p, ioasId, baseIova }) => {
      const base = baseIova + 4n * PAGE;
      for (let i = 0n; i < 4n; i++) p.ok(p.map(ioasId, p.buffer, 8n * PAGE, base + i * 16n * PAGE));
      t.is(p.unmap(ioasId, base - 4n * PAGE, 8n * PAGE).errno, ENOENT);
      t.is(p.unmap(ioasId, base + (3n * 16n + 8n - 4n) * PAGE, 8n * PAGE).errno, ENOENT);
      const all = p.unmap(ioasId, base - 4n * PAGE, (3n * 16n + 8n + 4n) * PAGE);
      t.is(p.ok(all).length, 32n * PAGE);
    },

    area_auto_iova: (t, self) => {
      const { p, ioasId, stdevId } = self;
      const single: bigint[] = [];
      for (let i = 0; i < 10; i++) single.push(p.ok(p.map(ioasId, p.buffer, PAGE)).iova);
      for (const iova of single) p.ok(p.unmap(ioasId, iova, PAGE));
      tenAligned(self, stdevId === 0 ? 1n << 31n : p.buffer, () => undefined);
      t.is(p.addReserved(ioasId, 4n * PAGE, 100n * PAGE), 0);
      tenAligned(self, p.buffer, (iova) => {
        t.false(iova > 4n * PAGE && iova < 104n * PAGE, 'not in the reserved region');
      });
      t.is(p.allow(ioasId, [{ start: PAGE, last: PAGE * 600n }]), EADDRINUSE);
      const range =
        stdevId === 0
          ? { start: PAGE * 200n, last: PAGE * 600n - 1n }
          : { start: APERTURE_START + PAGE, last: APERTURE_START + PAGE * 600n - 1n };
      t.is(p.allow(ioasId, [range]), 0);
      tenAligned(self, p.buffer, (iova, length) => {
        t.true(iova >= range.start && iova + length - 1n <= range.last, 'inside the allowed range');
      });
    },

    reserved_overflow: (t, { p, ioasId }) => {
      t.is(p.addReserved(ioasId, 6n, 0xffff_ffff_ffff_8001n), 0);
      t.is(p.map(ioasId, p.buffer, 0x5000).errno, ENOSPC);
    },

    area_allowed: (t, { p, ioasId, baseIova }) => {
      const range = { start: baseIova, last: baseIova + PAGE * 600n };
      t.is(p.allow(ioasId, [range]), 0);
      t.is(p.addReserved(ioasId, range.start + PAGE, PAGE), EADDRINUSE);
      t.is(p.allow(ioasId, []), 0);
      t.is(p.addReserved(ioasId, range.start + PAGE, PAGE), 0);
      t.is(p.allow(ioasId, [range]), EADDRINUSE);
    },

    copy_area: (_t, { p, ioasId, baseIova }) => {
      p.ok(p.map(ioasId, p.buffer, PAGE, baseIova));
      p.ok(p.copy(ioasId, baseIova + PAGE, ioasId, baseIova, PAGE));
      p.ok(p.copy(p.ioasAlloc(), 0n, ioasId, baseIova, PAGE));
    },

    iova_ranges: (t, { p, ioasId, stdevId }) => {
      const none = { start: 0n, last: 0n };
      const aperture = { start: APERTURE_START, last: APERTURE_LAST };
      const all = stdevId === 0 ? { start: 0n, last: U64_MAX } : aperture;
      const whole = p.iovaRanges(ioasId, BUFFER_SIZE / 16);
      t.is(p.ok(whole).numIovas, 1);
      t.deepEqual(whole.ranges[0], all);
      t.is(whole.out.outIovaAlignment, stdevId === 0 ? 1n : MOCK_PAGE);
      const without = p.iovaRanges(ioasId, 0);
      t.is(without.errno, EMSGSIZE);
      t.is(without.out.numIovas, 1);
      t.deepEqual(without.ranges[0], none);
      t.is(p.addReserved(ioasId, PAGE, PAGE), 0);
      const two = [
        { start: 0n, last: PAGE - 1n },
        { start: 2n * PAGE, last: U64_MAX },
      ];
      const cut = p.iovaRanges(ioasId, BUFFER_SIZE / 16);
      t.is(p.ok(cut).numIovas, stdevId === 0 ? 2 : 1);
      t.deepEqual(cut.ranges.slice(0, 2), stdevId === 0 ? two : [aperture, none]);
      const room = p.iovaRanges(ioasId, 1);
      t.is(room.errno, stdevId === 0 ? EMSGSIZE : 0);
      t.is(room.out.numIovas, stdevId === 0 ? 2 : 1);
      t.deepEqual(room.ranges.slice(0, 2), [stdevId === 0 ? two[0] : aperture, none]);
    },

    access_domain_destory: (t, { p, ioasId, stdevId, baseIova }) => {
      const bytes = 2 * HUGEPAGE_SIZE;
      const buf = p.alloc(bytes, { chunkLg2: 21 });
      p.ok(p.map(ioasId, buf, bytes, baseIova));
      const access = p.createAccess(ioasId, uapi.MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
      const { outAccessPagesId } = p.ok(p.accessPages(access, baseIova + PAGE, PAGE, buf + PAGE));
      if (stdevId !== 0) t.is(p.destroy(stdevId), 0);
      t.is(p.destroyAccessPages(access, outAccessPagesId), 0);
      p.closeFd(access);
      p.unmapUser(buf, bytes);
    },

    access_pin: (t, { p, ioasId }) => {
      const access = p.createAccess(ioasId, uapi.MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
      for (let pages = 1; pages < BUFFER_SIZE / PAGE_SIZE; pages++) {
        const pin = () =>
          p.ok(p.accessPages(access, APERTURE_START, pages * PAGE_SIZE, p.buffer)).outAccessPagesId;
        const unpin = (id: number) => t.is(p.destroyAccessPages(access, id), 0);
        p.ok(p.map(ioasId, p.buffer, BUFFER_SIZE, APERTURE_START));
        unpin(pin());
        const [first, second] = [pin(), pin()];
        unpin(second);
        unpin(first);
        const held = pin();
        const { stdevId, hwptId } = mock(p, ioasId);
        t.is(p.checkMap(hwptId, APERTURE_START, BUFFER_SIZE, p.buffer), 0);
        t.is(p.destroy(stdevId), 0);
        unpin(held);
        p.ok(p.unmap(ioasId, APERTURE_START, BUFFER_SIZE));
      }
      p.closeFd(access);
    },

    access_pin_unmap: (t, { p, ioasId }) => {
      const access = p.createAccess(ioasId, uapi.MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
      p.ok(p.map(ioasId, p.buffer, BUFFER_SIZE, APERTURE_START));
      const { outAccessPagesId } = p.ok(p.accessPages(access, APERTURE_START, BUFFER_SIZE, p.buffer));
      p.ok(p.unmap(ioasId, APERTURE_START, BUFFER_SIZE));
      t.is(p.destroyAccessPages(access, outAccessPagesId), ENOENT, 'the unmap took it away');
      p.closeFd(access);
    },

    access_rw: (_t, { p, ioasId }) => {
      const access = p.createAccess(ioasId);
      const { iova } = p.ok(p.map(ioasId, p.buffer, BUFFER_SIZE));
      checkAccessRw(p, access, iova, 0);
      checkAccessRw(p, access, iova, uapi.MOCK_ACCESS_RW_SLOW_PATH);
      p.ok(p.unmap(ioasId, iova, BUFFER_SIZE));
      p.closeFd(access);
    },

    access_rw_unaligned: (_t, { p, ioasId, baseIova }) => {
      const access = p.createAccess(ioasId);
      const iova = baseIova + MOCK_PAGE;
      p.ok(p.map(ioasId, p.buffer, BUFFER_SIZE, iova));
      checkAccessRw(p, access, iova, 0);
      p.ok(p.unmap(ioasId, iova, BUFFER_SIZE));
      p.closeFd(access);
    },

    fork_gone: (t, { p, ioasId, stdevId }) => {
      const access = p.createAccess(ioasId);
      const child = otherProcess(p.machine);
      p.machine.core.as(child, () => p.ok(p.map(ioasId, p.buffer, BUFFER_SIZE, APERTURE_START)));
      child.exit();
      const made = p.mockDomain(ioasId);
      if (stdevId === 0) t.is(made.errno, EFAULT, 'nothing can be pinned any more');
      else {
        t.is(made.errno, 0, 'the first domain has the pages');
        checkAccessRw(p, access, APERTURE_START, 0);
      }
      p.closeFd(access);
    },

    fork_present: (t, { p, ioasId }) => {
      const access = p.createAccess(ioasId);
      const child = otherProcess(p.machine);
      p.machine.core.as(child, () => p.ok(p.map(ioasId, p.buffer, BUFFER_SIZE, APERTURE_START)));
      t.is(p.mockDomain(ioasId).errno, 0);
      checkAccessRw(p, access, APERTURE_START, 0);
      child.exit();
      p.closeFd(access);
    },

    ioas_option_huge_pages: (t, self) => {
      const { p } = self;
      t.is(p.ok(hugePages(self)).val64, 1n);
      p.ok(hugePages(self, 0n));
      t.is(p.ok(hugePages(self)).val64, 0n);
      t.is(hugePages(self, 2n).errno, EINVAL);
      p.ok(hugePages(self, 1n));
    },

    ioas_iova_alloc: (t, { p, ioasId }, { mockDomains }) => {
      for (let length = 1n; length < 2n * PAGE; length++) {
        const mapped = p.map(ioasId, p.buffer, length);
        if (mockDomains > 0 && length % MOCK_PAGE !== 0n) {
          if (mapped.errno !== EINVAL) t.fail(`${length} bytes: ${mapped.errno}`);
          continue;
        }
        const status = mapped.errno || p.unmap(ioasId, mapped.out.iova, length).errno;
        if (status !== 0) t.fail(`${length} bytes: ${status}`);
      }
      t.pass();
    },

    ioas_align_change: (t, self, { mockDomains }) => {
      const { p, ioasId } = self;
      // With a domain and a mapping the alignment cannot be raised: not for these variants.
      if (mockDomains > 0) {
        t.pass();
        return;
      }
      p.ok(p.map(ioasId, p.buffer, PAGE, APERTURE_START));
      p.ok(hugePages(self, 0n));
      const half = () => p.map(ioasId, p.buffer + MOCK_PAGE, PAGE, APERTURE_START + PAGE);
      t.is(half().errno, EINVAL, 'everything lies on whole pages');
      p.ok(hugePages(self, 0n));
      p.ok(hugePages(self, 1n));
      p.ok(half());
      t.is(hugePages(self, 0n).errno, EADDRINUSE);
      p.ok(p.unmap(ioasId, APERTURE_START + PAGE, PAGE));
      p.ok(p.unmap(ioasId, APERTURE_START, PAGE));
    },

    copy_sweep: (t, { p, ioasId }, { mockDomains }) => {
      const target = p.ioasAlloc();
      const last = APERTURE_START + BigInt(BUFFER_SIZE) - (mockDomains > 0 ? 1n : 2n);
      p.ok(p.map(ioasId, p.buffer, last - APERTURE_START + 1n, APERTURE_START));
      for (let iova = APERTURE_START - PAGE; iova <= last; iova += 511n) {
        const { errno } = p.copy(target, APERTURE_START, ioasId, iova, MOCK_PAGE);
        const inside = iova >= APERTURE_START && iova + MOCK_PAGE - 1n <= last;
        if (errno !== (inside ? 0 : ENOENT)) t.fail(`from ${iova}: ${errno}`);
        if (inside) p.ok(p.unmap(target, APERTURE_START, MOCK_PAGE));
      }
      t.is(p.destroy(target), 0);
    },

    dmabuf_simple: (t, { p, ioasId }) => {
      const bytes = 4 * PAGE_SIZE;
      const dmabuf = getDmabuf(p, bytes);
      t.is(p.mapFile(ioasId, dmabuf, 0n, 0).errno, EINVAL);
      t.is(p.mapFile(ioasId, dmabuf, BigInt(bytes), bytes).errno, EINVAL);
      t.is(p.mapFile(ioasId, dmabuf, 0n, bytes + 1).errno, EINVAL);
      p.ok(p.mapFile(ioasId, dmabuf, 0n, bytes));
      p.closeFd(dmabuf);
    },

    dmabuf_revoke: (t, { p, ioasId, deviceId }, { mockDomains }) => {
      const bytes = 4 * PAGE_SIZE;
      const dmabuf = getDmabuf(p, bytes);
      const revoke = (revoked: number) =>
        p.ok(
          p.test(uapi.IOMMU_TEST_OP_DMABUF_REVOKE, 0, uapi.TestDmabufRevoke, { dmabufFd: dmabuf, revoked }),
        );
      const { iova } = p.ok(p.mapFile(ioasId, dmabuf, 0n, bytes));
      revoke(1);
      if (mockDomains > 0) p.ok(p.hwptAlloc(deviceId, ioasId));
      t.is(p.mapFile(ioasId, dmabuf, 0n, bytes).errno, ENODEV);
      revoke(0);
      p.ok(p.mapFile(ioasId, dmabuf, 0n, bytes));
      p.ok(p.unmap(ioasId, iova, bytes));
      p.ok(p.mapFile(ioasId, dmabuf, 0n, bytes, iova));
      p.closeFd(dmabuf);
    },
  },
});

/** @returns the descriptor */
function getDmabuf(p: Program, length: number): number {
  const { ret } = p.test(uapi.IOMMU_TEST_OP_DMABUF_GET, 0, uapi.TestDmabufGet, { length, openFlags: 0 });
  p.t.true(ret > 0);
  return ret;
}
