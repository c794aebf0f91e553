/**
 * IOMMU_OPTION: values of a whole fd, and of one IOAS.
 *
 * @source drivers/iommu/iommufd/main.c iommufd_option, ioas.c iommufd_ioas_option
 */
import { EINVAL, ENOENT, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import {
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  type Option,
} from '../../uapi/iommufd/option.js';
import { OBJ_IOAS } from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import type { Ioas } from './ioas.js';

export function option(ucmd: UcmdOf<typeof Option>): number {
  const { cmd } = ucmd;
  if (cmd.reserved !== 0) return -EOPNOTSUPP;
  const status = cmd.optionId === IOMMU_OPTION_HUGE_PAGES ? ioasOption(ucmd) : -EOPNOTSUPP;
  return status < 0 ? status : ucmd.respond();
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
