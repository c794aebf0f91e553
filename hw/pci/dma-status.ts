/**
 * What a DMA transaction's status means, in words. A status is 0, the number of the event that the SMMU records
 * for the fault ([IHI0070] 7.3), or XLAT_ABORT where the SMMU aborts without an event.
 */
import { XLAT_ABORT, XLAT_OK } from '../iotlb/port-layout.js';
import { EVENT_NAMES } from '../smmuv3/event.js';

/** @param status  of DmaPort.read, write or status */
export function dmaStatusName(status: number): string {
  if (status === XLAT_OK) return 'ok';
  if (status === XLAT_ABORT) return 'aborted: the stream is blocked';
  return EVENT_NAMES[status] ?? `unknown status ${status}`;
}
