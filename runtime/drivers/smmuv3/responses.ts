/**
 * What software answers to a stalled transaction and to a page request group. [IHI0070] 4.6.1 and 4.6.2. Neither
 * takes a SYNC: consumption alone says that the answer is under way.
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_page_response, arm_smmu_handle_ppr
 */
import { NO_SSID } from '../../../hw/iotlb/port-layout.js';
import { CMD_PRI_RESP, CMD_RESUME, COMMAND_WORDS } from '../../../hw/smmuv3/command.js';

/** RESUME: Ac in bit 12, Ab in bit 13. */
export const RESUME_TERMINATE = 0;
export const RESUME_RETRY = 1;
export const RESUME_ABORT = 2;

/** PRI_RESP: bits 77:76. */
export const PRI_RESP_DENY = 0;
export const PRI_RESP_FAIL = 1;
export const PRI_RESP_SUCCESS = 2;

const RESP_SHIFT = 12;
const SSV = 1 << 11;
const SSID_SHIFT = 12;

export function encodeResume(out: Uint32Array, at: number, sid: number, stag: number, resp: number): void {
  out.fill(0, at, at + COMMAND_WORDS);
  out[at] = CMD_RESUME | (resp << RESP_SHIFT);
  out[at + 1] = sid;
  out[at + 2] = stag;
}

/** @param ssid  NO_SSID when the group came without a PASID */
export function encodePriResp(
  out: Uint32Array,
  at: number,
  sid: number,
  ssid: number,
  group: number,
  resp: number,
): void {
  out.fill(0, at, at + COMMAND_WORDS);
  out[at] = (CMD_PRI_RESP | (ssid === NO_SSID ? 0 : SSV | (ssid << SSID_SHIFT))) >>> 0;
  out[at + 1] = sid;
  out[at + 2] = group | (resp << RESP_SHIFT);
}
