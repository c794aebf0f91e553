/** `iommufd topology`: a machine description, from a preset or a real table, for people or (--json) for programs. */
import Table from 'cli-table3';
import type { Command } from 'commander';
import type { MachineDescription, MasterDescription } from '../../hw/acpi/description.js';
import { fold } from '../../perf/report/layout.js';
import { plural } from '../../perf/report/units.js';
import { loadTopology, PRESET_NAMES } from '../../perf/stress/presets.js';
import { EXIT_CLEAN, type Surroundings } from '../surroundings.js';
import { usageError } from './usage.js';

export function addTopology(program: Command, around: Surroundings, done: (code: number) => void): void {
  program
    .command('topology')
    .description('print the machine that a preset, an IORT or a JSON description stands for')
    .argument('<file|preset>', `a raw IORT, a machine description in JSON, or ${PRESET_NAMES.join(', ')}`)
    .option('--json', 'as JSON, which --topology takes back')
    .action((source: string, { json = false }: { json?: boolean }) => {
      try {
        const description = loadTopology(source);
        const text = json
          ? JSON.stringify(description, null, 2)
          : renderTopology(description, around.stdout.columns);
        around.stdout.write(`${text}\n`);
        done(EXIT_CLEAN);
      } catch (error) {
        const code = usageError('topology', error, around.stderr);
        if (code === null) throw error;
        done(code);
      }
    });
}

const plain = { style: { head: [], border: [], compact: true } };

/** @param columns  of the terminal, if it is one: lines are folded to it */
export function renderTopology(description: MachineDescription, columns?: number): string {
  const { iommus, masters, reserved, unsupported, notes } = description;
  const units = new Table({ head: ['SMMU', 'model', 'registers', 'walks', 'interrupts', 'node'], ...plain });
  for (const { name, model, base, coherent, interrupts, proximityDomain } of iommus) {
    const wired = Object.entries(interrupts).filter(([, gsiv]) => gsiv !== 0);
    units.push([
      name,
      model,
      hex(base),
      coherent ? 'coherent' : 'not coherent',
      wired.map(([kind, gsiv]) => `${kind} ${gsiv}`).join(', ') || 'MSI',
      proximityDomain === undefined ? '-' : String(proximityDomain),
    ]);
  }
  const mappings = new Table({ head: ['master', 'input IDs', 'SMMU', 'stream IDs'], ...plain });
  for (const master of masters) {
    if (master.idMappings.length === 0)
      mappings.push([masterName(master), '-', '-', untranslated(master, unsupported)]);
    for (const { inputBase, count, outputBase, iommu, single } of master.idMappings)
      mappings.push([
        masterName(master),
        range(inputBase, count),
        iommu,
        range(outputBase, single ? 1 : count),
      ]);
  }
  const lines: string[] = [];
  const head = [
    `${plural(iommus.length, 'SMMU')}, ${plural(masters.length, 'master')}`,
    units.toString(),
    mappings.toString(),
  ];
  for (const { iommu, streamIds, start, length } of reserved)
    lines.push(
      `reserved: ${hex(start)} to ${hex(start + length - 1)} stays mapped for ${iommu} streams ` +
        streamIds.map(({ base, count }) => range(base, count)).join(', '),
    );
  for (const { name, offset, reason, masters: served } of unsupported)
    lines.push(
      `unsupported: ${name}${offset === undefined ? '' : ` (node at ${hex(offset)})`}: ${reason}` +
        (served?.length ? `; serves ${served.join(', ')}` : ''),
    );
  for (const { name, count, text } of notes) lines.push(`note: ${count} x ${name}: ${text}`);
  return [...head, ...lines.map((line) => fold(line, columns))].join('\n');
}

/** Why a master has no stream: there is nothing in its way, or something that is not modelled. */
function untranslated(master: MasterDescription, unsupported: MachineDescription['unsupported']): string {
  // As UnsupportedPart.masters spells it.
  const name = master.kind === 'named-component' ? master.path : `segment ${master.segment}`;
  const parts = unsupported.filter(({ masters }) => masters?.includes(name)).map((part) => part.name);
  return parts.length === 0 ? 'not translated' : `behind ${[...new Set(parts)].join(', ')}, unsupported`;
}

function masterName(master: MasterDescription): string {
  if (master.kind === 'named-component') return master.path;
  return `PCI segment ${master.segment}${master.ats ? ' (ATS)' : ''}`;
}

function range(base: number, count: number): string {
  return count === 1 ? hex(base) : `${hex(base)}..${hex(base + count - 1)}`;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
