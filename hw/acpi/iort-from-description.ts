/**
 * The way back: an IORT that describes a given machine. Reading it gives the description again, which is how
 * presets are tested without anybody's firmware, and how a guest can be told of its SMMUs.
 *
 * Not written: what a description cannot say of a part (`unsupported`), and trailing bytes.
 */
import type { MachineDescription, ReservedRegion, StreamMapping } from './description.js';
import type { IortNodeSpec, MappingSpec } from './iort-writer.js';
import { writeIort } from './iort-writer.js';

function mappingSpecs(mappings: readonly StreamMapping[]): MappingSpec[] {
  return mappings.map(({ inputBase, count, outputBase, iommu, single }) =>
    single ? { outputBase, to: iommu, single } : { inputBase, count, outputBase, to: iommu },
  );
}

function rmrNode(region: ReservedRegion): IortNodeSpec {
  const { remapPermitted, privileged, attributes } = region.flags;
  return {
    type: 'rmr',
    flags: (remapPermitted ? 1 : 0) | (privileged ? 2 : 0) | (attributes << 2),
    regions: [{ start: region.start, length: region.length }],
    mappings: region.streamIds.map(({ base, count }) => ({ count, outputBase: base, to: region.iommu })),
  };
}

/** @returns the nodes of a table that describes the machine, for `writeIort` */
export function iortNodesOf(description: MachineDescription): IortNodeSpec[] {
  const nodes: IortNodeSpec[] = [];
  const noted = (name: string): number => description.notes.find((note) => note.name === name)?.count ?? 0;
  for (let i = 0; i < noted('ITS group'); i++) nodes.push({ type: 'its-group', identifiers: [i] });
  for (const iommu of description.iommus) {
    nodes.push({
      type: 'smmuv3',
      label: iommu.name,
      base: iommu.base,
      coherent: iommu.coherent,
      interrupts: iommu.interrupts,
      ...(iommu.proximityDomain === undefined ? {} : { proximityDomain: iommu.proximityDomain }),
    });
  }
  for (const master of description.masters) {
    const { memoryAddressSize } = master;
    const mappings = mappingSpecs(master.idMappings);
    if (master.kind === 'pci-root-complex') {
      const { segment, ats } = master;
      nodes.push({ type: 'root-complex', segment, ats, memoryAddressSize, mappings });
    } else {
      nodes.push({ type: 'named-component', path: master.path, memoryAddressSize, mappings });
    }
  }
  for (const region of description.reserved) nodes.push(rmrNode(region));
  const counted = description.iommus[0]?.name;
  if (counted !== undefined) {
    for (let i = 0; i < noted('PMCG'); i++) nodes.push({ type: 'pmcg', counts: counted });
  }
  return nodes;
}

/** @returns a whole table, checksum and all */
export function iortOf(description: MachineDescription): Uint8Array {
  return writeIort(iortNodesOf(description));
}
