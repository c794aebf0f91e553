/**
 * The preload library, compiled where it is used: there is no compiled code in the package. Kept next to the package's
 * own output, or in the user's cache where that cannot be written, under a name that says what it was made from.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

const SOURCES = join(import.meta.dirname, '../../../uapi/preload');
const OUTPUT = join(import.meta.dirname, '../../uapi/preload');
const FLAGS = [
  '-std=gnu11',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-O2',
  '-fvisibility=hidden',
  '-shared',
  '-fPIC',
  '-pthread',
];

/** Sources of the library, by name in alphabetical order. */
const sourceNames = (): string[] =>
  readdirSync(SOURCES)
    .filter((name) => /\.[ch]$/.test(name))
    .sort();

/**
 * What the library and the server say when they meet: 32 bits of a hash of the library's sources, so that one made
 * from others is refused, and not misunderstood.
 */
export function wireVersion(): number {
  const hash = createHash('sha256');
  for (const name of sourceNames()) hash.update(readFileSync(join(SOURCES, name)));
  return hash.digest().readUInt32LE(0);
}

/** There is no compiler, or it does not take the library. */
export class PreloadError extends Error {
  override readonly name = 'PreloadError';
}

/** What compiles C here: $CC, or cc. */
export const compiler = (): string => process.env.CC?.trim() || 'cc';

/** Whether there is a C compiler. */
export function hasCompiler(): boolean {
  return compile(['--version']).status === 0;
}

/** $CC may have options, as make takes it: `ccache gcc`, `gcc -m64`. */
export function compile(args: readonly string[]) {
  const [file, ...options] = compiler().split(/\s+/);
  return spawnSync(file!, [...options, ...args], { encoding: 'utf8' });
}

/**
 * Builds the library unless it is there.
 * @returns its path, absolute
 * @throws PreloadError
 */
export function buildPreload(): string {
  const names = sourceNames();
  const hash = createHash('sha256').update([process.arch, compiler(), ...FLAGS].join(' '));
  for (const name of names) hash.update(readFileSync(join(SOURCES, name)));
  const file = `libiommufd-${hash.digest('hex').slice(0, 16)}.so`;
  const folder = writable(OUTPUT) ?? writable(cacheFolder());
  if (folder === undefined)
    throw new PreloadError(`neither ${OUTPUT} nor ${cacheFolder()} can be written, for the preload library`);
  const library = join(folder, file);
  if (existsSync(library)) return library;
  const made = `${library}.${process.pid}`;
  const sources = names.filter((name) => name.endsWith('.c')).map((name) => join(SOURCES, name));
  const { status, stderr, error } = compile([
    ...FLAGS,
    `-DWIRE_VERSION=${wireVersion()}u`,
    '-o',
    made,
    ...sources,
    '-ldl',
  ]);
  if (error !== undefined)
    throw new PreloadError(
      `a C compiler is needed for the preload library, and '${compiler()}' cannot be run (${error.message}); ` +
        'install gcc or clang, or name one in CC',
    );
  if (status !== 0)
    throw new PreloadError(`'${compiler()}' does not compile the preload library:\n${stderr}`);
  renameSync(made, library);
  return library;
}

function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'iommufd');
}

/** @returns the folder, made if need be, when files can be made there */
function writable(folder: string): string | undefined {
  try {
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
    return folder;
  } catch {
    return undefined;
  }
}
