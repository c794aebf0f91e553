/**
 * One CMDQV as it stands in shared memory. `cmdqv:N` (N its SMMU's index) is the host's and the model's;
 * `cmdqv-pages:N` holds each VINTF's page 0, which a host may hand to a guest: what lies there can be overwritten by
 * it at any moment, so the model keeps its own CONS, GERROR and enable and only shows them there.
 *
 *   host, through CmdqvMmio   --config, intMask, cmdqAlloc, VINTF config and SID slots, BASE-->  pIOMMU
 *   guest, plain stores       --PROD, CONFIG, GERRORN, CONS while disabled------------------->  pIOMMU
 *   pIOMMU (sole writer)      --status, error maps, CONS, STATUS, GERROR--------------------->  both
 */
import { MAX_PORTS } from '../iotlb/unit-layout.js';
import { array, type Field, type Layout, layout, line, raw, u32, u64 } from '../memory/layout.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import { PAGE_BYTES, VCMDQ_STRIDE } from './registers.js';

/** What the registers have room for. */
export const MAX_VINTFS = 64;
export const MAX_VCMDQS = 128;
export const MAX_SIDS = 16;

/** One VINTF. */
export const VintfRecord = layout('cmdqv-vintf', 1, {
  /** Host. */
  config: u32(),
  sidMatch: array(u32(), MAX_SIDS),
  sidReplace: array(u32(), MAX_SIDS),
  /** pIOMMU. */
  status: line(u32()),
  lvcmdqErrMap: array(u32(), 4),
});
export const VINTF_BYTES = VintfRecord.size;

/** One VCMDQ, by global number: what is not in its VINTF's page. */
export const VcmdqRecord = layout('cmdqv-vcmdq', 1, {
  /** Host, while the queue is disabled. */
  base: u64(),
  consIndxBase: u64(),
  /** pIOMMU, as all below. 1 while enabled: what STATUS shows. */
  enabled: line(u32()),
  /** CONS with its ERR, as far as it is the model's: from enable to disable. */
  cons: u32(),
  gerror: u32(),
  /** 1 while the error that GERROR tells of stands in the error maps. */
  inMaps: u32(),
  /** 1 while a CMD_SYNC waits; CONS stands at it. */
  syncPending: u32(),
  syncGen: u32(),
  /** Ports whose device has not completed an ATC invalidation of this queue. */
  atcWaiting: array(u32(), MAX_PORTS / 32),
});
export const VCMDQ_BYTES = VcmdqRecord.size;

export const CmdqvLayout = layout('tegra241-cmdqv', 1, {
  /** Written once by the thread that builds the machine. */
  param: u32(),
  /** Host. */
  config: line(u32()),
  vintfIntMask: array(u32(), 2),
  /** One is added after every write of CMDQ_ALLOC and of a CONFIG, modulo 2^32. */
  hostSeq: u32(),
  cmdqAlloc: array(u32(), MAX_VCMDQS),
  /** pIOMMU. */
  status: line(u32()),
  vintfErrMap: array(u32(), 2),
  cmdqErrMap: array(u32(), 4),
  /** For display; monotonic, modulo 2^32. */
  commandsConsumed: u32(),
  syncs: u32(),
  /** VINTF_BYTES and VCMDQ_BYTES each. */
  vintfs: raw(VINTF_BYTES * MAX_VINTFS),
  vcmdqs: raw(VCMDQ_BYTES * MAX_VCMDQS),
});

export const cmdqvKey = (index: number): string => `cmdqv:${index}`;
export const cmdqvPagesKey = (index: number): string => `cmdqv-pages:${index}`;

/** Room for the pages and for their alignment. */
export const cmdqvPagesLayout = (vintfs: number): Layout<{ pages: Field }> =>
  layout('cmdqv-pages', 1, { pages: raw((vintfs + 1) * PAGE_BYTES) });

/** Linear offset of page 0 of VINTF 0, 64 KiB aligned; the others follow. */
export function firstPage(memory: MachineMemory, index: number, vintfs: number): number {
  const { base } = memory.region(cmdqvPagesLayout(vintfs), cmdqvPagesKey(index));
  return Math.ceil(base / PAGE_BYTES) * PAGE_BYTES;
}

/** Where a logical VCMDQ's registers begin in its VINTF's page 0. */
export const slotOf = (page: number, lvcmdq: number): number => page + lvcmdq * VCMDQ_STRIDE;
