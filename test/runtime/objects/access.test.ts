import test from 'ava';
import { OBJ_IOAS } from '../../../runtime/core/objects-layout.js';
import { Access } from '../../../runtime/objects/access.js';
import type { Ioas } from '../../../runtime/objects/ioas.js';
import { CoreBench, errnoOf } from '../../kit/core-bench.js';
import { forked } from '../../kit/processes.js';

const [EPERM, ENOENT, ENOMEM, EFAULT, EBUSY, EINVAL, EDEADLOCK, EOVERFLOW, EADDRINUSE] = [
  1, 2, 12, 14, 16, 22, 35, 75, 98,
];
const U64_MAX = 2n ** 64n - 1n;

/** An IOAS with four pages at 0x10000, and an access that remembers what it is told and lets go of it. */
function scene({ letGo = true } = {}) {
  const bench = new CoreBench();
  const { fd, user } = bench;
  const { ioasId } = fd.ioasAlloc();
  const userVa = user.alloc(0x8000);
  fd.ioasMap({ ioasId, userVa, length: 0x4000, iova: 0x10000n });
  const held: [bigint, bigint][] = [];
  const told: [bigint, bigint][] = [];
  const access = fd.createAccess({
    needsPinPages: true,
    unmap(iova, length) {
      told.push([iova, length]);
      if (!letGo) return;
      for (const [start, bytes] of held.splice(0)) access.unpinPages(start, bytes);
    },
  });
  access.attach(ioasId);
  const pin = (iova: bigint, length: bigint, writable = false) => {
    const frames = access.pinPages(iova, length, { writable });
    held.push([iova, length]);
    return frames;
  };
  return { bench, fd, user, ioasId, userVa, access, held, told, pin };
}

test('pin: gives the frames behind the mapping, and holds them', (t) => {
  const { bench, user, userVa, access, pin } = scene();
  const before = bench.frameRefs();
  const frames = pin(0x11000n, 0x2000n);
  t.deepEqual(frames, [bench.pfnOf(userVa + 0x1000n), bench.pfnOf(userVa + 0x2000n)]);
  t.is(bench.frameRefs(), before + 2);
  t.is(user.refs(frames[0]!), 2);
  access.unpinPages(0x11000n, 0x2000n);
  t.is(bench.frameRefs(), before);
});

test('pin: one page is pinned once, however many accesses and page tables hold it', (t) => {
  const { bench, ioasId, access, pin } = scene();
  const { vfio } = bench.bind();
  vfio.attach(ioasId);
  const before = bench.frameRefs();
  pin(0x10000n, 0x4000n);
  pin(0x10000n, 0x4000n);
  pin(0x11000n, 0x1000n);
  t.is(bench.frameRefs(), before);
  vfio.close();
  t.is(bench.frameRefs(), before, 'the accesses hold them now');
  access.unpinPages(0x10000n, 0x4000n);
  access.unpinPages(0x10000n, 0x4000n);
  t.is(bench.frameRefs(), before - 3, 'one page is held by itself');
});

test('pin: what is wrong with the range, in the order Linux looks', (t) => {
  const { fd, ioasId, userVa, access } = scene();
  const pin = (iova: bigint, length: bigint, writable = false) =>
    errnoOf(() => access.pinPages(iova, length, { writable }));
  t.is(pin(0x10000n, 0n), EINVAL);
  t.is(pin(U64_MAX, 0x1000n), EOVERFLOW);
  t.is(pin(0x9000n, 0x1000n), ENOENT, 'nothing there');
  t.is(pin(0x13000n, 0x2000n), ENOENT, 'runs off the end');
  t.is(pin(0x10001n, 0x1000n), EINVAL, 'unaligned');
  t.is(pin(0x10000n, 0x800n), 0, 'the end may be');
  access.unpinPages(0x10000n, 0x800n);
  fd.ioasMap({ ioasId, userVa: userVa + 0x4000n, length: 0x1000, iova: 0x20000n, writeable: false });
  t.is(pin(0x20000n, 0x1000n), 0);
  t.is(pin(0x20000n, 0x1000n, true), EPERM);
  fd.ioasMap({ ioasId, userVa: userVa + 0x5000n, length: 0x1000, iova: 0x21000n, readable: false });
  t.is(pin(0x21000n, 0x1000n), EPERM);
  t.is(pin(0x21000n, 0x1000n, true), 0);
});

