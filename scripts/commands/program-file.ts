/** The file of a program that is to be run: where it is, and whether a preload library reaches it. */
import { accessSync, closeSync, constants, existsSync, openSync, readSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** [ELF64]: e_ident, e_phoff, e_phentsize, e_phnum; p_type of what names the dynamic linker. */
const ELF_MAGIC = 0x7f454c46;
const ELFCLASS64_LSB = 0x0201;
const HEADER_BYTES = 64;
const PT_INTERP = 3;
/** More than any linker writes. */
const MAX_SEGMENTS = 256;

/** @returns its path, or undefined when there is none: whether it can be executed is for the kernel to say */
export function findProgram(file: string, path = process.env.PATH ?? ''): string | undefined {
  if (file.includes('/')) return existsSync(file) ? file : undefined;
  const places = path.split(delimiter).map((folder) => join(folder === '' ? '.' : folder, file));
  return places.find(isExecutable);
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile() && (statSync(path).mode & 0o111) !== 0;
  } catch {
    return false;
  }
}

/** Whether it is a 64-bit ELF program without a dynamic linker: LD_PRELOAD means nothing to it. */
export function isStatic(path: string): boolean {
  let fd = -1;
  try {
    fd = openSync(path, 'r');
    const head = Buffer.alloc(HEADER_BYTES);
    if (readSync(fd, head, 0, HEADER_BYTES, 0) < HEADER_BYTES) return false;
    if (head.readUInt32BE(0) !== ELF_MAGIC || head.readUInt16BE(4) !== ELFCLASS64_LSB) return false;
    const at = Number(head.readBigUInt64LE(32));
    const size = head.readUInt16LE(54);
    const count = Math.min(head.readUInt16LE(56), MAX_SEGMENTS);
    if (size < 4 || count === 0) return false;
    const table = Buffer.alloc(size * count);
    if (readSync(fd, table, 0, table.byteLength, at) < table.byteLength) return false;
    for (let i = 0; i < count; i++) if (table.readUInt32LE(i * size) === PT_INTERP) return false;
    return true;
  } catch {
    return false;
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}
