/**
 * A hostile program on /dev/iommu, VFIO files and what they give out: any request, any bytes, allocations that fail,
 * descriptors closed at any moment, and devices that do DMA all the while. Whatever it does:
 *
 *   - nothing throws and nothing hangs;
 *   - once every descriptor is closed, no object, page table, pinned page, charge or claim is left, and every device
 *     can be bound, attached and used as at first.
 *
 * The test ioctl is among the requests, with its mock IOMMU beside two SMMUs.
 */
import type { DmaPort } from '../../hw/pci/dma-port.js';
import type { IommufdFile } from '../../runtime/core/core.js';
import type { Mapping, OpenFile } from '../../runtime/core/file-table.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import type { VfioDevice } from '../../runtime/objects/vfio-device.js';
import { type AnyStruct, TRACED_IOCTLS } from '../../runtime/trace/ioctls.js';
import { HwptPageResponse, HwptPgfault } from '../../uapi/iommufd/fault.js';
import { IOCTLS } from '../../uapi/iommufd/ioctl-table.js';
import * as testAbi from '../../uapi/iommufd/test.js';
import * as cdev from '../../uapi/vfio/cdev.js';
import * as container from '../../uapi/vfio/container.js';
import { Random } from '../stress/random.js';
import {
  damaged,
  iovaOf,
  type LiveKind,
  LiveNumbers,
  plausibleStruct,
  type Surroundings,
} from './ioctl-struct.js';
import { pickKind, plausibleWord } from './target.js';
import { type FuzzWorld, leftAfterClose, WorldTarget } from './world-target.js';

const KINDS = [
  'iommufd ioctl',
  'any request',
  'VFIO container ioctl',
  'VFIO device ioctl',
  'test ioctl',
  'read, write, poll, mmap, close',
  'open',
  'DMA',
  'everything closed',
] as const;
/** Of all kinds but the last. */
const WEIGHTS = [96, 6, 10, 26, 22, 20, 6, 12] as const;
const CLOSE_ALL = 8;
/** One operation in so many. */
const CLOSE_ALL_EVERY = 700;

const LABELS = ['0000:01:00.0', '0000:02:00.0', 'plat', '0001:01:00.0'];
const POOL_BYTES = 2 ** 20;
const SCRATCH_BYTES = 4096;
const PASIDS = 8;
const MAX_VFIOS = 6;
const MAX_IOMMUFDS = 3;
/** Descriptors are looked for below this. */
const FD_END = 256;
const CAP_IPC_LOCK = 14;
const STE_VALID_S1 = 0xb;
const OPCODES = [0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x40, 0x46];

