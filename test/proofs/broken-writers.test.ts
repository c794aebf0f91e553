/**
 * The proof can fail: each way to write an entry wrongly is shown an image that nobody asked for, or costs what the
 * case does not allow. The case is named; in the others of its kind the defect may do no harm.
 */
import test from 'ava';
import { bugSwitches, NO_BUGS } from '../../hw/bugs/bug-switches.js';
import { Words } from '../../hw/sync/words.js';
import { cdWriter } from '../../runtime/drivers/smmuv3/cd.js';
import { type EntryWriter, writeEntry } from '../../runtime/drivers/smmuv3/entry-writer.js';
import { steWriter } from '../../runtime/drivers/smmuv3/ste-writer.js';
import { StreamTable } from '../../runtime/drivers/smmuv3/stream-table.js';
import { DriverFixture } from '../kit/smmu-driver-fixture.js';
import { recordStores, type Stored } from '../kit/store-recorder.js';
import { CD_KINDS, STE_KINDS } from './entry-kinds.js';
import { exploreFetch, type WriterEvent } from './fetch-interleavings.js';
import { KUNIT_CASES } from './kunit-cases.js';
import { cdBehaviour, type Image, steBehaviour } from './ste-behaviour.js';
import { type EntryKind, judge, type WriteEntry } from './transition.js';

/** KUnit cases, and pairs of kinds, in which a writer shows a mixture. */
function mixed(write: WriteEntry): string[] {
  const found: string[] = [];
  for (const { name, transitions } of KUNIT_CASES)
    if (transitions.some(({ kind, from, to }) => judge(kind, from, to, write).mixtures.length > 0))
      found.push(name);
  return found;
}

const ste = (from: keyof typeof STE_KINDS, to: keyof typeof STE_KINDS, write: WriteEntry) =>
  judge('ste', STE_KINDS[from], STE_KINDS[to], write);
const cd = (from: keyof typeof CD_KINDS, to: keyof typeof CD_KINDS, write: WriteEntry) =>
  judge('cd', CD_KINDS[from], CD_KINDS[to], write);

test('the real writer: no mixture in any case', (t) => {
  t.deepEqual(mixed(writeEntry), []);
});

test('all words in one step: most cases show a mixture, s1_to_s2 and sva_release among them', (t) => {
  const oneStep: WriteEntry = (writer, target) => writeEntry({ ...writer, torn: true }, target);
  const cases = mixed(oneStep);
  for (const name of ['write_ste_test_s1_to_s2', 'write_ste_test_non_hitless', 'write_cd_test_sva_release'])
    t.true(cases.includes(name), name);
  // One word alone, or what the other entry ignores: nothing to tear.
  t.false(cases.includes('write_cd_test_s1_change_asid'));
  t.true(ste('s2', 's2, other root', oneStep).mixtures.length > 0);
  t.true(cd('s1', 's1, both other', oneStep).mixtures.length > 0);
});

/** Stores the words of `order` that differ, as one step. */
function step(writer: EntryWriter, target: Image, order: readonly number[]): void {
  const changed = order.filter((i) => writer.load(i) !== target[i]);
  for (const i of changed) writer.store(i, target[i]!);
  if (changed.length > 0) writer.sync();
}

test('the deciding word first, the others after it: abort_to_s2 runs stage 2 on an empty root', (t) => {
  const decidingFirst: WriteEntry = (writer, target) => {
    writer.barrier();
    step(writer, target, [0]);
    step(writer, target, [1, 2, 3, 4, 5, 6, 7]);
    return 0;
  };
  const cases = mixed(decidingFirst);
  t.true(cases.includes('write_ste_test_abort_to_s2'));
  t.true(cases.includes('write_cd_test_s1_clear'));
});

test('no V = 0 where several words decide: non_hitless shows another CD table with the old S1DSS', (t) => {
  const keepsValid: WriteEntry = (writer, target) => {
    writer.barrier();
    step(writer, target, [1, 2, 3, 4, 5, 6, 7]);
    step(writer, target, [0]);
    return 0;
  };
  t.true(mixed(keepsValid).includes('write_ste_test_non_hitless'));
  t.true(ste('s2', 's2, other root', keepsValid).mixtures.length > 0);
  t.true(cd('s1', 's1, both other', keepsValid).mixtures.length > 0);
});

test('barriers in place of the syncs between the steps: cdtable_to_bypass and s1_clear mix, a barrier is not enough', (t) => {
  const unsynced: WriteEntry = (writer, target) => {
    const sync = (): number => {
      writer.barrier();
      return 0;
    };
    writeEntry({ ...writer, sync }, target);
    return writer.sync();
  };
  const cases = mixed(unsynced);
  t.true(cases.includes('write_ste_test_cdtable_to_bypass'));
  t.true(cases.includes('write_ste_test_abort_to_s2'));
  t.true(cases.includes('write_cd_test_s1_clear'));
});

test('a used bit forgotten (S2VMID of a stage-1 entry): stage 1 runs under the VMID of another', (t) => {
  const forgetful: WriteEntry = (writer, target) => {
    const used = (entry: Image): Image =>
      writer.used(entry).map((word, i) => (i === 2 && ((entry[0]! >> 1n) & 7n) === 5n ? 0n : word));
    return writeEntry({ ...writer, used }, target);
  };
  t.true(ste('s1', 's2', forgetful).mixtures.length > 0);
  t.is(ste('s1', 's2', writeEntry).mixtures.length, 0);
});

test('EATS taken as free beside S2S: an entry with both, which is illegal', (t) => {
  const careless: WriteEntry = (writer, target) =>
    writeEntry(
      { ...writer, updateSafe: () => [0n, (1n << 19n) | (1n << 28n), 0n, 0n, 0n, 0n, 0n, 0n] },
      target,
    );
  t.true(ste('s2+ats', 's2+stall', careless).mixtures.length > 0);
  t.is(ste('s2+ats', 's2+stall', writeEntry).mixtures.length, 0);
});

