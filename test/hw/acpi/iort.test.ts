import test from 'ava';
import { parseIort } from '../../../hw/acpi/iort.js';
import { IortError } from '../../../hw/acpi/iort-error.js';
import type { IortNodeSpec } from '../../../hw/acpi/iort-writer.js';
import { iortOffsets, writeIort } from '../../../hw/acpi/iort-writer.js';
import { sealSdt } from '../../../hw/acpi/sdt.js';

// [DEN0049]: the table's fields end at 0x30; node header 16 bytes; ID mapping 20 bytes, reference at +12.
const FIRST_NODE = 0x30;

const MACHINE: IortNodeSpec[] = [
  { type: 'its-group', label: 'its', identifiers: [7, 9] },
  {
    type: 'smmuv3',
    label: 'smmu',
    base: 0x0b01_0000,
    mappings: [{ inputBase: 0, count: 0x10000, outputBase: 0, to: 'its' }],
  },
  {
    type: 'root-complex',
    label: 'rc',
    segment: 2,
    ats: true,
    memoryAddressSize: 48,
    mappings: [
      { inputBase: 0, count: 0x100, outputBase: 0x500, to: 'smmu' },
      { inputBase: 0x100, count: 0x100, outputBase: 0x100, to: 'its' },
    ],
  },
  {
    type: 'named-component',
    label: 'npu',
    path: '\\_SB_.NPU0',
    memoryAddressSize: 40,
    mappings: [{ outputBase: 3, to: 'smmu', single: true }],
  },
];

/** Change a table in place and make its checksum right again. */
function edit(nodes: IortNodeSpec[], change: (view: DataView, at: Map<string, number>) => void): Uint8Array {
  const bytes = writeIort(nodes);
  change(new DataView(bytes.buffer), iortOffsets(nodes));
  sealSdt(bytes);
  return bytes;
}

/** The error a table is refused with; its message must name its offset in hex. */
function refusal(bytes: Uint8Array): IortError {
  try {
    parseIort(bytes);
  } catch (error) {
    if (error instanceof IortError && error.message.endsWith(`at 0x${error.offset.toString(16)}`))
      return error;
    throw error;
  }
  throw new Error('the table was accepted');
}

test('parse: every node type of the writer is read back field by field', (t) => {
  const nodes: IortNodeSpec[] = [
    ...MACHINE,
    { type: 'smmu', label: 'old', base: 0x1500_0000, model: 3, contextInterrupts: [40, 41] },
    { type: 'pmcg', counts: 'smmu' },
    {
      type: 'rmr',
      flags: 0x11,
      regions: [{ start: 0x8480_0000, length: 0x80_0000 }],
      mappings: [{ outputBase: 5, count: 2, to: 'smmu' }],
    },
    { type: 'iwb', base: 0x2f00_0000, path: '\\_SB_.IWB0' },
    { type: 'unknown', nodeType: 0x42, body: Uint8Array.of(1, 2, 3, 4) },
  ];
  const at = iortOffsets(nodes);
  const { nodes: read, revision, trailingBytes } = parseIort(writeIort(nodes, { revision: 5 }));
  t.is(revision, 5);
  t.is(trailingBytes, 0);
  t.deepEqual(
    read.map((node) => node.type),
    ['its-group', 'smmuv3', 'root-complex', 'named-component', 'smmu', 'pmcg', 'rmr', 'iwb', 'unknown'],
  );
  t.deepEqual(
    read.map((node) => node.offset),
    [...at.values()],
  );
  t.like(read[0], { identifiers: [7, 9] });
  t.like(read[1], { base: 0x0b01_0000, revision: 5 });
  t.like(read[2], { segment: 2, atsAttribute: 1, memoryAddressSize: 48 });
  t.deepEqual(read[2]!.mappings[0], {
    offset: at.get('rc')! + 0x28,
    inputBase: 0,
    count: 0x100,
    outputBase: 0x500,
    outputReference: at.get('smmu')!,
    single: false,
  });
  t.like(read[3], { path: '\\_SB_.NPU0', memoryAddressSize: 40 });
  t.true(read[3]!.mappings[0]!.single);
  t.like(read[4], { base: 0x1500_0000, model: 3 });
  t.like(read[5], { nodeReference: at.get('smmu')! });
  t.like(read[6], { flags: 0x11 });
  t.like(read[7], { base: 0x2f00_0000, path: '\\_SB_.IWB0' });
  t.like(read[8], { nodeType: 0x42 });
});

