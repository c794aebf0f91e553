/**
 * A stalled transaction as the core's page fault, and the core's answer as CMD_RESUME. [IHI0070] 3.12.2, 4.7.1.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_handle_event, arm_smmu_page_response
 */
import { encodeResume } from '../../../hw/smmuv3/command.js';
import type { EventRecord } from '../../../hw/smmuv3/event.js';
import {
  IOMMU_PGFAULT_PERM_EXEC,
  IOMMU_PGFAULT_PERM_PRIV,
  IOMMU_PGFAULT_PERM_READ,
  IOMMU_PGFAULT_PERM_WRITE,
} from '../../../uapi/iommufd/fault.js';
import { PAGE_RESP_SUCCESS, type PageFault } from '../contract.js';
import type { SmmuDevice } from './smmu-device.js';

/** The stall is a group of its own: its STAG is the group's number. */
export function stallFault(smmu: SmmuDevice, record: EventRecord): PageFault {
  const { sid, stag, ssv, ssid, rnw, ind, pnu, inputAddr } = record;
  return {
    pasid: ssv ? ssid : -1,
    grpid: stag,
    perm:
      (rnw ? IOMMU_PGFAULT_PERM_READ : IOMMU_PGFAULT_PERM_WRITE) |
      (ind ? IOMMU_PGFAULT_PERM_EXEC : 0) |
      (pnu ? IOMMU_PGFAULT_PERM_PRIV : 0),
    addr: inputAddr,
    last: true,
    // No SYNC: that the command is consumed guarantees that the transaction goes on, or ends, at some time.
    respond: (code) => {
      const action = code === PAGE_RESP_SUCCESS ? 'retry' : 'abort';
      smmu.issue((out, at) => encodeResume(out, at, sid, stag, action));
    },
  };
}
