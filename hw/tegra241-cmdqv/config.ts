/** What one CMDQV has, and its regions. [T241-CMDQV] CMDQV_PARAM: every count is a power of two. */
import type { MachineMemory } from '../memory/machine-memory.js';
import {
  CmdqvLayout,
  cmdqvKey,
  cmdqvPagesKey,
  cmdqvPagesLayout,
  firstPage,
  MAX_SIDS,
  MAX_VCMDQS,
  MAX_VINTFS,
} from './cmdqv-layout.js';
import { CMDQV_PARAM, PAGE_BYTES } from './registers.js';

export interface CmdqvConfig {
  /** Index of its SMMU. */
  readonly index: number;
  readonly vintfs: number;
  readonly vcmdqsPerVintf: number;
  readonly sidsPerVintf: number;
}

/** What a machine gets that says no more; 1 MiB of control memory. */
const CMDQV_DEFAULTS: Omit<CmdqvConfig, 'index'> = { vintfs: 16, vcmdqsPerVintf: 2, sidsPerVintf: 16 };

const VERSION = 1;

/** A CMDQV cannot be built like this; `key` says which part of its configuration. */
export class CmdqvConfigError extends RangeError {
  override readonly name = 'CmdqvConfigError';
  readonly key: keyof CmdqvConfig;
  constructor(key: keyof CmdqvConfig, what: string) {
    super(`cmdqv: ${key} ${what}`);
    this.key = key;
  }
}

/** @throws CmdqvConfigError */
export function cmdqvConfig(options: Partial<CmdqvConfig> & { readonly index: number }): CmdqvConfig {
  const config = { ...CMDQV_DEFAULTS, ...options };
  const check = (key: 'vintfs' | 'vcmdqsPerVintf' | 'sidsPerVintf', most: number): void => {
    const value = config[key];
    if (!Number.isInteger(value) || value < 1 || value > most || (value & (value - 1)) !== 0)
      throw new CmdqvConfigError(key, `${value} is not a power of two up to ${most}`);
  };
  check('vintfs', MAX_VINTFS);
  check('vcmdqsPerVintf', MAX_VCMDQS);
  check('sidsPerVintf', MAX_SIDS);
  if (config.vintfs * config.vcmdqsPerVintf > MAX_VCMDQS)
    throw new CmdqvConfigError(
      'vcmdqsPerVintf',
      `${config.vcmdqsPerVintf} for ${config.vintfs} VINTFs are more than ${MAX_VCMDQS} VCMDQs`,
    );
  return config;
}

/** Bytes that the regions of one take. */
export const cmdqvBytes = ({ vintfs }: CmdqvConfig): number => CmdqvLayout.size + (vintfs + 2) * PAGE_BYTES;

/** Linear bases of one CMDQV's regions. */
export interface CmdqvRegions {
  readonly cmdqv: number;
  /** Page 0 of VINTF 0. */
  readonly pages: number;
}

/** Carves the regions out and puts them in their reset state. Creating thread only. */
export function createCmdqvRegions(memory: MachineMemory, config: CmdqvConfig): CmdqvRegions {
  const { index, vintfs, vcmdqsPerVintf, sidsPerVintf } = config;
  const cmdqv = memory.allocRegion(CmdqvLayout, cmdqvKey(index)).base;
  memory.allocRegion(cmdqvPagesLayout(vintfs), cmdqvPagesKey(index));
  let param = CMDQV_PARAM.VER.put(0, VERSION);
  param = CMDQV_PARAM.NUM_VINTF_LOG2.put(param, Math.log2(vintfs));
  param = CMDQV_PARAM.NUM_VCMDQ_LOG2.put(param, Math.log2(vintfs * vcmdqsPerVintf));
  param = CMDQV_PARAM.NUM_SID_PER_VM_LOG2.put(param, Math.log2(sidsPerVintf));
  memory.words.store(cmdqv + CmdqvLayout.at.param, param);
  return cmdqvRegions(memory, config);
}

/** Finds the regions of one that exists, on any thread. */
export function cmdqvRegions(memory: MachineMemory, { index, vintfs }: CmdqvConfig): CmdqvRegions {
  return {
    cmdqv: memory.region(CmdqvLayout, cmdqvKey(index)).base,
    pages: firstPage(memory, index, vintfs),
  };
}
