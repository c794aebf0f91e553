/**
 * Reads a call back from either form of `format.ts`, and from what strace writes, which has the address of a struct
 * where its fields should be. Any text may come; one that is no call is answered with a reason.
 */
import { decodeIoctl, IOMMUFD_TYPE } from '../../uapi/abi/ioctl.js';
import { type IoctlCall, TraceError, type TraceProblem } from './call.js';
import { traceErrno } from './errno-names.js';
import type { CallTree } from './format.js';
import { type AnyStruct, cmdOfName, dataOf, outDataOf, type PointedAt, tracedIoctl } from './ioctls.js';
import { Scanner } from './scan.js';
import { bytesOfHex, clip, hexBytes, integer, type Tree, type TreeNode, treeToStruct } from './tree.js';

/**
 * @param text  one line, without its end: the line form, the JSON form, or strace's
 * @returns the call | why it is none
 */
export function parseCall(text: string): IoctlCall | TraceProblem {
  try {
    return isJson(text) ? fromJson(text) : fromLine(text);
  } catch (error) {
    if (error instanceof TraceError) return { problem: error.message };
    throw error;
  }
}

const isJson = (text: string): boolean => text.trimStart().startsWith('{');

// ---- lines ------------------------------------------------------------------------------------------------

/** `[pid 7] ` or, in a file that strace -f -o wrote, `7 `. */
const PID = /(?:\[pid\s+(\d{1,10})\]\s*|(\d{1,10})\s+(?=\D|\d+[:.]))/y;
/** -t, -tt, -ttt, -r. */
const TIME = /\d[\d:.]*(?: \(\+ *[\d.]+\))?(?=\s)/y;
/** -n, -i. */
const BRACKETS = /\[ *[0-9a-f?]+\]/y;
const IOC = /_IO[RWC]*(?=\s*\()/y;

/** What stands before the name of a system call. */
export interface LineHead {
  readonly pid?: number;
  readonly time?: string;
  /** Where the name begins. */
  readonly at: number;
}

export function lineHead(text: string): LineHead {
  const head: { pid?: number; time?: string } = {};
  const scan = new Scanner(text);
  PID.lastIndex = /^\s*/.exec(text)![0].length;
  const pid = PID.exec(text);
  if (pid !== null) {
    head.pid = Number(pid[1] ?? pid[2]);
    scan.at = PID.lastIndex;
  }
  for (;;) {
    scan.match(/\s+/y);
    const time: string | undefined = scan.match(TIME);
    if (time !== undefined) head.time ??= time;
    else if (scan.match(BRACKETS) === undefined) return { ...head, at: scan.at };
  }
}

function fromLine(text: string): IoctlCall {
  const { at, ...head } = lineHead(text);
  const scan = new Scanner(text, at);
  scan.expect('ioctl(');
  const file = descriptor(scan);
  const cmd = requestOf(scan);
  const row = tracedIoctl(cmd);
  const args: { arg?: bigint; in?: Tree; out?: Tree; data?: Tree; out_data?: Tree } = {};
  while (!scan.take(')')) {
    scan.expect(',');
    const start = scan.at;
    const name = scan.name();
    if ((name === 'data' || name === 'out_data') && scan.take('=')) {
      args[name] = scan.tree();
      continue;
    }
    scan.at = start;
    const third = scan.tree();
    if (isStructTree(third)) {
      args.in = third;
      if (scan.take('=>')) args.out = scan.tree();
    } else args.arg = third === 'NULL' ? 0n : integer(third, 'argument', row?.argument);
  }
  scan.expect('=');
  const result = resultOf(scan);
  return { ...head, ...file, cmd, ...bytesOf(cmd, args), result };
}

/** `3`, `3</dev/iommu>`, `3</dev/null<char 1:3>>`; `?` when it is not known. */
export function descriptor(scan: Scanner): { fd?: number; path?: string } {
  scan.skip();
  const digits = scan.match(/-?\d{1,10}(?=[<,\s])/y);
  if (digits === undefined) {
    if (!scan.take('?')) throw scan.error('a file descriptor expected');
    scan.expect(',');
    return {};
  }
  const fd = Number(digits);
  if (scan.text[scan.at] !== '<') {
    scan.expect(',');
    return { fd };
  }
  let depth = 0;
  const start = scan.at + 1;
  for (; scan.at < scan.text.length; scan.at++) {
    const char = scan.text[scan.at];
    if (char === '<') depth++;
    // As in `socket:[1->2]`.
    else if (char === '>' && scan.text[scan.at - 1] !== '-' && --depth === 0) break;
  }
  if (depth !== 0) throw scan.error("the name of the file's end expected");
  const path = scan.text.slice(start, scan.at);
  scan.at++;
  scan.expect(',');
  return { fd, path };
}

/** A number, a name, several names (`A or B`), or the macro. */
function requestOf(scan: Scanner): number {
  scan.skip();
  const macro = scan.match(IOC);
  if (macro !== undefined) return macroOf(scan, macro);
  const digits = scan.match(/0x[0-9a-f]{1,8}\b|\d{1,10}\b/iy);
  if (digits !== undefined) {
    if (Number(digits) > 0xffff_ffff) throw new TraceError(`request ${digits} has more than 32 bits`);
    return Number(digits);
  }
  let cmd: number | undefined;
  const names: string[] = [];
  for (;;) {
    const name = scan.name();
    if (name === undefined) throw scan.error('a request expected');
    names.push(name);
    cmd ??= cmdOfName(name);
    scan.skip();
    if (scan.match(/or\b/y) === undefined) break;
  }
  if (cmd === undefined) throw new UnknownRequest(`'${clip(names.join(' or '))}' is no request known here`);
  return cmd;
}

/** The request has a name, and none that is known here. */
class UnknownRequest extends TraceError {}

/** Whether a line is about something else: an ioctl of another kind of file, which strace shows in ways of its own. */
export function isForeign(text: string): boolean {
  try {
    if (isJson(text)) return fromJson(text) === null;
    const scan = new Scanner(text, lineHead(text).at);
    scan.expect('ioctl(');
    descriptor(scan);
    return decodeIoctl(requestOf(scan)).type !== IOMMUFD_TYPE;
  } catch (error) {
    if (error instanceof TraceError) return error instanceof UnknownRequest;
    throw error;
  }
}

const DIRECTIONS: Readonly<Record<string, number>> = {
  _IO: 0,
  _IOW: 1,
  _IOR: 2,
  _IOWR: 3,
  _IOC_NONE: 0,
  _IOC_WRITE: 1,
  _IOC_READ: 2,
};

/** `_IOC(_IOC_READ|_IOC_WRITE, 0x3b, 0x85, 0x28)`, `_IO(0x3b, 0x85)`. */
function macroOf(scan: Scanner, macro: string): number {
  scan.expect('(');
  const parts: Tree[] = [];
  do parts.push(scan.tree());
  while (scan.take(','));
  scan.expect(')');
  if (macro === '_IOC') {
    const direction = String(parts.shift());
    const bits = direction
      .split('|')
      .map((name) => (Object.hasOwn(DIRECTIONS, name) ? DIRECTIONS[name]! : NaN));
    parts.unshift(bits.reduce((a, b) => (Number.isNaN(a) || Number.isNaN(b) ? NaN : a | b), 0));
  } else parts.unshift(DIRECTIONS[macro] ?? NaN);
  const [dir, type, nr, size] = parts.map((part) => Number(part));
  const fits = (n: number | undefined, max: number): boolean => n! >= 0 && n! <= max && Number.isInteger(n);
  if (!fits(dir, 3) || !fits(type, 0xff) || !fits(nr, 0xff) || !fits(size ?? 0, 0x3fff) || parts.length > 4)
    throw scan.error(`${macro} of a request expected`);
  return ((dir! << 30) | ((size ?? 0) << 16) | (type! << 8) | nr!) >>> 0;
}

/** `0`, `-1 EINVAL (Invalid argument)`, `?`, and the time that -T adds. */
export function resultOf(scan: Scanner): number | null {
  const value = scan.take('?') ? null : Number(integer(scan.tree(), 'result'));
  const name = scan.name();
  while (scan.match(/\s*(\([^)]*\)|<[\d.]+>)/y) !== undefined);
  if (!scan.done) throw scan.error('nothing more expected');
  if (value === null || !Number.isSafeInteger(value)) return null;
  return signed(value, name);
}

