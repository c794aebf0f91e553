import test from 'ava';
import { errnoOf } from '../../kit/core-bench.js';
import { TestBench } from '../../kit/test-ioctl.js';

const [ENOENT, ENOMEM, EFAULT, EINVAL, EPERM, EADDRINUSE] = [2, 12, 14, 22, 1, 98];
const [EBADE, EBADFD, EOPNOTSUPP] = [52, 77, 95];
const PAGE = 4096n;
const IOVA = 0x100_0000n;
const [WRITE, SLOW_PATH, SYZ] = [1, 4, 0x1_0000];

/** Eight pages of user memory, mapped at IOVA. */
function mapped() {
  const bench = new TestBench();
  const { ioasId } = bench.fd.ioasAlloc();
  const va = bench.user.alloc(Number(8n * PAGE), { chunkLg2: 12 });
  bench.fd.ioasMap({ ioasId, userVa: va, length: 8n * PAGE, iova: IOVA });
  return { bench, ioasId, va };
}

test('CREATE_ACCESS hands out a descriptor, whose close lets go of everything', (t) => {
  const { bench, ioasId, va } = mapped();
  t.is(bench.createAccess(ioasId, 2), -EOPNOTSUPP);
  t.is(bench.createAccess(99), -ENOENT);
  const fd = bench.createAccess(ioasId);
  t.true(fd > 2);
  t.is(bench.accessPages(fd, IOVA, 2n * PAGE, va).status, 0);
  t.is(bench.checkRefs(va, 2n * PAGE, 1), 0);
  t.is(
    errnoOf(() => bench.fd.destroy(ioasId)),
    16,
    'EBUSY: the access is attached to it',
  );
  bench.core.own.files.close(fd);
  t.is(bench.checkRefs(va, 8n * PAGE, 0), 0);
  bench.fd.destroy(ioasId);
  t.is(bench.fd.ctx.objectCount, 0);
});

test('an access that is open keeps the objects of a closed iommufd', (t) => {
  const { bench, ioasId } = mapped();
  const fd = bench.createAccess(ioasId);
  bench.fd.close();
  t.true(bench.fd.ctx.objectCount > 0);
  bench.core.own.files.close(fd);
  t.is(bench.fd.ctx.objectCount, 0);
});

test('ACCESS_PAGES compares frames with those behind a user address', (t) => {
  const { bench, ioasId, va } = mapped();
  const fd = bench.createAccess(ioasId);
  const pages = (iova: bigint, length: bigint, uptr: bigint, flags = 0) =>
    bench.accessPages(fd, iova, length, uptr, flags).status;
  t.is(pages(IOVA, PAGE, va), 0);
  t.is(pages(IOVA, PAGE, 0n), 0, 'nothing to compare with');
  t.is(pages(IOVA, 100n, va), 0);
  t.is(pages(IOVA, PAGE, va + PAGE), -EBADE);
  t.is(pages(IOVA, PAGE, 0x1000n), -EFAULT);
  t.is(pages(IOVA, 9n * PAGE, 0n), -ENOENT);
  t.is(pages(IOVA, 0n, va), -EINVAL);
  t.is(pages(IOVA, PAGE, va, 2), -EOPNOTSUPP);
  t.is(pages(IOVA, 2n ** 24n + 1n, va), -ENOMEM);
  t.is(bench.checkRefs(va, PAGE, 1), 0);
  t.is(bench.checkRefs(va + PAGE, 7n * PAGE, 0), 0, 'what failed pins nothing');
  t.is(bench.accessPages(99, IOVA, PAGE, va).status, -EBADFD);
  t.is(bench.accessPages(bench.fd.fd, IOVA, PAGE, va).status, -EBADFD, 'an iommufd');
  const noPins = bench.createAccess(ioasId, 0);
  t.is(bench.accessPages(noPins, IOVA, PAGE, va).status, -EOPNOTSUPP);
});

