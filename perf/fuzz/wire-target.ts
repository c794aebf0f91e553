/**
 * A hostile client beside another on one server: messages in and out of order, mutated, cut into pieces, cut short;
 * ioctls with structs in its own memory; connections that end at any moment. Whatever it does:
 *
 *   - nothing throws, and the server never finds itself at fault;
 *   - the other client's calls are answered, its connections stay, its device's DMA reaches its memory;
 *   - once the hostile client has closed everything, nothing of it is left in the machine.
 *
 * Sockets are stood in for, so that everything happens in the order of the operations; everything behind them is the
 * server's own, and so are the processes.
 */
import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DmaPort } from '../../hw/pci/dma-port.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import { wireVersion } from '../../runtime/serve/preload-library.js';
import { Server } from '../../runtime/serve/server.js';
import * as wire from '../../runtime/serve/wire.js';
import { formatCall } from '../../runtime/trace/format.js';
import { type AnyStruct, TRACED_IOCTLS } from '../../runtime/trace/ioctls.js';
import { formatTransferJson } from '../../runtime/trace/transfer.js';
import { IoasAlloc, IoasIovaRanges, IoasMap } from '../../uapi/iommufd/ioas.js';
import * as cdev from '../../uapi/vfio/cdev.js';
import { Random } from '../stress/random.js';
import { damaged, type LiveKind, LiveNumbers, plausibleStruct } from './ioctl-struct.js';
import { PAGE, PassiveProcess } from './passive-process.js';
import { pickKind, plausibleWord } from './target.js';
import { type FuzzWorld, leftAfterClose, WorldTarget } from './world-target.js';

const KINDS = [
  'ioctl',
  'read, write, ask',
  'open',
  'mmap',
  'a connection ends',
  'mutated message',
  'bytes',
  'greeting',
  'everything closed',
] as const;
const WEIGHTS = [60, 12, 12, 2, 5, 10, 3, 4] as const;
const CLOSE_ALL = 8;
const CLOSE_ALL_EVERY = 400;
const MAX_CONNECTIONS = 24;

const LABELS = ['0000:01:00.0', '0000:02:00.0', '0001:01:00.0'];
const IOMMUFD = 1;
const VFIO_DEVICE = 3;
/** In a client's memory: where it proves itself, what pointers lead to, what it maps. */
const PROOF_AT = 0;
const SCRATCH_AT = PAGE;
const BUFFER_AT = 2 * PAGE;
const VICTIM_IOVA = 0x7000_0000n;
/** What the client says its spare descriptor is. */
const SPARE_FD = 50;
const PATTERN = Buffer.from('is anybody hurt?');
const STRUCTS: readonly (readonly [number, AnyStruct])[] = TRACED_IOCTLS.flatMap(({ cmd, struct }) =>
  struct === undefined ? [] : [[cmd, struct] as const],
);
const DEVICE_CALLS: ReadonlySet<number> = new Set([
  cdev.VFIO_DEVICE_BIND_IOMMUFD,
  cdev.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  cdev.VFIO_DEVICE_DETACH_IOMMUFD_PT,
  cdev.VFIO_DEVICE_GET_INFO,
]);
const OUTPUTS: Readonly<Record<string, LiveKind>> = {
  outIoasId: 'ioas',
  outHwptId: 'hwpt',
  outViommuId: 'viommu',
  outVdeviceId: 'vdevice',
  outFaultId: 'fault',
  outVeventqId: 'veventq',
  outDevid: 'dev',
  ptId: 'hwpt',
};

/** The server's end of a connection: what it is told, and what it says. */
class Line extends EventEmitter {
  /** Of the file it stands for, when it is one; 0 otherwise. */
  inode = 0;
  /** WIRE_FILE_* of it. */
  kind = -1;
  /** What it gave out. */
  readonly live = new LiveNumbers();
  said: Buffer = Buffer.alloc(0);
  closed = false;
  readonly writableLength = 0;

  write(bytes: Uint8Array): boolean {
    if (!this.closed) this.said = Buffer.concat([this.said, bytes]);
    return true;
  }

