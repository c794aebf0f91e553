/**
 * The mappings of another process as /proc/PID/maps lists them, read into arrays: no string is made of a line
 * unless its name is asked for. The open file keeps to the mm it was opened on: after exec or exit it is empty.
 *
 *   5600b17be000-5600b17c4000 r-xp 00002000 fe:00 260386                     /usr/bin/head
 *   first        end          perms offset  dev   inode                      name
 */
import { readSync } from 'node:fs';

const PAGE = 4096;
const SPACE = 0x20;
const NEWLINE = 0x0a;
const DASH = 0x2d;
const COLON = 0x3a;

export const VM_READ = 1;
export const VM_WRITE = 2;
export const VM_EXEC = 4;
export const VM_SHARED = 8;

export class ProcessMaps {
  /** Mappings there are, sorted by address. */
  count = 0;
  readonly #fd: number;
  #text = Buffer.allocUnsafe(16384);
  #first = new Float64Array(128);
  #end = new Float64Array(128);
  #offset = new Float64Array(128);
  #inode = new Float64Array(128);
  #dev = new Float64Array(128);
  #flags = new Uint8Array(128);
  /** Where in #text a mapping's name is: first and end. */
  #name = new Uint32Array(256);

  /** @param fd  /proc/PID/maps, open */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Reads the list anew. @returns false when the process's memory is gone, and the list empty */
  read(): boolean {
    let bytes = 0;
    try {
      for (;;) {
        if (bytes === this.#text.byteLength)
          this.#text = Buffer.concat([this.#text, Buffer.allocUnsafe(this.#text.byteLength)]);
        const n = readSync(this.#fd, this.#text, bytes, this.#text.byteLength - bytes, bytes);
        if (n === 0) break;
        bytes += n;
      }
    } catch {
      bytes = 0;
    }
    this.#parse(bytes);
    return this.count > 0;
  }

  /** Index of the mapping that holds a page, or -1. */
  find(page: number): number {
    let low = 0;
    let high = this.count - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      if (page < this.#first[middle]!) high = middle - 1;
      else if (page >= this.#end[middle]!) low = middle + 1;
      else return middle;
    }
    return -1;
  }

  /** Whether every page of [first, last] is mapped with one of the permissions. */
  permits(first: number, last: number, anyOf: number): boolean {
    let index = this.find(first);
    if (index < 0) return false;
    for (let page = first; ; index++) {
      if (index === this.count || this.#first[index]! > page || (this.#flags[index]! & anyOf) === 0)
        return false;
      page = this.#end[index]!;
      if (page > last) return true;
    }
  }

  /** First page of a mapping, and the one after its last. */
  first(index: number): number {
    return this.#first[index]!;
  }

  end(index: number): number {
    return this.#end[index]!;
  }

  /** VM_*. */
  flags(index: number): number {
    return this.#flags[index]!;
  }

  /** Page of the file where the mapping begins. */
  filePage(index: number): number {
    return this.#offset[index]!;
  }

  /** 0: no file. */
  inode(index: number): number {
    return this.#inode[index]!;
  }

  /** major * 2^20 + minor. */
  dev(index: number): number {
    return this.#dev[index]!;
  }

  name(index: number): string {
    return this.#text.toString('utf8', this.#name[2 * index]!, this.#name[2 * index + 1]!);
  }

  #parse(bytes: number): void {
    const text = this.#text;
    let at = 0;
    const hex = (until: number): number => {
      let value = 0;
      for (let c = text[at++]!; c !== until && at <= bytes; c = text[at++]!)
        value = value * 16 + (c < COLON ? c - 0x30 : c - 0x57);
      return value;
    };
    let count = 0;
    while (at < bytes) {
      if (count === this.#flags.length) this.#grow();
      this.#first[count] = hex(DASH) / PAGE;
      this.#end[count] = hex(SPACE) / PAGE;
      this.#flags[count] =
        (text[at] === 0x72 ? VM_READ : 0) |
        (text[at + 1] === 0x77 ? VM_WRITE : 0) |
        (text[at + 2] === 0x78 ? VM_EXEC : 0) |
        (text[at + 3] === 0x73 ? VM_SHARED : 0);
      at += 5;
      this.#offset[count] = hex(SPACE) / PAGE;
      const major = hex(COLON);
      this.#dev[count] = major * 2 ** 20 + hex(SPACE);
      let inode = 0;
      while (text[at] !== SPACE && text[at] !== NEWLINE && at < bytes)
        inode = inode * 10 + text[at++]! - 0x30;
      this.#inode[count] = inode;
      while (text[at] === SPACE) at++;
      const end = text.indexOf(NEWLINE, at);
      this.#name[2 * count] = at;
      at = end < 0 || end > bytes ? bytes : end;
      this.#name[2 * count + 1] = at++;
      count++;
    }
    this.count = count;
  }

  #grow(): void {
    this.#first = twice(this.#first);
    this.#end = twice(this.#end);
    this.#offset = twice(this.#offset);
    this.#inode = twice(this.#inode);
    this.#dev = twice(this.#dev);
    const flags = new Uint8Array(this.#flags.length * 2);
    flags.set(this.#flags);
    this.#flags = flags;
    const name = new Uint32Array(this.#name.length * 2);
    name.set(this.#name);
    this.#name = name;
  }
}

function twice(from: Float64Array): Float64Array<ArrayBuffer> {
  const to = new Float64Array(from.length * 2);
  to.set(from);
  return to;
}
