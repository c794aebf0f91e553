/** The tables of this folder's README are what a run gives. */
import { readFileSync } from 'node:fs';
import test from 'ava';
import { tables } from './tables.js';

const readme = readFileSync(new URL('../../../test/proofs/README.md', import.meta.url), 'utf8');

for (const [name, text] of Object.entries(tables()))
  test(`the table "${name}" is up to date`, (t) => {
    const [, section] =
      new RegExp(`<!-- table: ${name} -->\n\n([\\s\\S]*?)\n\n<!-- /table -->`).exec(readme) ?? [];
    t.is(section, text);
  });