test('pin: a read-write copy of pages first mapped read-only cannot be, so a write pin of them is EPERM', (t) => {
  const { fd, ioasId, userVa, access } = scene();
  fd.ioasMap({ ioasId, userVa, length: 0x1000, iova: 0x20000n, writeable: false });
  const copy = { srcIoasId: ioasId, dstIoasId: ioasId, srcIova: 0x20000n, length: 0x1000 };
  t.is(
    errnoOf(() => fd.ioasCopy(copy)),
    EPERM,
  );
  t.is(
    errnoOf(() => access.pinPages(0x20000n, 0x1000, { writable: true })),
    EPERM,
  );
});

test('pin: over several areas, and a failure in the second leaves the first as it was', (t) => {
  const { bench, fd, ioasId, userVa, access } = scene();
  fd.ioasMap({ ioasId, userVa: userVa + 0x4000n, length: 0x1000, iova: 0x14000n, readable: false });
  const before = bench.frameRefs();
  t.is(
    errnoOf(() => access.pinPages(0x12000n, 0x3000)),
    EPERM,
  );
  t.is(bench.frameRefs(), before);
  fd.ioasUnmap({ ioasId, iova: 0x14000n, length: 0x1000 });
  fd.ioasMap({ ioasId, userVa: userVa + 0x6000n, length: 0x2000, iova: 0x14000n });
  const frames = access.pinPages(0x13000n, 0x2000);
  t.deepEqual(frames, [bench.pfnOf(userVa + 0x3000n), bench.pfnOf(userVa + 0x6000n)]);
  access.unpinPages(0x13000n, 0x2000);
  t.is(bench.frameRefs(), before);
});

test('pin: user memory that is gone is EFAULT, unless a page table holds the frames', (t) => {
  const { bench, fd, user, ioasId, access, pin } = scene();
  const va = user.alloc(0x1000);
  const frame = bench.pfnOf(va);
  fd.ioasMap({ ioasId, userVa: va, length: 0x1000, iova: 0x40000n });
  const other = fd.ioasAlloc().ioasId;
  fd.ioasCopy({ srcIoasId: ioasId, dstIoasId: other, srcIova: 0x40000n, length: 0x1000, dstIova: 0n });
  const { vfio } = bench.bind();
  vfio.attach(other);
  user.free(va, 0x1000);
  t.deepEqual(pin(0x40000n, 0x1000n), [frame]);
  access.unpinPages(0x40000n, 0x1000);
  vfio.close();
  t.is(
    errnoOf(() => access.pinPages(0x40000n, 0x1000)),
    EFAULT,
  );
});

test('pin: an access that cannot be told of an unmap, or did not say that it pins, may not', (t) => {
  const { fd, ioasId } = scene();
  const mute = fd.createAccess({ needsPinPages: true });
  mute.attach(ioasId);
  t.is(
    errnoOf(() => mute.pinPages(0x10000n, 0x1000)),
    EINVAL,
  );
  const reader = fd.createAccess({ unmap: () => undefined });
  reader.attach(ioasId);
  t.is(
    errnoOf(() => reader.pinPages(0x10000n, 0x1000)),
    EINVAL,
  );
});

test('unpin: what is not pinned exactly so is EINVAL, and nothing changes', (t) => {
  const { bench, access, pin, held } = scene();
  pin(0x11000n, 0x2000n);
  held.length = 0;
  const before = bench.frameRefs();
  const unpin = (iova: bigint, length: bigint) => errnoOf(() => access.unpinPages(iova, length));
  t.is(unpin(0x11000n, 0x1000n), EINVAL, 'a part');
  t.is(unpin(0x10000n, 0x3000n), EINVAL, 'more');
  t.is(unpin(0x10000n, 0x1000n), EINVAL);
  t.is(unpin(0x9000n, 0x1000n), EINVAL, 'nothing is mapped there');
  t.is(unpin(0x11000n, 0n), EINVAL);
  t.is(unpin(U64_MAX, 2n), EINVAL);
  t.is(bench.frameRefs(), before);
  t.is(unpin(0x11000n, 0x2000n), 0);
  t.is(unpin(0x11000n, 0x2000n), EINVAL, 'twice');
  access.detach();
  t.is(unpin(0x11000n, 0x2000n), EINVAL);
});

test('unmap: the holder is told of the whole area, lets go, and the unmap goes on', (t) => {
  const { fd, ioasId, told, pin, access } = scene();
  pin(0x11000n, 0x1000n);
  t.is(fd.ioasUnmap({ ioasId, iova: 0x10000n, length: 0x4000 }).length, 0x4000n);
  t.deepEqual(told, [[0x10000n, 0x4000n]]);
  t.is(
    errnoOf(() => access.pinPages(0x10000n, 0x1000)),
    ENOENT,
  );
});