function signed(value: number, error: string | undefined): number {
  if (value >= 0) return value;
  if (error === undefined) return value;
  const errno = traceErrno(error);
  if (errno === undefined) throw new TraceError(`'${clip(error)}' is no error`);
  return -errno;
}

// ---- JSON -------------------------------------------------------------------------------------------------

/** The form of `format.ts`; of other programs' also `cmd` for `ioctl` and plain digits for bytes. */
function fromJson(text: string): IoctlCall {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new TraceError(`no JSON: ${clip((error as Error).message)}`);
  }
  if (typeof value !== 'object' || value === null) throw new TraceError('no JSON object');
  const given = new Map<string, unknown>(Object.entries(value));
  const request = given.get('ioctl') ?? given.get('cmd');
  if (request === undefined) throw new UnknownRequest('no `ioctl`');
  const cmd =
    typeof request === 'string' ? requestOf(new Scanner(request)) : whole(request, 'ioctl', 0xffff_ffff);
  const row = tracedIoctl(cmd);
  const bytes = (name: string): Tree | undefined => {
    const tree = given.get(name);
    if (tree === undefined) return undefined;
    if (typeof tree !== 'string') return treeOf(tree, name);
    return tree.startsWith('hex:') ? tree : `hex:${tree.replace(/\s/g, '')}`;
  };
  const before = bytes('in') ?? bytes('bytes');
  const out = bytes('out');
  const data = bytes('data');
  const out_data = bytes('out_data');
  const arg = given.get('arg');
  const args = {
    ...(arg === undefined ? {} : { arg: integer(treeOf(arg, 'arg'), 'arg', row?.argument) }),
    ...(before === undefined ? {} : { in: before }),
    ...(out === undefined ? {} : { out }),
    ...(data === undefined ? {} : { data }),
    ...(out_data === undefined ? {} : { out_data }),
  };
  return { ...jsonHead(given), cmd, ...bytesOf(cmd, args), result: jsonResult(given) };
}

