import test from 'ava';
import { openMemFile } from '../../../runtime/mem-file.js';
import { CoreBench, type CoreBenchOptions, errnoOf } from '../../kit/core-bench.js';
import { forked, type Process } from '../../kit/processes.js';

const [EPERM, ENOMEM, EBUSY, EINVAL, EOPNOTSUPP] = [1, 12, 16, 22, 95];
const RLIMIT_MODE = 0;
const PAGE = 4096;
const U64_MAX = 2n ** 64n - 1n;

/** An IOAS with a page table, and a process without privilege that may lock `pages` pages. */
function scene(pages: number, options: CoreBenchOptions = {}) {
  const bench = new CoreBench(options);
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { vfio } = bench.bind();
  vfio.attach(ioasId);
  const task = forked(bench);
  task.memlockBytes = pages * PAGE + PAGE - 1;
  const userVa = bench.user.alloc('1MiB');
  const map = (length: number, offset = 0n, by: Process = task) =>
    bench.core.as(by, () => fd.ioasMap({ ioasId, userVa: userVa + offset, length }).iova);
  return { bench, fd, ioasId, vfio, task, userVa, map };
}

test('charge: what is pinned counts for user and process, and is given back', (t) => {
  const { fd, ioasId, task, map } = scene(10);
  const first = map(0x3000);
  map(0x1000);
  t.is(task.user.lockedVm, 4);
  t.deepEqual(task.mm.account, { pinnedVm: 4, lockedVm: 0 });
  fd.ioasUnmap({ ioasId, iova: first, length: 0x3000 });
  t.is(task.user.lockedVm, 1);
  fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
  t.is(task.user.lockedVm, 0);
  t.deepEqual(task.mm.account, { pinnedVm: 0, lockedVm: 0 });
});

test('charge: over RLIMIT_MEMLOCK is ENOMEM, and nothing stays', (t) => {
  const { bench, task, map } = scene(4);
  map(0x3000);
  const refs = bench.frameRefs();
  t.is(
    errnoOf(() => map(0x2000)),
    ENOMEM,
  );
  t.is(task.user.lockedVm, 3);
  t.is(bench.frameRefs(), refs);
  t.is(
    errnoOf(() => map(0x1000)),
    0,
  );
});

test('charge: mapping costs nothing until a page table or an access pins', (t) => {
  const { bench, fd, task, userVa } = scene(2);
  const { ioasId } = fd.ioasAlloc();
  bench.core.as(task, () => fd.ioasMap({ ioasId, userVa, length: 0x4000, iova: 0n }));
  t.is(task.user.lockedVm, 0);
  const access = fd.createAccess({ needsPinPages: true, unmap: () => undefined });
  access.attach(ioasId);
  access.pinPages(0n, 0x1000);
  access.pinPages(0n, 0x1000);
  access.pinPages(0n, 0x2000);
  t.is(task.user.lockedVm, 2, 'it is the one who mapped that pays, once');
  t.is(
    errnoOf(() => access.pinPages(0x1000n, 0x3000)),
    ENOMEM,
  );
  access.read(0n, new Uint8Array(0x4000), { slowPath: true });
  t.is(task.user.lockedVm, 2, 'a copy is not charged');
  access.unpinPages(0n, 0x1000);
  access.unpinPages(0n, 0x1000);
  t.is(task.user.lockedVm, 2);
  access.unpinPages(0n, 0x2000);
  t.is(task.user.lockedVm, 0);
});

test('charge: IOAS_COPY shares the charge, and the last unmap gives it back', (t) => {
  const { bench, fd, ioasId, task, map } = scene(4);
  const iova = map(0x4000);
  const other = fd.ioasAlloc().ioasId;
  const copy = bench.core.as(
    forked(bench),
    () => fd.ioasCopy({ srcIoasId: ioasId, dstIoasId: other, srcIova: iova, length: 0x4000 }).iova,
  );
  fd.ioasCopy({ srcIoasId: ioasId, dstIoasId: ioasId, srcIova: iova, length: 0x2000 });
  t.is(task.user.lockedVm, 4);
  fd.ioasUnmap({ ioasId, iova, length: 0x4000 });
  t.is(task.user.lockedVm, 2, 'two pages are in a page table still');
  fd.ioasUnmap({ ioasId: other, iova: copy, length: 0x4000 });
  t.is(task.user.lockedVm, 2);
});

test('charge: CAP_IPC_LOCK when it is mapped frees from the limit, not from the count', (t) => {
  const { bench, fd, ioasId, task, map } = scene(1);
  task.capabilities.add(14);
  map(0x4000);
  t.is(task.user.lockedVm, 0);
  t.is(task.mm.account.pinnedVm, 4);
  task.capabilities.clear();
  t.is(
    errnoOf(() => map(0x4000)),
    ENOMEM,
  );
  fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
  t.is(task.mm.account.pinnedVm, 0);
  t.is(bench.core.own.user.lockedVm, 0);
});