  destroy(): void {
    this.closed = true;
  }
}

interface Message {
  readonly op: number;
  readonly payload?: Uint8Array;
  readonly flags?: number;
  readonly file?: number;
  readonly arg?: bigint;
  readonly index?: number;
  readonly cmd?: number;
  readonly spare?: number;
  readonly spareFd?: number;
}

function encode({ op, payload = new Uint8Array(0), ...rest }: Message): Buffer {
  const bytes = Buffer.alloc(wire.REQUEST_BYTES + payload.byteLength);
  bytes.writeUInt32LE(payload.byteLength, 0);
  bytes.writeUInt16LE(op & 0xffff, 4);
  bytes.writeUInt16LE(rest.flags ?? 0, 6);
  bytes.writeBigUInt64LE(BigInt(rest.file ?? 0), 8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, rest.arg ?? 0n), 16);
  bytes.writeBigUInt64LE(BigInt(rest.index ?? 0), 24);
  bytes.writeUInt32LE((rest.cmd ?? 0) >>> 0, 32);
  bytes.writeBigUInt64LE(BigInt(rest.spare ?? 0), 40);
  bytes.writeInt32LE(rest.spareFd ?? -1, 48);
  bytes.set(payload, wire.REQUEST_BYTES);
  return bytes;
}

export class WireTarget extends WorldTarget<World> {
  readonly name = 'wire';
  readonly kinds = KINDS;

  constructor() {
    super(() => new World());
  }

  fresh(random: Random, ops: Uint32Array, at: number): void {
    ops[at] = random.below(CLOSE_ALL_EVERY) === 0 ? CLOSE_ALL : pickKind(random, WEIGHTS);
    for (let i = 1; i < 6; i++) ops[at + i] = random.next();
  }
}

class World implements FuzzWorld {
  readonly machine: Machine;
  readonly #server: Server;
  readonly #folder: string;
  readonly #processes: { readonly victim: PassiveProcess; readonly hostile: PassiveProcess };
  readonly #victimLines: Line[] = [];
  readonly #victimIoas: number;
  readonly #port: DmaPort;
  /** The hostile client's. */
  readonly #lines: Line[] = [];
  #control: Line | null = null;
  #secret = Buffer.alloc(wire.SECRET_BYTES);
  /** Of sockets that no descriptor of the process is. */
  #nextInode = 2 ** 33;
  #last: Buffer = Buffer.alloc(0);
  readonly #turn: (() => void)[] = [];
  readonly #baseline: { readonly free: number; readonly files: number };
  #found: string | null = null;

