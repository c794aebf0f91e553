/** Attaching PASIDs of a device: which page tables may, and what an attach, a move and a detach leave. */
import test from 'ava';
import { VfioDeviceAttachIommufdPt, VfioDeviceDetachIommufdPt } from '../../../uapi/vfio/cdev.js';
import { CoreBench, type CoreBenchOptions, errnoOf } from '../../kit/core-bench.js';
import type { FakeDomain } from '../../kit/fake-driver.js';

const [ENOENT, ENOMEM, EBUSY, EINVAL, ENOSPC, EOPNOTSUPP] = [2, 12, 16, 22, 28, 95];
const [NEST_PARENT, ALLOC_PASID] = [1, 8];
const PASID = 1;
const [ATTACH, DETACH] = [0x3b77, 0x3b78];
const MAX_PASIDS = 1 << 10;

function scene(options: CoreBenchOptions = {}) {
  const bench = new CoreBench({ iommus: [{ maxPasids: MAX_PASIDS }], ...options });
  const { fd } = bench;
  const { ioasId } = fd.ioasAlloc();
  const { vfio, devId } = bench.bind();
  const hwpt = (flags = ALLOC_PASID, ptId = ioasId) => fd.hwptAlloc({ devId, ptId, flags }).hwptId;
  const at = (pasid: number, device = 0) =>
    (bench.iommus[0]!.attachedPasids.get(`${device}:${pasid}`) as FakeDomain | undefined) ?? null;
  return { bench, fd, ioasId, vfio, devId, hwpt, at, attached: bench.iommus[0]!.attachedPasids };
}

test('a PASID has a page table of its own, is moved by a second attach, and blocked by a detach', (t) => {
  const s = scene();
  const { vfio, fd } = s;
  const [first, second] = [s.hwpt(), s.hwpt()];
  t.is(vfio.attach(first, { pasid: 5 }).ptId, first);
  const domain = s.at(5);
  t.not(domain, null);
  t.is(s.bench.iommus[0]!.attached.get(0), null, 'the device itself is blocked still');
  t.is(
    errnoOf(() => fd.destroy(first)),
    EBUSY,
  );
  t.is(vfio.attach(first, { pasid: 5 }).ptId, first, 'the same again changes nothing');
  t.is(vfio.attach(second, { pasid: 5 }).ptId, second);
  t.not(s.at(5), domain);
  fd.destroy(first);
  vfio.attach(second, { pasid: 6 });
  t.is(s.at(6), s.at(5));
  vfio.detach({ pasid: 5 });
  vfio.detach({ pasid: 5 });
  t.is(s.at(5), null);
  t.is(
    errnoOf(() => fd.destroy(second)),
    EBUSY,
  );
  vfio.detach({ pasid: 6 });
  fd.destroy(second);
});

test('both the page table of the PASID and that of the device must be for PASIDs', (t) => {
  const s = scene();
  const { vfio } = s;
  const [plain, pasid] = [s.hwpt(0), s.hwpt()];
  const fails = (call: () => unknown) => t.is(errnoOf(call), EINVAL);
  fails(() => vfio.attach(plain, { pasid: 5 }));
  fails(() => vfio.attach(s.ioasId, { pasid: 5 }));
  t.is(s.bench.iommus[0]!.liveDomains, 2, 'no automatic one is left over');
  vfio.attach(plain);
  fails(() => vfio.attach(pasid, { pasid: 5 }));
  vfio.attach(pasid);
  vfio.attach(pasid, { pasid: 5 });
  fails(() => vfio.attach(plain));
  fails(() => vfio.attach(s.ioasId));
  vfio.detach();
  fails(() => vfio.attach(plain));
  vfio.detach({ pasid: 5 });
  vfio.attach(plain);
});