function jsonHead(given: ReadonlyMap<string, unknown>): Pick<IoctlCall, 'pid' | 'time' | 'fd' | 'path'> {
  const head: { pid?: number; time?: string; fd?: number; path?: string } = {};
  for (const name of ['pid', 'fd'] as const)
    if (given.has(name)) head[name] = whole(given.get(name), name, 0x7fff_ffff);
  for (const name of ['time', 'path'] as const) {
    const value = given.get(name);
    if (value === undefined) continue;
    if (typeof value !== 'string') throw new TraceError(`${name}: not a text`);
    head[name] = value;
  }
  return head;
}

function jsonResult(given: ReadonlyMap<string, unknown>): number | null {
  const result = given.get('result');
  const error = given.get('error');
  if (result === undefined || result === null) return null;
  if (typeof result !== 'number' || !Number.isSafeInteger(result))
    throw new TraceError('result: not a number');
  if (error !== undefined && typeof error !== 'string') throw new TraceError('error: not a name');
  return signed(result, error);
}

function whole(value: unknown, what: string, max: number): number {
  if (
    typeof value === 'number' &&
    Number.isInteger(value) &&
    value >= (what === 'fd' ? -max : 0) &&
    value <= max
  )
    return value;
  throw new TraceError(`${what}: not a number from 0 to ${max}`);
}

/** Any JSON value as a tree, in which numbers are whole. */
function treeOf(value: unknown, what: string, depth = 0): Tree {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
  if (typeof value !== 'object' || value === null || depth > 8) throw new TraceError(`${what}: no value`);
  if (Array.isArray(value)) return value.map((element) => treeOf(element, what, depth + 1));
  const node: Record<string, Tree> = Object.create(null);
  for (const [name, element] of Object.entries(value)) node[name] = treeOf(element, name, depth + 1);
  return node;
}

