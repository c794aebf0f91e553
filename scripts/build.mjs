// Builds everything that is out of date: the TypeScript projects (incremental) and the compiled kernel.
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
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
const { exitCode } = await $({
  stdio: ['ignore', process.stderr, process.stderr],
  nothrow: true,
})`npx tsc -b`;
process.exitCode = exitCode ?? 1;
