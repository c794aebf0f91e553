/**
 * What any thread works out from a machine's checked configuration, which travels with the handle: the hardware
 * behind each IOMMU, and the keys of the regions. Loaded by every worker, so it must not bring the schema along.
 */
import { bugSwitches } from '../hw/bugs/bug-switches.js';
import { type GranuleLg2, type Smmuv3Config, smmuv3Config } from '../hw/smmuv3/config.js';
import { type CmdqvConfig, cmdqvConfig } from '../hw/tegra241-cmdqv/config.js';
import type { RuntimeBugs } from './drivers/contract.js';
import type { CheckedConfig, ResolvedConfig } from './machine-schema.js';

export const THREADS_KEY = 'threads';
export const FRAMES_KEY = 'frames';
export const CLOCK_KEY = 'clock';
export const portKey = (device: number): string => `port:${device}`;

/** The hardware configuration of one of the machine's SMMUs. */
export function smmuConfigOf(config: CheckedConfig, index: number): Smmuv3Config {
  const { bugs } = config;
  const here = bugs.iommu === index;
  const zoo = bugSwitches(bugs.zoo);
  return hardwareOf(config.iommus[index]!, index, {
    skipTlbi: (here && bugs.skipTlbi) || zoo['tlbi-skipped'],
    earlySync: (here && bugs.earlySync) || zoo['sync-completes-early'],
    dropsUnderLoad: zoo['tlbi-dropped-under-load'],
  });
}

/** The defects of the core; those of the drivers are theirs to look up. */
export const coreBugsOf = ({ bugs }: CheckedConfig): RuntimeBugs => ({
  ...bugs,
  earlyFree: bugs.earlyFree || bugSwitches(bugs.zoo)['frame-freed-before-sync'],
});

/** The CMDQV beside one of the machine's SMMUs, null where there is none. @throws CmdqvConfigError */
export function cmdqvConfigOf(iommu: ResolvedConfig['iommus'][number], index: number): CmdqvConfig | null {
  if (iommu.cmdqv === false) return null;
  const given = iommu.cmdqv === true ? {} : iommu.cmdqv;
  const keys = Object.entries(given).filter(([, value]) => value !== undefined);
  return cmdqvConfig({ ...Object.fromEntries(keys), index });
}

/** Smmuv3Invalidator's options: Linux's version, and which of the machine's SMMUs gets no ATC_INV of a guest's. */
export const invalidatorOptionsOf = ({ bugs, compat }: CheckedConfig) => ({
  compat,
  ...(bugs.skipAtcInv ? { skipAtcInvOn: bugs.iommu } : {}),
});

const GRANULES: Readonly<Record<string, GranuleLg2>> = { '4KiB': 12, '16KiB': 14, '64KiB': 16 };

/** What the hardware of an IOMMU is; what was not said is the model's default. @throws Smmuv3ConfigError */
export function hardwareOf(
  { name: _name, model: _model, cmdqv: _cmdqv, granules, ...keys }: ResolvedConfig['iommus'][number],
  index: number,
  bugs: Smmuv3Config['bugs'] = {},
): Smmuv3Config {
  const given = Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined));
  return smmuv3Config({
    ...given,
    ...(granules && { granules: granules.map((size) => GRANULES[size]!) }),
    index,
    bugs,
  });
}
