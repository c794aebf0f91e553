// Builds everything that is out of date: the TypeScript projects (incremental) and the compiled kernel.
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { $ } from 'zx';

$.verbose = false;
process.chdir(join(import.meta.dirname, '..'));

const source = 'hw/kernel/assembly';
const wasm = 'dist/hw/kernel/kernel.wasm';
const newest = Math.max(
  ...readdirSync(source).map((name) => statSync(join(source, name)).mtimeMs),
  statSync('scripts/build.mjs').mtimeMs,
);
if (!existsSync(wasm) || statSync(wasm).mtimeMs < newest) {
  mkdirSync('dist/hw/kernel', { recursive: true });
  // The memory is the machine's: imported, shared, up to 4 GiB. No runtime, no static data, no exports but ours.
  await $`npx asc ${source}/index.ts --outFile ${wasm} -O3 --runtime stub --noAssert --importMemory --sharedMemory --initialMemory 1 --maximumMemory 65536 --enable threads --use abort=`;
}
dropOrphans();
const { exitCode } = await $({
  stdio: ['ignore', process.stderr, process.stderr],
  nothrow: true,
})`npx tsc -b`;
const command = 'dist/scripts/iommufd.js';
if (existsSync(command)) chmodSync(command, 0o755);
process.exitCode = exitCode ?? 1;

/** tsc leaves behind what it made of a file that is gone: a test that was deleted or moved would still run. */
function dropOrphans() {
  for (const entry of readdirSync('dist', { recursive: true, withFileTypes: true })) {
    const match = /^(.*)\.(d\.ts|js)(\.map)?$/.exec(entry.name);
    if (!entry.isFile() || match === null) continue;
    const folder = entry.parentPath ?? entry.path;
    if (!existsSync(join(relative('dist', folder), `${match[1]}.ts`))) rmSync(join(folder, entry.name));
  }
}