test('unmap: nobody is told of an area that is not pinned', (t) => {
  const { fd, ioasId, told } = scene();
  fd.ioasUnmap({ ioasId, iova: 0x10000n, length: 0x4000 });
  t.deepEqual(told, []);
});

test('unmap: one that does not let go makes it EDEADLOCK after 101 tries, and may pin nothing more there', (t) => {
  const { bench, fd, ioasId, told, pin, access } = scene({ letGo: false });
  pin(0x10000n, 0x1000n);
  t.is(
    errnoOf(() => fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX })),
    EDEADLOCK,
  );
  t.is(told.length, 101);
  t.is(
    errnoOf(() => access.pinPages(0x10000n, 0x1000)),
    EINVAL,
  );
  t.is(
    errnoOf(() => access.read(0x10000n, new Uint8Array(1))),
    EINVAL,
  );
  t.regex(bench.logged.join(), /does not let go/);
  access.unpinPages(0x10000n, 0x1000);
  t.is(fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX }).length, 0x4000n);
});

test('unmap: what lies before a stuck area is gone all the same', (t) => {
  const { fd, ioasId, userVa, pin, access } = scene({ letGo: false });
  fd.ioasMap({ ioasId, userVa, length: 0x1000, iova: 0x1000n });
  pin(0x10000n, 0x1000n);
  t.is(
    errnoOf(() => fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX })),
    EDEADLOCK,
  );
  t.is(
    errnoOf(() => access.read(0x1000n, new Uint8Array(1))),
    ENOENT,
  );
});

test('unmap from within unmap: nobody is told twice at once, the inner one is EDEADLOCK', (t) => {
  const { bench, fd, ioasId } = scene();
  const seen: number[] = [];
  const access = fd.createAccess({
    needsPinPages: true,
    unmap: (iova, length) => {
      if (length === U64_MAX) return;
      seen.push(errnoOf(() => fd.ioasUnmap({ ioasId, iova, length })));
      access.unpinPages(0x10000n, 0x1000);
      seen.push(errnoOf(() => fd.ioasUnmap({ ioasId, iova, length })));
    },
  });
  access.attach(ioasId);
  access.pinPages(0x10000n, 0x1000);
  t.is(
    errnoOf(() => fd.ioasUnmap({ ioasId, iova: 0x10000n, length: 0x4000 })),
    ENOENT,
    'it is gone already',
  );
  t.deepEqual(seen, [EDEADLOCK, 0]);
  t.is(bench.frameRefs(), 8);
});

test('what is still pinned when an access leaves its IOAS is given back, and said', (t) => {
  const { bench, fd, ioasId, access, pin } = scene({ letGo: false });
  const before = bench.frameRefs();
  pin(0x10000n, 0x2000n);
  pin(0x10000n, 0x2000n);
  pin(0x12000n, 0x1000n);
  const other = fd.createAccess({ needsPinPages: true, unmap: () => undefined });
  other.attach(ioasId);
  t.is(
    errnoOf(() => other.unpinPages(0x12000n, 0x1000)),
    EINVAL,
    'those are another one’s',
  );
  access.detach();
  t.regex(bench.logged.join(), /leaves an IOAS with pages pinned/);
  t.is(bench.frameRefs(), before);
  access.attach(ioasId);
  pin(0x13000n, 0x1000n);
  access.destroy();
  other.destroy();
  t.notThrows(() => fd.close());
  bench.assertNothingLeft(t, 8);
});

test('alignment: an access that pins asks for whole pages, as long as it is attached', (t) => {
  const bench = new CoreBench();
  const { fd, user } = bench;
  const { ioasId } = fd.ioasAlloc();
  t.is(fd.ioasIovaRanges(ioasId).alignment, 1n);
  const access = fd.createAccess({ needsPinPages: true, unmap: () => undefined });
  access.attach(ioasId);
  t.is(fd.ioasIovaRanges(ioasId).alignment, 4096n);
  access.detach();
  t.is(fd.ioasIovaRanges(ioasId).alignment, 1n);
  fd.ioasMap({ ioasId, userVa: user.alloc(0x1000) + 1n, length: 5, iova: 0x77n });
  t.is(
    errnoOf(() => access.attach(ioasId)),
    EADDRINUSE,
  );
  t.is(fd.ioasIovaRanges(ioasId).alignment, 1n);
  const bytewise = fd.createAccess();
  bytewise.attach(ioasId);
  t.is(fd.ioasIovaRanges(ioasId).alignment, 1n);
});

