/**
 * What `createMachine` takes, checked whole before anything is built: every refusal names the key
 * (`devices[1].iommu`), and what is not modelled yet is refused by its own name.
 */
import type { z } from 'zod';
import { MAX_PORTS } from '../hw/iotlb/unit-layout.js';
import { type Smmuv3Config, Smmuv3ConfigError } from '../hw/smmuv3/config.js';
import { CmdqvConfigError } from '../hw/tegra241-cmdqv/config.js';
import { cmdqvConfigOf, hardwareOf } from './machine-hardware.js';
import {
  type CheckedConfig,
  type MachineConfig,
  machineSchema,
  type ResolvedConfig,
  type ResolvedDevice,
} from './machine-schema.js';

/** A machine cannot be built from this configuration; `key` says which part. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly key: string;
  /** @param message  may begin with the key itself, as one from below does */
  constructor(key: string, message: string) {
    super(key === '' || message.startsWith(`${key}: `) ? message : `${key}: ${message}`);
    this.key = key;
  }
}

/** @throws ConfigError */
export function checkConfig(config: MachineConfig): CheckedConfig {
  const parsed = machineSchema.safeParse(config);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new ConfigError(keyOf(issue), issue.message);
  }
  const { iommus } = parsed.data;
  const names = new Map<string, number>();
  const hardware: Smmuv3Config[] = [];
  iommus.forEach(({ name, model, iotlbEntries }, index) => {
    if (names.has(name)) throw new ConfigError(`iommus[${index}].name`, `'${name}' is taken`);
    if (model !== 'smmuv3')
      throw new ConfigError(`iommus[${index}].model`, `'${model}' is not modelled yet, only 'smmuv3'`);
    if ((iotlbEntries & (iotlbEntries - 1)) !== 0)
      throw new ConfigError(`iommus[${index}].iotlbEntries`, `${iotlbEntries} is not a power of two`);
    names.set(name, index);
    try {
      hardware.push(hardwareOf(iommus[index]!, index));
    } catch (error) {
      if (!(error instanceof Smmuv3ConfigError)) throw error;
      throw new ConfigError(`iommus[${index}].${error.key}`, error.message.replace(/^smmuv3: \w+ /, ''));
    }
    try {
      cmdqvConfigOf(iommus[index]!, index);
    } catch (error) {
      if (!(error instanceof CmdqvConfigError)) throw error;
      throw new ConfigError(`iommus[${index}].cmdqv.${error.key}`, error.message.replace(/^cmdqv: \w+ /, ''));
    }
  });
  const labels = new Set<string>();
  const streams = new Set<string>();
  const ports = iommus.map(() => 0);
  const devices = parsed.data.devices.map((device, index): ResolvedDevice => {
    const at = `devices[${index}]`;
    const label = device.bdf ?? device.name;
    if (label === undefined) throw new ConfigError(at, "needs 'bdf' or 'name'");
    if (labels.has(label))
      throw new ConfigError(`${at}.${device.bdf ? 'bdf' : 'name'}`, `'${label}' is taken`);
    labels.add(label);
    const iommuIndex = names.get(device.iommu);
    if (iommuIndex === undefined)
      throw new ConfigError(
        `${at}.iommu`,
        `there is no IOMMU '${device.iommu}' (${[...names.keys()].join(', ')})`,
      );
    checkTraits(at, device, hardware[iommuIndex]!);
    const sid = device.streamId ?? (device.bdf ? ridOf(device.bdf) : -1);
    if (sid < 0) throw new ConfigError(`${at}.streamId`, 'needed for a device without a bdf');
    if (sid >= 2 ** iommus[iommuIndex]!.sidBits)
      throw new ConfigError(`${at}.streamId`, `${sid} does not fit ${iommus[iommuIndex]!.sidBits} bits`);
    const stream = `${iommuIndex}:${sid}`;
    if (streams.has(stream))
      throw new ConfigError(`${at}.streamId`, `stream ${sid} of ${device.iommu} belongs to another device`);
    streams.add(stream);
    if (++ports[iommuIndex]! > MAX_PORTS)
      throw new ConfigError(`${at}.iommu`, `more than ${MAX_PORTS} devices behind '${device.iommu}'`);
    return { ...device, label, iommuIndex, sid };
  });
  const { bugs } = parsed.data;
  if (bugs.iommu >= iommus.length)
    throw new ConfigError('bugs.iommu', `there is no IOMMU number ${bugs.iommu}`);
  return { ...parsed.data, devices };
}

/** Requester ID of a PCI address: bus << 8 | device << 3 | function. */
export function ridOf(bdf: string): number {
  const [, bus, slot] = bdf.split(':');
  const [device, fn] = slot!.split('.');
  return (Number.parseInt(bus!, 16) << 8) | (Number.parseInt(device!, 16) << 3) | Number(fn);
}

/** What a device says of itself has to fit the IOMMU before it. @throws ConfigError */
function checkTraits(at: string, device: ResolvedConfig['devices'][number], iommu: Smmuv3Config): void {
  const refuse = (key: 'ats' | 'pri' | 'stall' | 'pasidExec' | 'pasidPriv', why: string): never => {
    throw new ConfigError(`${at}.${key}`, why);
  };
  if (device.ats && device.bdf === undefined) refuse('ats', 'is for PCI devices: it needs a bdf');
  if (device.ats && !iommu.ats) refuse('ats', `'${device.iommu}' has no ATS`);
  if (device.pri && !device.ats) refuse('pri', 'needs ats');
  if (device.pri && !iommu.pri) refuse('pri', `'${device.iommu}' has no page requests`);
  if (device.stall && iommu.stalls === 'none') refuse('stall', `'${device.iommu}' has no stalls`);
  for (const key of ['pasidExec', 'pasidPriv'] as const)
    if (device[key] && (device.bdf === undefined || device.pasidBits === 0))
      refuse(key, 'is of a PCI device with pasidBits');
  // STE.S2S with EATS = 1 is a bad STE. [IHI0070] 5.2
  if (device.ats && (device.stall || iommu.stalls === 'forced')) refuse('ats', 'excludes stalls');
}

/** `path[0].name` for a validation issue; an unknown key is named itself. */
function keyOf(issue: z.core.$ZodIssue): string {
  const path = [...issue.path];
  if (issue.code === 'unrecognized_keys') path.push(issue.keys[0]!);
  return path.reduce<string>(
    (text, part) =>
      typeof part === 'number' ? `${text}[${part}]` : text === '' ? String(part) : `${text}.${String(part)}`,
    '',
  );
}