const any = (struct: unknown): AnyStruct => struct as AnyStruct;
const DMA_MAP = any(container.VfioIommuType1DmaMap);
const MAPS = new Set(['iommu_ioas_map', 'iommu_ioas_map_file', DMA_MAP.cName]);
const CONTAINER_CALLS: readonly [number, AnyStruct | null][] = [
  [container.VFIO_GET_API_VERSION, null],
  [container.VFIO_CHECK_EXTENSION, null],
  [container.VFIO_SET_IOMMU, null],
  [container.VFIO_SET_IOMMU, null],
  [container.VFIO_IOMMU_GET_INFO, any(container.VfioIommuType1Info)],
  [container.VFIO_IOMMU_MAP_DMA, any(container.VfioIommuType1DmaMap)],
  [container.VFIO_IOMMU_MAP_DMA, any(container.VfioIommuType1DmaMap)],
  [container.VFIO_IOMMU_UNMAP_DMA, any(container.VfioIommuType1DmaUnmap)],
  [container.VFIO_IOMMU_UNMAP_DMA, any(container.VfioIommuType1DmaUnmap)],
  [container.VFIO_IOMMU_DIRTY_PAGES, any(container.VfioIommuType1DirtyBitmap)],
];
const DEVICE_CALLS: readonly [number, AnyStruct][] = [
  [cdev.VFIO_DEVICE_BIND_IOMMUFD, any(cdev.VfioDeviceBindIommufd)],
  [cdev.VFIO_DEVICE_ATTACH_IOMMUFD_PT, any(cdev.VfioDeviceAttachIommufdPt)],
  [cdev.VFIO_DEVICE_ATTACH_IOMMUFD_PT, any(cdev.VfioDeviceAttachIommufdPt)],
  [cdev.VFIO_DEVICE_DETACH_IOMMUFD_PT, any(cdev.VfioDeviceDetachIommufdPt)],
  [cdev.VFIO_DEVICE_GET_INFO, any(cdev.VfioDeviceInfo)],
];
/** The payload of each operation of the test ioctl, from 1. */
const TEST_OPS: readonly AnyStruct[] = [
  testAbi.TestAddReserved,
  testAbi.TestMockDomain,
  testAbi.TestCheckMap,
  testAbi.TestCheckRefs,
  testAbi.TestCreateAccess,
  testAbi.TestDestroyAccessPages,
  testAbi.TestAccessPages,
  testAbi.TestAccessRw,
  testAbi.TestMemoryLimit,
  testAbi.TestMockDomainReplace,
  testAbi.TestAccessReplaceIoas,
  testAbi.TestMockDomain,
  testAbi.TestDirty,
  testAbi.TestCheckIotlb,
  testAbi.TestTriggerIopf,
  testAbi.TestCheckDevCache,
  testAbi.TestTriggerVevent,
  testAbi.TestPasidAttach,
  testAbi.TestPasidAttach,
  testAbi.TestPasidDetach,
  testAbi.TestPasidCheck,
  testAbi.TestDmabufGet,
  testAbi.TestDmabufRevoke,
].map(any);
/** Whom the operations are about, from 1; what is missing: an IOAS. */
const TEST_IDS: Readonly<Record<number, readonly LiveKind[]>> = {
  3: ['hwpt'],
  6: ['access'],
  7: ['access'],
  8: ['access'],
  10: ['stdev'],
  11: ['access'],
  13: ['hwpt'],
  14: ['hwpt'],
  16: ['dev'],
  18: ['stdev'],
  19: ['stdev'],
  20: ['stdev'],
  21: ['stdev'],
};
/** Outputs that are IDs or descriptors, and of what. */
const OUTPUTS: Readonly<Record<string, LiveKind>> = {
  outIoasId: 'ioas',
  outHwptId: 'hwpt',
  outViommuId: 'viommu',
  outVdeviceId: 'vdevice',
  outFaultId: 'fault',
  outVeventqId: 'veventq',
  outHwQueueId: 'queue',
  outDevid: 'dev',
  outStdevId: 'stdev',
  outIdevId: 'dev',
  outAccessFd: 'access',
  outAccessPagesId: 'pages',
  ptId: 'hwpt',
};

export class IoctlTarget extends WorldTarget<World> {
  readonly name = 'ioctl';
  readonly kinds = KINDS;

  constructor() {
    super(() => new World());
  }

  fresh(random: Random, ops: Uint32Array, at: number): void {
    ops[at] = random.below(CLOSE_ALL_EVERY) === 0 ? CLOSE_ALL : pickKind(random, WEIGHTS);
    for (let i = 1; i < 6; i++) ops[at + i] = random.next();
    if (random.chance(30)) ops[at + 4] = plausibleWord(random);
  }
}

class World implements FuzzWorld {
  readonly machine: Machine;
  /** Of each iommufd. */
  readonly #lives = new WeakMap<OpenFile, LiveNumbers>();
  /** What a VFIO device file was bound to last. */
  readonly #boundTo = new WeakMap<VfioDevice, OpenFile>();
  readonly #vfios: VfioDevice[] = [];
  readonly #ports: readonly DmaPort[];
  readonly #buffers: readonly bigint[];
  readonly #scratch: bigint;
  /** Open for good: a memfd and a dma-buf. */
  readonly #kept = new Set<OpenFile>();
  readonly #mappings: Mapping[] = [];
  #cookie = 0;
  readonly #baseline: { readonly free: number; readonly refs: number };
  #found: string | null = null;

