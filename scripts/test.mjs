// `npm test` after the build: lint, then every test. Prints what failed, with what the failing test logged,
// and as its last line the count: `N passed, N failed` (lint counts as one). Arguments go to ava.
import { createInterface } from 'node:readline';
import { $ } from 'zx';
import { readTap } from './tap.mjs';

process.chdir(`${import.meta.dirname}/..`);
$.verbose = false;

const lint = await $({ stdio: 'inherit', nothrow: true })`npx biome check --error-on-warnings .`;

const ava = $({
  stdio: ['ignore', 'pipe', 'inherit'],
  nothrow: true,
})`npx ava --tap ${process.argv.slice(3)}`;
const { passed, failed, skipped } = await readTap(createInterface({ input: ava.stdout }), (text) =>
  console.log(text),
);
const { exitCode } = await ava;

// ava's own word counts too: it may end badly without a test that says so.
const silent = exitCode !== 0 && failed === 0;
if (silent) console.log(`ava ended with exit code ${exitCode}, and no test failed`);
if (passed === 0) console.log('no test ran');
if (skipped > 0) console.log(`${skipped} skipped`);
const failures = failed + (lint.exitCode === 0 ? 0 : 1) + (silent || passed === 0 ? 1 : 0);
console.log(`${passed + (lint.exitCode === 0 ? 1 : 0)} passed, ${failures} failed`);
process.exitCode = failures === 0 ? 0 : 1;