test('which PASIDs there are', (t) => {
  const s = scene();
  const hwptId = s.hwpt();
  t.is(s.fd.getHwInfo({ devId: s.devId }).maxPasidLog2, 10);
  s.vfio.attach(hwptId, { pasid: MAX_PASIDS - 1 });
  for (const pasid of [MAX_PASIDS, 2 ** 31 - 1])
    t.is(
      errnoOf(() => s.vfio.attach(hwptId, { pasid })),
      EINVAL,
    );
  t.is(
    errnoOf(() => s.vfio.attach(hwptId, { pasid: 2 ** 31 })),
    ENOSPC,
  );
  s.vfio.detach({ pasid: 2 ** 32 - 1 });
  t.is(
    errnoOf(() => s.vfio.attach(99, { pasid: 1 })),
    ENOENT,
  );
  t.is(
    errnoOf(() => s.vfio.attach(s.devId, { pasid: 1 })),
    EINVAL,
  );
  t.is(s.attached.size, 1);
  t.throws(() => s.vfio.attach(hwptId, { pasid: -1 }), { instanceOf: TypeError });
  t.throws(() => s.vfio.attach(hwptId, { passid: 1 } as object), { instanceOf: TypeError });
});

test('PASID 0 is the device itself, attached once by either name', (t) => {
  const s = scene();
  const hwptId = s.hwpt();
  s.vfio.attach(hwptId, { pasid: 0 });
  t.not(s.bench.iommus[0]!.attached.get(0), null);
  t.is(
    errnoOf(() => s.vfio.attach(hwptId)),
    EBUSY,
  );
  s.vfio.detach();
  t.not(s.bench.iommus[0]!.attached.get(0), null);
  s.vfio.detach({ pasid: 0 });
  t.is(s.bench.iommus[0]!.attached.get(0), null);
});

test('a device without PASIDs sends none: the attach succeeds, and nothing is done', (t) => {
  const s = scene({ iommus: [{}] });
  t.is(s.fd.getHwInfo({ devId: s.devId }).maxPasidLog2, 0);
  const hwptId = s.hwpt();
  s.vfio.attach(hwptId, { pasid: 77 });
  t.is(s.attached.size, 0);
  t.is(
    errnoOf(() => s.fd.destroy(hwptId)),
    EBUSY,
  );
  s.vfio.detach({ pasid: 77 });
  s.fd.destroy(hwptId);
});

test('nested page tables and drivers without PASIDs: EOPNOTSUPP', (t) => {
  const s = scene();
  const { fd, devId } = s;
  const parent = s.hwpt(NEST_PARENT);
  const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: 1 });
  fd.vdeviceAlloc({ viommuId, devId, virtId: 3 });
  const data = Uint8Array.from([1, ...new Array(15).fill(0)]);
  const nested = fd.hwptAlloc({ devId, ptId: viommuId, dataType: 2, data, flags: ALLOC_PASID }).hwptId;
  t.is(
    errnoOf(() => s.vfio.attach(nested, { pasid: 5 })),
    EOPNOTSUPP,
  );
  Object.assign(s.bench.iommus[0]!, { attachPasid: undefined });
  t.is(
    errnoOf(() => s.vfio.attach(s.hwpt(), { pasid: 5 })),
    EOPNOTSUPP,
  );
});

test('a group: a PASID is pointed once for all, and a refusal rolls back', (t) => {
  const devices = [
    { iommu: 0, group: 7 },
    { iommu: 0, group: 7 },
  ];
  const s = scene({ devices });
  const other = s.bench.bind(1).vfio;
  const [first, second] = [s.hwpt(), s.hwpt()];
  s.vfio.attach(first, { pasid: 5 });
  t.is(s.at(5, 1), s.at(5));
  t.is(
    errnoOf(() => other.attach(second, { pasid: 5 })),
    EINVAL,
    'not another page table',
  );
  other.attach(first, { pasid: 5 });
  const before = s.at(5);
  s.bench.iommus[0]!.refuses = (device) => device.index === 1;
  t.is(
    errnoOf(() => s.vfio.attach(second, { pasid: 5 })),
    EINVAL,
  );
  t.deepEqual([s.at(5), s.at(5, 1)], [before, before]);
  t.is(
    errnoOf(() => s.vfio.attach(first, { pasid: 6 })),
    EINVAL,
  );
  t.deepEqual([s.at(6), s.at(6, 1)], [null, null]);
  s.bench.iommus[0]!.refuses = null;
  s.vfio.detach({ pasid: 5 });
  t.is(s.at(5), before, 'the other one still needs it');
  other.detach({ pasid: 5 });
  t.deepEqual([s.at(5), s.at(5, 1)], [null, null]);
  s.fd.destroy(first);
});