test('ACCESS_PAGES: pages to write need a mapping that is writable', (t) => {
  const { bench, ioasId, va } = mapped();
  bench.fd.ioasMap({ ioasId, userVa: va, length: PAGE, iova: IOVA * 2n, writeable: false });
  const fd = bench.createAccess(ioasId);
  t.is(bench.accessPages(fd, IOVA, PAGE, va, WRITE).status, 0);
  t.is(bench.accessPages(fd, IOVA * 2n, PAGE, va, WRITE).status, -EPERM);
  t.is(bench.accessPages(fd, IOVA * 2n, PAGE, va).status, 0);
});

test('DESTROY_ACCESS_PAGES lets go of one item', (t) => {
  const { bench, ioasId, va } = mapped();
  const fd = bench.createAccess(ioasId);
  const { item } = bench.accessPages(fd, IOVA, 2n * PAGE, va);
  const other = bench.accessPages(fd, IOVA + PAGE, PAGE, 0n).item;
  t.not(item, other);
  const destroy = (id: number) => bench.run(6, fd, [[0, 4, id]]).status;
  t.is(destroy(item), 0);
  t.is(bench.checkRefs(va, PAGE, 0), 0);
  t.is(bench.checkRefs(va + PAGE, PAGE, 1), 0);
  t.is(destroy(item), -ENOENT);
  t.is(destroy(other), 0);
});

test('an unmap makes an access let go of the items that it touches', (t) => {
  const { bench, ioasId, va } = mapped();
  bench.fd.ioasMap({ ioasId, userVa: va, length: PAGE, iova: IOVA * 2n });
  const fd = bench.createAccess(ioasId);
  const { item } = bench.accessPages(fd, IOVA, PAGE, va);
  const kept = bench.accessPages(fd, IOVA * 2n, PAGE, va).item;
  t.is(bench.fd.ioasUnmap({ ioasId, iova: IOVA, length: 8n * PAGE }).length, 8n * PAGE);
  t.is(bench.run(6, fd, [[0, 4, item]]).status, -ENOENT);
  t.is(bench.run(6, fd, [[0, 4, kept]]).status, 0);
});

test('ACCESS_RW copies both ways, by either path, over the ends of pages', (t) => {
  const { bench, ioasId, va } = mapped();
  const fd = bench.createAccess(ioasId, 0);
  const scratch = bench.user.alloc(16384);
  const pattern = Uint8Array.from({ length: 6000 }, (_, i) => (i * 7 + 1) & 0xff);
  const read = (from: bigint) => {
    const bytes = new Uint8Array(6000);
    bench.user.copyIn(from, bytes);
    return bytes;
  };
  for (const path of [0, SLOW_PATH]) {
    bench.user.copyOut(
      scratch,
      pattern.map((byte) => byte ^ path),
    );
    t.is(bench.accessRw(fd, IOVA + 1000n, 6000n, scratch, WRITE | path), 0);
    t.deepEqual(read(va + 1000n), read(scratch));
    t.is(bench.accessRw(fd, IOVA + 1000n, 6000n, scratch + 8000n, path), 0);
    t.deepEqual(read(scratch + 8000n), read(scratch));
  }
  t.is(bench.checkRefs(va, 8n * PAGE, 0), 0);
  t.is(bench.accessRw(fd, IOVA, 8n * PAGE + 1n, scratch, 0), -ENOENT);
  t.is(bench.accessRw(fd, IOVA, 10n, 0x1000n, 0), -EFAULT);
  t.is(bench.accessRw(fd, IOVA, 10n, 0x1000n, WRITE), -EFAULT);
  t.is(bench.accessRw(fd, IOVA, 0n, scratch, 0), -EINVAL);
  t.is(bench.accessRw(fd, IOVA, 10n, scratch, 2), -EOPNOTSUPP);
  t.is(bench.accessRw(fd, IOVA, 2n ** 24n + 1n, scratch, 0), -ENOMEM);
});

test('ACCESS_REPLACE_IOAS moves the access and drops its pins', (t) => {
  const { bench, ioasId, va } = mapped();
  const other = bench.fd.ioasAlloc().ioasId;
  const fd = bench.createAccess(ioasId);
  t.is(bench.accessPages(fd, IOVA, PAGE, va).status, 0);
  t.is(bench.run(11, fd, [[0, 4, 99]]).status, -ENOENT);
  t.is(bench.checkRefs(va, PAGE, 1), 0);
  t.is(bench.run(11, fd, [[0, 4, other]]).status, 0);
  t.is(bench.checkRefs(va, PAGE, 0), 0);
  t.is(bench.accessPages(fd, IOVA, PAGE, va).status, -ENOENT, 'nothing is mapped there');
});

