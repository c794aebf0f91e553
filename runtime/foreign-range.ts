/**
 * Where on a machine's bus the frames of other processes' memory lie: past the RAM and the phantom frames, below
 * what the narrowest SMMU can put out.
 *
 *   0          RAM          phantom frames            foreign frames             2^oasBits
 *   |  ...  |=========|- - - - - - - - - - - - -|: : : : : : : : : : : : : : : :|
 *
 * Any thread works it out from the configuration, so that one which cannot reach those processes knows whose
 * address it has.
 */
import { DEFAULT_RAM_BASE_PA } from '../hw/memory/machine-memory.js';
import type { CheckedConfig } from './machine-schema.js';

const PAGE = 4096;
const GIB_PAGES = 262144;
const PAGES_2M = 512;
const DEFAULT_OAS_BITS = 48;
/** Fewer windows of 1 GiB than this, and windows are 2 MiB. */
const MIN_WINDOWS = 64;

/** Frame numbers. */
export interface ForeignRange {
  readonly firstPfn: number;
  /** Exclusive; equal to firstPfn where the SMMUs' addresses leave no room. */
  readonly endPfn: number;
  /** Frames are handed out in aligned windows of this many: 1 GiB, or 2 MiB where there is little room. */
  readonly windowPages: number;
}

/** The upper half of what the narrowest SMMU can address, or what the RAM leaves of it. */
export function foreignRangeOf(config: Pick<CheckedConfig, 'iommus' | 'memory'>): ForeignRange {
  const oasBits = Math.min(DEFAULT_OAS_BITS, ...config.iommus.map((iommu) => iommu.oasBits));
  const endPfn = 2 ** oasBits / PAGE;
  const ramEnd = (DEFAULT_RAM_BASE_PA + config.memory) / PAGE;
  const above = Math.max(endPfn / 2, ramEnd);
  const windowPages = endPfn - above >= MIN_WINDOWS * GIB_PAGES ? GIB_PAGES : PAGES_2M;
  const firstPfn = Math.min(endPfn, Math.ceil(above / windowPages) * windowPages);
  return { firstPfn, endPfn, windowPages };
}
