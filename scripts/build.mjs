// Builds everything that is out of date: the TypeScript projects (incremental) and the compiled kernel.
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { $ } from 'zx';

$.verbose = false;
process.chdir(join(import.meta.dirname, '..'));

const source = 'hw/kernel/assembly';
const target = 'dist/hw/kernel';
const newest = Math.max(
  ...readdirSync(source).map((name) => statSync(join(source, name)).mtimeMs),
  statSync('scripts/build.mjs').mtimeMs,
);
for (const [variant, compile] of [
  [`${target}/kernel.wasm`, compileNormal],
  [`${target}/kernel-explore.wasm`, compileExplore],
])
  if (!existsSync(variant) || statSync(variant).mtimeMs < newest) {
    mkdirSync(target, { recursive: true });
    await compile(variant);
  }
dropOrphans();
const { exitCode } = await $({
  stdio: ['ignore', process.stderr, process.stderr],
  nothrow: true,
})`npx tsc -b`;
const command = 'dist/scripts/iommufd.js';
if (existsSync(command)) chmodSync(command, 0o755);
process.exitCode = exitCode ?? 1;

/** Without the schedule points and the zoo's bugs: what is not there costs nothing, and moves no local about. */
function compileNormal(wasm) {
  return compileKernel(wasm, 'index.ts', [], (text, name) =>
    name.endsWith('/machine.ts')
      ? text
      : text.replace(/\bschedulePoint(IfValid)?\([^;]*?\);/g, ';').replace(/\bhasBug\(\w+\)/g, 'false'),
  );
}

function compileExplore(wasm) {
  return compileKernel(wasm, 'explore.ts', ['--use', 'EXPLORE=1', '--debug'], (text) => text);
}

/** The memory is the machine's: imported, shared, up to 4 GiB. No runtime, no static data, no exports but ours. */
async function compileKernel(wasm, entry, more, edit) {
  const options = '-O3 --runtime stub --noAssert --importMemory --sharedMemory --initialMemory 1';
  const machine = '--maximumMemory 65536 --enable threads --use abort=';
  const args = [join(source, entry), '--outFile', wasm, ...`${options} ${machine}`.split(' '), ...more];
  const { default: asc } = await import('assemblyscript/asc');
  const { error, stderr } = await asc.main(args, {
    readFile: (name, base) => {
      const path = join(base, name);
      return existsSync(path) ? edit(readFileSync(path, 'utf8'), path) : null;
    },
  });
  if (error === null) return;
  process.stderr.write(stderr.toString());
  throw error;
}

/** tsc leaves behind what it made of a file that is gone: a test that was deleted or moved would still run. */
function dropOrphans() {
  for (const entry of readdirSync('dist', { recursive: true, withFileTypes: true })) {
    const match = /^(.*)\.(d\.ts|js)(\.map)?$/.exec(entry.name);
    if (!entry.isFile() || match === null) continue;
    const folder = entry.parentPath ?? entry.path;
    if (!existsSync(join(relative('dist', folder), `${match[1]}.ts`))) rmSync(join(folder, entry.name));
  }
}
