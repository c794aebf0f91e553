/** A memfd or file of a process, for IOAS_MAP_FILE. Its pages are pinned like a process's. */
import type { PinnableMemory } from '../iova/pinnable-memory.js';

export interface UserFile extends PinnableMemory {
  /** Two descriptors of one file are the same identity. */
  readonly identity: string;
  readonly sizeBytes: bigint;
  readonly writable: boolean;
  /** One more, one less IoptPages holds the file open. */
  get(): void;
  put(): void;
}
