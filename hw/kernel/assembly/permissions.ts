/**
 * What a stage-1 leaf permits, as [DDI0487] AArch64.S1DirectBasePermissions computes it: three regimes (EL1&0,
 * EL2&0 alike, and EL2 with one privilege level), privileged or not, for reading, writing and instructions.
 *
 *   need     what an access asks for: READ, WRITE or EXECUTE, and UNUSUAL when stages.ts must come here at all
 *   answer   READ, WRITE and EXECUTE bits, where they stand in an IOTLB page word and in XLAT_PERM_*
 *
 * In EL1&0 and EL2&0 what unprivileged code may write is never executable when privileged, so CD.UWXN, which says
 * the same for AArch32, changes nothing here. Not modelled: XNX (IDR3.XNX = 0), indirect permissions, EPAN.
 */
import {
  CONTEXT_FLAG_E2H,
  CONTEXT_FLAG_PAN,
  CONTEXT_FLAG_WXN,
  CONTEXT_FLAGS,
  CONTEXT_KIND,
  CONTEXT_S1_EL2,
} from './layout';

export const R: u32 = 2;
export const W: u32 = 4;
export const G: u32 = 8;
export const X: u32 = 16;
/** The access is privileged. */
export const PRIVILEGED: u32 = 32;
/** Not unprivileged data of a regime with two privileges: the short rule for those does not do. */
export const UNUSUAL: u32 = 64;
/** An access of stage 2 that fetches a descriptor or a CD. */
export const TABLE: u32 = 128;
/** What of a `need` are permissions. */
export const PERMISSIONS: u32 = R | W | X;

/** AP[1]: unprivileged access; AP[2]: read-only. APTable[0] and [1] take the same away below. */
export const AP_UNPRIVILEGED: u64 = 1 << 6;
export const AP_READ_ONLY: u64 = 1 << 7;
export const AP_TABLE_PRIVILEGED: u64 = 1 << 61;
export const AP_TABLE_READ_ONLY: u64 = 1 << 62;
const PXN: u64 = 1 << 53;
/** UXN; XN where there is one privilege, and in stage 2. */
const XN: u64 = 1 << 54;
const PXN_TABLE: u64 = 1 << 59;
const XN_TABLE: u64 = 1 << 60;

/** Whether the context's stage 1 is of a regime with one privilege level: EL2 without E2H. */
export function onePrivilege(context: usize): bool {
  return (
    (load<u32>(context, CONTEXT_KIND) == CONTEXT_S1_EL2) &
    ((load<u32>(context, CONTEXT_FLAGS) & CONTEXT_FLAG_E2H) == 0)
  );
}

/**
 * @param leaf       the leaf, with AP[2] clear where hardware may clear it
 * @param hierarchy  all table descriptors above it ORed, or 0 when they are to be ignored (HAD)
 */
export function stage1Permissions(context: usize, leaf: u64, hierarchy: u64, privileged: bool): u32 {
  const flags = load<u32>(context, CONTEXT_FLAGS);
  const writable = (leaf & AP_READ_ONLY) == 0 && (hierarchy & AP_TABLE_READ_ONLY) == 0;
  let permissions: u32;
  let executable: bool;
  if (onePrivilege(context)) {
    permissions = R | select<u32>(W, 0, writable);
    executable = (leaf & XN) == 0 && (hierarchy & XN_TABLE) == 0;
  } else {
    const reached = (leaf & AP_UNPRIVILEGED) != 0 && (hierarchy & AP_TABLE_PRIVILEGED) == 0;
    permissions = R | select<u32>(W, 0, writable);
    if (privileged) {
      executable = (leaf & PXN) == 0 && (hierarchy & PXN_TABLE) == 0 && !(reached && writable);
      if (reached && (flags & CONTEXT_FLAG_PAN) != 0) permissions = 0;
    } else {
      executable = (leaf & XN) == 0 && (hierarchy & XN_TABLE) == 0;
      if (!reached) permissions = 0;
    }
  }
  if ((flags & CONTEXT_FLAG_WXN) != 0 && (permissions & W) != 0) executable = false;
  return permissions | select<u32>(X, 0, executable);
}

/** Stage 2: S2AP, and XN, which is one bit. What cannot be read is not executed. */
export function stage2Permissions(leaf: u64): u32 {
  const access = (u32(leaf >> 6) & 3) << 1;
  return access | select<u32>(X, 0, (access & R) != 0 && (leaf & XN) == 0);
}
