/**
 * What clients and the server say to each other over Unix stream sockets. The twin of uapi/preload/wire.h, where the
 * messages are explained.
 */

export const WIRE_MAGIC = 0x6466_6d69;
/** Longest payload of either direction, bytes. */
export const WIRE_MAX_PAYLOAD = 65536;
/** As much of an ioctl's struct as travels, bytes. */
export const WIRE_MAX_STRUCT = 4096;

export const OP_HELLO = 1;
export const OP_PROOF = 2;
export const OP_FILE = 3;
export const OP_MAP = 4;
export const OP_IOCTL = 5;
export const OP_READ = 6;
export const OP_WRITE = 7;
export const OP_IDENTIFY = 8;
export const OP_BARRIER = 9;
export const OP_ACCOUNT = 10;

export const WIRE_FILE_SPARE = 0;
export const WIRE_FILE_IOMMUFD = 1;
export const WIRE_FILE_VFIO_CONTAINER = 2;
export const WIRE_FILE_VFIO_DEVICE = 3;
export const WIRE_FILE_FAIL_NTH = 4;
export const WIRE_FILE_OTHER = 5;

export const WIRE_MAP_WRITE = 1 << 0;
export const WIRE_MAP_EXEC = 1 << 1;
export const WIRE_MAP_SHARED = 1 << 2;

/** Of a request: pread and pwrite rather than read and write. */
export const WIRE_POSITIONED = 1 << 0;
/** Of an ioctl: its struct can be read and not written. */
export const WIRE_READ_ONLY = 1 << 1;

/** Of a reply: the spare is an open file now. */
export const WIRE_SPARE_USED = 1 << 0;
/** Of a reply: one byte is to be taken out of the file connection. */
export const WIRE_DRAIN = 1 << 1;

/** Of a welcome: what Linux's fault injection has is served too. */
export const WIRE_TESTING = 1 << 0;

export const REQUEST_BYTES = 56;
export const REPLY_BYTES = 16;
export const HELLO_BYTES = 24;
export const NONCE_BYTES = 32;
export const CHALLENGE_BYTES = 40;
export const SECRET_BYTES = 16;
export const WELCOME_BYTES = 128;
/** Of the welcome's path, with its final 0. */
export const DEBUGFS_BYTES = 104;

/** One request; `file`, `index` and `spare` are exact as long as a client means well, else they match nothing. */
export interface Request {
  readonly op: number;
  readonly flags: number;
  /** Inode of the file connection that is meant. */
  readonly file: number;
  readonly arg: bigint;
  readonly index: number;
  readonly cmd: number;
  /** The descriptor as the program named it. */
  readonly fd: number;
  readonly spare: number;
  readonly spareFd: number;
  readonly payload: Buffer;
}

/** Bytes of the whole message that begins at `at`; needs the header's first 4. */
export const messageBytes = (bytes: Buffer, at: number): number => REQUEST_BYTES + bytes.readUInt32LE(at);

/** Decodes the whole message at `at`. The payload is not copied. */
export function decodeRequest(bytes: Buffer, at: number): Request {
  const payload = at + REQUEST_BYTES;
  return {
    op: bytes.readUInt16LE(at + 4),
    flags: bytes.readUInt16LE(at + 6),
    file: u64(bytes, at + 8),
    arg: bytes.readBigUInt64LE(at + 16),
    index: u64(bytes, at + 24),
    cmd: bytes.readUInt32LE(at + 32),
    fd: bytes.readInt32LE(at + 36),
    spare: u64(bytes, at + 40),
    spareFd: bytes.readInt32LE(at + 48),
    payload: bytes.subarray(payload, payload + bytes.readUInt32LE(at)),
  };
}

const NO_BYTES = new Uint8Array(0);

/**
 * @param result  >= 0 or -errno
 * @param at  where in the caller's struct the payload goes
 */
export function encodeReply(result: number, flags = 0, payload: Uint8Array = NO_BYTES, at = 0): Buffer {
  const bytes = Buffer.allocUnsafe(REPLY_BYTES + payload.byteLength);
  bytes.writeUInt32LE(payload.byteLength, 0);
  bytes.writeInt32LE(result, 4);
  bytes.writeUInt32LE(flags, 8);
  bytes.writeUInt32LE(at, 12);
  bytes.set(payload, REPLY_BYTES);
  return bytes;
}

export interface Hello {
  readonly magic: number;
  readonly version: number;
  readonly pid: number;
  /** Where in the client's memory the nonce will stand. */
  readonly proofVa: bigint;
}

export function decodeHello(bytes: Buffer): Hello {
  return {
    magic: bytes.readUInt32LE(0),
    version: bytes.readUInt32LE(4),
    pid: bytes.readUInt32LE(8),
    proofVa: bytes.readBigUInt64LE(16),
  };
}

export function encodeChallenge(nonce: Uint8Array, serverPid: number): Uint8Array {
  const bytes = Buffer.alloc(CHALLENGE_BYTES);
  bytes.set(nonce, 0);
  bytes.writeUInt32LE(serverPid, NONCE_BYTES);
  return bytes;
}

/** @param debugfs  a path of at most DEBUGFS_BYTES - 1 bytes */
export function encodeWelcome(secret: Uint8Array, flags: number, debugfs: string): Uint8Array {
  const bytes = Buffer.alloc(WELCOME_BYTES);
  bytes.set(secret, 0);
  bytes.writeUInt32LE(flags, SECRET_BYTES);
  bytes.write(debugfs, SECRET_BYTES + 8, DEBUGFS_BYTES - 1);
  return bytes;
}

function u64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}
