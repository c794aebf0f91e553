import test from 'ava';
import * as port from '../../../hw/iotlb/port-layout.js';
import * as unit from '../../../hw/iotlb/unit-layout.js';
import { Kernel } from '../../../hw/kernel/kernel.js';
import { MachineMemory } from '../../../hw/memory/machine-memory.js';
import * as table from '../../../hw/pagetable/page-table-layout.js';

/** The module's immutable globals, by name. */
function constants(): Map<string, number> {
  const memory = MachineMemory.create({ ramBytes: 2 << 20, controlBytes: 1 << 20 });
  const found = new Map<string, number>();
  for (const [name, value] of Object.entries(Kernel.load(memory).exports))
    if (name !== 'memory' && typeof value === 'object')
      found.set(name, (value as { value: number }).value >>> 0);
  return found;
}

const upperSnake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase();
/** s1InputBits is spelled S1_INPUT_BITS, sizeLg2 SIZE_LG2: digits stay with their letter. */
const fields = (prefix: string, at: Record<string, number>): [string, number][] =>
  Object.entries(at).map(([name, offset]) => [`${prefix}_${upperSnake(name)}`, offset]);

test('layout: every constant of the compiled kernel equals its declaration', (t) => {
  const declared = new Map<string, number>([
    ...fields('XLAT', port.Xlat.at),
    ...fields('PORT', port.PortLayout.at),
    ...fields('ATC_ENTRY', port.AtcEntry.at),
    ...fields('UNIT', unit.UnitLayout.at),
    ...fields('CONTEXT', unit.StreamContext.at),
    ...fields('IOTLB_ENTRY', unit.IotlbEntry.at),
    ...fields('IOTLB', unit.iotlbLayout(64).at),
    ...fields('PAGE_TABLE', table.PageTableLayout.at),
    ['PORT_BATCH_SLOTS', port.PORT_BATCH],
    ['PORT_RING_SLOTS', port.PORT_RING],
    // [IHI0070] 7.3: event numbers.
    ['F_WALK_EABT', 0x0b],
    ['F_TRANSLATION', 0x10],
    ['F_ADDR_SIZE', 0x11],
    ['F_ACCESS', 0x12],
    ['F_PERMISSION', 0x13],
    ['LEAF_SIZES_GLOBAL', 0x8000_0000],
  ]);
  for (const module of [port, unit, table])
    for (const [name, value] of Object.entries(module))
      if (typeof value === 'number' && name !== 'PORT_BATCH') declared.set(name, value >>> 0);
  const compiled = constants();
  t.true(compiled.size > 100);
  for (const [name, value] of compiled) t.is(value, declared.get(name) ?? Number.NaN, name);
});

test('layout: an entry of the micro-TLB and of the IOTLB fits its stride', (t) => {
  t.is(unit.IotlbEntry.at.ipaPage + 4, 32);
  t.is(unit.IOTLB_ENTRY_BYTES, 32);
  t.true(unit.StreamContext.at.ssid + 4 <= unit.CONTEXT_BYTES);
  t.is(port.Xlat.at.level + 4, port.XLAT_BYTES);
  t.true(port.AtcEntry.at.ipaPage + 4 <= port.ATC_BYTES);
  t.true(port.Ppr.at.group + 4 <= port.PPR_BYTES);
});
