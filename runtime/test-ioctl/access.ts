/**
 * Accesses of the test ioctl: a descriptor for an in-kernel user of an IOAS, which pins ranges (items) and lets go of
 * those that an unmap touches. struct selftest_access, struct selftest_access_item.
 *
 * @source drivers/iommu/iommufd/selftest.c iommufd_test_create_access, iommufd_test_access_pages, iommufd_test_access_rw
 */
import { EBADE, EBADFD, EFAULT, ENOENT, ENOMEM, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import {
  MOCK_ACCESS_RW_SLOW_PATH,
  MOCK_ACCESS_RW_WRITE,
  MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES,
  MOCK_FLAGS_ACCESS_SYZ,
  MOCK_FLAGS_ACCESS_WRITE,
  TestAccessPages,
  TestAccessReplaceIoas,
  TestAccessRw,
  TestCreateAccess,
  TestDestroyAccessPages,
} from '../../uapi/iommufd/test.js';
import type { OpenFile } from '../core/file-table.js';
import { ACCESS_RW_SLOW_PATH, ACCESS_RW_WRITE } from '../iova/pages.js';
import { Access } from '../objects/access.js';
import { nthAreaIova } from './nth-area.js';
import { PagesAt } from './pages-at.js';
import type { TestCall } from './test-call.js';

/** What one operation may ask for. */
const MAX_BYTES = 16n * 1024n * 1024n;
const PAGE = 4096n;

interface Item {
  readonly id: number;
  readonly iova: bigint;
  readonly length: bigint;
}

class AccessFile implements OpenFile {
  readonly kind = 'access';
  readonly needsPinPages: boolean;
  readonly items = new Map<number, Item>();
  nextId = 0;
  #access: Access | null = null;

  constructor(needsPinPages: boolean) {
    this.needsPinPages = needsPinPages;
  }

  get access(): Access {
    return this.#access!;
  }

  /** @returns 0 | -ENOMEM */
  create(call: TestCall): number {
    const unmap = (iova: bigint, length: bigint) => this.unpinTouched(iova, length);
    const access = Access.create(call.ctx, { needsPinPages: this.needsPinPages, unmap });
    if (typeof access === 'number') return access;
    this.#access = access;
    return 0;
  }

  unpinTouched(iova: bigint, length: bigint): void {
    const last = iova + length - 1n;
    for (const item of [...this.items.values()])
      if (iova <= item.iova + item.length - 1n && last >= item.iova) this.unpin(item);
  }

  unpin(item: Item): void {
    this.items.delete(item.id);
    this.access.unpinPages(item.iova, item.length);
  }

  release(): void {
    for (const item of [...this.items.values()]) this.unpin(item);
    this.#access?.destroyAccess();
    this.#access = null;
  }
}

/** CREATE_ACCESS. */
export function createAccess(call: TestCall): number {
  const { core } = call;
  const { flags } = call.read(TestCreateAccess);
  if ((flags & ~MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES) !== 0) return -EOPNOTSUPP;
  for (const site of ['staccess', 'staccess file']) if (core.allocFails(site)) return -ENOMEM;
  const file = new AccessFile((flags & MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES) !== 0);
  let status = file.create(call);
  if (status < 0) return status;
  status = file.access.attach(call.id);
  if (status < 0) {
    file.release();
    return status;
  }
  const fd = core.current.files.install(file);
  if (fd < 0) {
    file.release();
    return -ENOMEM;
  }
  return call.respond(TestCreateAccess, { outAccessFd: fd });
}

/** ACCESS_REPLACE_IOAS. */
export function accessReplaceIoas(call: TestCall): number {
  return withAccess(call, ({ access }) => access.replace(call.read(TestAccessReplaceIoas).ioasId));
}

/** ACCESS_PAGES: pins, and compares with the pages behind a user address. */
export function accessPages(call: TestCall): number {
  const { flags, length, uptr, iova: given } = call.read(TestAccessPages);
  if (length > MAX_BYTES) return -ENOMEM;
  if ((flags & ~(MOCK_FLAGS_ACCESS_WRITE | MOCK_FLAGS_ACCESS_SYZ)) !== 0) return -EOPNOTSUPP;
  return withAccess(call, (file) => {
    const { access } = file;
    if (!file.needsPinPages) return -EOPNOTSUPP;
    const iova = (flags & MOCK_FLAGS_ACCESS_SYZ) === 0 ? given : nthAreaIova(access.ioas, given);
    if (call.core.allocFails('access page list')) return -ENOMEM;
    const frames: number[] = [];
    const rw = (flags & MOCK_FLAGS_ACCESS_WRITE) !== 0 ? ACCESS_RW_WRITE : 0;
    let status = access.pinPages(iova, length, frames, rw);
    if (status < 0) return status;
    if (uptr !== 0n) status = comparePages(call, uptr - (iova % PAGE), frames);
    if (status === 0 && call.core.allocFails('access item')) status = -ENOMEM;
    if (status < 0) {
      access.unpinPages(iova, length);
      return status;
    }
    const item = { id: file.nextId, iova, length };
    file.nextId = (file.nextId + 1) >>> 0;
    file.items.set(item.id, item);
    return call.respond(TestAccessPages, { outAccessPagesId: item.id });
  });
}

/** DESTROY_ACCESS_PAGES. */
export function destroyAccessPages(call: TestCall): number {
  return withAccess(call, (file) => {
    const item = file.items.get(call.read(TestDestroyAccessPages).accessPagesId);
    if (item === undefined) return -ENOENT;
    file.unpin(item);
    return 0;
  });
}

/** ACCESS_RW: copies between user memory and IOVAs. */
export function accessRw(call: TestCall): number {
  const { flags, length, uptr, iova: given } = call.read(TestAccessRw);
  if (length > MAX_BYTES) return -ENOMEM;
  if ((flags & ~(MOCK_ACCESS_RW_WRITE | MOCK_ACCESS_RW_SLOW_PATH | MOCK_FLAGS_ACCESS_SYZ)) !== 0)
    return -EOPNOTSUPP;
  return withAccess(call, ({ access }) => {
    const { mm } = call.core.current;
    if (call.core.allocFails('access rw buffer')) return -ENOMEM;
    const data = new Uint8Array(Number(length));
    const write = (flags & MOCK_ACCESS_RW_WRITE) !== 0;
    if (write && mm.copyIn(uptr, data) < 0) return -EFAULT;
    const iova = (flags & MOCK_FLAGS_ACCESS_SYZ) === 0 ? given : nthAreaIova(access.ioas, given);
    const slow = (flags & MOCK_ACCESS_RW_SLOW_PATH) !== 0 ? ACCESS_RW_SLOW_PATH : 0;
    const status = access.rw(iova, data, (write ? ACCESS_RW_WRITE : 0) | slow);
    if (status < 0) return status;
    return !write && mm.copyOut(uptr, data) < 0 ? -EFAULT : 0;
  });
}

/** @returns what `act` says of the access that the call is about | -EBADFD the descriptor is of no access */
function withAccess(call: TestCall, act: (file: AccessFile) => number): number {
  const file = call.core.current.files.get(call.id);
  return file instanceof AccessFile ? act(file) : -EBADFD;
}

function comparePages(call: TestCall, uptr: bigint, frames: readonly number[]): number {
  const pages = new PagesAt(call);
  for (let i = 0; i < frames.length; i++) {
    const pfn = pages.pfnAt(uptr + BigInt(i) * PAGE);
    if (pfn < 0) return pfn;
    if (pfn !== frames[i]) return -EBADE;
  }
  return 0;
}