// ---- both -------------------------------------------------------------------------------------------------

function isStructTree(tree: Tree): boolean {
  return typeof tree === 'object' || (typeof tree === 'string' && tree.startsWith('hex:'));
}

type Trees = Partial<Pick<CallTree, 'in' | 'out' | 'data' | 'out_data'>> & { readonly arg?: bigint };

function bytesOf(cmd: number, trees: Trees): Pick<IoctlCall, 'arg' | 'in' | 'out' | 'data' | 'outData'> {
  const { arg, in: beforeTree, out: outTree, data: dataTree, out_data: outDataTree } = trees;
  const struct = tracedIoctl(cmd)?.struct;
  if (beforeTree === undefined) {
    if (outTree !== undefined || dataTree !== undefined || outDataTree !== undefined)
      throw new TraceError('the struct is missing');
    return arg === undefined ? {} : { arg };
  }
  const before = structBytes(struct, beforeTree);
  const out = outTree === undefined ? undefined : structBytes(struct, outTree, before);
  return {
    in: before,
    ...(out === undefined ? {} : { out }),
    ...(dataTree === undefined ? {} : { data: dataBytes(dataOf(cmd, before), dataTree, 'data') }),
    ...(outDataTree === undefined
      ? {}
      : { outData: dataBytes(outDataOf(cmd, before, out ?? before), outDataTree, 'out_data') }),
  };
}

function structBytes(struct: AnyStruct | undefined, tree: Tree, before?: Uint8Array): Uint8Array {
  if (typeof tree === 'string') return hexBytes(tree, struct?.cName ?? 'struct');
  if (struct === undefined)
    throw new TraceError('nothing is known of this request: its bytes are hex:0011ff');
  if (!isNode(tree)) throw new TraceError(`${struct.cName}: {...} expected`);
  return treeToStruct(struct, tree, before);
}

function dataBytes(what: PointedAt | null, tree: Tree, name: string): Uint8Array {
  if (typeof tree === 'string') return hexBytes(tree, name);
  const struct = what?.struct ?? null;
  if (struct === null) throw new TraceError(`${name}: this struct points at nothing that is known`);
  if (isNode(tree)) return treeToStruct(struct, tree);
  if (!Array.isArray(tree)) throw new TraceError(`${name}: {...} or [...] expected`);
  const parts = tree.map((element: Tree) => structBytes(struct, element));
  const bytes = new Uint8Array(parts.reduce((sum, { byteLength }) => sum + byteLength, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}

function isNode(tree: Tree): tree is TreeNode {
  return typeof tree === 'object' && !Array.isArray(tree);
}

/** What begins as a request and its bytes do, and does not go on so. */
function brokenHex(text: string): TraceProblem | null {
  const [, rest] = /^\s*0x[0-9a-f]{1,8}[:\s]\s*(\S.*)$/i.exec(text) ?? [];
  return rest === undefined
    ? null
    : { problem: `after a request come its struct's bytes in hex, not '${clip(rest)}'` };
}

/** `0x3b85 2800 0000`, `IOMMU_IOAS_MAP: 28 00 ...`: a request and its struct's bytes. */
export function parseHexText(text: string): IoctlCall | TraceProblem | null {
  const found = /^\s*(0x[0-9a-f]{1,8}|[A-Z][A-Za-z0-9_]*)[:\s]\s*((?:hex:)?[0-9a-f\s]*)$/i.exec(text);
  if (found === null) return brokenHex(text);
  const cmd = found[1]!.startsWith('0x') ? Number(found[1]) : cmdOfName(found[1]!);
  if (cmd === undefined) return null;
  try {
    const digits = found[2]!.replace(/^hex:/, '').replace(/\s/g, '');
    return { cmd, in: bytesOfHex(digits, 'struct'), result: null };
  } catch (error) {
    if (error instanceof TraceError) return { problem: error.message };
    throw error;
  }
}