test('header: wrong signature, length and checksum are refused at their fields', (t) => {
  const bytes = writeIort(MACHINE);
  t.is(refusal(new Uint8Array(0)).offset, 0);
  t.is(refusal(bytes.subarray(0, 35)).offset, 35);
  const named = bytes.slice();
  named[0] = 0x4a;
  t.regex(refusal(named).message, /"JORT"/);
  t.is(refusal(named).offset, 0);
  t.is(refusal(bytes.subarray(0, bytes.length - 1)).offset, 4);
  const summed = bytes.slice();
  summed[9] = (summed[9]! + 1) & 0xff;
  t.is(refusal(summed).offset, 9);
  t.regex(refusal(summed).message, /checksum.*at 0x9$/);
  for (const length of [0, 35, 0xffff_ffff]) {
    t.is(refusal(edit(MACHINE, (view) => view.setUint32(4, length, true))).offset, 4);
  }
});

test('header: a table too short for its own node count is refused, not read past', (t) => {
  const bytes = writeIort([]).slice(0, 0x2c);
  new DataView(bytes.buffer).setUint32(4, 0x2c, true);
  sealSdt(bytes);
  t.is(refusal(bytes).offset, 4);
});

test('truncated: cutting the table at every length gives an error that names an offset in it', (t) => {
  const whole = writeIort(MACHINE);
  for (let length = 0x30; length < whole.length; length++) {
    const cut = whole.slice(0, length);
    new DataView(cut.buffer).setUint32(4, length, true);
    sealSdt(cut);
    const error = refusal(cut);
    t.true(error.offset >= FIRST_NODE && error.offset <= length, error.message);
    t.regex(error.message, /truncated/);
  }
});

test('truncated: a node count past the table ends at the first node that is missing', (t) => {
  const bytes = edit(MACHINE, (view) => view.setUint32(0x24, 0xffff_ffff, true));
  const error = refusal(bytes);
  t.is(error.offset, bytes.length);
  t.regex(error.message, /node 4 of 4294967295/);
});

test('node list: a node that does not advance is refused at its length', (t) => {
  for (const length of [0, 1, 15]) {
    const bytes = edit(MACHINE, (view, at) => view.setUint16(at.get('smmu')! + 1, length, true));
    t.is(refusal(bytes).offset, iortOffsets(MACHINE).get('smmu')! + 1);
    t.regex(refusal(bytes).message, /would not advance/);
  }
});

test('node list: a node that ends past the table is refused at its length', (t) => {
  const bytes = edit(MACHINE, (view, at) => view.setUint16(at.get('npu')! + 1, 0xffff, true));
  t.is(refusal(bytes).offset, iortOffsets(MACHINE).get('npu')! + 1);
});

test('node list: a first node inside the table header is refused', (t) => {
  for (const offset of [0, 0x24, 0x2f]) {
    t.is(refusal(edit(MACHINE, (view) => view.setUint32(0x28, offset, true))).offset, 0x28);
  }
  const far = edit(MACHINE, (view) => view.setUint32(0x28, 0xffff_fff0, true));
  t.is(refusal(far).offset, 0xffff_fff0);
});

test('node: too short for its type and revision is refused at its length', (t) => {
  const nodes: IortNodeSpec[] = [{ type: 'unknown', nodeType: 4, body: new Uint8Array(0x2b), label: 'n' }];
  t.is(refusal(writeIort(nodes)).offset, FIRST_NODE + 1);
});

test('node: a revision 0 SMMUv3 without the fields of revision 1 is read', (t) => {
  const body = new Uint8Array(0x2c);
  new DataView(body.buffer).setUint32(0, 0x14f8_0000, true);
  const { nodes } = parseIort(writeIort([{ type: 'unknown', nodeType: 4, body }]));
  t.like(nodes[0], { type: 'smmuv3', base: 0x14f8_0000, revision: 0 });
});

test('node: a base past any physical address is refused at the field', (t) => {
  const bytes = edit(MACHINE, (view, at) => view.setBigUint64(at.get('smmu')! + 0x10, 2n ** 53n, true));
  t.is(refusal(bytes).offset, iortOffsets(MACHINE).get('smmu')! + 0x10);
});

