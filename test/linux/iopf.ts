/** A page fault of a mock device, from the device to the program and back. */
import { HwptPageResponse, HwptPgfault } from '../../uapi/iommufd/fault.js';
import { IOMMU_TEST_OP_TRIGGER_IOPF, TestTriggerIopf } from '../../uapi/iommufd/test.js';
import type { Program } from './program.js';

const READ_AND_WRITE = 3;
const SUCCESS = 0;

/** Makes the device fault, reads what the program is told, and says that the page is there. */
export function triggerIopf(p: Program, devId: number, faultFd: number, pasid = 1): void {
  const { t } = p;
  const asked = { devId, pasid, grpid: 2, perm: READ_AND_WRITE, addr: 0xdeadbeafn };
  p.ok(p.test(IOMMU_TEST_OP_TRIGGER_IOPF, 0, TestTriggerIopf, asked));
  const file = p.machine.core.own.files.get(faultFd);
  const bytes = file?.read?.(HwptPgfault.size);
  if (!(bytes instanceof Uint8Array)) {
    t.fail('the fault queue has nothing to read');
    return;
  }
  const fault = HwptPgfault.decode(bytes);
  t.like(fault, { devId, pasid, grpid: 2, perm: READ_AND_WRITE, addr: 0xdeadbeafn });
  const response = HwptPageResponse.toBytes({ cookie: fault.cookie, code: SUCCESS });
  t.is(file?.write?.(response), response.byteLength);
}
