/**
 * A machine in one file: its configuration and all of its memory that is in use, so that a state worth looking at
 * can be kept and opened again. Little-endian.
 *
 *   0    'IOMMUFDM'                        8 bytes
 *   8    version                           u32
 *   12   bytes of the header               u32
 *   16   SHA-256 of all that follows       32 bytes
 *   48   header, JSON                      configuration, places of RAM and regions, number of chunks
 *        chunk, for every MiB with content:
 *          index u32 | bytes u32 | map of its 256 pages, 32 bytes | those pages, raw deflate
 *
 * A page is left out when it is all zero, or RAM that nobody has allocated. Parsing checks everything down to the
 * chunk before memory is made; what does not hold is an ImageError that names the field.
 */
import { createHash } from 'node:crypto';
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import { z } from 'zod';
import type { FrameAllocator } from '../../hw/memory/frame-allocator.js';
import { FRAME_BYTES } from '../../hw/memory/frames-layout.js';
import { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { MachineConfig } from '../machine-schema.js';

export const IMAGE_VERSION = 1;

/** A file is no image of a machine, or a damaged one; `field` says what part of it. */
export class ImageError extends Error {
  override readonly name = 'ImageError';
  readonly field: string;
  constructor(field: string, message: string) {
    super(`image: ${field}: ${message}`);
    this.field = field;
  }
}

const MAGIC = 'IOMMUFDM';
const VERSION_AT = 8;
const HEADER_BYTES_AT = 12;
const HASH_AT = 16;
const HASH_BYTES = 32;
const HEADER_AT = HASH_AT + HASH_BYTES;
/** Nobody describes a machine in more. */
const MAX_HEADER_BYTES = 16 * 2 ** 20;

const CHUNK_PAGES = 256;
const MAP_BYTES = CHUNK_PAGES / 8;
const CHUNK_HEAD_BYTES = 8 + MAP_BYTES;
const REGION_HEADER_BYTES = 64;
const FIRST_REGION = 65536;

const place = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const headerSchema = z.strictObject({
  /** As createMachine takes it; checked there. */
  config: z.looseObject({}),
  /** Whether IOTLBs, cached configurations and ATCs are in the image. */
  caches: z.boolean(),
  ram: z.strictObject({ linear: place, basePa: place, bytes: place }),
  regions: z.record(z.string(), z.strictObject({ base: place, size: place })),
  chunks: place,
});
type Header = z.output<typeof headerSchema>;

export interface ParsedImage {
  readonly config: MachineConfig;
  readonly caches: boolean;
  readonly ram: Header['ram'];
  readonly regions: Header['regions'];
  readonly chunks: readonly Chunk[];
}

interface Chunk {
  readonly index: number;
  readonly map: Uint8Array;
  readonly data: Uint8Array;
}

export interface ImageContent {
  readonly memory: MachineMemory;
  readonly frames: FrameAllocator;
  readonly config: MachineConfig;
  readonly caches: boolean;
}

export function encodeImage({ memory, frames, config, caches }: ImageContent): Uint8Array {
  const { ram } = memory;
  const chunks: Buffer[] = [];
  const all = Buffer.from(memory.buffer as unknown as ArrayBuffer);
  const zero = Buffer.alloc(FRAME_BYTES);
  const pages = all.byteLength / FRAME_BYTES;
  const firstRam = ram.linear / FRAME_BYTES;
  const firstPfn = ram.basePa / FRAME_BYTES;
  const content = Buffer.alloc(CHUNK_PAGES * FRAME_BYTES);
  for (let first = 0; first < pages; first += CHUNK_PAGES) {
    const map = Buffer.alloc(MAP_BYTES);
    let used = 0;
    for (let i = 0; i < CHUNK_PAGES && first + i < pages; i++) {
      const page = first + i;
      if (page >= firstRam && !frames.isAllocated(firstPfn + page - firstRam)) continue;
      const bytes = all.subarray(page * FRAME_BYTES, (page + 1) * FRAME_BYTES);
      if (bytes.equals(zero)) continue;
      bytes.copy(content, used * FRAME_BYTES);
      map[i >> 3]! |= 1 << (i & 7);
      used++;
    }
    if (used === 0) continue;
    const data = deflateRawSync(content.subarray(0, used * FRAME_BYTES), { level: constants.Z_BEST_SPEED });
    const head = Buffer.alloc(8);
    head.writeUInt32LE(first / CHUNK_PAGES, 0);
    head.writeUInt32LE(data.byteLength, 4);
    chunks.push(head, map, data);
  }
  const header: Header = {
    config: { ...config },
    caches,
    ram,
    regions: { ...memory.handle().regions },
    chunks: chunks.length / 3,
  };
  const json = Buffer.from(JSON.stringify(header));
  const start = Buffer.alloc(HEADER_AT);
  start.write(MAGIC, 'latin1');
  start.writeUInt32LE(IMAGE_VERSION, VERSION_AT);
  start.writeUInt32LE(json.byteLength, HEADER_BYTES_AT);
  const hash = createHash('sha256').update(json);
  for (const chunk of chunks) hash.update(chunk);
  hash.digest().copy(start, HASH_AT);
  return Buffer.concat([start, json, ...chunks]);
}

/** @throws ImageError */
export function parseImage(bytes: Uint8Array): ParsedImage {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.byteLength < HEADER_AT || file.toString('latin1', 0, MAGIC.length) !== MAGIC)
    throw new ImageError('magic', 'this is no image of a machine');
  const version = file.readUInt32LE(VERSION_AT);
  if (version !== IMAGE_VERSION)
    throw new ImageError('version', `is ${version}, this program reads ${IMAGE_VERSION}`);
  const headerBytes = file.readUInt32LE(HEADER_BYTES_AT);
  if (headerBytes > MAX_HEADER_BYTES || HEADER_AT + headerBytes > file.byteLength)
    throw new ImageError('header', `${headerBytes} bytes, but the file has ${file.byteLength}`);
  const hash = createHash('sha256').update(file.subarray(HEADER_AT)).digest();
  if (!hash.equals(file.subarray(HASH_AT, HEADER_AT)))
    throw new ImageError('checksum', 'the file is cut short or was changed');
  const header = parseHeader(file.toString('utf8', HEADER_AT, HEADER_AT + headerBytes));
  checkPlaces(header);
  const chunks = parseChunks(file.subarray(HEADER_AT + headerBytes), header);
  const { config, caches, ram, regions } = header;
  return { config: config as unknown as MachineConfig, caches, ram, regions, chunks };
}

