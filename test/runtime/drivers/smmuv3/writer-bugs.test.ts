/**
 * The known bugs of whoever writes STEs, CDs and stream tables: each changes the order of stores as it says, and off
 * means the order that the protocol asks for.
 */
import test from 'ava';
import { type BugName, bugSwitches, NO_BUGS } from '../../../../hw/bugs/bug-switches.js';
import { Words } from '../../../../hw/sync/words.js';
import { cdWriter, stage1Cd } from '../../../../runtime/drivers/smmuv3/cd.js';
import { CdTable } from '../../../../runtime/drivers/smmuv3/cd-table.js';
import type { Smmuv3PagingDomain } from '../../../../runtime/drivers/smmuv3/domain.js';
import { type Entry, writeEntry } from '../../../../runtime/drivers/smmuv3/entry-writer.js';
import { stage2Ste } from '../../../../runtime/drivers/smmuv3/ste.js';
import { steWriter } from '../../../../runtime/drivers/smmuv3/ste-writer.js';
import { StreamTable } from '../../../../runtime/drivers/smmuv3/stream-table.js';
import { DriverFixture } from '../../../kit/smmu-driver-fixture.js';
import { recordStores, type Stored } from '../../../kit/store-recorder.js';

const S2 = { inputBits: 40, startLevel: 1, ps: 5, fwb: false };
const STE_A = stage2Ste({ ...S2, vmid: 1, root: 0x10_0000 }, { attrTypesOvr: true });
const STE_B = stage2Ste({ ...S2, vmid: 2, root: 0x20_0000 }, { attrTypesOvr: true });
const S1 = { inputBits: 48, ips: 5 };
const CD_A = stage1Cd({ ...S1, asid: 1, root: 0x10_0000 });
const CD_B = stage1Cd({ ...S1, asid: 2, root: 0x20_0000 });

/** What replacing one entry by another stores, in order: words by number. */
function order(kind: 'ste' | 'cd', from: Entry, to: Entry, bugs: readonly BugName[]): (number | string)[] {
  const words = new Words(new SharedArrayBuffer(4096));
  from.forEach((value, i) => {
    words.store64(64 + i * 8, value);
  });
  const seen: (number | string)[] = [];
  const see = (stored: Stored): void => {
    seen.push(stored === 'barrier' ? stored : (stored.offset - 64) / 8);
  };
  const sync = (): number => {
    seen.push('sync');
    return 0;
  };
  const make = kind === 'ste' ? steWriter : cdWriter;
  recordStores([64, 128], () => writeEntry(make(words, 64, sync, bugSwitches(bugs)), to), see);
  to.forEach((value, i) => {
    if (words.load64(64 + i * 8) !== value) seen.push(`word ${i} is wrong`);
  });
  return seen;
}

const BREAKING_STE = ['barrier', 0, 'sync', 2, 3, 'sync', 0, 'sync'];
const BREAKING_CD = ['barrier', 0, 'sync', 1, 'sync', 0, 'sync'];

test('without bugs a barrier comes first, and V = 0 before words change together', (t) => {
  t.deepEqual(order('ste', STE_A, STE_B, []), BREAKING_STE);
  t.deepEqual(order('cd', CD_A, CD_B, []), BREAKING_CD);
});

test('ste-torn and cd-torn: one step without V = 0, each for its own kind of entry', (t) => {
  t.deepEqual(order('ste', STE_A, STE_B, ['ste-torn']), ['barrier', 2, 3, 'sync']);
  t.deepEqual(order('cd', CD_A, CD_B, ['cd-torn']), ['barrier', 0, 1, 'sync']);
  t.deepEqual(order('ste', STE_A, STE_B, ['cd-torn']), BREAKING_STE);
  t.deepEqual(order('cd', CD_A, CD_B, ['ste-torn']), BREAKING_CD);
});

test('ste-hitless-without-barrier: the same stores without the barrier', (t) => {
  const bug = 'ste-hitless-without-barrier';
  t.deepEqual(order('ste', STE_A, STE_B, [bug]), BREAKING_STE.slice(1));
  t.deepEqual(order('cd', CD_A, CD_B, [bug]), BREAKING_CD.slice(1));
});

/** What making a leaf of a stream table stores. */
function leafOrder(bugs: readonly BugName[]): string[] {
  const fixture = new DriverFixture();
  const { memory, frames } = fixture;
  const table = StreamTable.create({
    memory,
    frames,
    sidBits: 16,
    twoLevel: true,
    invalidate: () => 0,
    bugs: bugSwitches(bugs),
  });
  if (typeof table === 'number') throw new Error(`no table: ${table}`);
  const l1 = memory.linearOf(table.base, 8);
  const ram = memory.ram;
  const seen = recordStores([ram.linear, ram.linear + ram.bytes], () => table.ensure(0x312));
  const names = seen.map((stored) =>
    stored === 'barrier' ? stored : stored.offset === l1 + 3 * 8 ? 'descriptor' : 'ste',
  );
  return names.filter((name, i) => name !== names[i - 1]);
}

test('l1-before-l2-table: the descriptor shows before the STEs that it leads to', (t) => {
  t.deepEqual(leafOrder([]), ['ste', 'barrier', 'descriptor']);
  t.deepEqual(leafOrder(['l1-before-l2-table']), ['descriptor', 'ste']);
});

test('a leaf of a CD table is there before its descriptor', (t) => {
  const { memory, frames } = new DriverFixture();
  const table = CdTable.create({ memory, frames }, 16);
  if (typeof table === 'number') throw new Error(`no table: ${table}`);
  const ram = memory.ram;
  const seen = recordStores([ram.linear, ram.linear + ram.bytes], () =>
    table.ensure(0x1234, () => undefined),
  );
  t.is(seen.length, 2);
  t.is(seen[0], 'barrier');
});

for (const on of [false, true])
  test(`invs-after-ste ${on ? 'on' : 'off'}: the domain hears of the stream ${on ? 'after' : 'before'} its STE`, (t) => {
    const fixture = new DriverFixture({ bugs: on ? bugSwitches(['invs-after-ste']) : NO_BUGS });
    t.is(fixture.smmus[0]!.attach(fixture.devices[0]!, fixture.paging()), 0);
    const domain = fixture.paging() as Smmuv3PagingDomain;
    const ram = fixture.memory.ram;
    const known = new Set<number>();
    recordStores(
      [ram.linear, ram.linear + ram.bytes],
      () => t.is(fixture.smmus[0]!.attach(fixture.devices[0]!, domain), 0),
      (stored) => {
        if (stored !== 'barrier') known.add(domain.invs.length);
      },
    );
    t.deepEqual([...known], [on ? 0 : 1]);
    t.is(domain.invs.length, 1);
  });
