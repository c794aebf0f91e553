/** IOMMU_IOAS_MAP_FILE: memory by descriptor rather than by address. */
import { EINVAL, ENOENT, EOPNOTSUPP, EOVERFLOW } from '../../uapi/abi/errno.js';
import { IOMMU_IOAS_MAP_FIXED_IOVA, type IoasMapFile } from '../../uapi/iommufd/ioas.js';
import { OBJ_IOAS } from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import { IOMMU_WRITE } from '../drivers/contract.js';
import { offsetOf, U64_MAX } from '../iova/area.js';
import { filePages } from '../iova/file-pages.js';
import { type Ioas, MAP_FLAGS, protOf } from './ioas.js';

/** @source drivers/iommu/iommufd/ioas.c iommufd_ioas_map_file */
export function ioasMapFile(ucmd: UcmdOf<typeof IoasMapFile>): number {
  const { ctx, cmd } = ucmd;
  if ((cmd.flags & ~MAP_FLAGS) !== 0) return -EOPNOTSUPP;
  if (cmd.iova >= U64_MAX || cmd.length >= U64_MAX) return -EOVERFLOW;
  const prot = protOf(cmd.flags);
  if (prot === 0) return -EINVAL;
  const ioas = ctx.get<Ioas>(cmd.ioasId, OBJ_IOAS);
  if (ioas === undefined) return -ENOENT;
  const iova = mapInto(ucmd, ioas, prot);
  ctx.put(ioas);
  if (iova < 0n) return Number(iova);
  cmd.iova = iova;
  return ucmd.respond();
}

function mapInto(ucmd: UcmdOf<typeof IoasMapFile>, ioas: Ioas, prot: number): bigint {
  const { ctx, cmd } = ucmd;
  const pages = filePages(ctx, cmd.fd, cmd.start, cmd.length, (prot & IOMMU_WRITE) !== 0);
  if (typeof pages === 'number') return BigInt(pages);
  const fixed = (cmd.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0;
  const slice = { pages, startPage: 0, startOffset: offsetOf(cmd.start), length: cmd.length };
  const iova = ioas.iopt.mapPages([slice], cmd.length, fixed ? cmd.iova : null, prot);
  pages.put();
  return iova;
}
