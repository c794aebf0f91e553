/**
 * dma-bufs of the test ioctl, over frames of the machine's RAM: DMABUF_GET, DMABUF_REVOKE.
 *
 * @source drivers/iommu/iommufd/selftest.c iommufd_test_dmabuf_get, iommufd_test_dmabuf_revoke
 */
import { EBADF, EINVAL, ENOMEM, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import { TestDmabufGet, TestDmabufRevoke } from '../../uapi/iommufd/test.js';
import { DmaBuf, type DmaBufDescription, MemoryExporter, openDmaBuf } from '../core/dmabuf.js';
import type { TestCall } from './test-call.js';

const PAGE = 4096;
const MAX_PAGES = 512;

/** What a revocation may be asked of. */
class TestExporter extends MemoryExporter {}

/** @returns a descriptor | -EINVAL 0 bytes, or more than 2 MiB | -ENOMEM | -EMFILE */
export function dmabufGet(call: TestCall): number {
  const { core } = call;
  const { memory, frames } = call.mock;
  const pages = Math.ceil(call.read(TestDmabufGet).length / PAGE);
  if (pages === 0 || pages > MAX_PAGES) return -EINVAL;
  for (const site of ['test dmabuf', 'test dmabuf memory', 'dma_buf'])
    if (core.allocFails(site)) return -ENOMEM;
  const pfn = frames.allocRun(pages);
  if (pfn < 0) return -ENOMEM;
  const linear = memory.linearOf(pfn * PAGE, pages * PAGE);
  memory.u8.fill(0, linear, linear + pages * PAGE);
  const exporter = new TestExporter({ pfn, pages }, (range) => frames.free(range.pfn, range.pages));
  const file = openDmaBuf(new DmaBuf(exporter, BigInt(pages * PAGE)));
  const fd = core.current.files.install(file);
  if (fd < 0) file.release();
  return fd;
}

/** @returns 0 | -EBADF no such descriptor | -EINVAL of something else | -EOPNOTSUPP a dma-buf from elsewhere */
export function dmabufRevoke(call: TestCall): number {
  const { dmabufFd, revoked } = call.read(TestDmabufRevoke);
  const file = call.core.current.files.get(dmabufFd);
  if (file === undefined) return -EBADF;
  if (file.kind !== 'dmabuf') return -EINVAL;
  const { dmabuf } = file as DmaBufDescription;
  const { exporter } = dmabuf;
  if (!(exporter instanceof TestExporter)) return -EOPNOTSUPP;
  exporter.revoked = revoked !== 0;
  dmabuf.invalidateMappings();
  return 0;
}
