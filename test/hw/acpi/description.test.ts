import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import test from 'ava';
import { describeIort } from '../../../hw/acpi/describe-iort.js';
import { reservedFor, streamIdFor } from '../../../hw/acpi/description.js';
import { IortError } from '../../../hw/acpi/iort-error.js';
import { iortOf } from '../../../hw/acpi/iort-from-description.js';
import type { IortNodeSpec } from '../../../hw/acpi/iort-writer.js';
import { iortOffsets, writeIort } from '../../../hw/acpi/iort-writer.js';
import { PRESETS } from '../../../hw/acpi/presets.js';

/** A real table, when it lies beside the repository; they are never part of it. */
function realTable(name: string): Uint8Array | undefined {
  const file = resolve(process.cwd(), '../shared/acpi', name);
  return existsSync(file) ? new Uint8Array(readFileSync(file)) : undefined;
}

const ITS: IortNodeSpec = { type: 'its-group', label: 'its' };

test('describe: SMMUv3 nodes become IOMMUs, named in table order', (t) => {
  const { iommus, notes } = describeIort(
    writeIort([
      ITS,
      {
        type: 'smmuv3',
        base: 0x0b01_0000,
        coherent: true,
        interrupts: { event: 107, pri: 0, gerror: 112, sync: 108 },
        proximityDomain: 2,
        mappings: [{ count: 0x10000, outputBase: 0, to: 'its' }],
      },
      { type: 'smmuv3', base: 0x4_0000_0000 },
      { type: 'pmcg', counts: 'its' },
      { type: 'pmcg', counts: 'its' },
    ]),
  );
  t.deepEqual(iommus, [
    {
      name: 'smmu0',
      model: 'smmuv3',
      base: 0x0b01_0000,
      coherent: true,
      interrupts: { event: 107, pri: 0, gerror: 112, sync: 108 },
      proximityDomain: 2,
    },
    {
      name: 'smmu1',
      model: 'smmuv3',
      base: 0x4_0000_0000,
      coherent: false,
      interrupts: { event: 0, pri: 0, gerror: 0, sync: 0 },
    },
  ]);
  t.deepEqual(
    notes.map(({ name, count }) => [name, count]),
    [
      ['ITS group', 1],
      ['PMCG', 2],
    ],
  );
});

test('describe: a stream ID is translated once, not again by the mapping of the SMMU to its ITS', (t) => {
  const description = describeIort(
    writeIort([
      {
        type: 'root-complex',
        segment: 3,
        mappings: [
          { inputBase: 0x100, count: 0x80, outputBase: 0x3_0000, to: 'smmu' },
          { inputBase: 0x180, count: 1, outputBase: 0x9, to: 'smmu' },
        ],
      },
      {
        type: 'smmuv3',
        label: 'smmu',
        base: 0,
        mappings: [{ count: 0x7_0000, outputBase: 0x8_0000, to: 'its' }],
      },
      ITS,
    ]),
  );
  t.is(streamIdFor(description, { segment: 3, rid: 0xff }), undefined);
  t.deepEqual(streamIdFor(description, { segment: 3, rid: 0x100 }), { iommu: 'smmu0', streamId: 0x3_0000 });
  t.deepEqual(streamIdFor(description, { segment: 3, rid: 0x17f }), { iommu: 'smmu0', streamId: 0x3_007f });
  t.deepEqual(streamIdFor(description, { segment: 3, rid: 0x180 }), { iommu: 'smmu0', streamId: 9 });
  t.is(streamIdFor(description, { segment: 3, rid: 0x181 }), undefined);
  t.is(streamIdFor(description, { segment: 0, rid: 0x100 }), undefined);
  t.is(streamIdFor(description, { path: '\\X', inputId: 0x100 }), undefined);
});

test('describe: a mapping straight to an ITS is no stream mapping', (t) => {
  const description = describeIort(
    writeIort([
      ITS,
      { type: 'root-complex', segment: 0, mappings: [{ count: 0x10000, outputBase: 0, to: 'its' }] },
      { type: 'smmuv3', label: 'smmu', base: 0 },
      {
        type: 'named-component',
        path: '\\_SB_.DMA0',
        mappings: [
          { outputBase: 0x77, to: 'its', single: true },
          { outputBase: 0x11, to: 'smmu', single: true },
        ],
      },
    ]),
  );
  t.deepEqual(description.masters[0], {
    kind: 'pci-root-complex',
    segment: 0,
    ats: false,
    memoryAddressSize: 64,
    idMappings: [],
  });
  t.is(streamIdFor(description, { segment: 0, rid: 8 }), undefined);
  t.deepEqual(streamIdFor(description, { path: '\\_SB_.DMA0', inputId: 0 }), {
    iommu: 'smmu0',
    streamId: 0x11,
  });
  t.is(streamIdFor(description, { path: '\\_SB_.DMA0', inputId: 1 }), undefined);
});