test('charge: two processes of one user share its limit; processes of two users do not', (t) => {
  const { bench, map } = scene(4);
  const limit = 4 * PAGE;
  const [one, same, other] = [forked(bench), forked(bench), forked(bench)];
  for (const task of [one, same, other]) task.memlockBytes = limit;
  Object.assign(same, { user: one.user });
  map(0x3000, 0n, one);
  t.is(
    errnoOf(() => map(0x2000, 0n, same)),
    ENOMEM,
  );
  t.is(
    errnoOf(() => map(0x2000, 0n, other)),
    0,
  );
});

test('charge: MM mode counts per process, against the limit of the one that mapped', (t) => {
  const { bench, fd, ioasId, task, map } = scene(4);
  fd.ctx.accountMode = 2;
  const same = forked(bench);
  Object.assign(same, { user: task.user });
  same.memlockBytes = 4 * PAGE;
  map(0x3000);
  map(0x4000, 0n, same);
  t.deepEqual(task.mm.account, { pinnedVm: 3, lockedVm: 3 });
  t.deepEqual(same.mm.account, { pinnedVm: 4, lockedVm: 4 });
  t.is(task.user.lockedVm, 0);
  t.is(
    errnoOf(() => map(0x2000)),
    ENOMEM,
  );
  fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
  t.deepEqual(task.mm.account, { pinnedVm: 0, lockedVm: 0 });
});

test('charge: a second page table costs nothing more, nor does an access, whichever goes first', (t) => {
  const { bench, fd, ioasId, task, map, vfio } = scene(4, {
    iommus: [{ privateDomains: true }, { privateDomains: true }],
    devices: [{ iommu: 0 }, { iommu: 1 }],
  });
  const iova = map(0x4000);
  const other = bench.bind(1).vfio;
  other.attach(ioasId);
  const access = fd.createAccess({ needsPinPages: true, unmap: () => undefined });
  access.attach(ioasId);
  access.pinPages(iova, 0x2000);
  t.is(task.user.lockedVm, 4);
  vfio.detach();
  t.is(task.user.lockedVm, 4);
  other.detach();
  t.is(task.user.lockedVm, 2);
  access.unpinPages(iova, 0x2000);
  t.is(task.user.lockedVm, 0);
});

test('charge: what a dead process mapped is given back all the same', (t) => {
  const { fd, ioasId, task, map } = scene(4);
  map(0x4000);
  task.mm.alive = false;
  fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
  t.is(task.user.lockedVm, 0);
});

/** `count` mappings of one page of a memfd each by `task`, in two IOASes with page tables. */
function files(options: CoreBenchOptions = {}) {
  const base = scene(8, {
    iommus: [{ privateDomains: true }, { privateDomains: true }],
    devices: [{ iommu: 0 }, { iommu: 1 }],
    ...options,
  });
  const { bench, fd, ioasId, task } = base;
  const second = fd.ioasAlloc().ioasId;
  bench.bind(1).vfio.attach(second);
  const file = bench.user.createFile(4 * PAGE);
  const number = task.files.install(openMemFile(file));
  bench.core.as(task, () => {
    fd.ioasMapFile({ ioasId, fd: number, length: 0x3000 });
    fd.ioasMapFile({ ioasId: second, fd: number, length: 0x1000, iova: 0n });
  });
  fd.ioasCopy({ srcIoasId: second, dstIoasId: ioasId, srcIova: 0n, length: 0x1000 });
  const next = forked(bench);
  next.memlockBytes = 8 * PAGE;
  const change = () => bench.core.as(next, () => errnoOf(() => fd.ioasChangeProcess()));
  return { ...base, second, next, change };
}

test('change process: the charge moves as one, over all IOASes, shared pages once', (t) => {
  const { fd, ioasId, second, task, next, change } = files();
  t.is(task.user.lockedVm, 4);
  t.is(change(), 0);
  t.is(task.user.lockedVm, 0);
  t.deepEqual(task.mm.account, { pinnedVm: 0, lockedVm: 0 });
  t.is(next.user.lockedVm, 4);
  t.is(next.mm.account.pinnedVm, 4);
  t.is(change(), 0, 'again changes nothing');
  t.is(next.user.lockedVm, 4);
  task.mm.alive = false;
  for (const id of [ioasId, second]) fd.ioasUnmap({ ioasId: id, iova: 0n, length: U64_MAX });
  t.is(next.user.lockedVm, 0);
  t.is(next.mm.account.pinnedVm, 0);
});

test('change process: over the limit of the caller is ENOMEM, and the old owner pays on', (t) => {
  const { task, next, change } = files();
  next.memlockBytes = 3 * PAGE;
  t.is(change(), ENOMEM);
  t.is(task.user.lockedVm, 4);
  t.is(next.user.lockedVm, 0);
  t.is(next.mm.account.pinnedVm, 0);
  next.memlockBytes = 4 * PAGE;
  t.is(change(), 0);
});

