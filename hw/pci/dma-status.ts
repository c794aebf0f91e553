/**
 * What a DMA transaction's status means, in words. A status is 0, the number of the event that the SMMU records
 * for the fault ([IHI0070] 7.3), or XLAT_ABORT where the SMMU aborts without an event.
 */
import {
  XLAT_ABORT,
  XLAT_ATS_CA,
  XLAT_ATS_UR,
  XLAT_EXTERNAL_ABORT,
  XLAT_NOT_GRANTED,
  XLAT_OK,
  XLAT_RAZ_WI,
  XLAT_STALLED,
} from '../iotlb/port-layout.js';
import { EVENT_NAMES } from '../smmuv3/event.js';

const NAMES: Readonly<Record<number, string>> = {
  [XLAT_OK]: 'ok',
  [XLAT_ABORT]: 'aborted: the stream is blocked',
  [XLAT_STALLED]: 'stalled: software has to resume it',
  [XLAT_RAZ_WI]: 'terminated without telling: read as zero, write ignored',
  [XLAT_NOT_GRANTED]: 'the translation request was not granted that access',
  [XLAT_ATS_UR]: 'the translation request completed with Unsupported Request',
  [XLAT_ATS_CA]: 'the translation request completed with Completer Abort',
  [XLAT_EXTERNAL_ABORT]: 'external abort: nothing answers at the physical address',
};

/** @param status  of DmaPort.read, write or status */
export function dmaStatusName(status: number): string {
  return NAMES[status] ?? EVENT_NAMES[status] ?? `unknown status ${status}`;
}