test('describe: a mapping through an ITS to an SMMU is no stream mapping either', (t) => {
  const description = describeIort(
    writeIort([
      { type: 'smmuv3', label: 'smmu', base: 0 },
      { ...ITS, mappings: [{ count: 0x10000, outputBase: 0, to: 'smmu' }] },
      { type: 'root-complex', segment: 0, mappings: [{ count: 0x10000, outputBase: 0, to: 'its' }] },
    ]),
  );
  t.is(description.iommus.length, 1);
  t.deepEqual(description.masters[0]!.idMappings, []);
  t.is(streamIdFor(description, { segment: 0, rid: 8 }), undefined);
});

test('describe: single mappings of a component go by the input IDs its ranges leave free', (t) => {
  const description = describeIort(
    writeIort([
      { type: 'smmuv3', label: 'smmu', base: 0 },
      {
        type: 'named-component',
        path: '\\_SB.GPU0',
        mappings: [
          { outputBase: 0x50, to: 'smmu', single: true },
          { inputBase: 1, count: 2, outputBase: 0x60, to: 'smmu' },
          { outputBase: 0x51, to: 'smmu', single: true },
        ],
      },
    ]),
  );
  const ids = [0, 1, 2, 3, 4].map(
    (inputId) => streamIdFor(description, { path: '\\_SB_.GPU0', inputId })?.streamId,
  );
  t.deepEqual(ids, [0x50, 0x60, 0x61, 0x51, undefined]);
});

test('describe: a single mapping of a root complex is the stream of every RID', (t) => {
  const description = describeIort(
    writeIort([
      { type: 'smmuv3', label: 'smmu', base: 0 },
      { type: 'root-complex', segment: 0, mappings: [{ outputBase: 0x42, to: 'smmu', single: true }] },
    ]),
  );
  for (const rid of [0, 0xffff]) {
    t.deepEqual(streamIdFor(description, { segment: 0, rid }), { iommu: 'smmu0', streamId: 0x42 });
  }
});

test('describe: two root complexes of a segment may split its RIDs, not share one', (t) => {
  const half = (inputBase: number, label: string): IortNodeSpec => ({
    type: 'root-complex',
    label,
    segment: 0,
    mappings: [{ inputBase, count: 0x8000, outputBase: 0, to: label === 'a' ? 'smmu0' : 'smmu1' }],
  });
  const smmus: IortNodeSpec[] = [
    { type: 'smmuv3', label: 'smmu0', base: 0 },
    { type: 'smmuv3', label: 'smmu1', base: 0x2_0000 },
  ];
  const split = describeIort(writeIort([...smmus, half(0, 'a'), half(0x8000, 'b')]));
  t.deepEqual(streamIdFor(split, { segment: 0, rid: 0x8001 }), { iommu: 'smmu1', streamId: 1 });
  const shared = [...smmus, half(0, 'a'), half(0x7fff, 'b')];
  const error = t.throws(() => describeIort(writeIort(shared)), { instanceOf: IortError });
  t.is(error.offset, iortOffsets(shared).get('b')! + 0x28);
});

test('describe: one component twice is refused, however its path is padded', (t) => {
  const nodes: IortNodeSpec[] = [
    { type: 'named-component', path: '\\_SB.GPU0' },
    { type: 'named-component', label: 'again', path: '\\_SB_.GPU0' },
  ];
  const error = t.throws(() => describeIort(writeIort(nodes)), { instanceOf: IortError });
  t.is(error.offset, iortOffsets(nodes).get('again')!);
});

