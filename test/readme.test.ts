/** The front page's examples do what the front page says. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const root = fileURLToPath(new URL('../../', import.meta.url));

interface Example {
  readonly name: string;
  /** The last file is the program. */
  readonly files: readonly { readonly name: string; readonly text: string }[];
  readonly output: string;
}

/** Sections marked with `example: <name>`: js blocks, perhaps with `// <file>.mjs` on top, then what they print. */
function examplesOf(markdown: string): Example[] {
  const sections = markdown.matchAll(/<!-- example: ([\w-]+)[^>]*-->([\s\S]*?)<!-- \/example -->/g);
  return [...sections].map(([, name, section]) => {
    const blocks = [...section!.matchAll(/```(\w*)\n([\s\S]*?)```/g)];
    const files = blocks
      .filter(([, language]) => language === 'js')
      .map(([, , text]) => ({ name: /^\/\/ ([\w-]+\.mjs)/.exec(text!)?.[1] ?? 'example.mjs', text: text! }));
    return { name: name!, files, output: blocks.find(([, language]) => language === '')?.[2] ?? '' };
  });
}

const examples = examplesOf(readFileSync(join(root, 'README.md'), 'utf8'));

test('readme: every marked example is found', (t) => {
  t.deepEqual(
    examples.map(({ name }) => name),
    ['inline', 'ats', 'faults', 'memory', 'threads', 'nested', 'explore'],
  );
  for (const { files, output } of examples) {
    t.true(files.length > 0);
    t.not(output, '');
  }
});

for (const { name, files, output } of examples)
  test(`readme: the '${name}' example runs, ends, and prints what it says`, (t) => {
    // Inside the package, so that `iommufd` is the package itself, as its `exports` give it to others.
    const folder = mkdtempSync(join(root, 'dist/readme-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    for (const file of files) {
      const lines = file.text.split('\n').filter((line) => line.trim() !== '');
      t.true(lines.length <= 30, `${lines.length} lines are no longer a short example`);
      writeFileSync(join(folder, file.name), file.text);
    }
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, files.at(-1)!.name)], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    t.is(stderr, '');
    t.is(stdout, output);
    t.is(status, 0);
  });
