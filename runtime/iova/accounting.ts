/**
 * What pinned pages cost, and whom: the process that mapped them, its user, or nobody.
 *
 *   mode   charged against RLIMIT_MEMLOCK       also counted
 *   NONE   nothing (CAP_IPC_LOCK)               mm.account.pinnedVm
 *   USER   user.lockedVm, of all its processes  mm.account.pinnedVm
 *   MM     mm.account.lockedVm, as VFIO does    mm.account.pinnedVm
 *
 * A page is charged once however many areas, domains and accesses hold it. dma-bufs are not charged.
 *
 * @source drivers/iommu/iommufd/pages.c iopt_pages_update_pinned, mm/util.c __account_locked_vm
 */
import { bug } from '../../hw/memory/bug.js';
import { ENOMEM } from '../../uapi/abi/errno.js';
import type { Task } from '../core/task.js';

export const ACCOUNT_NONE = 0;
export const ACCOUNT_USER = 1;
export const ACCOUNT_MM = 2;

/** ACCOUNT_*. */
export type AccountMode = 0 | 1 | 2;

const PAGE_SHIFT = 12;

/** @returns 0 | -ENOMEM over the owner's RLIMIT_MEMLOCK; nothing is charged then */
export function chargePinned(owner: Task, mode: AccountMode, pages: number): number {
  const { mm, user } = owner;
  if (mode === ACCOUNT_USER) {
    if (user.lockedVm + pages > limitPages(owner)) return -ENOMEM;
    user.lockedVm += pages;
  } else if (mode === ACCOUNT_MM) {
    if (mm.account.lockedVm + pages > limitPages(owner)) return -ENOMEM;
    mm.account.lockedVm += pages;
  }
  mm.account.pinnedVm += pages;
  return 0;
}

/** Gives back what chargePinned() took. */
export function unchargePinned(owner: Task, mode: AccountMode, pages: number): void {
  const { mm, user } = owner;
  if (mode === ACCOUNT_USER) {
    if (user.lockedVm < pages) bug('more pages uncharged than the user was charged for');
    user.lockedVm -= pages;
  } else if (mode === ACCOUNT_MM) {
    // The counters went with the process: update_mm_locked_vm cannot take its mm any more.
    if (!mm.alive) return;
    mm.account.lockedVm -= pages;
  }
  mm.account.pinnedVm -= pages;
}

/** RLIMIT_MEMLOCK in whole pages. */
function limitPages(owner: Task): number {
  return Math.floor(owner.rlimitMemlock() / 2 ** PAGE_SHIFT);
}
