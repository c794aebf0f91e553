/**
 * A machine's one shared linear memory, seen alike by TypeScript and by the compiled kernel.
 *
 *   0        64 KiB            control end          RAM start (2 MiB aligned)          end
 *   | unused | region | region | ... free ... | pad | RAM frames ....................... |
 *
 * Control regions are carved out once, by the thread that creates the machine; other threads attach to the
 * handle and find the regions by key. RAM is reached by physical address: `ramBasePa` is where it begins on
 * the machine's bus, and every address at or past its end is *phantom*: translated, but without a data phase,
 * unless it is memory of another kind that this thread can reach (external-memory.ts).
 */
import { Words } from '../sync/words.js';
import type { ExternalMemory } from './external-memory.js';
import type { Layout } from './layout.js';
import { LINE, roundUp } from './layout.js';
import { Wasm, type WasmMemory } from './webassembly.js';

const PAGE = 65536;
const MIB2 = 2 * 1024 * 1024;
/** Before each region: magic, hash of its layout's name, version, size. */
export const HEADER_BYTES = LINE;
const MAGIC = 0x494f4d55;
/** Nothing lives below: an offset of 0 is never valid. */
const FIRST = PAGE;
const MAX_BYTES = 4 * 1024 * 1024 * 1024;

export interface Ram {
  /** Offset of the first RAM byte in linear memory. */
  readonly linear: number;
  /** Physical address of the first RAM byte. */
  readonly basePa: number;
  readonly bytes: number;
}

export interface Region {
  readonly key: string;
  readonly base: number;
  readonly size: number;
}

/** What another thread needs to attach: structured-cloneable. */
export interface MemoryHandle {
  readonly memory: WasmMemory;
  readonly ram: Ram;
  readonly regions: Readonly<Record<string, { base: number; size: number }>>;
}

export interface MemoryOptions {
  /** RAM size in bytes, a multiple of 2 MiB. */
  readonly ramBytes: number;
  /** Physical address of the first RAM byte, 1 GiB aligned. */
  readonly ramBasePa?: number;
  /** Bytes set aside for control regions. */
  readonly controlBytes?: number;
  /** A memory of just these sizes, all zero, to be used again; a new one is made when left out. */
  readonly memory?: WasmMemory;
}

export const DEFAULT_RAM_BASE_PA = 0x8000_0000;

export class MachineMemory {
  readonly memory: WasmMemory;
  readonly buffer: SharedArrayBuffer;
  readonly ram: Ram;
  readonly words: Words;
  readonly u8: Uint8Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly i64: BigInt64Array;
  /** Memory on the bus that is not in here; asked only about what is no RAM. */
  external: ExternalMemory | null = null;
  readonly #regions: Map<string, { base: number; size: number }>;
  #next: number;

  private constructor(handle: MemoryHandle) {
    this.memory = handle.memory;
    this.buffer = handle.memory.buffer as unknown as SharedArrayBuffer;
    this.ram = handle.ram;
    // Fixed-length views: a length-tracking one costs fifty times as much per access.
    const bytes = this.buffer.byteLength;
    this.u8 = new Uint8Array(this.buffer, 0, bytes);
    this.i32 = new Int32Array(this.buffer, 0, bytes / 4);
    this.u32 = new Uint32Array(this.buffer, 0, bytes / 4);
    this.i64 = new BigInt64Array(this.buffer, 0, bytes / 8);
    this.words = new Words(this.buffer);
    this.#regions = new Map(Object.entries(handle.regions));
    this.#next = FIRST;
    for (const { base, size } of this.#regions.values()) this.#next = Math.max(this.#next, base + size);
  }

  /** @throws RangeError when the sizes cannot make one memory of at most 4 GiB */
  static create(options: MemoryOptions): MachineMemory {
    const { ramBytes, ramBasePa = DEFAULT_RAM_BASE_PA, controlBytes = 32 * 1024 * 1024 } = options;
    if (!Number.isSafeInteger(ramBytes) || ramBytes <= 0 || ramBytes % MIB2 !== 0)
      throw new RangeError(`memory: ${ramBytes} bytes of RAM is not a positive multiple of 2 MiB`);
    if (!Number.isSafeInteger(ramBasePa) || ramBasePa < 0 || ramBasePa % 2 ** 30 !== 0)
      throw new RangeError(`memory: RAM base ${ramBasePa} is not a multiple of 1 GiB`);
    const linear = roundUp(FIRST + controlBytes, MIB2);
    const total = linear + ramBytes;
    if (total > MAX_BYTES)
      throw new RangeError(
        `memory: ${ramBytes} bytes of RAM, and ${linear / 2 ** 20} MiB to manage them, do not fit a linear memory of 4 GiB`,
      );
    const pages = total / PAGE;
    const memory = options.memory ?? new Wasm.Memory({ initial: pages, maximum: pages, shared: true });
    if (memory.buffer.byteLength !== total)
      throw new RangeError(`memory: ${memory.buffer.byteLength} bytes given, ${total} needed`);
    return new MachineMemory({
      memory,
      ram: { linear, basePa: ramBasePa, bytes: ramBytes },
      regions: {},
    });
  }

  static attach(handle: MemoryHandle): MachineMemory {
    return new MachineMemory(handle);
  }

  handle(): MemoryHandle {
    return {
      memory: this.memory,
      ram: this.ram,
      regions: Object.fromEntries(this.#regions),
    };
  }

  /** Carves out a region. Creating thread only, before any other thread attaches. */
  allocRegion(shape: Layout, key: string): Region {
    if (this.#regions.has(key)) throw new Error(`memory: region '${key}' exists`);
    const header = roundUp(this.#next, LINE);
    const base = header + HEADER_BYTES;
    if (base + shape.size > this.ram.linear)
      throw new RangeError(`memory: no room for region '${key}' (${shape.size} bytes); raise controlBytes`);
    this.#next = base + shape.size;
    const word = header >> 2;
    this.i32[word] = MAGIC;
    this.i32[word + 1] = nameHash(shape.name);
    this.i32[word + 2] = shape.version;
    this.i32[word + 3] = shape.size;
    this.#regions.set(key, { base, size: shape.size });
    return { key, base, size: shape.size };
  }

  /** Finds a region and checks that it was made from this very layout. */
  region(shape: Layout, key: string): Region {
    const found = this.#regions.get(key);
    if (!found) throw new Error(`memory: no region '${key}'`);
    const word = (found.base - HEADER_BYTES) >> 2;
    const [magic, name, version, size] = this.i32.subarray(word, word + 4);
    if (magic !== MAGIC || name !== nameHash(shape.name))
      throw new Error(`memory: region '${key}' is not a ${shape.name}`);
    if (version !== shape.version || size !== shape.size)
      throw new Error(
        `memory: region '${key}' is ${shape.name} version ${version} (${size} bytes), ` +
          `this thread expects version ${shape.version} (${shape.size} bytes)`,
      );
    return { key, base: found.base, size: found.size };
  }

  hasRegion(key: string): boolean {
    return this.#regions.has(key);
  }

  /** Linear offset of `bytes` bytes at a physical address, or -1 when they are not all RAM. */
  linearOf(pa: number, bytes: number): number {
    const offset = pa - this.ram.basePa;
    if (offset < 0 || offset + bytes > this.ram.bytes) return -1;
    return this.ram.linear + offset;
  }
}

/** FNV-1a of a layout's name. */
export function nameHash(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash | 0;
}
