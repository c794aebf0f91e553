/**
 * Where a run's machine comes from: a preset by name, or a file that is a raw IORT (as
 * `/sys/firmware/acpi/tables/IORT` gives it) or a machine description in JSON.
 */
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { describeIort } from '../../hw/acpi/describe-iort.js';
import type { MachineDescription } from '../../hw/acpi/description.js';
import { IortError } from '../../hw/acpi/iort-error.js';
import { PRESETS } from '../../hw/acpi/presets.js';
import { OptionError } from './option-error.js';
import { checkDescription } from './topology-schema.js';

/** The presets by name, in the order in which the main job runs them. */
export const PRESET_NAMES: readonly string[] = Object.keys(PRESETS);

/** Real tables have some kilobytes. */
const MAX_FILE_BYTES = 16 * 2 ** 20;

/** Tables that describe IOMMUs we do not model yet, by signature. */
const OTHER_TABLES: Record<string, string> = {
  DMAR: 'a DMAR table (Intel VT-d)',
  IVRS: 'an IVRS table (AMD IOMMU)',
  VIOT: 'a VIOT table (virtio-iommu)',
  RIMT: 'a RIMT table (RISC-V IOMMU)',
};

/**
 * @param nameOrFile a preset's name, else a path; a file that is called like a preset is reached as `./name`
 * @throws OptionError naming the file, and the byte offset or key in it
 */
export function loadTopology(nameOrFile: string): MachineDescription {
  const preset = Object.hasOwn(PRESETS, nameOrFile) ? PRESETS[nameOrFile] : undefined;
  if (preset !== undefined) return preset;
  return parseTopology(readFile(nameOrFile), nameOrFile);
}

function readFile(file: string): Uint8Array {
  let fd: number;
  try {
    fd = openSync(file, 'r');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT') throw new OptionError('topology', `'${file}' cannot be read: ${code}`);
    throw new OptionError('topology', notThere(file));
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new OptionError('topology', `'${file}' is not a file`);
    if (stat.size > MAX_FILE_BYTES)
      throw new OptionError('topology', `'${file}' is too large for a table: ${stat.size} bytes`);
    return new Uint8Array(readFileSync(fd));
  } finally {
    closeSync(fd);
  }
}

function notThere(file: string): string {
  if (/(^|\/)IORT$/.test(file)) return `'${file}': no such file; only Arm machines with ACPI have an IORT`;
  if (file.includes('/')) return `'${file}': no such file`;
  return `'${file}' is neither a preset (${PRESET_NAMES.join(', ')}) nor a file that is there`;
}

/** @throws OptionError naming `file`, and the byte offset or key in it */
export function parseTopology(bytes: Uint8Array, file: string): MachineDescription {
  const refuse = (problem: string) => new OptionError('topology', `${file}: ${problem}`);
  const signature = String.fromCharCode(...bytes.subarray(0, 4));
  if (signature === 'IORT') {
    try {
      return describeIort(bytes);
    } catch (error) {
      if (error instanceof IortError) throw refuse(error.message);
      throw error;
    }
  }
  const other = Object.hasOwn(OTHER_TABLES, signature) ? OTHER_TABLES[signature] : undefined;
  if (other !== undefined) throw refuse(`${other} is not modelled yet, only an IORT`);
  const text = new TextDecoder().decode(bytes);
  if (!text.trimStart().startsWith('{'))
    throw refuse("neither an IORT (its first bytes are not 'IORT', at 0x0) nor a JSON object");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw refuse(`not JSON: ${(error as Error).message}`);
  }
  const description = checkDescription(value);
  if (typeof description === 'string') throw refuse(description);
  return description;
}
