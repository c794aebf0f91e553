/** The one way an IORT is refused: which byte, and why. */

/** A number as firmware people write it. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/**
 * A table that is truncated, looped, overlapping or otherwise makes no sense. Whatever the bytes, reading an
 * IORT either succeeds or throws this; anything else is a bug of ours.
 */
export class IortError extends Error {
  /** Byte offset of the culprit field, node or mapping from the table's start; also in the message, in hex. */
  readonly offset: number;

  constructor(offset: number, problem: string) {
    super(`IORT: ${problem}, at ${hex(offset)}`);
    this.name = 'IortError';
    this.offset = offset;
  }
}
