/**
 * PASIDs of a stdev: PASID_ATTACH, PASID_REPLACE, PASID_DETACH, PASID_CHECK_HWPT.
 *
 * @source drivers/iommu/iommufd/selftest.c iommufd_test_pasid_attach and the functions around it
 */
import { EINVAL, ENOENT } from '../../uapi/abi/errno.js';
import { TestPasidAttach, TestPasidCheck, TestPasidDetach } from '../../uapi/iommufd/test.js';
import { OBJ_ANY, OBJ_HWPT_NESTED, OBJ_HWPT_PAGING } from '../core/objects-layout.js';
import type { Hwpt } from '../objects/hwpt.js';
import { withStdev } from './stdev.js';
import type { TestCall } from './test-call.js';

export function pasidAttach(call: TestCall): number {
  const { pasid, ptId } = call.read(TestPasidAttach);
  return withStdev(call, ({ device, pasids }) => {
    const used = device.attach(ptId, pasid);
    if (used >= 0) pasids.add(pasid);
    return used < 0 ? used : call.respond(TestPasidAttach, { ptId: used });
  });
}

export function pasidReplace(call: TestCall): number {
  const { pasid, ptId } = call.read(TestPasidAttach);
  return withStdev(call, ({ device }) => {
    const used = device.replace(ptId, pasid);
    return used < 0 ? used : call.respond(TestPasidAttach, { ptId: used });
  });
}

export function pasidDetach(call: TestCall): number {
  const { pasid } = call.read(TestPasidDetach);
  return withStdev(call, ({ device, pasids }) => {
    pasids.delete(pasid);
    device.detach(pasid);
    return 0;
  });
}

/** @returns 0 | -ENOENT | -EINVAL the PASID is attached to something else, or to anything when asked for 0 */
export function pasidCheck(call: TestCall): number {
  const { pasid, hwptId } = call.read(TestPasidCheck);
  return withStdev(call, ({ device }) => {
    const attached = device.group.handle(pasid)?.hwpt ?? null;
    if (hwptId === 0) return attached === null ? 0 : -EINVAL;
    const hwpt = call.ctx.get<Hwpt>(hwptId, OBJ_ANY);
    if (hwpt === undefined) return -ENOENT;
    const isTable = hwpt.type === OBJ_HWPT_PAGING || hwpt.type === OBJ_HWPT_NESTED;
    call.ctx.put(hwpt);
    return isTable && attached === hwpt ? 0 : -EINVAL;
  });
}
