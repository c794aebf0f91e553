import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';

const root = join(import.meta.dirname, '../..');

/** What the linter, configured as here, says of files; by their paths. */
function lint(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-lint-'));
  try {
    for (const name of ['.biome.jsonc', '.biome', '.gitignore'])
      cpSync(join(root, name), join(folder, name), { recursive: true });
    for (const [path, code] of Object.entries(files)) {
      mkdirSync(join(folder, path, '..'), { recursive: true });
      writeFileSync(join(folder, path), code);
    }
    const { stdout, stderr } = spawnSync(
      process.execPath,
      [join(root, 'node_modules/@biomejs/biome/bin/biome'), 'lint', '--max-diagnostics=none', '.'],
      { cwd: folder, encoding: 'utf8' },
    );
    return stdout + stderr;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('house rules: raw Atomics are for hw/sync only', (t) => {
  const code = 'export const n = Atomics.load(new Int32Array(1), 0);\n';
  const banned = ['hw/smmuv3/x.ts', 'runtime/x.ts', 'workers/x.ts', 'perf/x.ts'];
  const said = lint(Object.fromEntries([...banned, 'hw/sync/x.ts'].map((file) => [file, code])));
  for (const file of banned) t.true(said.includes(`${file}:1:18 lint/style/noRestrictedGlobals`), said);
  t.false(said.includes('hw/sync/x.ts'), said);
});

test('house rules: hw and runtime read no clock, no chance and set no timer of their own', (t) => {
  const code = 'export const n = [Date.now(), Math.random(), setTimeout(() => 1, 2)];\n';
  const banned = ['hw/sync/x.ts', 'runtime/core/x.ts'];
  const said = lint(Object.fromEntries([...banned, 'workers/x.ts'].map((file) => [file, code])));
  for (const file of banned) t.is(said.split(`${file}:`).length - 1, 3, said);
  t.false(said.includes('workers/x.ts'), said);
});

test('house rules: an import goes to a lower floor or stays', (t) => {
  const floors: Record<string, number> = {
    uapi: 1,
    hw: 1,
    runtime: 2,
    workers: 3,
    perf: 4,
    scripts: 5,
    test: 6,
  };
  for (const [folder, floor] of Object.entries(floors)) {
    const { references } = JSON.parse(readFileSync(join(root, folder, 'tsconfig.json'), 'utf8')) as {
      references: { path: string }[];
    };
    // What is not referenced cannot be imported: the compiler refuses files of another project.
    for (const { path } of references)
      t.true(floors[path.slice('../'.length)]! < floor, `${folder} -> ${path}`);
  }
});