test('an access that pins wants whole pages in the IOAS', (t) => {
  const { bench, ioasId, va } = mapped();
  bench.fd.ioasMap({ ioasId, userVa: va, length: 100n, iova: IOVA * 2n });
  t.is(bench.createAccess(ioasId), -EADDRINUSE);
  t.true(bench.createAccess(ioasId, 0) > 0);
});

test('an IOVA can be given as the number of an area and an offset into it', (t) => {
  const { bench, ioasId, va } = mapped();
  bench.fd.ioasMap({ ioasId, userVa: va + 2n * PAGE, length: PAGE, iova: IOVA * 2n });
  const fd = bench.createAccess(ioasId);
  const coded = (area: bigint, offset: bigint) => (offset << 32n) | area;
  t.is(bench.accessPages(fd, coded(0n, PAGE), PAGE, va + PAGE, SYZ).status, 0);
  t.is(bench.accessPages(fd, coded(1n, 0n), PAGE, va + 2n * PAGE, SYZ).status, 0);
  t.is(bench.accessPages(fd, coded(2n, 0n), PAGE, va, SYZ).status, -ENOENT, 'no third area');
  const scratch = bench.user.alloc(4096);
  bench.user.copyOut(va + PAGE, Uint8Array.of(42));
  t.is(bench.accessRw(fd, coded(0n, PAGE), 1n, scratch, SYZ), 0);
  const byte = new Uint8Array(1);
  bench.user.copyIn(scratch, byte);
  t.is(byte[0], 42);
});

test('IOAS_COPY takes such an IOVA where there is the test ioctl, and nowhere else', (t) => {
  const { bench, ioasId, va } = mapped();
  const copy = new Uint8Array(40);
  const view = new DataView(copy.buffer);
  view.setUint32(0, 40, true);
  view.setUint32(4, 7 | SYZ, true);
  view.setUint32(8, ioasId, true);
  view.setUint32(12, ioasId, true);
  view.setBigUint64(16, PAGE, true);
  view.setBigUint64(24, IOVA * 3n, true);
  view.setBigUint64(32, (PAGE * 2n) << 32n, true);
  t.is(bench.fd.ioctl(0x3b83, copy), 0);
  const fd = bench.createAccess(ioasId);
  t.is(bench.accessPages(fd, IOVA * 3n, PAGE, va + 2n * PAGE).status, 0);
});

test('SET_TEMP_MEMORY_LIMIT refuses what is too little for one page', (t) => {
  const bench = new TestBench();
  t.is(bench.run(9, 0, [[0, 4, 11]]).status, -EINVAL);
  t.is(bench.run(9, 0, [[0, 4, 12]]).status, 0);
});

test('wherever an access can fail to be made or to pin, nothing is left', (t) => {
  const { bench, ioasId, va } = mapped();
  const { failNth, files } = bench.core.own;
  const sites = new Set<string>();
  for (let nth = 1; ; nth++) {
    failNth.arm(nth);
    const fd = bench.createAccess(ioasId);
    const pinned = fd < 0 ? fd : bench.accessPages(fd, IOVA, 2n * PAGE, va).status;
    const read = fd < 0 ? fd : bench.accessRw(fd, IOVA, 8n, va + 4n * PAGE, 0);
    const site = failNth.failedAt;
    failNth.arm(0);
    if (fd >= 0) files.close(fd);
    t.is(bench.fd.ctx.objectCount, 1, `failure ${nth} at ${site}`);
    t.is(bench.checkRefs(va, 8n * PAGE, 0), 0, `failure ${nth} at ${site}`);
    if (site === null) break;
    sites.add(site);
    t.true(fd < 0 || pinned < 0 || read < 0, `failure ${nth} at ${site}`);
  }
  for (const site of ['staccess', 'access page list', 'access item', 'access rw buffer'])
    t.true(sites.has(site));
});