  constructor() {
    this.machine = createMachine({
      memory: '16MiB',
      iommus: [
        { name: 'smmu0', model: 'smmuv3', iotlbEntries: 64 },
        { name: 'smmu1', model: 'smmuv3', iotlbEntries: 64 },
      ],
      devices: [
        { bdf: LABELS[0]!, iommu: 'smmu0' },
        { bdf: LABELS[1]!, iommu: 'smmu0', ats: true },
        { bdf: LABELS[2]!, iommu: 'smmu1' },
      ],
    });
    this.#folder = mkdtempSync(join(tmpdir(), 'iommufd-fuzz-'));
    this.#server = new Server(this.machine, {
      folder: this.#folder,
      debugfs: '',
      log: (line) => {
        if (line.includes('made the server fail')) this.#found ??= line;
      },
      onMapped: undefined,
      onCall: (call) => void formatCall(call),
      onTransfer: (transfer) => void formatTransferJson(transfer),
      later: (work) => void this.#turn.push(work),
    });
    this.#processes = { victim: new PassiveProcess(), hostile: new PassiveProcess() };
    this.#port = this.machine.dmaPort(LABELS[0]!);
    this.#victimIoas = this.#beVictim();
    // What the driver keeps for good it has from here on.
    this.#useOtherDevices();
    this.#baseline = { free: this.machine.frames.freePages(), files: this.#server.counts.files };
  }

  apply(ops: Uint32Array, at: number): number {
    const kind = ops[at]! % KINDS.length;
    const choice = ops[at + 1]!;
    const random = new Random(ops[at + 2]!);
    const outcome = this.#one(kind, choice, random, (ops[at + 3]! & 7) === 0);
    this.#run();
    for (let i = this.#lines.length - 1; i >= 0; i--) if (this.#lines[i]!.closed) this.#lines.splice(i, 1);
    if (this.#control?.closed === true) this.#control = null;
    return (kind << 24) ^ (outcome & 0xff_ffff);
  }

  check(): string | null {
    if (this.#found !== null) return this.#found;
    if (this.#victimLines.some(({ closed }) => closed)) return "a connection of the other client's was ended";
    const ranges = IoasIovaRanges.toBytes({ size: IoasIovaRanges.size, ioasId: this.#victimIoas });
    const [control] = this.#victimLines;
    const file = this.#processes.victim.sockets[0]!.inode;
    const answer = this.#ask(control!, { op: wire.OP_IOCTL, file, cmd: 0x3b84, payload: ranges });
    const EMSGSIZE = 90;
    if (answer?.result !== -EMSGSIZE) return `the other client's call was answered ${answer?.result}`;
    const { victim } = this.#processes;
    victim.write(BUFFER_AT, new Uint8Array(PATTERN.byteLength));
    const status = this.#port.write(VICTIM_IOVA, PATTERN);
    if (status !== 0) return `the other client's device cannot write: ${status}`;
    const seen = victim.read(BUFFER_AT, PATTERN.byteLength);
    return seen.equals(PATTERN) ? null : "DMA of the other client's did not reach its memory";
  }

  close(): void {
    this.#closeAll();
    this.#server.close();
    this.machine.close();
    for (const process of Object.values(this.#processes)) process.end();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  // ---- the hostile client's doings ----

  #one(kind: number, choice: number, random: Random, damage: boolean): number {
    switch (kind) {
      case 0:
        return this.#ioctl(choice, random, damage);
      case 1:
        return this.#transfer(random);
      case 2:
        return this.#open(
          random.below(10) < 3 ? IOMMUFD : random.below(7),
          random.below(5),
          damage ? choice : 0,
        );
      case 3:
        return this.#map(random);
      case 4: {
        const line = this.#lines[random.below(this.#lines.length)];
        if (line !== undefined && (line !== this.#control || random.chance(10))) this.#hangUp(line);
        return 0;
      }
      case 5:
        return this.#mutate(random);
      case 6: {
        const line = this.#lineFor(random);
        line.emit('data', Buffer.from(Uint8Array.from({ length: random.below(200) }, () => random.next())));
        return 1;
      }
      case 7:
        return this.#greet(random);
      default:
        this.#closeAll();
        this.#found ??= this.#left();
        return 0;
    }
  }

  #ioctl(choice: number, random: Random, damage: boolean): number {
    const control = this.#ensureControl();
    if (control === null) return 1;
    const [cmd, struct] = STRUCTS[choice % STRUCTS.length]!;
    const { hostile } = this.#processes;
    hostile.write(
      SCRATCH_AT,
      new Uint8Array(BigUint64Array.from({ length: 8 }, () => BigInt(random.below(64))).buffer),
    );
    const at = (bytes: number): bigint => hostile.va + BigInt(bytes);
    const line = this.#fileFor(cmd, random);
    const live = line?.live ?? new LiveNumbers();
    const whole = plausibleStruct(struct, random, {
      live,
      buffers: [at(BUFFER_AT), at(BUFFER_AT + 8 * PAGE)],
      scratch: at(SCRATCH_AT),
      files: hostile.sockets.map(({ fd }) => fd),
      iommufds: hostile.sockets.map(({ fd }) => fd),
    });
    const payload = damage ? damaged(whole, random) : whole;
    const spare = random.chance(30) ? this.#openSpare() : 0;
    const file = line === undefined || random.chance(3) ? plausibleWord(random) : line.inode;
    const answer = this.#ask(control, {
      op: wire.OP_IOCTL,
      file,
      cmd,
      payload,
      spare,
      spareFd: spare === 0 ? -1 : SPARE_FD,
      arg: at(0),
    });
    if (answer === null) return 2;
    if (answer.result >= 0 && payload === whole) {
      const after = Buffer.from(whole);
      answer.payload.copy(after, answer.at);
      for (const field of Object.keys(struct.fields)) {
        const kind = OUTPUTS[field];
        if (kind === undefined) continue;
        // A device's ID is for the iommufd that it was bound to, which is the first one mostly.
        const owner = kind === 'dev' ? (this.#lines.find(isIommufd) ?? line) : line;
        owner?.live.add(kind, struct.getField(after, field) as number);
      }
    }
    return ((choice % STRUCTS.length) << 12) ^ (-answer.result & 0xfff);
  }

  /** A file that knows the request, mostly; opened when there is none. */
  #fileFor(cmd: number, random: Random): Line | undefined {
    const files = this.#lines.filter(({ inode }) => inode !== 0);
    if (files.length > 0 && random.chance(6)) return files[random.below(files.length)];
    const kind = DEVICE_CALLS.has(cmd) ? VFIO_DEVICE : IOMMUFD;
    const fitting = files.filter((line) => line.kind === kind);
    if (fitting.length === 0) this.#open(kind, 1 + random.below(2), 0);
    return fitting[random.chance(80) ? 0 : random.below(fitting.length)];
  }

  #transfer(random: Random): number {
    const control = this.#ensureControl();
    if (control === null) return 1;
    const files = this.#lines.map(({ inode }) => inode);
    const op = [wire.OP_READ, wire.OP_WRITE, wire.OP_IDENTIFY, wire.OP_BARRIER, wire.OP_ACCOUNT][
      random.below(5)
    ]!;
    const answer = this.#ask(control, {
      op,
      flags: random.below(3),
      file: files.length > 0 ? files[random.below(files.length)]! : 0,
      arg: random.chance(80) ? BigInt(random.below(5000)) : BigInt(plausibleWord(random)) << 32n,
      index: random.chance(50) ? this.#processes.hostile.pid : plausibleWord(random),
      payload: op === wire.OP_WRITE ? new Uint8Array(random.below(70)) : new Uint8Array(0),
    });
    return (op << 12) ^ (-(answer?.result ?? 1) & 0xfff);
  }

  /** @param wrong  not 0: something about it */
  #open(kind: number, index: number, wrong: number): number {
    if (this.#ensureControl() === null) return 1;
    const line = this.#connect();
    const free = this.#processes.hostile.sockets.find(
      ({ inode }) => !this.#lines.some((one) => one.inode === inode),
    );
    const inode = wrong & 1 ? 1 : kind === IOMMUFD && free !== undefined ? free.inode : this.#nextInode++;
    const payload = wrong & 2 ? Buffer.alloc(wire.SECRET_BYTES) : this.#secret;
    const answer = this.#ask(line, { op: wire.OP_FILE, cmd: kind, index, file: inode, payload });
    if (answer?.result === 0) Object.assign(line, { inode, kind });
    return (kind << 4) ^ (-(answer?.result ?? 1) & 0xfff);
  }

  #openSpare(): number {
    const before = this.#nextInode;
    return this.#open(wire.WIRE_FILE_SPARE, 0, 0) === 0 ? before : 0;
  }

  #map(random: Random): number {
    if (this.#ensureControl() === null) return 1;
    const line = this.#connect();
    const files = this.#lines.map(({ inode }) => inode).filter((inode) => inode !== 0);
    const answer = this.#ask(line, {
      op: wire.OP_MAP,
      file: files[random.below(files.length)] ?? 0,
      arg: BigInt(plausibleWord(random)),
      index: random.chance(60) ? PAGE * random.below(3) : plausibleWord(random),
      cmd: random.below(8),
      payload: this.#secret,
    });
    return -(answer?.result ?? 1) & 0xfff;
  }

  /** The last message, not quite as it was, in pieces. */
  #mutate(random: Random): number {
    const bytes = Buffer.from(this.#last);
    for (let n = random.below(4); n > 0 && bytes.byteLength > 0; n--)
      bytes[random.below(random.chance(60) ? Math.min(bytes.byteLength, 56) : bytes.byteLength)] =
        random.next();
    const whole = random.chance(30) ? bytes.subarray(0, random.below(bytes.byteLength + 1)) : bytes;
    const line = random.chance(20) ? (this.#ensureControl() ?? this.#lineFor(random)) : this.#connect();
    for (let at = 0; at < whole.byteLength && !line.closed; ) {
      const piece = 1 + random.below(whole.byteLength);
      line.emit('data', whole.subarray(at, at + piece));
      at += piece;
      if (random.chance(50)) this.#run();
    }
    return line.closed ? 1 : 0;
  }

  #greet(random: Random): number {
    const { victim, hostile } = this.#processes;
    const pid = [hostile.pid, hostile.pid, victim.pid, 1, 0, plausibleWord(random)][random.below(6)]!;
    const line = this.#connect();
    const va = random.chance(50) ? hostile.va : BigInt(plausibleWord(random)) << BigInt(random.below(33));
    const challenge = this.#ask(line, { op: wire.OP_HELLO, payload: helloOf(pid, va) });
    if (challenge === null || challenge.payload.byteLength < wire.NONCE_BYTES) return 1;
    if (random.chance(60)) hostile.write(PROOF_AT, challenge.payload.subarray(0, wire.NONCE_BYTES));
    const answer = this.#ask(line, { op: wire.OP_PROOF });
    if (answer?.result === 0 && pid !== hostile.pid) this.#found ??= `the client passes for process ${pid}`;
    return 0x10 ^ (-(answer?.result ?? 1) & 0xf);
  }

  // ---- connections ----

  #connect(): Line {
    const line = this.#newLine();
    this.#lines.push(line);
    if (this.#lines.length > MAX_CONNECTIONS) {
      const old = this.#lines.find((one) => one !== this.#control);
      if (old !== undefined) this.#hangUp(old);
    }
    return line;
  }

  #newLine(): Line {
    const line = new Line();
    this.#server.accept(line as unknown as Socket);
    return line;
  }

  #lineFor(random: Random): Line {
    const some = this.#lines[random.below(this.#lines.length + 1)];
    return some !== undefined && !some.closed ? some : this.#connect();
  }

  #hangUp(line: Line): void {
    line.emit('close');
    line.closed = true;
    this.#run();
    if (line === this.#control) this.#control = null;
    const at = this.#lines.indexOf(line);
    if (at >= 0) this.#lines.splice(at, 1);
  }

  #ensureControl(): Line | null {
    if (this.#control !== null && !this.#control.closed) return this.#control;
    const line = this.#connect();
    const secret = this.#proveOn(line, this.#processes.hostile);
    if (secret === null) return null;
    this.#secret = secret;
    this.#control = line;
    return line;
  }

  #proveOn(line: Line, process: PassiveProcess): Buffer<ArrayBuffer> | null {
    const challenge = this.#ask(line, { op: wire.OP_HELLO, payload: helloOf(process.pid, process.va) });
    if (challenge === null) return null;
    process.write(PROOF_AT, challenge.payload.subarray(0, wire.NONCE_BYTES));
    const welcome = this.#ask(line, { op: wire.OP_PROOF });
    return welcome?.result === 0 ? Buffer.from(welcome.payload.subarray(0, wire.SECRET_BYTES)) : null;
  }

  /** @returns the answer | null: the connection was ended, or said nothing */
  #ask(line: Line, message: Message): { result: number; payload: Buffer; at: number } | null {
    // Bytes that only make a descriptor readable, and answers to what was not asked like this.
    line.said = Buffer.alloc(0);
    this.#last = encode(message);
    line.emit('data', this.#last);
    this.#run();
    if (line.closed || line.said.byteLength < wire.REPLY_BYTES) return null;
    const { said } = line;
    const payload = said.subarray(wire.REPLY_BYTES, wire.REPLY_BYTES + said.readUInt32LE(0));
    return { result: said.readInt32LE(4), payload, at: said.readUInt32LE(12) };
  }

  #run(): void {
    for (let n = 0; this.#turn.length > 0; n++) {
      if (n > 1000) throw new Error('fuzz: turns without end');
      for (const work of this.#turn.splice(0)) work();
    }
  }

  // ---- the other client, and the end ----

  /** Opens, maps and attaches. @returns its IOAS */
  #beVictim(): number {
    const { victim } = this.#processes;
    const control = this.#newLine();
    const secret = this.#proveOn(control, victim);
    if (secret === null) throw new Error('fuzz: the other client is refused');
    this.#victimLines.push(control);
    const [iommufd, vfio] = victim.sockets;
    for (const [kind, { inode }] of [
      [IOMMUFD, iommufd!],
      [VFIO_DEVICE, vfio!],
    ] as const) {
      const line = this.#newLine();
      this.#victimLines.push(line);
      must(this.#ask(line, { op: wire.OP_FILE, cmd: kind, index: 0, file: inode, payload: secret }));
    }
    const call = (file: number, cmd: number, payload: Uint8Array): Buffer => {
      const answer = must(this.#ask(control, { op: wire.OP_IOCTL, file, cmd, payload }));
      const after = Buffer.from(payload);
      answer.payload.copy(after, answer.at);
      return after;
    };
    const alloc = IoasAlloc.toBytes({ size: IoasAlloc.size });
    const ioasId = IoasAlloc.decode(call(iommufd!.inode, 0x3b81, alloc)).outIoasId;
    const userVa = victim.va + BigInt(BUFFER_AT);
    const fixed = { size: IoasMap.size, flags: 7, ioasId, userVa, length: 4096n, iova: VICTIM_IOVA };
    call(iommufd!.inode, 0x3b85, IoasMap.toBytes(fixed));
    const bind = cdev.VfioDeviceBindIommufd.toBytes({ argsz: 24, iommufd: iommufd!.fd });
    call(vfio!.inode, cdev.VFIO_DEVICE_BIND_IOMMUFD, bind);
    const attach = cdev.VfioDeviceAttachIommufdPt.toBytes({ argsz: 16, ptId: ioasId });
    call(vfio!.inode, cdev.VFIO_DEVICE_ATTACH_IOMMUFD_PT, attach);
    return ioasId;
  }

  #useOtherDevices(): void {
    const { core } = this.machine;
    for (const label of LABELS.slice(1)) {
      const fd = core.open();
      const vfio = core.openVfio(this.machine.device(label));
      vfio.bindIommufd(fd);
      vfio.attach(fd.ioasAlloc().ioasId);
      vfio.close();
      fd.close();
    }
  }

  #closeAll(): void {
    for (const line of this.#lines.splice(0)) {
      line.emit('close');
      line.closed = true;
    }
    this.#control = null;
    this.#run();
  }

  /** As the server tells the other client. */
  #pinnedOf(process: PassiveProcess): number {
    const answer = this.#ask(this.#victimLines[0]!, { op: wire.OP_ACCOUNT, index: process.pid });
    return answer?.result === 0 ? Number(answer.payload.readBigUInt64LE(0)) : 0;
  }

  #left(): string | null {
    const { files, mappings } = this.#server.counts;
    const { core, frames } = this.machine;
    return leftAfterClose({
      files: files - this.#baseline.files,
      mappings,
      'frames allocated': this.#baseline.free - frames.freePages(),
      'vIOMMUs with the driver': core.viommus.size,
      'devices taken': core.openDevices.size - 1,
      'pages pinned for the client': this.#pinnedOf(this.#processes.hostile),
    });
  }
}

const isIommufd = ({ kind }: Line): boolean => kind === IOMMUFD;

function helloOf(pid: number, va: bigint): Buffer {
  const payload = Buffer.alloc(wire.HELLO_BYTES);
  payload.writeUInt32LE(wire.WIRE_MAGIC, 0);
  payload.writeUInt32LE(wireVersion(), 4);
  payload.writeUInt32LE(pid >>> 0, 8);
  payload.writeBigUInt64LE(va, 16);
  return payload;
}

function must<T extends { readonly result: number }>(answer: T | null): T {
  if (answer === null || answer.result < 0) throw new Error(`fuzz: answered ${answer?.result}`);
  return answer;
}
