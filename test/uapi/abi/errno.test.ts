import test from 'ava';
import * as errno from '../../../uapi/abi/errno.js';
import { IommufdError } from '../../../uapi/abi/iommufd-error.js';

/** asm-generic/errno-base.h and errno.h. */
const NUMBERS: Readonly<Record<string, number>> = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  ESPIPE: 29,
  ERANGE: 34,
  EDEADLOCK: 35,
  ENOSYS: 38,
  EBADE: 52,
  EOVERFLOW: 75,
  EBADFD: 77,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ETIMEDOUT: 110,
  ECANCELED: 125,
  EOWNERDEAD: 130,
  ENOTRECOVERABLE: 131,
};

test('errno: the constants are exactly those of Linux', (t) => {
  const { errnoName: _, ...constants } = errno;
  t.deepEqual({ ...constants }, NUMBERS);
});

test('errno: every number has its name', (t) => {
  for (const [name, n] of Object.entries(NUMBERS)) t.is(errno.errnoName(n), name);
});

test('errno: an unlisted or negated number still gives a printable name', (t) => {
  t.is(errno.errnoName(4000), 'errno 4000');
  t.is(errno.errnoName(-22), 'errno -22');
});

test('IommufdError: carries number, name, call and field', (t) => {
  const error = new IommufdError(22, 'IOMMU_IOAS_MAP', { field: 'length', detail: 'must not be 0' });
  t.true(error instanceof Error);
  t.is(error.name, 'IommufdError');
  t.is(error.errno, 22);
  t.is(error.code, 'EINVAL');
  t.is(error.syscall, 'IOMMU_IOAS_MAP');
  t.is(error.field, 'length');
  t.is(error.message, 'EINVAL: IOMMU_IOAS_MAP (length): must not be 0');
});

test('IommufdError: field, detail and cause are optional and absent when not given', (t) => {
  const bare = new IommufdError(2, 'IOMMU_DESTROY');
  t.is(bare.message, 'ENOENT: IOMMU_DESTROY');
  t.false('field' in bare);
  t.false('cause' in bare);
  const cause = new Error('why');
  t.is(new IommufdError(2, 'IOMMU_DESTROY', { cause }).cause, cause);
});

test('IommufdError: a negated errno is refused', (t) => {
  t.throws(() => new IommufdError(-22, 'x'), { instanceOf: RangeError });
  t.throws(() => new IommufdError(0, 'x'), { instanceOf: RangeError });
});