  constructor() {
    this.machine = createMachine(
      {
        memory: '16MiB',
        iommus: [
          { name: 'smmu0', model: 'smmuv3', iotlbEntries: 64 },
          { name: 'smmu1', model: 'smmuv3', iotlbEntries: 64 },
        ],
        devices: [
          { bdf: LABELS[0]!, iommu: 'smmu0', pasidBits: 4 },
          { bdf: LABELS[1]!, iommu: 'smmu0', ats: true },
          { name: LABELS[2]!, iommu: 'smmu0', streamId: 0x77, stall: true, pasidBits: 4 },
          { bdf: LABELS[3]!, iommu: 'smmu1' },
        ],
      },
      { testIoctl: true },
    );
    const { user, core } = this.machine;
    core.own.capabilities.delete(CAP_IPC_LOCK);
    core.own.memlockBytes = 2 * POOL_BYTES;
    this.#buffers = [user.alloc(POOL_BYTES), user.alloc(POOL_BYTES / 4, { contiguous: true })];
    this.#scratch = user.alloc(SCRATCH_BYTES);
    for (const { fd } of [core.memfd(POOL_BYTES / 4), core.dmabuf(POOL_BYTES / 8)])
      this.#kept.add(core.own.files.get(fd)!);
    this.#ports = LABELS.map((label) => this.machine.dmaPort(label));
    // What drivers keep for good, stream tables and the like, they have from here on.
    for (let i = 0; i < 2; i++) this.#useEveryDevice();
    this.#baseline = this.#usage();
  }

  apply(ops: Uint32Array, at: number): number {
    const kind = ops[at]! % KINDS.length;
    const choice = ops[at + 1]!;
    const random = new Random(ops[at + 2]!);
    const damage = (ops[at + 3]! & 7) === 0;
    const { failNth } = this.machine.core.own;
    // One in sixteen calls meets an allocation that fails.
    const nth = (ops[at + 3]! >>> 8) & 15 ? 0 : 1 + ((ops[at + 3]! >>> 12) & 31);
    if (kind === CLOSE_ALL) {
      this.#closeAll();
      return kind << 24;
    }
    failNth.arm(nth);
    const outcome = this.#one(kind, choice, random, damage, ops[at + 4]!);
    const fired = failNth.failedAt === null ? 0 : 1;
    failNth.arm(0);
    return (kind << 24) ^ (fired << 23) ^ (outcome & 0x7f_ffff);
  }

  check(): string | null {
    if (this.#found !== null) return this.#found;
    this.machine.poll();
    const { account } = this.machine.core.own.mm;
    const { user } = this.machine.core.own;
    if (account.pinnedVm < 0 || account.lockedVm < 0 || user.lockedVm < 0) return 'a charge is below 0';
    if (user.lockedVm * 4096 > this.machine.core.own.memlockBytes) return 'more is locked than may be';
    return null;
  }

  close(): void {
    this.#closeAll();
    this.machine.close();
  }

  // ---- one operation ----

  #one(kind: number, choice: number, random: Random, damage: boolean, word: number): number {
    switch (kind) {
      case 0: {
        const { cmd, struct } = IOCTLS[choice % IOCTLS.length]!;
        return (
          ((choice % IOCTLS.length) << 12) ^
          this.#ioctl(this.#iommufd(random), cmd, any(struct), random, damage)
        );
      }
      case 1: {
        const known = TRACED_IOCTLS[choice % TRACED_IOCTLS.length]!.cmd;
        const cmd = random.chance(50) ? known ^ (1 << random.below(32)) : word;
        const bytes = Uint8Array.from({ length: random.below(96) }, () => random.next());
        const file = random.chance(50) ? this.#iommufd(random) : this.#anyFile(random);
        return answer(file?.ioctl?.(cmd >>> 0, bytes) ?? -25);
      }
      case 2: {
        const [cmd, struct] = CONTAINER_CALLS[choice % CONTAINER_CALLS.length]!;
        const file = this.#iommufd(random);
        if (struct !== null) return (cmd << 12) ^ this.#ioctl(file, cmd, struct, random, damage);
        const number = new Uint8Array(8);
        number[0] = random.below(12);
        if (damage) number[random.below(8)] = random.next();
        return (cmd << 12) ^ answer(file.ioctl!(cmd, number));
      }
      case 3: {
        const [cmd, struct] = DEVICE_CALLS[choice % DEVICE_CALLS.length]!;
        const vfio = this.#vfio(random);
        return (cmd << 12) ^ this.#ioctl(vfio, cmd, struct, random, damage, this.#boundTo.get(vfio));
      }
      case 4:
        return this.#testIoctl(choice, random, damage);
      case 5:
        return this.#transfer(random, word);
      case 6:
        return this.#open(choice);
      default:
        return this.#dma(choice, random);
    }
  }