test('node: a path without an end, without content or not ASCII is refused', (t) => {
  const at = iortOffsets(MACHINE).get('npu')!;
  const pathAt = at + 0x1d;
  const endless = edit(MACHINE, (view) => {
    for (let i = pathAt; i < at + 0x28; i++) view.setUint8(i, 0x41);
  });
  t.is(refusal(endless).offset, pathAt);
  t.is(refusal(edit(MACHINE, (view) => view.setUint8(pathAt, 0))).offset, pathAt);
  t.is(refusal(edit(MACHINE, (view) => view.setUint8(pathAt + 2, 0x80))).offset, pathAt + 2);
});

test('ITS group, RMR, SMMU: arrays that overrun their node are refused at the field that says so', (t) => {
  const its = edit(MACHINE, (view, at) => view.setUint32(at.get('its')! + 0x10, 3, true));
  t.is(refusal(its).offset, FIRST_NODE + 0x10);
  const rmr: IortNodeSpec[] = [
    { type: 'smmuv3', label: 'smmu', base: 0 },
    {
      type: 'rmr',
      label: 'rmr',
      regions: [
        { start: 0x1000_0000, length: 0x1_0000 },
        { start: 0x1001_0000, length: 0x1_0000 },
      ],
      mappings: [{ outputBase: 1, to: 'smmu' }],
    },
  ];
  const rmrAt = iortOffsets(rmr).get('rmr')!;
  t.is(refusal(edit(rmr, (view) => view.setUint32(rmrAt + 0x14, 0x0ccc_cccd, true))).offset, rmrAt + 0x18);
  t.is(refusal(edit(rmr, (view) => view.setUint32(rmrAt + 0x18, 0x1b, true))).offset, rmrAt + 0x18);
  // Three descriptors fit into the node, but the third is the ID mapping.
  t.regex(refusal(edit(rmr, (view) => view.setUint32(rmrAt + 0x14, 3, true))).message, /overlap/);
  t.is(refusal(edit(rmr, (view) => view.setBigUint64(rmrAt + 0x1c + 8, 0n, true))).offset, rmrAt + 0x24);
  // The first region grown by one byte reaches into the second.
  const grown = edit(rmr, (view) => view.setBigUint64(rmrAt + 0x1c + 8, 0x1_0001n, true));
  t.is(refusal(grown).offset, rmrAt + 0x1c + 20);
  const old: IortNodeSpec[] = [{ type: 'smmu', base: 0, model: 1, contextInterrupts: [1, 2] }];
  t.is(refusal(edit(old, (view) => view.setUint32(FIRST_NODE + 0x2c, 3, true))).offset, FIRST_NODE + 0x30);
});

test('ID mappings: an array outside its node, over its fields or over the next node is refused', (t) => {
  const at = iortOffsets(MACHINE).get('smmu')!;
  for (const offset of [0, 0x10, 0x43, 0x45, 0xffff_ffff]) {
    const bytes = edit(MACHINE, (view) => view.setUint32(at + 12, offset, true));
    t.is(refusal(bytes).offset, at + 12, `mapping offset ${offset}`);
  }
  for (const count of [2, 0xffff_ffff]) {
    const bytes = edit(MACHINE, (view) => view.setUint32(at + 8, count, true));
    t.is(refusal(bytes).offset, at + 12, `mapping count ${count}`);
  }
});

test('ID mappings: a reference that is not the start of a node is refused', (t) => {
  const at = iortOffsets(MACHINE);
  const reference = at.get('rc')! + 0x28 + 12;
  for (const to of [0, 0x31, at.get('smmu')! + 1, 0xffff_ffff]) {
    t.is(refusal(edit(MACHINE, (view) => view.setUint32(reference, to, true))).offset, reference);
  }
});

test('ID mappings: input and output ranges that wrap past 32 bits are refused', (t) => {
  const mapping = iortOffsets(MACHINE).get('rc')! + 0x28;
  const input = edit(MACHINE, (view) => view.setUint32(mapping, 0xffff_ff01, true));
  t.is(refusal(input).offset, mapping);
  const output = edit(MACHINE, (view) => view.setUint32(mapping + 8, 0xffff_ff01, true));
  t.is(refusal(output).offset, mapping + 8);
});

