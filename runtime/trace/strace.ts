/**
 * A whole trace, line by line: what strace writes, and what `format.ts` does, which looks alike.
 *
 * strace knows iommufd's requests by their numbers at most, and shows a struct by its address. Bytes it has for
 * read() and write(), in full with -e read=all -e write=all, as lines of a dump after the call:
 *
 *      | 00000  05 00 00 00 00 00 00 00                           ........         |
 *
 * With -f, a call that another thread interrupts is in two lines, `<unfinished ...>` and `<... ioctl resumed>`, which
 * become one again. Everything that is no call of these passes through as it is.
 */
import { type IoctlCall, isProblem, TRACE_BYTES_MAX, TraceError, type TraceProblem } from './call.js';
import {
  descriptor,
  isForeign,
  type LineHead,
  lineHead,
  parseCall,
  parseHexText,
  resultOf,
} from './parse.js';
import { Scanner } from './scan.js';
import { FAULT_FILE, type Transfer, VEVENT_FILE } from './transfer.js';
import { hexBytes, integer } from './tree.js';

export type TraceItem =
  | { readonly kind: 'call'; readonly call: IoctlCall }
  | { readonly kind: 'transfer'; readonly transfer: Transfer }
  /** Something else. */
  | { readonly kind: 'text'; readonly text: string }
  /** Something that ought to be a call. */
  | { readonly kind: 'problem'; readonly line: number; readonly problem: string; readonly text: string };

const UNFINISHED = /^(.*?)\s*<unfinished \.\.\.>\s*$/;
const RESUMED = /<\.\.\. (ioctl|read|write) resumed>/;
const DUMP = /^ \| [0-9a-f]{5,16} {2}([0-9a-f ]{1,50})/;
const CALL = /(?:^|[\s\]])(ioctl|read|write)\(/;
/** Threads in the middle of a call; more are taken for nonsense. */
const MAX_PENDING = 65_536;

export class TraceReader {
  /** By process or thread, what an unfinished call's line began with. */
  readonly #pending = new Map<number, string>();
  /** A transfer whose dump may follow. */
  #open: { transfer: Transfer; readonly dump: number[] } | null = null;
  #line = 0;

  /** @param text  the next line, without its end. @returns what has become clear */
  push(text: string): TraceItem[] {
    this.#line++;
    const dump = this.#open === null ? null : DUMP.exec(text);
    if (dump !== null) {
      this.#dumped(dump[1]!);
      return [];
    }
    const before = this.end();
    const whole = this.#joined(text);
    const item = whole === null ? null : this.#item(whole, text);
    if (item !== null) before.push(item);
    return before;
  }

  /** No more lines. @returns what was waiting for one */
  end(): TraceItem[] {
    if (this.#open === null) return [];
    const { transfer, dump } = this.#open;
    this.#open = null;
    const bytes = dump.length > transfer.bytes.byteLength ? Uint8Array.from(dump) : transfer.bytes;
    return [{ kind: 'transfer', transfer: { ...transfer, bytes } }];
  }

  #dumped(digits: string): void {
    const { dump } = this.#open!;
    for (const pair of digits.match(/[0-9a-f]{2}/g) ?? [])
      if (dump.length < TRACE_BYTES_MAX) dump.push(Number.parseInt(pair, 16));
  }

  /** @returns the line, joined with its first half | null: it is a first half */
  #joined(text: string): string | null {
    if (!text.includes('<')) return text;
    const first = UNFINISHED.exec(text);
    const resumed = first === null ? RESUMED.exec(text) : null;
    if (first === null && resumed === null) return text;
    const thread = lineHead(text).pid ?? 0;
    if (first !== null) {
      if (!CALL.test(first[1]!) || this.#pending.size >= MAX_PENDING) return text;
      this.#pending.set(thread, first[1]!);
      return null;
    }
    const begun = this.#pending.get(thread);
    this.#pending.delete(thread);
    return begun === undefined ? text : begun + text.slice(resumed!.index + resumed![0].length);
  }

  /** @param shown  the line as it was. @returns null: more lines may belong to it */
  #item(text: string, shown: string): TraceItem | null {
    if (text.trimStart().startsWith('{')) return this.#callOrText(text, shown);
    if (!CALL.test(text) || RESUMED.test(text)) {
      const plain = parseHexText(text);
      return plain === null ? { kind: 'text', text: shown } : this.#call(plain, shown);
    }
    const head = lineHead(text);
    if (!text.startsWith('ioctl(', head.at)) return this.#transfer(text, head);
    return this.#callOrText(text, shown);
  }

  #callOrText(text: string, shown: string): TraceItem {
    const call = parseCall(text);
    return isProblem(call) && isForeign(text) ? { kind: 'text', text } : this.#call(call, shown);
  }

  #call(call: IoctlCall | TraceProblem, text: string): TraceItem {
    if (isProblem(call)) return { kind: 'problem', line: this.#line, problem: call.problem, text };
    return { kind: 'call', call };
  }

  /** A read or write of records that a file of ours carries waits for its dump. */
  #transfer(text: string, { at, ...head }: LineHead): TraceItem | null {
    CALLED.lastIndex = at;
    const op = CALLED.exec(text)?.[1] as Transfer['op'] | undefined;
    if (op === undefined) return { kind: 'text', text };
    try {
      const scan = new Scanner(text, CALLED.lastIndex);
      const file = descriptor(scan);
      if (file.path !== FAULT_FILE && file.path !== VEVENT_FILE) return { kind: 'text', text };
      scan.skip();
      // What formatTransfer() wrote is as clear as it gets.
      if (scan.text[scan.at] === '[') return { kind: 'text', text };
      const bytes = stringOf(scan);
      scan.expect(',');
      const asked = Number(integer(scan.tree(), 'length'));
      scan.expect(')');
      scan.expect('=');
      this.#open = { transfer: { op, ...head, ...file, bytes, asked, result: resultOf(scan) }, dump: [] };
      return null;
    } catch (error) {
      if (!(error instanceof TraceError)) throw error;
      return { kind: 'problem', line: this.#line, problem: error.message, text };
    }
  }
}

const CALLED = /(read|write)\(/y;
const STRING = /"((?:[^"\\]|\\.)*)"(?:\.\.\.)?/y;
const ESCAPES: Readonly<Record<string, number>> = { n: 10, t: 9, r: 13, v: 11, f: 12, '"': 34, '\\': 92 };

/**
 * What strace prints of a buffer, which may be its beginning, or its address: then nothing is known. Records that
 * formatTransfer() has no names for are bytes.
 */
function stringOf(scan: Scanner): Uint8Array {
  const quoted = scan.match(STRING);
  if (quoted === undefined) {
    const tree = scan.tree();
    if (typeof tree === 'string' && tree.startsWith('hex:')) return hexBytes(tree, 'buffer');
    integer(tree, 'buffer');
    return new Uint8Array(0);
  }
  const inside = quoted.slice(1, quoted.lastIndexOf('"'));
  const bytes: number[] = [];
  for (const [, hex, octal, escaped, plain] of inside.matchAll(
    /\\x([0-9a-f]{2})|\\([0-7]{1,3})|\\(.)|([^\\])/gs,
  )) {
    if (hex !== undefined) bytes.push(Number.parseInt(hex, 16));
    else if (octal !== undefined) bytes.push(Number.parseInt(octal, 8) & 0xff);
    else if (escaped !== undefined) bytes.push(ESCAPES[escaped] ?? escaped.charCodeAt(0) & 0xff);
    else bytes.push(plain!.charCodeAt(0) & 0xff);
  }
  return Uint8Array.from(bytes);
}