test('describe: old SMMUs are unsupported by name, with the masters that sit behind them', (t) => {
  const smmu = (model: number): IortNodeSpec => ({
    type: 'smmu',
    label: `m${model}`,
    base: 0x1500_0000,
    model,
  });
  const nodes: IortNodeSpec[] = [
    ...[0, 1, 2, 3, 4, 5, 9].map(smmu),
    { type: 'root-complex', segment: 6, mappings: [{ count: 0x10000, outputBase: 0, to: 'm3' }] },
    { type: 'named-component', path: '\\GPU0', mappings: [{ outputBase: 0, to: 'm3' }] },
  ];
  const description = describeIort(writeIort(nodes));
  t.deepEqual(
    description.unsupported.map((part) => part.name),
    ['SMMUv1', 'SMMUv2', 'SMMUv1', 'SMMUv2', 'SMMUv1', 'SMMUv2', 'SMMU'],
  );
  t.deepEqual(description.unsupported[3]!.masters, ['segment 6', '\\GPU0']);
  t.is(description.unsupported[3]!.offset, iortOffsets(nodes).get('m3'));
  t.regex(description.unsupported[3]!.reason, /MMU-500.*0x15000000/);
  t.is(streamIdFor(description, { segment: 6, rid: 0 }), undefined);
  t.deepEqual(description.iommus, []);
});

test('describe: an unknown node type is reported and its neighbours are read', (t) => {
  const description = describeIort(
    writeIort([
      { type: 'unknown', nodeType: 0x42, body: new Uint8Array(5) },
      { type: 'smmuv3', base: 0x1000_0000 },
    ]),
  );
  t.like(description.unsupported[0], { name: 'node type 0x42', offset: 0x30 });
  t.is(description.iommus.length, 1);
});

test('describe: reserved memory is listed for each SMMUv3, and only from table revision 5 on', (t) => {
  const nodes: IortNodeSpec[] = [
    { type: 'smmuv3', label: 'smmu0', base: 0 },
    { type: 'smmuv3', label: 'smmu1', base: 0x2_0000 },
    {
      type: 'rmr',
      flags: 0x16,
      regions: [{ start: 0x8000_0000, length: 0x1_0000 }],
      mappings: [
        { outputBase: 8, count: 4, to: 'smmu1' },
        { outputBase: 1, to: 'smmu0', single: true },
      ],
    },
  ];
  const description = describeIort(writeIort(nodes, { revision: 5 }));
  const region = {
    start: 0x8000_0000,
    length: 0x1_0000,
    flags: { remapPermitted: false, privileged: true, attributes: 5 },
  };
  t.deepEqual(description.reserved, [
    { iommu: 'smmu1', streamIds: [{ base: 8, count: 4 }], ...region },
    { iommu: 'smmu0', streamIds: [{ base: 1, count: 1 }], ...region },
  ]);
  t.is(reservedFor(description, { iommu: 'smmu1', streamId: 11 }).length, 1);
  t.is(reservedFor(description, { iommu: 'smmu1', streamId: 12 }).length, 0);
  t.is(reservedFor(description, { iommu: 'smmu0', streamId: 8 }).length, 0);
  const old = describeIort(writeIort(nodes, { revision: 3 }));
  t.deepEqual(old.reserved, []);
  t.is(old.unsupported[0]!.name, 'RMR');
});

test('describe: one RMR node that multiplies into too many regions is refused', (t) => {
  const smmus = Array.from(
    { length: 300 },
    (_, i): IortNodeSpec => ({ type: 'smmuv3', label: `s${i}`, base: i * 0x2_0000 }),
  );
  const rmr: IortNodeSpec = {
    type: 'rmr',
    label: 'rmr',
    regions: Array.from({ length: 300 }, (_, i) => ({ start: i * 0x1_0000, length: 0x1_0000 })),
    mappings: smmus.map(({ label }) => ({ outputBase: 0, to: label! })),
  };
  const error = t.throws(() => describeIort(writeIort([...smmus, rmr])), { instanceOf: IortError });
  t.is(error.offset, iortOffsets([...smmus, rmr]).get('rmr')!);
});

test('streamIdFor: an ID that two mappings of a hand-written description cover has no one stream', (t) => {
  const description = structuredClone(PRESETS['server-4']!);
  description.masters[0]!.idMappings.push({ inputBase: 8, count: 1, outputBase: 99, iommu: 'smmu0' });
  t.is(streamIdFor(description, { segment: 0, rid: 8 }), undefined);
  t.deepEqual(streamIdFor(description, { segment: 0, rid: 9 }), { iommu: 'smmu0', streamId: 9 });
});

for (const [name, preset] of Object.entries(PRESETS)) {
  test(`preset ${name}: is plain JSON, and the table written from it describes it again`, (t) => {
    t.deepEqual(JSON.parse(JSON.stringify(preset)), preset);
    t.deepEqual(describeIort(iortOf(preset)), preset);
  });
}

