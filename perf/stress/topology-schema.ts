/**
 * A machine description that someone wrote by hand, checked as strictly as a table from firmware: every
 * refusal names the key (`masters[0].idMappings[1].iommu`), and what could be read two ways is refused.
 */
import { z } from 'zod';
import { canonicalPath, type MachineDescription, type MasterDescription } from '../../hw/acpi/description.js';

const ID_SPACE = 2 ** 32;
const RID_SPACE = 2 ** 16;

const id = z
  .number()
  .int()
  .min(0)
  .max(ID_SPACE - 1);
const count = z.number().int().min(1).max(ID_SPACE);
const address = z.number().int().min(0);
const addressBits = z.number().int().min(1).max(64);

const mapping = z.strictObject({
  inputBase: id,
  count,
  outputBase: id,
  iommu: z.string(),
  single: z.literal(true).optional(),
});

const schema = z.strictObject({
  iommus: z.array(
    z.strictObject({
      name: z.string().min(1),
      model: z.literal('smmuv3'),
      base: address,
      coherent: z.boolean(),
      interrupts: z.strictObject({ event: id, pri: id, gerror: id, sync: id }),
      proximityDomain: z.number().int().min(0).optional(),
    }),
  ),
  masters: z.array(
    z.discriminatedUnion('kind', [
      z.strictObject({
        kind: z.literal('pci-root-complex'),
        segment: z.number().int().min(0).max(0xffff),
        ats: z.boolean(),
        memoryAddressSize: addressBits,
        idMappings: z.array(mapping),
      }),
      z.strictObject({
        kind: z.literal('named-component'),
        path: z.string().min(1),
        memoryAddressSize: addressBits,
        idMappings: z.array(mapping),
      }),
    ]),
  ),
  reserved: z
    .array(
      z.strictObject({
        iommu: z.string(),
        streamIds: z.array(z.strictObject({ base: id, count })),
        start: address,
        length: z.number().int().min(1),
        flags: z.strictObject({
          remapPermitted: z.boolean(),
          privileged: z.boolean(),
          attributes: z.number().int().min(0).max(5),
        }),
      }),
    )
    .default([]),
  unsupported: z
    .array(
      z.strictObject({
        name: z.string(),
        offset: z.number().int().min(0).optional(),
        reason: z.string(),
        masters: z.array(z.string()).optional(),
      }),
    )
    .default([]),
  notes: z.array(z.strictObject({ name: z.string(), count: z.number().int(), text: z.string() })).default([]),
});

/** @returns the description, or what is wrong with it, led by the key */
export function checkDescription(value: unknown): MachineDescription | string {
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const path = issue.code === 'unrecognized_keys' ? [...issue.path, issue.keys[0]!] : issue.path;
    return path.length === 0 ? issue.message : `${keyText(path)}: ${issue.message}`;
  }
  return contradiction(parsed.data) ?? parsed.data;
}

function contradiction(description: MachineDescription): string | undefined {
  const names = new Set<string>();
  for (const [index, { name }] of description.iommus.entries()) {
    if (names.has(name)) return `iommus[${index}].name: '${name}' is taken`;
    names.add(name);
  }
  const known = [...names].join(', ') || 'none';
  /** Input ranges already given to each root complex or component, with the key that gave them. */
  const inputs = new Map<string, { key: string; first: number; end: number }[]>();
  for (const [at, master] of description.masters.entries()) {
    const taken = inputs.get(identityOf(master)) ?? [];
    inputs.set(identityOf(master), taken);
    for (const [index, { inputBase, count, outputBase, iommu, single }] of master.idMappings.entries()) {
      const key = `masters[${at}].idMappings[${index}]`;
      if (!names.has(iommu)) return `${key}.iommu: there is no IOMMU '${iommu}' (${known})`;
      const end = inputBase + count;
      const space = master.kind === 'pci-root-complex' ? RID_SPACE : ID_SPACE;
      if (end > space) return `${key}.count: inputs reach ${end - 1}, past ${space - 1}`;
      if (!single && outputBase + count > ID_SPACE) return `${key}.count: stream IDs reach past 32 bits`;
      const other = taken.find((range) => inputBase < range.end && range.first < end);
      if (other) return `${key}: shares inputs with ${other.key}`;
      taken.push({ key, first: inputBase, end });
    }
  }
  for (const [index, { iommu }] of description.reserved.entries())
    if (!names.has(iommu)) return `reserved[${index}].iommu: there is no IOMMU '${iommu}' (${known})`;
  return undefined;
}

function identityOf(master: MasterDescription): string {
  return master.kind === 'pci-root-complex' ? `segment ${master.segment}` : canonicalPath(master.path);
}

/** `masters[0].idMappings[1].count` for a path into the description. */
function keyText(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, part) =>
      typeof part === 'number' ? `${text}[${part}]` : text === '' ? String(part) : `${text}.${String(part)}`,
    '',
  );
}