test('change process: within one user the new charge comes before the old one goes', (t) => {
  const { task, next, change } = files();
  Object.assign(next, { user: task.user });
  next.memlockBytes = 7 * PAGE;
  t.is(change(), ENOMEM);
  next.memlockBytes = 8 * PAGE;
  t.is(change(), 0);
  t.is(next.user.lockedVm, 4);
});

test('change process: one page of user memory anywhere, or of a dma-buf, is EINVAL', (t) => {
  const { bench, fd, second, task, userVa, change } = files();
  const { iova } = bench.core.as(task, () => fd.ioasMap({ ioasId: second, userVa, length: 0x1000 }));
  t.is(change(), EINVAL);
  fd.ioasUnmap({ ioasId: second, iova, length: 0x1000 });
  const { fd: buf } = bench.core.dmabuf(PAGE);
  fd.ioasMapFile({ ioasId: second, fd: buf, length: 0x1000, iova: 0x10000n });
  t.is(change(), EINVAL);
  fd.ioasUnmap({ ioasId: second, iova: 0x10000n, length: 0x1000 });
  t.is(change(), 0);
});

for (const [compat, old, young] of [
  ['fixed', 0, 4],
  ['7.0', 4, 0],
] as const)
  test(`change process: pinned_vm of what is exempt from the limit (compat ${compat})`, (t) => {
    const bench = new CoreBench({ compat });
    const { fd } = bench;
    const { ioasId } = fd.ioasAlloc();
    bench.bind().vfio.attach(ioasId);
    const { fd: memfd } = bench.core.memfd(4 * PAGE);
    fd.ioasMapFile({ ioasId, fd: memfd, length: 4 * PAGE, iova: 0n });
    const next = forked(bench);
    bench.core.as(next, () => fd.ioasChangeProcess());
    t.is(bench.user.account.pinnedVm, old);
    t.is(next.mm.account.pinnedVm, young);
    fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX });
    t.is(next.mm.account.pinnedVm, young - 4);
  });

for (const [compat, errno] of [
  ['fixed', 0],
  ['7.0', EINVAL],
] as const)
  test(`change process: from a process that is gone, in MM mode (compat ${compat})`, (t) => {
    const { fd, task, next, change, bench, ioasId } = files({ compat });
    fd.ctx.accountMode = 2;
    const file = bench.user.createFile(PAGE);
    const number = task.files.install(openMemFile(file));
    bench.core.as(task, () => fd.ioasMapFile({ ioasId, fd: number, length: PAGE }));
    t.is(task.mm.account.lockedVm, 1);
    task.mm.alive = false;
    t.is(change(), errno);
    t.is(next.mm.account.lockedVm, 1, 'it is done in any case');
  });

test('RLIMIT_MODE: 0 charges the user, 1 the process; only before the first object, and with privilege', (t) => {
  const bench = new CoreBench();
  const { fd, core } = bench;
  const set = (value: bigint, object = 0) => errnoOf(() => fd.setOption(RLIMIT_MODE, value, object));
  t.is(fd.getOption(RLIMIT_MODE), 0n);
  t.is(set(2n), EINVAL);
  t.is(set(1n, 1), EOPNOTSUPP);
  t.is(
    errnoOf(() => fd.getOption(RLIMIT_MODE, 1)),
    EOPNOTSUPP,
  );
  t.is(set(1n), 0);
  t.is(fd.getOption(RLIMIT_MODE), 1n);
  core.own.capabilities.delete(24);
  t.is(set(0n), EPERM);
  t.is(set(7n), EPERM, 'privilege comes first');
  core.own.capabilities.add(24);
  const { ioasId } = fd.ioasAlloc();
  t.is(set(0n), EBUSY);
  t.is(set(7n), EBUSY);
  t.is(fd.getOption(RLIMIT_MODE), 1n, 'reading is free');
  bench.bind().vfio.attach(ioasId);
  core.own.capabilities.clear();
  core.own.memlockBytes = PAGE;
  fd.ioasMap({ ioasId, userVa: bench.user.alloc(2 * PAGE), length: PAGE });
  t.deepEqual(bench.user.account, { pinnedVm: 1, lockedVm: 1 });
});

test('RLIMIT_MODE: it is of the fd that maps', (t) => {
  const { bench, task, map } = scene(8);
  map(0x2000);
  const other = bench.core.open();
  other.setOption(RLIMIT_MODE, 1n);
  const second = other.ioasAlloc().ioasId;
  bench.core.as(task, () => other.ioasMap({ ioasId: second, userVa: bench.user.alloc(PAGE), length: PAGE }));
  const access = other.createAccess({ needsPinPages: true, unmap: () => undefined });
  access.attach(second);
  access.pinPages(0x1000n, PAGE);
  t.is(task.user.lockedVm, 2);
  t.deepEqual(task.mm.account, { pinnedVm: 3, lockedVm: 1 });
});
