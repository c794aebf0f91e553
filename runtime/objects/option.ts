/**
 * IOMMU_OPTION: values of a whole fd, and of one IOAS.
 *
 * @source drivers/iommu/iommufd/main.c iommufd_option, ioas.c iommufd_ioas_option
 */
import { EBUSY, EINVAL, ENOENT, EOPNOTSUPP, EPERM } from '../../uapi/abi/errno.js';
import {
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  type Option,
} from '../../uapi/iommufd/option.js';
import type { IommufdCtx } from '../core/ctx.js';
import { OBJ_IOAS } from '../core/objects-layout.js';
import { CAP_SYS_RESOURCE } from '../core/task.js';
import type { UcmdOf } from '../core/ucmd.js';
import { ACCOUNT_MM, ACCOUNT_USER } from '../iova/accounting.js';
import type { Ioas } from './ioas.js';

export function option(ucmd: UcmdOf<typeof Option>): number {
  const { cmd } = ucmd;
  if (cmd.reserved !== 0) return -EOPNOTSUPP;
  const status = setOrGet(ucmd);
  return status < 0 ? status : ucmd.respond();
}

function setOrGet(ucmd: UcmdOf<typeof Option>): number {
  switch (ucmd.cmd.optionId) {
    case IOMMU_OPTION_RLIMIT_MODE:
      return rlimitMode(ucmd.ctx, ucmd.cmd);
    case IOMMU_OPTION_HUGE_PAGES:
      return ioasOption(ucmd);
    default:
      return -EOPNOTSUPP;
  }
}

/** Whom pinned pages are charged to, before there is anything to pin. @source ioas.c iommufd_option_rlimit_mode */
function rlimitMode(ctx: IommufdCtx, cmd: Option): number {
  if (cmd.objectId !== 0) return -EOPNOTSUPP;
  if (cmd.op === IOMMU_OPTION_OP_GET) {
    cmd.val64 = ctx.accountMode === ACCOUNT_MM ? 1n : 0n;
    return 0;
  }
  if (cmd.op !== IOMMU_OPTION_OP_SET) return -EOPNOTSUPP;
  if (!ctx.core.current.capable(CAP_SYS_RESOURCE)) return -EPERM;
  if (!ctx.empty) return -EBUSY;
  if (cmd.val64 !== 0n && cmd.val64 !== 1n) return -EINVAL;
  ctx.accountMode = cmd.val64 === 1n ? ACCOUNT_MM : ACCOUNT_USER;
  return 0;
}

function ioasOption(ucmd: UcmdOf<typeof Option>): number {
  const { ctx, cmd } = ucmd;
  const ioas = ctx.get<Ioas>(cmd.objectId, OBJ_IOAS);
  if (ioas === undefined) return -ENOENT;
  const status = hugePages(cmd, ioas);
  ctx.put(ioas);
  return status;
}

/** @source iommufd_ioas_option_huge_pages */
function hugePages(cmd: Option, { iopt }: Ioas): number {
  switch (cmd.op) {
    case IOMMU_OPTION_OP_GET:
      cmd.val64 = iopt.largePages ? 1n : 0n;
      return 0;
    case IOMMU_OPTION_OP_SET:
      if (cmd.val64 === 0n) return iopt.disableLargePages();
      if (cmd.val64 !== 1n) return -EINVAL;
      iopt.enableLargePages();
      return 0;
    default:
      return -EOPNOTSUPP;
  }
}
