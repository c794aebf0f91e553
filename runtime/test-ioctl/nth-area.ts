/**
 * An IOVA for callers that cannot know one: the low 32 bits say which area of the IOAS, the high ones how far into it.
 *
 * @source drivers/iommu/iommufd/selftest.c __iommufd_test_syz_conv_iova
 */

import type { IoasCopy } from '../../uapi/iommufd/ioas.js';
import { MOCK_FLAGS_ACCESS_SYZ } from '../../uapi/iommufd/test.js';
import type { IommufdCtx } from '../core/ctx.js';
import { OBJ_IOAS } from '../core/objects-layout.js';
import { firstIova } from '../iova/area.js';
import type { Ioas } from '../objects/ioas.js';

/** @returns 0 where there is no such area, or no IOAS */
export function nthAreaIova(ioas: Ioas | null, coded: bigint): bigint {
  let nth = Number(coded & 0xffff_ffffn);
  if (ioas === null) return 0n;
  for (const area of ioas.iopt.space.areas)
    if (nth-- === 0) return BigInt.asUintN(64, firstIova(area) + (coded >> 32n));
  return 0n;
}

/** Of IOAS_COPY, whose flags say by a bit of the test ioctl that its source is such an IOVA. @source iommufd_test_syz_conv_iova_id */
export function decodeSourceIova(ctx: IommufdCtx, cmd: IoasCopy): void {
  if ((cmd.flags & MOCK_FLAGS_ACCESS_SYZ) === 0) return;
  cmd.flags = (cmd.flags & ~MOCK_FLAGS_ACCESS_SYZ) >>> 0;
  const ioas = ctx.get<Ioas>(cmd.srcIoasId, OBJ_IOAS);
  if (ioas === undefined) return;
  cmd.srcIova = nthAreaIova(ioas, cmd.srcIova);
  ctx.put(ioas);
}
