/**
 * Every ordered pair of the entries that the driver writes: no fetch ever sees anything but the old entry, the new one,
 * or V = 0 where no single word decides; and which it is, is as worked out from the bits in use.
 */
import test from 'ava';
import { CD_KINDS, STE_KINDS } from './entry-kinds.js';
import { cdBehaviour, type Image, steBehaviour } from './ste-behaviour.js';
import { type EntryKind, judge } from './transition.js';
import { expectedCost } from './used-bits.js';

const BAD_STE = 0x04;
const BAD_CD = 0x0a;

for (const [kind, kinds, behaviour, bad] of [
  ['ste', STE_KINDS, steBehaviour, BAD_STE],
  ['cd', CD_KINDS, cdBehaviour, BAD_CD],
] as const) {
  test(`${kind}: every entry but an invalid one is legal, and no two act alike`, (t) => {
    const seen = new Map<string, string>();
    for (const [name, image] of Object.entries(kinds)) {
      const { does, ats, mev, invalid } = behaviour(image);
      t.is(does.includes(`{"event":${bad}}`), invalid, name);
      const key = `${does} ${ats} ${mev}`;
      t.is(seen.get(key), undefined, name);
      seen.set(key, name);
    }
  });

  for (const [fromName, from] of Object.entries(kinds))
    test(`${kind}: from ${fromName} to every other`, (t) => {
      for (const [toName, to] of Object.entries(kinds))
        if (to !== from) check(kind, `${fromName} to ${toName}`, from, to);

      function check(what: EntryKind, name: string, before: Image, after: Image): void {
        const verdict = judge(what, before, after);
        const expected = expectedCost(what, before, after);
        t.deepEqual(verdict.mixtures, [], name);
        t.is(verdict.syncs, expected.syncs, name);
        t.is(verdict.invalid > 0, !expected.hitless, name);
        t.true(verdict.arrives, name);
        t.true(verdict.images > 1 && verdict.interleavings > 0n, name);
      }
    });
}
