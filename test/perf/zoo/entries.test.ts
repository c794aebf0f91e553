import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'ava';
import { BUG_NAMES, BUGS, bugSwitches, NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import { loadScenarios } from '../../../perf/explore/registry.js';
import { STRATEGY_NAMES } from '../../../perf/explore/strategies/index.js';
import { ENTRIES } from '../../../perf/zoo/entries/index.js';

/** The repository, from dist/test/perf/zoo. */
const ROOT = new URL('../../../../', import.meta.url).pathname;

test('zoo: every bug is looked for once, within 10 000 schedules of a scenario there is', async (t) => {
  t.true(BUG_NAMES.length >= 24);
  t.deepEqual(ENTRIES.map(({ bug }) => bug).sort(), [...BUG_NAMES].sort());
  const exported = new Set<string>();
  for (const { source } of (await loadScenarios()).values())
    exported.add(`${source.url.slice(source.url.lastIndexOf('/') + 1, -'.js'.length)}#${source.export}`);
  for (const { bug, scenario, strategy, budget } of ENTRIES) {
    t.true(exported.has(`${scenario.file}#${scenario.export}`), bug);
    t.true(STRATEGY_NAMES.includes(strategy) && strategy !== 'replay', bug);
    t.true(budget > 0 && budget <= 10_000, bug);
  }
});

test('zoo: every bug says where it comes from, which file has it, and what it breaks', (t) => {
  for (const bug of BUG_NAMES) {
    const { where, origin, invariant } = BUGS[bug];
    t.regex(bug, /^[a-z0-9]+(-[a-z0-9]+)+$/);
    t.true(origin.length > 20, bug);
    t.regex(invariant, /^(R([1-9]|1\d|2[0-7])|deadlock|lost wake-up)$/, bug);
    const [first, ...others] = where.split(', ');
    for (const file of [
      first!,
      ...others.map((name) => (name.includes('/') ? name : join(dirname(first!), name))),
    ])
      t.true(existsSync(join(ROOT, file)), `${bug}: ${file}`);
  }
});

test('zoo: all bugs are off, and on by name alone', (t) => {
  t.true(BUG_NAMES.every((bug) => !NO_BUGS[bug]));
  const one = bugSwitches(['ste-torn']);
  t.deepEqual(
    BUG_NAMES.filter((bug) => one[bug]),
    ['ste-torn'],
  );
  t.deepEqual(Object.keys(one), Object.keys(NO_BUGS), 'all switches are of one shape');
});