  /** @param owner  the iommufd whose objects it is about */
  #ioctl(
    file: Pick<OpenFile, 'ioctl'>,
    cmd: number,
    struct: AnyStruct,
    random: Random,
    damage: boolean,
    owner: OpenFile | undefined = file as OpenFile,
  ): number {
    this.#fillScratch(random);
    const live = this.#liveOf(owner);
    const whole = plausibleStruct(struct, random, this.#surroundings(live));
    const bytes = damage ? damaged(whole, random) : whole;
    const status = file.ioctl?.(cmd, bytes) ?? -25;
    if (status >= 0 && bytes.byteLength >= struct.size)
      this.#note(struct, bytes, this.#ownerAfter(file, cmd, bytes) ?? live);
    return answer(status);
  }

  #testIoctl(choice: number, random: Random, damage: boolean): number {
    const op = 1 + (choice % TEST_OPS.length);
    const struct = TEST_OPS[op - 1]!;
    const file = this.#iommufd(random);
    this.#fillScratch(random);
    const live = this.#liveOf(file);
    const around = this.#surroundings(live);
    const whole = plausibleStruct(any(testAbi.TestCmd), random, around);
    testAbi.TestCmd.put(whole, 'op', op);
    if (random.chance(90)) testAbi.TestCmd.put(whole, 'id', live.pick(random, TEST_IDS[op] ?? ['ioas']));
    const at = testAbi.TestCmd.offsets.payload;
    whole.set(plausibleStruct(struct, random, around), at);
    const bytes = damage ? damaged(whole, random) : whole;
    const status = file.ioctl!(testAbi.IOMMU_TEST_CMD, bytes);
    if (status >= 0 && bytes.byteLength >= whole.byteLength) this.#note(struct, bytes.subarray(at), live);
    return (op << 12) ^ answer(status);
  }

  /** What a successful call gave out. */
  #note(struct: AnyStruct, bytes: Uint8Array, live: LiveNumbers): void {
    for (const field of Object.keys(struct.fields)) {
      const kind = OUTPUTS[field];
      if (kind !== undefined) live.add(kind, struct.getField(bytes, field) as number);
    }
    if (
      struct.cName === 'iommu_hwpt_alloc' &&
      ((struct.getField(bytes, 'flags') as number) & NEST_PARENT) !== 0
    )
      live.add('parent', struct.getField(bytes, 'outHwptId') as number);
    if (struct.cName === 'iommu_destroy') live.remove(struct.getField(bytes, 'id') as number);
    if (MAPS.has(struct.cName)) {
      const length = struct.getField(bytes, struct === DMA_MAP ? 'size' : 'length') as bigint;
      live.addMapping(struct.getField(bytes, 'iova') as bigint, length);
    }
  }

  /** A bind's device is one of the iommufd that it names. */
  #ownerAfter(file: Pick<OpenFile, 'ioctl'>, cmd: number, bytes: Uint8Array): LiveNumbers | null {
    if (cmd !== cdev.VFIO_DEVICE_BIND_IOMMUFD) return null;
    const owner = this.machine.core.own.files.get(cdev.VfioDeviceBindIommufd.getField(bytes, 'iommufd'));
    if (owner === undefined) return null;
    this.#boundTo.set(file as VfioDevice, owner);
    return this.#liveOf(owner);
  }

  #liveOf(owner: OpenFile): LiveNumbers {
    const known = this.#lives.get(owner) ?? new LiveNumbers();
    this.#lives.set(owner, known);
    return known;
  }

  #transfer(random: Random, word: number): number {
    const file = this.#anyFile(random);
    const how = random.below(8);
    if (file === undefined) return 0;
    switch (how) {
      case 0:
      case 1: {
        const got = file.read?.(random.chance(50) ? 4096 : random.below(100)) ?? -22;
        if (typeof got === 'number') return answer(got);
        if (file.kind === 'fault' && got.byteLength >= HwptPgfault.size)
          this.#cookie = HwptPgfault.getField(got, 'cookie');
        return 0x100 ^ Math.min(got.byteLength, 255);
      }
      case 2:
      case 3: {
        const cookie = random.chance(70) ? this.#cookie : word;
        const bytes = HwptPageResponse.toBytes({ cookie, code: random.below(3) });
        return (
          0x200 ^ answer(file.write?.(random.chance(90) ? bytes : bytes.subarray(random.below(8))) ?? -22)
        );
      }
      case 4:
        return 0x300 ^ (file.poll?.() ?? 0);
      case 5: {
        const mapping =
          file.mmap?.(BigInt(word), 4096 * random.below(3), random.chance(80), random.chance(5)) ?? -19;
        if (typeof mapping === 'number') return 0x400 ^ answer(mapping);
        this.#mappings.push(mapping);
        return 0x400;
      }
      default:
        if (file.kind === 'iommufd' && random.chance(95)) return 0;
        return this.#closeFile(file);
    }
  }

  #closeFile(file: OpenFile): number {
    const { files } = this.machine.core.own;
    if (!this.#kept.has(file))
      for (let fd = 3; fd < FD_END; fd++) if (files.get(fd) === file) return 0x500 ^ answer(files.close(fd));
    return 0x600;
  }

  #open(choice: number): number {
    const { core } = this.machine;
    if (choice & 1) {
      const open =
        this.#vfios.length >= MAX_VFIOS ? this.#vfios.splice((choice >>> 1) % this.#vfios.length, 1) : [];
      for (const vfio of open) vfio.close();
      this.#vfios.push(core.openVfio(this.machine.device(LABELS[(choice >>> 4) % LABELS.length]!)));
      return 1;
    }
    if (this.#iommufds().length >= MAX_IOMMUFDS) return 4;
    return this.#openIommufd((choice & 2) !== 0) === null ? 3 : 2;
  }

  #openIommufd(isContainer: boolean): IommufdFile | null {
    const { core } = this.machine;
    const file = core.openFile(isContainer);
    if (typeof file === 'number') return null;
    core.own.files.install(file);
    return file;
  }

  #dma(choice: number, random: Random): number {
    const port = this.#ports[choice % this.#ports.length]!;
    const bytes = new Uint8Array(1 + random.below(6000));
    const pasid = random.chance(30) ? { pasid: random.below(PASIDS) } : {};
    const iova = iovaOf(random);
    const status = random.chance(50) ? port.write(iova, bytes, pasid) : port.read(iova, bytes, pasid);
    this.machine.poll();
    return status & 0xfff;
  }

  // ---- what there is ----

  /** Mostly vendors' data: an STE of a guest, commands, ranges. */
  #fillScratch(random: Random): void {
    const words = new BigUint64Array(16);
    const style = random.below(4);
    for (let i = 0; i < words.length; i += 2) {
      if (style === 0) words[i] = BigInt(STE_VALID_S1 | (random.below(64) << 6));
      else if (style === 1)
        words[i] = BigInt(OPCODES[random.below(OPCODES.length)]!) | (BigInt(random.below(4)) << 32n);
      else if (style === 2) {
        words[i] = iovaOf(random);
        words[i + 1] = words[i]! + BigInt(random.below(1 << 20));
      } else {
        words[i] = BigInt(random.next());
        words[i + 1] = BigInt(random.next()) << 32n;
      }
    }
    this.machine.user.copyOut(this.#scratch, new Uint8Array(words.buffer));
  }

  #surroundings(live: LiveNumbers): Surroundings {
    const files = this.#descriptors();
    const { own } = this.machine.core;
    const iommufds = files.filter((fd) => own.files.get(fd)?.kind === 'iommufd');
    return { live, buffers: this.#buffers, scratch: this.#scratch, files, iommufds };
  }

  #descriptors(): number[] {
    const files: number[] = [];
    for (let fd = 3; fd < 40; fd++) if (this.machine.core.own.files.get(fd) !== undefined) files.push(fd);
    return files;
  }

  /** One of the open ones; there is always one. */
  #iommufd(random: Random): OpenFile {
    const open = this.#iommufds();
    // The first mostly: objects of one file go together.
    const some = open[random.chance(85) ? 0 : random.below(open.length)];
    return some ?? this.#openIommufd(false) ?? NOBODY;
  }

  #iommufds(): OpenFile[] {
    const { files } = this.machine.core.own;
    return this.#descriptors().flatMap((fd) => {
      const file = files.get(fd);
      return file?.kind === 'iommufd' ? [file] : [];
    });
  }

  #vfio(random: Random): VfioDevice {
    const bound = this.#vfios.filter((vfio) => vfio.devId !== 0);
    if (bound.length > 0 && random.chance(70)) return bound[random.below(bound.length)]!;
    if (this.#vfios.length > 0) return this.#vfios[random.below(this.#vfios.length)]!;
    const vfio = this.machine.core.openVfio(this.machine.device(LABELS[random.below(LABELS.length)]!));
    this.#vfios.push(vfio);
    return vfio;
  }

  #anyFile(random: Random): OpenFile | undefined {
    const open = this.#descriptors();
    return this.machine.core.own.files.get(open[random.below(open.length)]!);
  }

  // ---- the end ----

  /** Closes every descriptor; then nothing may be left, and everything must work as at first. */
  #closeAll(): void {
    const { core } = this.machine;
    for (const mapping of this.#mappings.splice(0)) mapping.unmap();
    for (const vfio of this.#vfios.splice(0)) vfio.close();
    for (let fd = 3; fd < FD_END; fd++) {
      const file = core.own.files.get(fd);
      if (file !== undefined && !this.#kept.has(file)) core.own.files.close(fd);
    }
    this.machine.poll();
    this.#found ??= this.#left();
    if (this.#found === null) this.#useEveryDevice();
    this.#found ??= this.#left();
  }

  #left(): string | null {
    const { core } = this.machine;
    const { free, refs } = this.#usage();
    const { account } = core.own.mm;
    return leftAfterClose({
      'frames allocated': this.#baseline.free - free,
      'pins and mappings of frames': refs - this.#baseline.refs,
      'pages pinned by the account': account.pinnedVm,
      'pages locked by the process': account.lockedVm,
      'pages locked by the user': core.own.user.lockedVm,
      'vIOMMUs with the driver': core.viommus.size,
      'devices taken': core.openDevices.size,
      'devices of the mock': core.context.mock?.deviceCount ?? 0,
    });
  }

  #usage(): { free: number; refs: number } {
    const { memory, frames, user } = this.machine;
    const first = memory.ram.basePa / 4096;
    let refs = 0;
    for (let i = 0; i < memory.ram.bytes / 4096; i++) refs += user.refs(first + i);
    return { free: frames.freePages(), refs };
  }

  /** Binds, attaches and uses every device, PASIDs included, and gives all of it back. */
  #useEveryDevice(): void {
    const { core } = this.machine;
    const fd = core.open();
    const { ioasId } = fd.ioasAlloc();
    fd.ioasMap({ ioasId, userVa: this.#buffers[0]!, length: 4096, iova: 0x100_0000n });
    for (const [i, label] of LABELS.entries()) {
      const vfio = core.openVfio(this.machine.device(label));
      const { devId } = vfio.bindIommufd(fd);
      vfio.attach(ioasId);
      const status = this.#ports[i]!.write(0x100_0000n, Uint8Array.of(1));
      if (status !== 0) this.#found ??= `a device that is attached anew cannot write: ${status}`;
      if (i === 0) {
        const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId, flags: ALLOC_PASID });
        vfio.attach(hwptId);
        vfio.attach(hwptId, { pasid: 1 });
      }
      vfio.close();
    }
    fd.close();
    this.machine.poll();
  }
}

const NEST_PARENT = 1 << 0;
const ALLOC_PASID = 1 << 3;
/** When no iommufd can be opened. */
const NOBODY: OpenFile = { kind: 'iommufd', ioctl: () => -24, release: () => undefined };

/** An answer as a small number: 0, a positive one, or which errno. */
function answer(status: number): number {
  return status > 0 ? 0x800 : -status & 0x7ff;
}
