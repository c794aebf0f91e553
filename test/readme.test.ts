/** The front page's example does what the front page says. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const root = fileURLToPath(new URL('../../', import.meta.url));

test('readme: the embedding example runs and prints what it says', (t) => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const section = /<!-- example.*?-->([\s\S]*)<!-- \/example -->/.exec(readme)?.[1] ?? '';
  const [program, output] = [...section.matchAll(/```\w*\n([\s\S]*?)```/g)].map(([, block]) => block!);
  t.truthy(program);
  t.truthy(output);
  const lines = program!
    .trimEnd()
    .split('\n')
    .filter((line) => line.trim() !== '');
  t.true(lines.length <= 21, `${lines.length} lines are no longer a short example`);
  // Inside the package, so that `iommufd` is the package itself, as its `exports` give it to others.
  const folder = mkdtempSync(join(root, 'dist/readme-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'example.mjs');
  writeFileSync(file, program!);
  const { status, stdout, stderr } = spawnSync(process.execPath, [file], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  t.is(stderr, '');
  t.is(stdout, output!);
  t.is(status, 0);
});