test('attach, replace, detach: what they say of the state they find', (t) => {
  const { fd, ioasId, access, told } = scene();
  t.is(
    errnoOf(() => access.attach(ioasId)),
    EINVAL,
    'attached already',
  );
  access.detach();
  t.deepEqual(told, [[0n, U64_MAX]]);
  t.notThrows(() => access.detach());
  t.is(
    errnoOf(() => access.replace(ioasId)),
    ENOENT,
    'attached to nothing',
  );
  t.is(
    errnoOf(() => access.pinPages(0x10000n, 0x1000)),
    ENOENT,
  );
  t.is(
    errnoOf(() => access.read(0x10000n, new Uint8Array(1))),
    ENOENT,
  );
  t.is(
    errnoOf(() => access.attach(99)),
    ENOENT,
  );
  access.attach(ioasId);
  t.is(
    errnoOf(() => access.replace(access.accessId)),
    ENOENT,
    'that is no IOAS',
  );
  t.is(
    errnoOf(() => fd.destroy(ioasId)),
    EBUSY,
  );
});

test('replace: the owner is told to let go of everything, and can while it moves', (t) => {
  const { bench, fd, userVa, ioasId, access, told, pin } = scene();
  const other = fd.ioasAlloc().ioasId;
  fd.ioasMap({ ioasId: other, userVa: userVa + 0x4000n, length: 0x1000, iova: 0x10000n });
  pin(0x10000n, 0x1000n);
  access.replace(other);
  t.deepEqual(told, [[0n, U64_MAX]]);
  t.deepEqual(pin(0x10000n, 0x1000n), [bench.pfnOf(userVa + 0x4000n)]);
  fd.destroy(ioasId);
  access.replace(other);
  t.is(told.length, 1, 'moving to where it is does nothing');
});

test('replace from within unmap is EBUSY', (t) => {
  const bench = new CoreBench();
  const { fd } = bench;
  const [first, second] = [fd.ioasAlloc().ioasId, fd.ioasAlloc().ioasId];
  const seen: number[] = [];
  const access = fd.createAccess({
    needsPinPages: true,
    unmap: () =>
      seen.push(
        errnoOf(() => access.attach(first)),
        errnoOf(() => access.replace(first)),
      ),
  });
  access.attach(first);
  access.replace(second);
  t.deepEqual(seen, [EBUSY, ENOENT]);
});

test('destroy: lets the IOAS and the iommufd go; its own unmap cannot', (t) => {
  const { bench, fd, user, userVa, ioasId, access, pin } = scene();
  t.is(
    errnoOf(() => fd.destroy(access.accessId)),
    EBUSY,
    'its owner is a user',
  );
  pin(0x10000n, 0x2000n);
  fd.close();
  t.not(fd.ctx.objectCount, 0, 'the access holds the file open');
  access.destroy();
  t.is(user.free(userVa, 0x8000), 0);
  bench.assertNothingLeft(t, 0);
  t.is(ioasId, 1);

  const again = new CoreBench();
  const { ioasId: id } = again.fd.ioasAlloc();
  again.fd.ioasMap({ ioasId: id, userVa: again.user.alloc(0x1000), length: 0x1000, iova: 0n });
  const seen: number[] = [];
  const suicidal = again.fd.createAccess({
    needsPinPages: true,
    unmap: (iova, length) => {
      seen.push(errnoOf(() => suicidal.destroy()));
      if (length < U64_MAX) suicidal.unpinPages(iova, length);
    },
  });
  suicidal.attach(id);
  suicidal.pinPages(0n, 0x1000);
  again.fd.ioasUnmap({ ioasId: id, iova: 0n, length: 0x1000 });
  t.deepEqual(seen, [EBUSY]);
});

const pattern = (bytes: number) => Uint8Array.from({ length: bytes }, (_, i) => (i * 7 + 3) & 0xff);

for (const slowPath of [false, true])
  test(`rw: reads and writes across pages and areas (slowPath ${slowPath})`, (t) => {
    const { bench, fd, user, ioasId, userVa, access } = scene();
    fd.ioasMap({ ioasId, userVa: userVa + 0x5000n, length: 0x1000, iova: 0x14000n });
    const before = bench.frameRefs();
    const bytes = pattern(0x2800);
    access.write(0x12700n, bytes, { slowPath });
    const back = new Uint8Array(bytes.length);
    access.read(0x12700n, back, { slowPath });
    t.deepEqual(back, bytes);
    const first = new Uint8Array(0x1900);
    user.copyIn(userVa + 0x2700n, first);
    t.deepEqual(first, bytes.slice(0, 0x1900));
    const second = new Uint8Array(0xf00);
    user.copyIn(userVa + 0x5000n, second);
    t.deepEqual(second, bytes.slice(0x1900));
    t.is(bench.frameRefs(), before);
  });

