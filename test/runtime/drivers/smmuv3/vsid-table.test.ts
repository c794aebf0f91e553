/** A vIOMMU's vSID table and identity: collisions, removal, reuse of the record, and what destroy gives back. */
import test from 'ava';
import { NO_BUGS } from '../../../../hw/bugs/bug-switches.js';
import type { InvalidationNote } from '../../../../runtime/drivers/contract.js';
import { invalidateRange } from '../../../../runtime/drivers/smmuv3/domain-invalidate.js';
import { Smmuv3Invalidator } from '../../../../runtime/drivers/smmuv3/invalidate.js';
import { type InvType, S1_ASID, S2_VMID } from '../../../../runtime/drivers/smmuv3/invs.js';
import type { SmmuDevice } from '../../../../runtime/drivers/smmuv3/smmu-device.js';
import { Smmuv3Viommu } from '../../../../runtime/drivers/smmuv3/viommu.js';
import { ViommuTable } from '../../../../runtime/drivers/smmuv3/viommu-record.js';
import { DriverFixture } from '../../../kit/smmu-driver-fixture.js';

const ENOENT = 2;
const ENOMEM = 12;
const ETIMEDOUT = 110;
const NEST_PARENT = 1;
const ARM_SMMUV3 = 1;
/** vSIDs this far apart compete for one place. */
const SLOTS = 256;

function viommu(f: DriverFixture): Smmuv3Viommu {
  const made = f.smmus[0]!.allocViommu(f.devices[0]!, f.paging(0, NEST_PARENT), ARM_SMMUV3);
  if (!(made instanceof Smmuv3Viommu)) throw new Error(`allocViommu said ${made}`);
  return made;
}

test('vsids: those that collide at the table’s end are all found, also after one of them is gone', (t) => {
  const f = new DriverFixture();
  const table = new ViommuTable(f.env, f.records.create(0, 1));
  const vsids = [SLOTS - 1, 2 * SLOTS - 1, 3 * SLOTS - 1];
  vsids.forEach((vsid, i) => {
    t.is(table.add(vsid, 0x100 + i, i), 0);
  });
  t.deepEqual(
    vsids.map((vsid) => table.find(vsid)),
    [0x100, 0x101, 0x102],
  );
  t.is(table.remove(vsids[1]!), 0);
  t.deepEqual(
    vsids.map((vsid) => table.find(vsid)),
    [0x100, -1, 0x102],
  );
});

test('vsids: a record that is used again knows none of its former guest’s', (t) => {
  const f = new DriverFixture();
  const record = f.records.create(0, 1);
  t.is(new ViommuTable(f.env, record).add(7, 0x100, 0), 0);
  f.records.destroy(record);
  t.is(f.records.create(0, 2), record);
  t.is(new ViommuTable(f.env, record).find(7), -1);
});

test('viommu: a vDEVICE is destroyed by its own vSID only, and with its vIOMMU at the latest', (t) => {
  const f = new DriverFixture();
  const v = viommu(f);
  const device = f.devices[0]!;
  t.is(v.vdeviceInit(device, 7n), 0);
  v.vdeviceDestroy(device, 8n);
  t.is(v.vsidOf(device), 7);
  const { vmid } = v;
  t.true(v.smmu.vmids.has(vmid));
  v.destroy();
  t.is(v.vsidOf(device), -ENOENT);
  t.false(v.smmu.vmids.has(vmid), 'the VMID is free again');
});

test('viommu: a VMID that a dead pIOMMU did not flush stays out of use', (t) => {
  const f = new DriverFixture({ driver: { queue: { deadlineNs: 2e6 } } });
  const v = viommu(f);
  f.alive.delete(0);
  v.destroy();
  t.true(v.smmu.vmids.has(v.vmid));
});

test('viommu: without a record for it the VMID is given back', (t) => {
  const f = new DriverFixture();
  const parent = f.paging(0, NEST_PARENT);
  while (f.records.create(0, 1) >= 0);
  const { vmids } = f.smmus[0]!.smmu;
  const before = vmids.count;
  t.is(f.smmus[0]!.allocViommu(f.devices[0]!, parent, ARM_SMMUV3), -ENOMEM);
  t.is(vmids.count, before);
});

test('invalidate: commands that a dead pIOMMU did not complete are not counted', (t) => {
  const f = new DriverFixture();
  const v = viommu(f);
  f.alive.delete(0);
  const handled = Uint32Array.of(0xdead);
  const invalidator = new Smmuv3Invalidator(f.memory, f.env, { deadlineNs: 2e6 });
  const nhAll = new Uint8Array(16);
  nhAll[0] = 0x10;
  t.is(invalidator.cacheInvalidate(v.sharedBase, nhAll, 16, 1, handled), -ETIMEDOUT);
  t.is(handled[0], 0);
});

/** What one tag of an SMMU without RIL gets for `pages` pages: the first command's words 0 and 1. */
function issued(type: InvType, id: number, pages: number, waited = 0) {
  const commands: number[][] = [];
  const smmu = {
    index: 0,
    wrongVmid: false,
    bugs: NO_BUGS,
    features: { ranged: false },
    batch: {
      add(encode: (words: Uint32Array, at: number) => void) {
        const words = new Uint32Array(4);
        encode(words, 0);
        commands.push([words[0]! & 0xff, words[1]! & 0xffff, words[1]! >>> 16]);
      },
      submit: () => 1,
    },
    queue: { wait: () => waited, nowNs: () => 0 },
  } as unknown as SmmuDevice;
  const notes: InvalidationNote[] = [];
  const range = { firstPage: 0, pages, leaf: true };
  const status = invalidateRange([{ smmu, type, id, users: 1 }], range, notes, () => 1);
  return { commands, notes, status };
}

test('domain: a range too big for single commands goes as one for the whole ASID or VMID', (t) => {
  t.deepEqual(issued(S1_ASID, 5, 512).commands, [[0x11, 0, 5]]);
  t.deepEqual(issued(S2_VMID, 6, 512).commands, [[0x28, 6, 0]]);
  t.is(issued(S1_ASID, 5, 511).commands.length, 511);
});

test('domain: the note of an invalidation that timed out says so', (t) => {
  t.like(issued(S1_ASID, 5, 1, -ETIMEDOUT), { status: -ETIMEDOUT, notes: [{ failed: true }] });
  t.false(issued(S1_ASID, 5, 1).notes[0]!.failed);
});
