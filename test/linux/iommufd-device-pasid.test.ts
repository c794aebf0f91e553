/** iommufd_device_pasid: page tables of PASIDs, beside that of the device itself. */
import { EBUSY, EINVAL, ENOMEM } from '../../uapi/abi/errno.js';
import { HwptSelftest } from '../../uapi/drivers/selftest.js';
import {
  IOMMU_TEST_OP_PASID_ATTACH,
  IOMMU_TEST_OP_PASID_CHECK_HWPT,
  IOMMU_TEST_OP_PASID_DETACH,
  IOMMU_TEST_OP_PASID_REPLACE,
  TestPasidAttach,
  TestPasidCheck,
  TestPasidDetach,
} from '../../uapi/iommufd/test.js';
import { IOMMU_VIOMMU_ALLOC, ViommuAlloc } from '../../uapi/iommufd/viommu.js';
import { fixture } from './fixture.js';
import { triggerIopf } from './iopf.js';
import { Program } from './program.js';

const [NEST_PARENT, FAULT_ID_VALID, ALLOC_PASID] = [1, 4, 8];
const DEVICE_PASID = 4;
const SELFTEST_DATA = 0xdead;
const SELFTEST_VIOMMU = 0xdeadbeef;

fixture('iommufd_device_pasid', {
  variants: { no_pasid: false, has_pasid: true },
  setup: (t, pasidCapable) => {
    const p = new Program(t);
    const ioasId = p.ioasAlloc();
    const device = p.mockDomain(ioasId, DEVICE_PASID);
    t.is(device.errno, 0);
    const without = pasidCapable ? undefined : p.mockDomain(ioasId, 0);
    if (without !== undefined) t.is(without.errno, 0);
    return { p, ioasId, device, without };
  },
  teardown: (_t, { p }) => p.finish(),
  tests: {
    pasid_attach: (t, { p, ioasId, device, without }) => {
      const { stdevId, deviceId } = device;
      const attach = (pasid: number, ptId: number, to = stdevId) =>
        p.test(IOMMU_TEST_OP_PASID_ATTACH, to, TestPasidAttach, { pasid, ptId }).errno;
      const replace = (pasid: number, ptId: number) =>
        p.test(IOMMU_TEST_OP_PASID_REPLACE, stdevId, TestPasidAttach, { pasid, ptId }).errno;
      const detach = (pasid: number) =>
        t.is(p.test(IOMMU_TEST_OP_PASID_DETACH, stdevId, TestPasidDetach, { pasid }).errno, 0);
      /** @param hwptId  0 for nothing */
      const holds = (pasid: number, hwptId: number) => {
        const check = p.test(IOMMU_TEST_OP_PASID_CHECK_HWPT, stdevId, TestPasidCheck, { pasid, hwptId });
        t.is(check.errno, 0, `PASID ${pasid} has page table ${hwptId}`);
      };

      detach(100);
      p.write(p.buffer, HwptSelftest.toBytes({ iotlb: 0xbadbeef }));
      const data = { type: SELFTEST_DATA, va: p.buffer, len: HwptSelftest.size };
      const nestedOn = (ptId: number, flags = ALLOC_PASID, faultId = 0) =>
        p.ok(p.hwptAlloc(deviceId, ptId, flags, data, faultId)).outHwptId;
      const parent = p.ok(p.hwptAlloc(deviceId, ioasId, NEST_PARENT)).outHwptId;
      const nested = [nestedOn(parent), nestedOn(parent)] as const;
      const fault = p.faultAlloc();
      const iopf = nestedOn(parent, FAULT_ID_VALID | ALLOC_PASID, fault.faultId);
      const viommu = p.ok(
        p.call(IOMMU_VIOMMU_ALLOC, ViommuAlloc, { type: SELFTEST_VIOMMU, devId: deviceId, hwptId: parent }),
      );
      nestedOn(viommu.outViommuId);
      const s2 = p.ok(p.hwptAlloc(deviceId, ioasId, ALLOC_PASID)).outHwptId;

      t.is(p.mockReplace(stdevId, parent), 0);
      t.is(attach(100, s2), EINVAL, 'the device itself has a table that is not for PASIDs');
      t.is(p.mockReplace(stdevId, s2), 0);
      t.is(attach(100, nested[0]), 0);
      t.is(p.mockReplace(stdevId, parent), EINVAL, 'not while a PASID is attached');
      detach(100);
      holds(100, 0);

      if (without !== undefined) {
        t.is(p.mockReplace(without.stdevId, nested[0]), 0);
        t.is(p.mockReplace(without.stdevId, ioasId), 0);
        t.is(attach(100, parent, without.stdevId), EINVAL);
        t.is(attach(100, s2, without.stdevId), EINVAL);
      }

      t.is(attach(100, parent), EINVAL);
      holds(100, 0);
      t.is(attach(100, ioasId), EINVAL);
      holds(100, 0);
      t.is(attach(100, s2), 0);
      holds(100, s2);
      t.is(attach(100, nested[0]), EBUSY);
      detach(100);
      holds(100, 0);
      t.is(attach(100, nested[0]), 0);
      holds(100, nested[0]);
      t.is(attach(100, nested[0]), EBUSY);
      detach(100);

      t.is(replace(200, s2), EINVAL, 'nothing to replace');
      t.is(attach(200, s2), 0);
      holds(200, s2);
      t.is(replace(200, ioasId), EINVAL);
      holds(200, s2);
      for (const hwptId of nested) {
        t.is(replace(200, hwptId), 0);
        holds(200, hwptId);
      }
      detach(200);

      t.is(attach(1024, s2), 0);
      holds(1024, s2);
      t.is(replace(1024, nested[0]), ENOMEM, 'the mock refuses the second');
      holds(1024, s2);
      detach(1024);

      t.is(attach(2048, iopf), 0);
      holds(2048, iopf);
      triggerIopf(p, deviceId, fault.fd, 2048);
      t.is(replace(2048, s2), 0);
      holds(2048, s2);
      detach(2048);

      holds(2048, 0);
      p.closeFd(fault.fd);
    },
  },
});
