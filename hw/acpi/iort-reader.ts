/**
 * A bounded window on one IORT or one of its nodes. Every read is checked against the window, so that no
 * count, length or offset found in a hostile table reaches past what it may describe.
 */
import { hex, IortError } from './iort-error.js';

export class IortReader {
  /** Of the window, from the table's first byte; errors are reported relative to the table. */
  readonly start: number;
  readonly lenBytes: number;
  readonly #table: Uint8Array;
  readonly #view: DataView;

  /** @throws IortError when the window is not inside `table` */
  constructor(table: Uint8Array, start: number, lenBytes: number) {
    if (start + lenBytes > table.length) {
      throw new IortError(
        start,
        `truncated: ${lenBytes} bytes wanted, the table ends at ${hex(table.length)}`,
      );
    }
    this.start = start;
    this.lenBytes = lenBytes;
    this.#table = table;
    this.#view = new DataView(table.buffer, table.byteOffset + start, lenBytes);
  }

  /** A window of the same table at an offset from this one's start, checked against the table only. */
  window(at: number, lenBytes: number): IortReader {
    return new IortReader(this.#table, this.start + at, lenBytes);
  }

  u8(at: number): number {
    return this.#view.getUint8(this.#checked(at, 1));
  }

  u16(at: number): number {
    return this.#view.getUint16(this.#checked(at, 2), true);
  }

  u32(at: number): number {
    return this.#view.getUint32(this.#checked(at, 4), true);
  }

  /** A 64-bit address or length. No physical address has more than 52 bits, so a Number holds any real one. */
  address(at: number, what: string): number {
    const value = this.#view.getBigUint64(this.#checked(at, 8), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new IortError(this.start + at, `${what} 0x${value.toString(16)} is past any physical address`);
    }
    return Number(value);
  }

  /** A NUL-terminated string of printable ASCII that ends before `end`. */
  path(at: number, end: number): string {
    let text = '';
    for (let i = at; i < end; i++) {
      const code = this.u8(i);
      if (code === 0) {
        if (text === '') throw new IortError(this.start + at, 'empty object path');
        return text;
      }
      if (code < 0x21 || code > 0x7e) {
        throw new IortError(this.start + i, `byte ${hex(code)} in an object path is not printable ASCII`);
      }
      text += String.fromCharCode(code);
    }
    throw new IortError(this.start + at, 'truncated: the object path does not end inside its node');
  }

  /**
   * Check that an array described by two fields of this window lies in it, behind the fixed part.
   * @param fieldAt the field to blame: where the offset stands
   */
  array(fieldAt: number, what: string, offset: number, count: number, eachBytes: number, from: number): void {
    if (count === 0) return;
    if (offset < from) {
      throw new IortError(
        this.start + fieldAt,
        `${what} at node offset ${hex(offset)} overlap the node's own fields, which end at ${hex(from)}`,
      );
    }
    if (offset + count * eachBytes > this.lenBytes) {
      throw new IortError(
        this.start + fieldAt,
        `${count} ${what} from ${hex(this.start + offset)} overrun their node, which ends at ${hex(this.start + this.lenBytes)}`,
      );
    }
  }

  #checked(at: number, lenBytes: number): number {
    if (at < 0 || at + lenBytes > this.lenBytes) {
      throw new IortError(
        this.start + at,
        `truncated: field outside its node, which ends at ${hex(this.start + this.lenBytes)}`,
      );
    }
    return at;
  }
}
