/**
 * What a client asks of an open file: ioctl, read, write. Each is a call of the core on behalf of the client's Task;
 * whoever watches is told of it afterwards, with what the struct's pointers led to.
 */
import { EINVAL, ENODEV, ENOTTY } from '../../uapi/abi/errno.js';
import { u32At } from '../../uapi/abi/struct.js';
import type { IommufdCore } from '../core/core.js';
import type { IoctlCall } from '../trace/call.js';
import { dataOf, outDataOf, type PointedAt, tracedIoctl } from '../trace/ioctls.js';
import type { Transfer } from '../trace/transfer.js';
import type { Client } from './client.js';
import type { ServedFile } from './served-file.js';
import {
  OP_READ,
  type Request,
  WIRE_FILE_SPARE,
  WIRE_MAX_PAYLOAD,
  WIRE_POSITIONED,
  WIRE_READ_ONLY,
  WIRE_SPARE_USED,
} from './wire.js';

/** What Connection.reply() takes. */
export interface Answer {
  readonly result: number;
  readonly flags?: number;
  readonly payload?: Uint8Array;
  readonly at?: number;
}

/** Told of everything that clients do to their files. */
export interface Watcher {
  readonly onCall?: ((call: IoctlCall) => void) | undefined;
  readonly onTransfer?: ((transfer: Transfer) => void) | undefined;
}

/** Longest array that a watcher is shown, bytes. */
const MAX_SHOWN = 65536;

/** Calls the core on behalf of a client. */
export function onBehalfOf<T>(core: IommufdCore, client: Client, call: () => T): T {
  const { mm } = client.task;
  mm.beginCall();
  try {
    return core.as(client.task, call);
  } finally {
    mm.endCall();
  }
}

/** @param spare  what the request names as that */
export function ioctl(
  core: IommufdCore,
  served: ServedFile | undefined,
  spare: ServedFile | undefined,
  client: Client,
  request: Request,
  { onCall }: Watcher,
): Answer {
  const { cmd, payload } = request;
  const file = served?.file;
  if (served === undefined || file === null || file === undefined) return { result: -ENODEV };
  const before = Uint8Array.prototype.slice.call(payload);
  const bytes = new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength);
  const data = onCall && shown(client, dataOf(cmd, before));
  client.spare = spare?.owner === client && spare.kind === WIRE_FILE_SPARE ? spare : null;
  client.spareFd = request.spareFd;
  client.spareUsed = false;
  client.task.structReadOnly = (request.flags & WIRE_READ_ONLY) !== 0;
  const result = onBehalfOf(core, client, () => file.ioctl?.(cmd, bytes) ?? -ENOTTY);
  client.task.structReadOnly = false;
  if (result < 0) client.removeSpare(client.spareFd);
  const flags = client.spareUsed ? WIRE_SPARE_USED : 0;
  client.spare = null;
  client.spareUsed = false;
  if (onCall !== undefined) {
    const outData = result < 0 ? undefined : shown(client, outDataOf(cmd, before, bytes));
    const { fd, arg } = request;
    const isStruct = before.byteLength > 0 && tracedIoctl(cmd)?.argument === undefined;
    const call = { pid: client.pid, fd, path: served.path, cmd, arg, result };
    const told = isStruct ? toldBytes(before) : 0;
    const structs = isStruct ? { in: before.subarray(0, told), out: bytes.subarray(0, told) } : {};
    onCall({ ...call, ...structs, ...(data && { data }), ...(outData && { outData }) });
  }
  // Only what was written goes back, so that a struct in read-only memory is no error where nothing is.
  let first = 0;
  while (first < bytes.byteLength && bytes[first] === before[first]) first++;
  let end = bytes.byteLength;
  while (end > first && bytes[end - 1] === before[end - 1]) end--;
  return { result, flags, payload: bytes.subarray(first, end), at: first };
}

/** read, pread, write, pwrite. */
export function transfer(
  core: IommufdCore,
  served: ServedFile | undefined,
  client: Client,
  request: Request,
  { onTransfer }: Watcher,
): Answer {
  if (served === undefined) return { result: -ENODEV };
  const { fd, payload } = request;
  const reads = request.op === OP_READ;
  if (reads && (request.flags & WIRE_POSITIONED) === 0 && served.file?.readTo !== undefined)
    return readInPlace(core, served, client, request, { onTransfer });
  const offset = (request.flags & WIRE_POSITIONED) !== 0 ? request.index : undefined;
  const asked = reads ? Math.min(Number(request.arg), WIRE_MAX_PAYLOAD) : payload.byteLength;
  const done = onBehalfOf(core, client, () =>
    reads ? served.read(asked, offset) : served.write(payload, offset),
  );
  const flags = served.drained();
  const got = typeof done === 'number' ? NO_BYTES : done;
  const result = typeof done === 'number' ? done : done.byteLength;
  if (onTransfer !== undefined && served.file !== null) {
    const op = reads ? 'read' : 'write';
    onTransfer({ op, pid: client.pid, fd, path: served.path, bytes: reads ? got : payload, asked, result });
  }
  return { result, flags, payload: got };
}

/** read of a file that keeps what the client's memory does not take: the bytes go there at once. */
function readInPlace(
  core: IommufdCore,
  served: ServedFile,
  client: Client,
  request: Request,
  { onTransfer }: Watcher,
): Answer {
  const { file, path } = served;
  const { mm } = client.task;
  const address = BigInt(request.index);
  const asked = Math.min(Number(request.arg), MAX_RW_COUNT);
  const parts: { offset: number; bytes: Uint8Array }[] = [];
  const result = onBehalfOf(
    core,
    client,
    () =>
      file?.readTo?.(asked, (offset, bytes) => {
        const status = mm.copyOut(address + BigInt(offset), bytes);
        if (status === 0 && onTransfer !== undefined) parts.push({ offset, bytes });
        return status;
      }) ?? -EINVAL,
  );
  if (onTransfer !== undefined) {
    const bytes = new Uint8Array(Math.max(result, 0));
    for (const part of parts)
      if (part.offset + part.bytes.byteLength <= result) bytes.set(part.bytes, part.offset);
    onTransfer({ op: 'read', pid: client.pid, fd: request.fd, path, bytes, asked, result });
  }
  return { result, flags: served.drained() };
}

/** What a read of more is cut to. */
const MAX_RW_COUNT = 0x7fff_f000;
const NO_BYTES = new Uint8Array(0);

/** Bytes of a struct as its first word has it: of VFIO's more are read, before anything is known. */
function toldBytes(struct: Uint8Array): number {
  if (struct.byteLength < 4) return struct.byteLength;
  return Math.min(struct.byteLength, Math.max(4, u32At(struct, 0)));
}

/** What lies at an address of the client's, for a watcher. */
function shown(client: Client, what: PointedAt | null): Uint8Array | undefined {
  if (what === null) return undefined;
  const bytes = new Uint8Array(Math.min(what.bytes, MAX_SHOWN));
  return client.task.mm.copyIn(what.address, bytes) < 0 ? undefined : bytes;
}