test('rw: what it refuses', (t) => {
  const { fd, ioasId, userVa, access } = scene();
  const read = (iova: bigint, bytes: number) => errnoOf(() => access.read(iova, new Uint8Array(bytes)));
  t.is(read(0x10000n, 0), EINVAL);
  t.is(read(U64_MAX, 2), EOVERFLOW);
  t.is(read(0x9000n, 1), ENOENT);
  t.is(read(0x13fffn, 2), ENOENT);
  fd.ioasMap({ ioasId, userVa, length: 0x1000, iova: 0x20000n, writeable: false });
  t.is(
    errnoOf(() => access.write(0x20000n, pattern(1))),
    EPERM,
  );
  fd.ioasMap({ ioasId, userVa: 0x1000n, length: 0x2000, iova: 0x30000n });
  t.is(read(0x30000n, 1), EFAULT);
  for (const bytes of [1, 0x1800])
    t.is(
      errnoOf(() => access.read(0x30000n, new Uint8Array(bytes), { slowPath: true })),
      EFAULT,
    );
});

test('rw: another process reaches the memory of the one that mapped it; dead, only what is pinned', (t) => {
  const { bench, ioasId, userVa, user, fd } = scene();
  const child = forked(bench);
  user.copyOut(userVa, pattern(0x2000));
  const access = fd.createAccess();
  access.attach(ioasId);
  bench.core.as(child, () => fd.ioasMap({ ioasId, userVa, length: 0x2000, iova: 0x50000n }));
  for (const bytes of [0x10, 0x1800]) {
    const into = new Uint8Array(bytes);
    access.read(0x50000n, into);
    t.deepEqual(into, pattern(bytes));
  }
  child.mm.alive = false;
  for (const bytes of [0x10, 0x1800])
    t.is(
      errnoOf(() => access.read(0x50000n, new Uint8Array(bytes))),
      EFAULT,
    );

  const second = forked(bench);
  bench.core.as(second, () => fd.ioasMap({ ioasId, userVa, length: 0x2000, iova: 0x60000n }));
  const { vfio } = bench.bind();
  t.is(
    errnoOf(() => vfio.attach(ioasId)),
    EFAULT,
    'what the dead child mapped cannot be pinned',
  );
  fd.ioasUnmap({ ioasId, iova: 0x50000n, length: 0x2000 });
  vfio.attach(ioasId);
  second.mm.alive = false;
  const into = new Uint8Array(0x1800);
  access.read(0x60000n, into);
  t.deepEqual(into, pattern(0x1800));
});

test('create: ENOMEM when the object cannot be made', (t) => {
  const { bench, fd } = scene();
  bench.core.own.failNth.arm(1);
  t.is(
    errnoOf(() => fd.createAccess()),
    ENOMEM,
  );
  t.throws(() => fd.createAccess({ unmapp: 1 } as never), { instanceOf: TypeError });
});

test('internal access: what it pins is locked, an unmap is EBUSY before the range is judged', (t) => {
  const { bench, fd, ioasId, told } = scene();
  const ioas = fd.ctx.get<Ioas>(ioasId, OBJ_IOAS)!;
  fd.ctx.put(ioas);
  const internal = Access.createInternal(fd.ctx) as Access;
  t.is(internal.attachInternal(ioas), 0);
  t.is(internal.attachInternal(ioas), -EINVAL);
  const frames: number[] = [];
  t.is(internal.pinPages(0x11000n, 0x2000n, frames), 0);
  t.is(frames.length, 2);
  t.is(
    errnoOf(() => fd.ioasUnmap({ ioasId, iova: 0x10000n, length: 0x4000 })),
    EBUSY,
  );
  t.is(
    errnoOf(() => fd.ioasUnmap({ ioasId, iova: 0x10000n, length: 0x1000 })),
    EBUSY,
  );
  t.is(
    errnoOf(() => fd.ioasUnmap({ ioasId, iova: 0n, length: U64_MAX })),
    EBUSY,
  );
  t.deepEqual(told, []);
  internal.unpinPages(0x11000n, 0x2000n);
  internal.detach();
  t.is(internal.destroyAccess(), 0);
  t.is(fd.ioasUnmap({ ioasId, iova: 0x10000n, length: 0x4000 }).length, 0x4000n);
  t.is(bench.frameRefs(), 8);
});