test('ID mappings: ranges that share one input ID are refused at the later mapping', (t) => {
  const mapping = iortOffsets(MACHINE).get('rc')! + 0x28;
  // The firmware mistake: the number of IDs where the number minus one belongs.
  const error = refusal(edit(MACHINE, (view) => view.setUint32(mapping + 4, 0x100, true)));
  t.is(error.offset, mapping + 20);
  t.regex(error.message, /overlaps .*number of IDs minus one/);
});

test('ID mappings: single mappings of one node have no input and do not overlap', (t) => {
  const nodes: IortNodeSpec[] = [
    { type: 'smmuv3', label: 'smmu', base: 0 },
    {
      type: 'named-component',
      path: '\\DPU0',
      mappings: [4, 5, 6].map((outputBase) => ({ outputBase, to: 'smmu', single: true })),
    },
  ];
  t.is(parseIort(writeIort(nodes)).nodes[1]!.mappings.length, 3);
});

test('looped: a cycle of ID mappings is refused at the reference that closes it', (t) => {
  const nodes: IortNodeSpec[] = [
    { type: 'smmuv3', label: 'a', base: 0, mappings: [{ outputBase: 0, to: 'b' }] },
    { type: 'smmuv3', label: 'b', base: 0, mappings: [{ outputBase: 0, to: 'c' }] },
    { type: 'smmuv3', label: 'c', base: 0, mappings: [{ outputBase: 0, to: 'a' }] },
  ];
  const error = refusal(writeIort(nodes));
  t.is(error.offset, iortOffsets(nodes).get('c')! + 0x44 + 12);
  t.regex(error.message, /cycle/);
  const self: IortNodeSpec[] = [
    { type: 'smmuv3', label: 'a', base: 0, mappings: [{ outputBase: 0, to: 'a' }] },
  ];
  t.is(refusal(writeIort(self)).offset, FIRST_NODE + 0x44 + 12);
});

test('looped: a chain of 50000 nodes neither overflows the stack nor counts as a cycle', (t) => {
  const length = 50_000;
  const nodes = Array.from({ length }, (_, i): IortNodeSpec => {
    const mappings = i + 1 < length ? [{ outputBase: 0, to: `n${i + 1}` }] : [];
    return { type: 'unknown', nodeType: 0x42, label: `n${i}`, mappings };
  });
  t.is(parseIort(writeIort(nodes)).nodes.length, length);
  nodes[length - 1]!.mappings = [{ outputBase: 0, to: 'n0' }];
  t.regex(refusal(writeIort(nodes)).message, /cycle/);
});

test('targets: nothing maps to a root complex, and an SMMU maps to an ITS group only', (t) => {
  const toRc: IortNodeSpec[] = [
    { type: 'root-complex', label: 'rc', segment: 0 },
    { type: 'named-component', label: 'nc', path: '\\X', mappings: [{ outputBase: 0, to: 'rc' }] },
  ];
  t.is(refusal(writeIort(toRc)).offset, iortOffsets(toRc).get('nc')! + 0x20 + 12);
  const stacked: IortNodeSpec[] = [
    { type: 'smmuv3', label: 'a', base: 0 },
    { type: 'smmuv3', label: 'b', base: 0, mappings: [{ outputBase: 0, to: 'a' }] },
  ];
  t.regex(refusal(writeIort(stacked)).message, /smmuv3 node cannot map to the smmuv3 node/);
});

test('PMCG: a reference to no node is refused', (t) => {
  const nodes: IortNodeSpec[] = [{ type: 'pmcg', counts: 'nobody' }];
  t.is(refusal(writeIort(nodes)).offset, FIRST_NODE + 0x1c);
});

test('bounds: a table in the middle of a larger buffer is read alone', (t) => {
  const table = writeIort(MACHINE);
  const around = new Uint8Array(table.length + 64).fill(0xa5);
  around.set(table, 13);
  t.deepEqual(parseIort(around.subarray(13)).nodes, parseIort(table).nodes);
  // The bytes behind would complete a node that the table's length cuts off.
  const cut = around.slice(13, 13 + table.length);
  new DataView(cut.buffer).setUint32(4, table.length - 1, true);
  cut[9] = 0;
  const sum = cut.subarray(0, table.length - 1).reduce((total, byte) => (total + byte) & 0xff, 0);
  cut[9] = (0x100 - sum) & 0xff;
  t.regex(refusal(cut).message, /truncated/);
});
