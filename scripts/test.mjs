// `npm test` after the build: lint, then every test. Prints what failed, with what the failing test logged,
// and as its last line the count: `N passed, N failed`. A lint that fails counts as one that failed, and so
// does an ava that ran nothing. How far it is goes to stderr. Arguments go to ava.
import { createInterface } from 'node:readline';
import { $ } from 'zx';
import { readTap } from './tap.mjs';

/** Tests between two lines of progress. */
const PROGRESS_EVERY = 100;

process.chdir(`${import.meta.dirname}/..`);
$.verbose = false;
const args = process.argv.slice(3);
const began = performance.now();
const progress = (text) => console.error(`[${((performance.now() - began) / 1000).toFixed(0)} s] ${text}`);

progress('lint ...');
const lint = await $({ stdio: 'inherit', nothrow: true })`npx biome check --error-on-warnings .`;

progress('tests, some minutes ...');
const ava = $({ stdio: ['ignore', 'pipe', 'inherit'], nothrow: true })`npx ava --tap ${args}`;
const { passed, failed, skipped } = await readTap(
  createInterface({ input: ava.stdout }),
  (text) => console.log(text),
  (counts) => {
    const run = counts.passed + counts.failed + counts.skipped;
    if (run % PROGRESS_EVERY === 0) progress(`${run} tests run, ${counts.failed} failed`);
  },
);
const { exitCode } = await ava;

// ava's own word counts too: it may end badly without a test that says so.
const none = passed + failed === 0;
const silent = exitCode !== 0 && failed === 0 && !none;
if (silent) console.log(`ava ended with exit code ${exitCode}, and no test failed`);
if (none) console.log(`no test ran${args.length > 0 ? `: nothing matched ${args.join(' ')}` : ''}`);
if (skipped > 0) console.log(`${skipped} skipped`);
console.log(lint.exitCode === 0 ? 'lint passed (not counted)' : 'lint failed (counted as one)');
const failures = failed + (lint.exitCode === 0 ? 0 : 1) + (silent || none ? 1 : 0);
console.log(`${passed} passed, ${failures} failed`);
process.exitCode = failures === 0 ? 0 : 1;
