import test from 'ava';
import { loadScenarios } from '../../../perf/explore/registry.js';

test('registry: every scenario has a name of its own, one line about it, and says what it checks', async (t) => {
  const found = await loadScenarios();
  t.true(found.has('mutex-2') && found.has('unmap-during-dma'));
  for (const [name, { scenario }] of found) {
    t.regex(name, /^[a-z0-9][a-z0-9-]*$/);
    t.is(scenario.name, name);
    t.regex(scenario.about, /^[^\n]{10,110}$/, name);
    t.true(scenario.checks.length > 0, name);
  }
});