test('EATS and MEV not taken as free, as before Linux 7.0: the nested cases are not hitless', (t) => {
  const strict: WriteEntry = (writer, target) => {
    const { updateSafe: _, ...rest } = writer;
    return writeEntry(rest, target);
  };
  for (const name of ['nested_s1dssbypass_to_s1bypass', 'nested_s1bypass_to_s1dssbypass']) {
    const [transition] = KUNIT_CASES.find((found) => found.name === `write_ste_test_${name}`)!.transitions;
    const { zeroed, invalid } = judge('ste', transition!.from, transition!.to, strict);
    t.true(zeroed && invalid > 0, name);
  }
});

// ---- what an entry leads to ----

const EMPTY = 0n;
const MAPPED = 0x700n;

/** An entry is pointed at a table whose first descriptor (word 8) was written just before; the fetch goes on to it. */
function pointed(kind: EntryKind, from: Image, to: Image, bugs = NO_BUGS) {
  const words = new Words(new SharedArrayBuffer(256));
  from.forEach((value, i) => {
    words.store64(64 + i * 8, value);
  });
  const events: WriterEvent[] = [];
  const sync = (): number => {
    events.push('sync');
    return 0;
  };
  recordStores(
    [64, 136],
    () => {
      words.store64(128, MAPPED);
      const make = kind === 'ste' ? steWriter : cdWriter;
      writeEntry(make(words, 64, sync, bugs), to);
    },
    (stored) => {
      events.push(stored === 'barrier' ? stored : { word: (stored.offset - 64) / 8, value: stored.value });
    },
  );
  const { images } = exploreFetch([...from, EMPTY], events, [[0, 1, 2, 3, 4, 5, 6, 7], [8]]);
  const behave = kind === 'ste' ? steBehaviour : cdBehaviour;
  const fresh = behave(to).does;
  // The old entry does not lead to that table.
  return images.filter(({ words }) => behave(words).does === fresh && words[8] === EMPTY);
}

test('no barrier before an entry (Linux before 6fabce53f6b9): it leads to a table that is still empty', (t) => {
  const bugs = bugSwitches(['ste-hitless-without-barrier']);
  const sameVmid = [...STE_KINDS.s2];
  sameVmid[3] = 0x6789_0000n;
  t.is(pointed('ste', STE_KINDS.s2, sameVmid, bugs).length, 1);
  t.is(pointed('ste', STE_KINDS.s2, sameVmid).length, 0);
  t.is(pointed('cd', CD_KINDS.s1, CD_KINDS['s1, other root'], bugs).length, 1);
  t.is(pointed('cd', CD_KINDS.s1, CD_KINDS['s1, other root']).length, 0);
  t.is(pointed('ste', STE_KINDS.nested, STE_KINDS['nested, other CDs'], bugs).length, 1);
  t.is(pointed('ste', STE_KINDS.nested, STE_KINDS['nested, other CDs']).length, 0);
});

test('where a step comes before the one that decides, its sync does for the barrier', (t) => {
  const bugs = bugSwitches(['ste-hitless-without-barrier']);
  t.is(pointed('ste', STE_KINDS.abort, STE_KINDS.s2, bugs).length, 0);
  t.is(pointed('cd', CD_KINDS.clear, CD_KINDS.s1, bugs).length, 0);
});

const SID = 0x312;

/** A leaf of a real stream table is made where a frame holds an STE that bypasses. What streams of it may do. */
function newLeaf(bugs = NO_BUGS): { readonly images: number; readonly wrong: number } {
  const { memory, frames } = new DriverFixture();
  const stores: (Stored | 'sync')[] = [];
  const table = StreamTable.create({
    memory,
    frames,
    sidBits: 16,
    twoLevel: true,
    invalidate: () => {
      stores.push('sync');
      return 0;
    },
    bugs,
  });
  if (typeof table === 'number') throw new Error(`no table: ${table}`);
  const descriptor = memory.linearOf(table.base, 8) + (SID >> 8) * 8;
  const { linear, bytes } = memory.ram;
  recordStores(
    [linear, linear + bytes],
    () => table.ensure(SID),
    (stored) => stores.push(stored),
  );
  const leaf = Number(memory.words.load64(descriptor) & 0xf_ffff_ffff_ffc0n);
  const at = memory.linearOf(leaf, 8) + (SID & 255) * 64;
  const mine = stores.flatMap((stored): WriterEvent[] => {
    if (typeof stored === 'string') return [stored];
    if (stored.offset === descriptor) return [{ word: 0, value: stored.value }];
    const word = (stored.offset - at) / 8;
    return word >= 0 && word < 8 ? [{ word: 1 + word, value: stored.value }] : [];
  });
  const left = STE_KINDS.bypass;
  const { images } = exploreFetch([0n, ...left], mine, [[0], [1, 2, 3, 4, 5, 6, 7, 8]]);
  const abort = steBehaviour(STE_KINDS.abort).does;
  const wrong = images.filter(({ words }) => words[0] !== 0n && steBehaviour(words.slice(1)).does !== abort);
  return { images: images.length, wrong: wrong.length };
}

test('a leaf of the stream table: no stream of it ever does but abort', (t) => {
  const { images, wrong } = newLeaf();
  t.true(images > 1);
  t.is(wrong, 0);
});

test('its descriptor before its STEs (l1-before-l2-table): a stream does what the frame last held', (t) => {
  t.true(newLeaf(bugSwitches(['l1-before-l2-table'])).wrong > 0);
});
