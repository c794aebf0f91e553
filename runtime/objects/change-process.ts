/**
 * IOMMU_IOAS_CHANGE_PROCESS: the caller takes over what another process has mapped, and pays for it; for a VMM that
 * is replaced while its guest's devices go on. Only pages of files can change hands.
 *
 *   everything is judged -> the caller is charged -> the old owners are given back -> the pages are the caller's
 *
 * @source drivers/iommu/iommufd/ioas.c iommufd_ioas_change_process
 */
import { EINVAL, ENOMEM, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import type { IoasChangeProcess } from '../../uapi/iommufd/ioas.js';
import type { Compat } from '../core/context.js';
import { OBJ_IOAS } from '../core/objects-layout.js';
import type { Task } from '../core/task.js';
import type { UcmdOf } from '../core/ucmd.js';
import {
  ACCOUNT_MM,
  ACCOUNT_NONE,
  ACCOUNT_USER,
  type AccountMode,
  chargePinned,
  unchargePinned,
} from '../iova/accounting.js';
import type { IoptPages } from '../iova/pages.js';
import type { Ioas } from './ioas.js';

export function ioasChangeProcess(ucmd: UcmdOf<typeof IoasChangeProcess>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.reserved !== 0) return -EOPNOTSUPP;
  const { current, compat } = ctx.core;
  const all = new Set<IoptPages>();
  for (const object of ctx.published(OBJ_IOAS)) {
    if (ctx.core.allocFails('ioas_list')) return -ENOMEM;
    // An area without pages is being mapped or unmapped at the moment; 7.0 dereferences what is not there.
    for (const { pages } of (object as Ioas).iopt.space.areas) if (pages !== null) all.add(pages);
  }
  for (const { type } of all) if (type !== 'file') return -EINVAL;
  const moving = [...all].filter((pages) => mustCharge(pages, current, compat));
  const status = chargeAll(current, moving);
  if (status < 0) return status;
  let result = 0;
  for (const pages of moving) {
    const { owner, accountMode, npinned } = pages;
    unchargePinned(owner, accountMode, npinned);
    // 7.0 cannot give back to a process that is gone, and says so when everything is done.
    if (compat === '7.0' && accountMode === ACCOUNT_MM && !owner.mm.alive) result = -EINVAL;
  }
  for (const pages of all) pages.owner = current;
  return result;
}

/** Whether the caller is somebody else as far as the charge goes. @source need_charge_update */
function mustCharge({ owner, accountMode }: IoptPages, current: Task, compat: Compat): boolean {
  const otherMm = owner.mm !== current.mm;
  switch (accountMode) {
    case ACCOUNT_NONE:
      // 7.0 forgets that pinned_vm counts these as well: the old process keeps them, the new one goes below zero.
      return otherMm && compat !== '7.0';
    case ACCOUNT_MM:
      return otherMm;
    case ACCOUNT_USER:
      return otherMm || owner.user !== current.user;
  }
}

/** @returns 0 | -ENOMEM over the caller's limit, with nothing charged. @source charge_current */
function chargeAll(current: Task, moving: readonly IoptPages[]): number {
  const npinned: [number, number, number] = [0, 0, 0];
  for (const pages of moving) npinned[pages.accountMode] += pages.npinned;
  const charged: AccountMode[] = [];
  for (const mode of [ACCOUNT_NONE, ACCOUNT_USER, ACCOUNT_MM] as const) {
    if (npinned[mode] === 0) continue;
    const status = chargePinned(current, mode, npinned[mode]);
    if (status < 0) {
      for (const done of charged) unchargePinned(current, done, npinned[done]);
      return status;
    }
    charged.push(mode);
  }
  return 0;
}
