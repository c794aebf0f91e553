import test from 'ava';
import fc from 'fast-check';
import { describeIort } from '../../../hw/acpi/describe-iort.js';
import { streamIdFor } from '../../../hw/acpi/description.js';
import { IortError } from '../../../hw/acpi/iort-error.js';
import { iortOf } from '../../../hw/acpi/iort-from-description.js';
import { writeIort } from '../../../hw/acpi/iort-writer.js';
import { PRESETS } from '../../../hw/acpi/presets.js';
import { sealSdt } from '../../../hw/acpi/sdt.js';
import { SEED } from './seed.js';

/** One node of every type, so that an edit anywhere hits a decoder. */
const MIXED = writeIort([
  { type: 'its-group', label: 'its', identifiers: [0, 1, 2] },
  { type: 'smmuv3', label: 's', base: 0x1000_0000, mappings: [{ count: 256, outputBase: 0, to: 'its' }] },
  { type: 'smmu', label: 'old', base: 0x1500_0000, model: 3, contextInterrupts: [1, 2, 3] },
  {
    type: 'root-complex',
    segment: 0,
    mappings: [
      { inputBase: 0, count: 0x100, outputBase: 0, to: 's' },
      { inputBase: 0x100, count: 0x100, outputBase: 0, to: 'old' },
    ],
  },
  {
    type: 'named-component',
    path: '\\_SB_.DEV0',
    mappings: [
      { outputBase: 7, to: 's', single: true },
      { inputBase: 4, count: 4, outputBase: 9, to: 's' },
    ],
  },
  { type: 'pmcg', counts: 's' },
  {
    type: 'rmr',
    regions: [{ start: 0x8000_0000, length: 0x1_0000 }],
    mappings: [{ outputBase: 7, to: 's' }],
  },
  { type: 'iwb', base: 0x2f00_0000, path: '\\_SB_.IWB0' },
  { type: 'unknown', nodeType: 0x42, body: new Uint8Array(9) },
]);
const TABLES = [MIXED, ...Object.values(PRESETS).map(iortOf)];

/** Small values hit counts and offsets, the large ones overflow them, the rest is chance. */
const value = fc.oneof(
  fc.integer({ min: 0, max: 0x130 }),
  fc.constantFrom(0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff, 0x0ccc_cccd),
  fc.integer({ min: 0, max: 0xffff_ffff }),
);
const edit = fc.record({
  at: fc.nat({ max: 0x7fff_ffff }),
  lenBytes: fc.constantFrom(1, 2, 4),
  value,
});
const mutant = fc.record({
  table: fc.nat({ max: TABLES.length - 1 }),
  edits: fc.array(edit, { minLength: 1, maxLength: 6 }),
  cut: fc.option(fc.nat({ max: 0x7fff_ffff }), { freq: 4 }),
});

/** The table with its edits and cut; header length and checksum made right, so that the mutant is looked into. */
function apply({ table, edits, cut }: typeof mutant extends fc.Arbitrary<infer T> ? T : never): Uint8Array {
  let bytes = TABLES[table]!.slice();
  if (cut !== null) bytes = bytes.slice(0, 0x30 + (cut % (bytes.length - 0x30)));
  const view = new DataView(bytes.buffer);
  view.setUint32(4, bytes.length, true);
  for (const each of edits) {
    const at = 0x24 + (each.at % (bytes.length - 0x24 - 4 + 1));
    if (each.lenBytes === 1) view.setUint8(at, each.value & 0xff);
    else if (each.lenBytes === 2) view.setUint16(at, each.value & 0xffff, true);
    else view.setUint32(at, each.value, true);
  }
  sealSdt(bytes);
  return bytes;
}

/** @returns whether the table was accepted; fails on any exception but an IortError that names its offset */
function accepted(bytes: Uint8Array): boolean {
  try {
    const description = describeIort(bytes);
    const names = new Set(description.iommus.map((iommu) => iommu.name));
    for (const master of description.masters) {
      for (const mapping of master.idMappings) {
        if (!names.has(mapping.iommu) || mapping.count < 1) throw new Error('a mapping to nowhere');
        const last = mapping.inputBase + mapping.count - 1;
        const query =
          master.kind === 'pci-root-complex'
            ? { segment: master.segment, rid: last }
            : { path: master.path, inputId: last };
        const stream = streamIdFor(description, query);
        const expected = mapping.single ? mapping.outputBase : mapping.outputBase + mapping.count - 1;
        if (stream?.iommu !== mapping.iommu || stream.streamId !== expected) {
          throw new Error(`input ${last} of ${JSON.stringify(mapping)} went to ${JSON.stringify(stream)}`);
        }
      }
    }
    JSON.parse(JSON.stringify(description));
    return true;
  } catch (error) {
    if (!(error instanceof IortError)) throw error;
    if (!error.message.endsWith(`at 0x${error.offset.toString(16)}`)) throw error;
    return false;
  }
}

test('fuzz: a mutated table is described, each input ID with one stream, or refused with an IortError', (t) => {
  t.log(`SEED=${SEED}`);
  let kept = 0;
  let refused = 0;
  fc.assert(
    fc.property(mutant, (each) => {
      if (accepted(apply(each))) kept++;
      else refused++;
    }),
    { seed: SEED, numRuns: 8000 },
  );
  // Both must occur, or the mutations are too wild or too tame to test anything.
  t.true(kept > 100, `${kept} accepted`);
  t.true(refused > 100, `${refused} refused`);
});

test('fuzz: every byte of a table set to 0x00, 0xff and its neighbours is described or refused', (t) => {
  let refused = 0;
  for (let at = 0x24; at < MIXED.length; at++) {
    for (const byte of [0, 0xff, MIXED[at]! + 1, MIXED[at]! - 1]) {
      const bytes = MIXED.slice();
      bytes[at] = byte & 0xff;
      sealSdt(bytes);
      if (!accepted(bytes)) refused++;
    }
  }
  t.true(refused > 100);
});

test('fuzz: random bytes behind a valid table header are described or refused', (t) => {
  t.log(`SEED=${SEED}`);
  let runs = 0;
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 12, maxLength: 400 }), (tail) => {
      const bytes = new Uint8Array(36 + tail.length);
      bytes.set(MIXED.subarray(0, 36));
      bytes.set(tail, 36);
      new DataView(bytes.buffer).setUint32(4, bytes.length, true);
      new DataView(bytes.buffer).setUint32(0x28, 0x30, true);
      sealSdt(bytes);
      accepted(bytes);
      runs++;
    }),
    { seed: SEED, numRuns: 2000 },
  );
  t.is(runs, 2000);
});