test('a PASID reserves nothing in the IOAS', (t) => {
  const s = scene({ iommus: [{ maxPasids: 16, reserved: [{ firstPage: 4, lastPage: 5 }] }] });
  const userVa = s.bench.user.alloc(0x1000);
  s.fd.ioasMap({ ioasId: s.ioasId, userVa, length: 0x1000n, iova: 0x4000n });
  s.vfio.attach(s.hwpt(), { pasid: 5 });
  t.is(s.at(5)!.lookup(4), s.bench.pfnOf(userVa));
});

test('a failed replace within one IOAS: 7.0 forgets the reserved regions, the default keeps them', (t) => {
  for (const compat of ['fixed', '7.0'] as const) {
    const s = scene({ iommus: [{ reserved: [{ firstPage: 4, lastPage: 5 }] }], compat });
    s.vfio.attach(s.hwpt());
    s.bench.iommus[0]!.refuses = () => true;
    t.is(
      errnoOf(() => s.vfio.attach(s.hwpt())),
      EINVAL,
    );
    const { ranges } = s.fd.ioasIovaRanges(s.ioasId);
    t.is(ranges.length, compat === '7.0' ? 1 : 2);
  }
});

test('the structs: the PASID is read only when the flag is set', (t) => {
  const s = scene();
  const ptId = s.hwpt();
  const attach = (fields: object, bytes = 16) =>
    s.vfio.ioctl(
      ATTACH,
      VfioDeviceAttachIommufdPt.toBytes({ argsz: 16, ptId, ...fields }).subarray(0, bytes),
    );
  const detach = (fields: object, bytes = 12) =>
    s.vfio.ioctl(DETACH, VfioDeviceDetachIommufdPt.toBytes({ argsz: 12, ...fields }).subarray(0, bytes));
  t.is(attach({ argsz: 12, flags: PASID, pasid: 5 }), -EINVAL);
  t.is(attach({ flags: PASID, pasid: 5 }, 12), -14);
  t.is(attach({ flags: PASID | 2, pasid: 5 }), -EINVAL);
  t.is(attach({ flags: PASID, pasid: 5 }), 0);
  t.is(detach({ argsz: 8, flags: PASID, pasid: 5 }), -EINVAL);
  t.is(detach({ flags: PASID, pasid: 5 }, 8), -14);
  t.is(detach({ flags: 2 }), -EINVAL);
  t.not(s.at(5), null);
  t.is(detach({ argsz: 8 }, 8), 0, 'the device itself is not attached');
  t.not(s.at(5), null);
  t.is(detach({ flags: PASID, pasid: 5 }), 0);
  t.is(s.at(5), null);
});

test('closing the device file detaches its PASIDs', (t) => {
  const s = scene();
  const refs = s.bench.frameRefs();
  for (const pasid of [9, 5, 700]) s.vfio.attach(s.hwpt(), { pasid });
  s.vfio.attach(s.hwpt());
  s.fd.close();
  s.vfio.close();
  t.is(s.attached.size, 0);
  s.bench.assertNothingLeft(t, refs);
});

test('nth failure: an attach, a move, an attach of a second device', (t) => {
  const devices = [
    { iommu: 0, group: 7 },
    { iommu: 0, group: 7 },
  ];
  const life = (s: ReturnType<typeof scene>, hwpts: readonly number[], other: typeof s.vfio) => {
    s.vfio.attach(hwpts[0]!, { pasid: 5 });
    s.vfio.attach(hwpts[1]!, { pasid: 5 });
    other.attach(hwpts[1]!, { pasid: 5 });
  };
  let failures = 0;
  for (let nth = 1; ; nth++) {
    const s = scene({ devices });
    const refs = s.bench.frameRefs();
    const hwpts = [s.hwpt(), s.hwpt()];
    const other = s.bench.bind(1).vfio;
    const { failNth } = s.bench.core.own;
    failNth.arm(nth);
    const errno = errnoOf(() => life(s, hwpts, other));
    const fired = failNth.failedAt !== null;
    failNth.arm(0);
    // Injection makes a look-up by ID fail too.
    t.true((fired ? [ENOMEM, ENOENT] : [0]).includes(errno), `${errno}`);
    failures += fired ? 1 : 0;
    for (const vfio of [s.vfio, other]) vfio.close();
    for (const hwptId of hwpts) s.fd.destroy(hwptId);
    s.fd.close();
    s.bench.assertNothingLeft(t, refs);
    if (!fired) break;
  }
  t.true(failures >= 8, `${failures} places to fail`);
});
