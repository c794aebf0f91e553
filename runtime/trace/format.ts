/**
 * A call as one line, after strace, or as one JSON object. Both carry the tree of `tree.ts`:
 *
 *     [pid 7] ioctl(3, IOMMU_IOAS_ALLOC, {size=12, flags=0, out_ioas_id=0} => {out_ioas_id=1}) = 0
 *     [pid 7] ioctl(3, IOMMU_HWPT_ALLOC, {...}, data={ste=[0x...]} <comment>) = -1 EIO
 *     {"pid":7,"fd":3,"ioctl":"IOMMU_IOAS_ALLOC","in":{...},"out":{"out_ioas_id":1},"result":0}
 *
 * After `=>` stands what the call changed. `data` is what the struct points at, `out_data` what the call wrote there.
 * A call that takes a number, or of which only the struct's address is known, has that as its third argument; a
 * request number that nobody knows has its bytes: `hex:0011ff`. Comments are in C's manner, `about` in JSON.
 */
import { aboutStruct } from './about.js';
import type { IoctlCall } from './call.js';
import { traceErrnoName } from './errno-names.js';
import { type AnyStruct, dataOf, outDataOf, type PointedAt, tracedIoctl } from './ioctls.js';
import { changesToTree, hexAtom, structToTree, type Tree, type TreeNode } from './tree.js';

export interface FormatOptions {
  /** Structs as bytes. */
  readonly raw?: boolean;
}

/** No address: the lowest 64 KiB of a process stay empty. */
const SMALL = 0xffffn;

/** A call as names and atoms: what both forms print. */
export interface CallTree {
  readonly pid?: number;
  readonly time?: string;
  readonly fd?: number;
  readonly path?: string;
  readonly ioctl: string;
  readonly arg?: Tree;
  readonly in?: Tree;
  readonly out?: Tree;
  readonly data?: Tree;
  readonly out_data?: Tree;
  readonly result: number | null;
  readonly error?: string;
  /** A remark on the whole call. */
  readonly about?: string;
}

/** @returns one line, without its end */
export function formatCall(call: IoctlCall, options: FormatOptions = {}): string {
  const {
    pid,
    time,
    fd,
    path,
    ioctl,
    arg,
    in: before,
    out,
    data,
    out_data,
    about,
    result,
    error,
  } = callTree(call, options);
  const parts = [fd === undefined ? '?' : path === undefined ? String(fd) : `${fd}<${path}>`, ioctl];
  if (arg !== undefined) parts.push(`${text(arg)}${comment(about)}`);
  if (before !== undefined) parts.push(out === undefined ? text(before) : `${text(before)} => ${text(out)}`);
  if (data !== undefined) parts.push(`data=${text(data)}`);
  if (out_data !== undefined) parts.push(`out_data=${text(out_data)}`);
  const head = `${pid === undefined ? '' : `[pid ${pid}] `}${time === undefined ? '' : `${time} `}`;
  const end = result === null ? '?' : error === undefined ? String(result) : `-1 ${error}`;
  return `${head}ioctl(${parts.join(', ')}) = ${end}`;
}

/** @returns one JSON object on one line */
export function formatJson(call: IoctlCall, options: FormatOptions = {}): string {
  return JSON.stringify(callTree(call, options));
}

function callTree(call: IoctlCall, { raw = false }: FormatOptions): CallTree {
  const { pid, time, fd, path, cmd, arg, in: before, out, result } = call;
  const row = tracedIoctl(cmd);
  const struct = raw ? undefined : row?.struct;
  const changed = before !== undefined && out !== undefined && !same(before, out);
  return {
    ...(pid === undefined ? {} : { pid }),
    ...(time === undefined ? {} : { time }),
    ...(fd === undefined ? {} : { fd }),
    ...(path === undefined ? {} : { path }),
    ioctl: row?.name ?? `0x${(cmd >>> 0).toString(16)}`,
    ...(before !== undefined || arg === undefined ? {} : argument(call, arg)),
    ...(before === undefined ? {} : { in: structTree(struct, before) }),
    ...(changed ? { out: struct === undefined ? hexAtom(out) : outTree(struct, before, out) } : {}),
    ...pointedAt(call, raw),
    result: result === null ? null : result < 0 ? -1 : result,
    ...(result !== null && result < 0 ? { error: traceErrnoName(-result) } : {}),
  };
}

function argument({ cmd }: IoctlCall, arg: bigint): { arg: Tree; about?: string } {
  const row = tracedIoctl(cmd);
  if (row?.argument !== undefined) return { arg: row.argument.byValue.get(arg) ?? `0x${arg.toString(16)}` };
  const about = row === undefined || arg <= SMALL ? {} : { about: 'the bytes are not in the trace' };
  return { arg: `0x${arg.toString(16)}`, ...about };
}

function pointedAt(call: IoctlCall, raw: boolean): { data?: Tree; out_data?: Tree } {
  const { cmd, in: before, out = before, data, outData } = call;
  if (before === undefined || out === undefined) return {};
  return {
    ...(data === undefined ? {} : { data: dataTree(raw ? null : dataOf(cmd, before), data) }),
    ...(outData === undefined
      ? {}
      : { out_data: dataTree(raw ? null : outDataOf(cmd, before, out), outData) }),
  };
}

/** A struct, an array of them, or bytes. */
export function dataTree(what: Pick<PointedAt, 'struct' | 'stride'> | null, bytes: Uint8Array): Tree {
  if (what === null || what.struct === null) return hexAtom(bytes);
  const { struct, stride } = what;
  if (stride === 0) return structTree(struct, bytes);
  const list: Tree[] = [];
  for (let at = 0; at < bytes.byteLength; at += stride)
    list.push(structTree(struct, bytes.subarray(at, at + stride)));
  return list;
}

function structTree(struct: AnyStruct | undefined, bytes: Uint8Array): Tree {
  if (struct === undefined) return hexAtom(bytes);
  return withAbout(structToTree(struct, bytes), struct, bytes);
}

function outTree(struct: AnyStruct, before: Uint8Array, out: Uint8Array): Tree {
  return withAbout(changesToTree(struct, before, out), struct, out);
}

function withAbout(tree: TreeNode, struct: AnyStruct, bytes: Uint8Array): TreeNode {
  const about = aboutStruct(struct, bytes);
  return about === undefined || about === '' ? tree : { ...tree, about };
}

/** A tree as a line has it. */
export function text(tree: Tree): string {
  if (typeof tree === 'number' || typeof tree === 'string') return String(tree);
  if (Array.isArray(tree)) return `[${tree.map(text).join(', ')}]`;
  const { about, ...fields } = tree as TreeNode & { about?: string };
  const inside = Object.entries(fields).map(([name, value]) => `${name}=${text(value)}`);
  return `{${inside.join(', ')}}${comment(about)}`;
}

export function comment(about: string | undefined): string {
  return about === undefined ? '' : ` /* ${about} */`;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && a.every((byte, i) => byte === b[i]);
}
