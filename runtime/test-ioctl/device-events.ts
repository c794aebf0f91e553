/**
 * What a device would raise: TRIGGER_IOPF, TRIGGER_VEVENT.
 *
 * @source drivers/iommu/iommufd/selftest.c iommufd_test_trigger_iopf, iommufd_test_trigger_vevent
 */
import { EINVAL, ENOENT } from '../../uapi/abi/errno.js';
import { IOMMU_VEVENTQ_TYPE_SELFTEST, ViommuEventSelftest } from '../../uapi/drivers/selftest.js';
import { TestTriggerIopf, TestTriggerVevent } from '../../uapi/iommufd/test.js';
import { OBJ_DEVICE } from '../core/objects-layout.js';
import { MockDevice } from '../drivers/mock/device.js';
import type { Device } from '../objects/device.js';
import type { TestCall } from './test-call.js';

/** A page fault, alone in its group. Nobody waits for the answer. @returns 0, even when nobody handles it | -ENOENT */
export function triggerIopf(call: TestCall): number {
  const { devId, pasid, grpid, perm, addr } = call.read(TestTriggerIopf);
  return withMockDevice(call, devId, (mock) => {
    mock.iommu.faults?.report(mock, {
      pasid: pasid === 0 ? -1 : pasid,
      grpid,
      perm,
      addr,
      last: true,
      respond: () => undefined,
    });
    return 0;
  });
}

/** @returns 0 | -ENOENT no device, or it is on no vIOMMU | -EOPNOTSUPP the vIOMMU has no queue for it | -ENOMEM */
export function triggerVevent(call: TestCall): number {
  const { devId } = call.read(TestTriggerVevent);
  return withMockDevice(call, devId, ({ guest }) => {
    if (guest === null || guest.virtId === 0n) return -ENOENT;
    const viommu = call.core.viommus.get(guest.viommu);
    const event = ViommuEventSelftest.toBytes({ virtId: Number(BigInt.asUintN(32, guest.virtId)) });
    return viommu === undefined ? -ENOENT : viommu.reportEvent(IOMMU_VEVENTQ_TYPE_SELFTEST, event);
  });
}

/** @returns what `act` says | -ENOENT no such device | -EINVAL of another IOMMU */
function withMockDevice(call: TestCall, id: number, act: (mock: MockDevice) => number): number {
  const device = call.ctx.get<Device>(id, OBJ_DEVICE);
  if (device === undefined) return -ENOENT;
  const status = device.host instanceof MockDevice ? act(device.host) : -EINVAL;
  call.ctx.put(device);
  return status;
}