/** Memory with the image's regions in their places and its content. @throws ImageError | RangeError too large */
export function restoreMemory({ ram, regions, chunks }: ParsedImage): MachineMemory {
  const made = MachineMemory.create({
    ramBytes: ram.bytes,
    ramBasePa: ram.basePa,
    controlBytes: ram.linear - FIRST_REGION,
  });
  if (made.ram.linear !== ram.linear) throw new ImageError('ram.linear', `${ram.linear} is no place for RAM`);
  const memory = MachineMemory.attach({ ...made.handle(), regions });
  for (const { index, map, data } of chunks) {
    const wanted = pagesOf(map).length * FRAME_BYTES;
    let content: Buffer;
    try {
      content = inflateRawSync(data, { maxOutputLength: wanted });
    } catch (error) {
      throw new ImageError(`chunk ${index}`, (error as Error).message);
    }
    if (content.byteLength !== wanted)
      throw new ImageError(`chunk ${index}`, `${content.byteLength} bytes instead of ${wanted}`);
    pagesOf(map).forEach((page, i) => {
      const from = i * FRAME_BYTES;
      memory.u8.set(content.subarray(from, from + FRAME_BYTES), (index * CHUNK_PAGES + page) * FRAME_BYTES);
    });
  }
  return memory;
}

function parseHeader(text: string): Header {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new ImageError('header', (error as Error).message);
  }
  const parsed = headerSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new ImageError(issue.path.length === 0 ? 'header' : issue.path.join('.'), issue.message);
}

function checkPlaces({ ram, regions }: Header): void {
  if (ram.bytes === 0 || ram.bytes % 2 ** 21 !== 0)
    throw new ImageError('ram.bytes', `${ram.bytes} is not a multiple of 2 MiB`);
  if (ram.linear < FIRST_REGION || ram.linear % 2 ** 21 !== 0 || ram.linear + ram.bytes > 2 ** 32)
    throw new ImageError('ram.linear', `${ram.linear} is no place for ${ram.bytes} bytes of RAM`);
  if (ram.basePa % 2 ** 30 !== 0)
    throw new ImageError('ram.basePa', `${ram.basePa} is not a multiple of 1 GiB`);
  for (const [key, { base, size }] of Object.entries(regions))
    if (base % 64 !== 0 || base < FIRST_REGION + REGION_HEADER_BYTES || base + size > ram.linear)
      throw new ImageError(`regions.${key}`, `${size} bytes at ${base} lie outside control memory`);
}

function parseChunks(payload: Buffer, { ram, chunks }: Header): Chunk[] {
  const end = (ram.linear + ram.bytes) / FRAME_BYTES;
  const found: Chunk[] = [];
  let at = 0;
  for (let n = 0; n < chunks; n++) {
    if (at + CHUNK_HEAD_BYTES > payload.byteLength)
      throw new ImageError('chunks', `there are ${n}, not ${chunks}`);
    const index = payload.readUInt32LE(at);
    const bytes = payload.readUInt32LE(at + 4);
    const map = payload.subarray(at + 8, at + CHUNK_HEAD_BYTES);
    at += CHUNK_HEAD_BYTES;
    if (index <= (found.at(-1)?.index ?? -1)) throw new ImageError(`chunk ${index}`, 'is out of order');
    if (pagesOf(map).some((page) => index * CHUNK_PAGES + page >= end))
      throw new ImageError(`chunk ${index}`, 'lies past the end of memory');
    if (at + bytes > payload.byteLength)
      throw new ImageError(
        `chunk ${index}`,
        `${bytes} bytes, of which the file has ${payload.byteLength - at}`,
      );
    found.push({ index, map, data: payload.subarray(at, at + bytes) });
    at += bytes;
  }
  if (at !== payload.byteLength)
    throw new ImageError('chunks', `${payload.byteLength - at} bytes after the last one`);
  return found;
}

/** Numbers of the pages that a chunk has. */
function pagesOf(map: Uint8Array): number[] {
  const pages: number[] = [];
  for (let i = 0; i < CHUNK_PAGES; i++) if ((map[i >> 3]! >> (i & 7)) & 1) pages.push(i);
  return pages;
}