test('preset cix-p1: equals what the firmware of a real CIX P1 describes', (t) => {
  const preset = PRESETS['cix-p1']!;
  const table = realTable('iort-cix-p1-2-smmuv3.bin');
  if (table === undefined) t.log('skipped the real table: ../shared/acpi/iort-cix-p1-2-smmuv3.bin is absent');
  const description = describeIort(table ?? iortOf(preset));
  t.deepEqual(description, preset);
  t.deepEqual(
    description.iommus.map((iommu) => iommu.base),
    [0x0b01_0000, 0x0b1b_0000],
  );
  t.deepEqual(streamIdFor(description, { segment: 0, rid: 0x0100 }), { iommu: 'smmu0', streamId: 0x0100 });
  t.deepEqual(streamIdFor(description, { segment: 0, rid: 0xffff }), { iommu: 'smmu0', streamId: 0xffff });
  // Five streams for DPU1; the ID they leave out, 8, is AEU1's.
  const dpu1 = [0, 1, 2, 3, 4, 5].map(
    (inputId) => streamIdFor(description, { path: '\\_SB_.DPU1', inputId })?.streamId,
  );
  t.deepEqual(dpu1, [6, 7, 9, 10, 11, undefined]);
  t.deepEqual(streamIdFor(description, { path: '\\_SB_.NPU0', inputId: 0 }), {
    iommu: 'smmu1',
    streamId: 30,
  });
  t.is(reservedFor(description, { iommu: 'smmu1', streamId: 25 })[0]?.start, 0x8480_0000);
});

test('preset server-4: every segment has an SMMU of its own and keeps its RIDs as stream IDs', (t) => {
  const preset = PRESETS['server-4']!;
  for (const segment of [0, 1, 2, 3]) {
    for (const rid of [0, 0x1234, 0xffff]) {
      t.deepEqual(streamIdFor(preset, { segment, rid }), { iommu: `smmu${segment}`, streamId: rid });
    }
  }
  t.is(streamIdFor(preset, { segment: 4, rid: 0 }), undefined);
});

test('ThinkPad X13s: two SMMUv2 are unsupported by name, seven segments share the SMMUv3', (t) => {
  const table = realTable('iort-thinkpad-x13s.bin');
  if (table === undefined) t.log('skipped the real table: ../shared/acpi/iort-thinkpad-x13s.bin is absent');
  // Of the same shape, where the table is absent: the CoreLink MMU-500 twice, offset streams per segment.
  const alike = (): Uint8Array =>
    writeIort([
      { type: 'smmu', label: 'apps', base: 0x1500_0000, model: 3 },
      { type: 'smmu', label: 'gpu', base: 0x03da_0000, model: 3 },
      ...[0, 1, 2, 3, 4, 5, 6].map(
        (segment): IortNodeSpec => ({
          type: 'root-complex',
          segment,
          mappings: [{ count: 0x1_0000, outputBase: segment * 0x1_0000, to: 'pcie' }],
        }),
      ),
      {
        type: 'named-component',
        path: '\\_SB.GPU0',
        mappings: [
          { inputBase: 0x30a_0000, outputBase: 2, to: 'gpu' },
          { inputBase: 0x3_0000, outputBase: 0x1000, to: 'apps' },
        ],
      },
      {
        type: 'smmuv3',
        label: 'pcie',
        base: 0x14f8_0000,
        coherent: true,
        interrupts: { event: 983, pri: 0, gerror: 987, sync: 985 },
        mappings: [{ count: 0x7_0000, outputBase: 0x8_0000, to: 'its' }],
      },
      ITS,
    ]);
  const description = describeIort(table ?? alike());
  t.deepEqual(
    description.unsupported.map(({ name, masters }) => [name, masters?.includes('\\_SB.GPU0')]),
    [
      ['SMMUv2', true],
      ['SMMUv2', true],
    ],
  );
  t.deepEqual(description.iommus, [
    {
      name: 'smmu0',
      model: 'smmuv3',
      base: 0x14f8_0000,
      coherent: true,
      interrupts: { event: 983, pri: 0, gerror: 987, sync: 985 },
    },
  ]);
  t.deepEqual(streamIdFor(description, { segment: 6, rid: 0x0100 }), { iommu: 'smmu0', streamId: 0x6_0100 });
  t.is(streamIdFor(description, { path: '\\_SB_.GPU0', inputId: 0x3_0000 }), undefined);
});
