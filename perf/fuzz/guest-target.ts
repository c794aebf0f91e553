/**
 * A hostile guest beside another VM, on a whole machine: the guest's structures, its virtual SMMU, its ioctls and
 * its devices are all hostile. Whatever it does:
 *
 *   - no DMA of its devices reaches a frame that is not its own RAM;
 *   - no IOTLB entry of the other VM's VMID goes away by a command of its, or leads anywhere but to that VM's RAM,
 *     and none of another VMID leads there;
 *   - the other VM's device finds what it found before, no event reaches that VM, and its RAM is untouched.
 */
import { iotlbLayout } from '../../hw/iotlb/unit-layout.js';
import { PAGE_TABLE_BYTES, pageTablesLayout } from '../../hw/pagetable/page-table-layout.js';
import type { DmaPort } from '../../hw/pci/dma-port.js';
import type { IommufdFd } from '../../runtime/core/fd.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import { GuestDriver } from '../../runtime/vmm/guest-driver.js';
import { GuestRam } from '../../runtime/vmm/guest-ram.js';
import { LocalTransport } from '../../runtime/vmm/local-transport.js';
import type { VirtualSmmu } from '../../runtime/vmm/virtual-smmu.js';
import { Vm } from '../../runtime/vmm/vm.js';
import { HwptInvalidate, IOMMU_HWPT_INVALIDATE } from '../../uapi/iommufd/hwpt-invalidate.js';
import type { Random } from '../stress/random.js';
import { pickKind, plausibleWord } from './target.js';
import { type FuzzWorld, WorldTarget } from './world-target.js';

const KINDS = [
  'guest command',
  'guest STE',
  'guest CD',
  'guest page table',
  'HWPT_INVALIDATE',
  'virtual register',
  'guest DMA',
  'guest events',
] as const;
const WEIGHTS = [7, 4, 4, 5, 4, 2, 5, 1] as const;

const PAGE = 4096;
const IPA_BASE = 0x4000_0000;
const HOSTILE_RAM = 2 * 2 ** 20;
const VICTIM_RAM = 2 * 2 ** 20;
const IOTLB_ENTRIES = 64;
// The hostile guest's RAM.
const CMDQ = IPA_BASE;
const CMDQ_LG2 = 6;
const EVTQ = IPA_BASE + 0x1000;
const STRTAB = IPA_BASE + 0x2000;
const CDS = IPA_BASE + 0x4000;
const CD_COUNT = 64;
const TABLES = IPA_BASE + 0x1_0000;
const TABLE_FRAMES = 32;
/** Guest stream 1 is behind the first SMMU, with the victim; 2 behind the other. */
const SIDS = [1, 2];
const OPCODES = [
  0x01, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x20, 0x22, 0x28, 0x2a, 0x30, 0x30, 0x40, 0x41, 0x44,
  0x45, 0x46, 0x46,
];
const REGISTERS = [0x20, 0x2c, 0x44, 0x50, 0x64, 0x80, 0x88, 0x90, 0x98, 0x9c, 0xa0, 0xb0, 0x100a8, 0x100ac];
const MAX_ENTRIES = 8;
/** STE.EATS = 1, in the low word of the second 64 bits. */
const EATS_TRANS = 0x1000_0000;
const GUEST_TABLES = 1;
// The victim.
const VICTIM_IOVA_PAGE = 0x1000;
const VICTIM_PAGES = 16;
const READ_WRITE = 3;

/** Streams of nobody. (Another device's Requester ID is kept out by the bus: PCIe ACS source validation.) */
const FOREIGN_SID = 0x5000;

/** An object ID of the hostile fd is below this. */
const LIKELY_IDS = 16;

export class GuestTarget extends WorldTarget<World> {
  readonly name = 'guest';
  readonly kinds = KINDS;

  constructor() {
    super(() => new World());
  }

  fresh(random: Random, ops: Uint32Array, at: number): void {
    ops[at] = pickKind(random, WEIGHTS);
    ops[at + 1] = random.below(0x1_0000);
    for (let i = 2; i < 6; i++) ops[at + i] = plausibleWord(random);
    if (random.chance(75)) {
      const spans = [TABLES, TABLES, CDS, IPA_BASE] as const;
      ops[at + 4] = (spans[random.below(4)]! + random.below(TABLE_FRAMES) * PAGE) >>> 0;
      ops[at + 5] = random.chance(90) ? 0 : random.below(0x10_0000);
    }
  }
}

/** One machine with both VMs on it. */
class World implements FuzzWorld {
  readonly machine: Machine;
  readonly #hostile: { readonly fd: IommufdFd; readonly ram: GuestRam; readonly vm: Vm };
  readonly #smmu: VirtualSmmu;
  readonly #ports: readonly DmaPort[];
  /** Frames of the two RAMs. */
  readonly #hostileRun = { pfn: 0, pages: 0 };
  readonly victimRun = { pfn: 0, pages: 0 };
  readonly #victim: { readonly vm: Vm; readonly ram: GuestRam; readonly port: DmaPort };
  readonly #victimPfns: number[] = [];
  readonly #victimImage: Uint8Array;
  /** VMID of the victim on its SMMU. */
  #victimVmid = -1;
  readonly #scratchVa: bigint;
  readonly #iotlbs: readonly number[];
  readonly #call = new Uint8Array(HwptInvalidate.size);
  readonly #transports: LocalTransport[] = [];
  #prod = 0;
  /** The victim's entries on its SMMU, before the operation. */
  #entries = 0;
  /** Found by an operation. */
  #found: string | null = null;

  constructor() {
    let tables = 0;
    let vmids: number[] = [];
    this.machine = createMachine(
      {
        memory: '8MiB',
        iommus: [0, 1].map((i) => ({
          name: `smmu${i}`,
          model: 'smmuv3' as const,
          iotlbEntries: IOTLB_ENTRIES,
        })),
        devices: [
          { bdf: '0000:01:00.0', iommu: 'smmu0' },
          { bdf: '0000:02:00.0', iommu: 'smmu0', ats: true },
          { bdf: '0001:01:00.0', iommu: 'smmu1' },
        ],
      },
      {
        instrument: (memory) => {
          tables = memory.allocRegion(pageTablesLayout(GUEST_TABLES), 'guest-tables').base;
          return {
            onAllocateTag: (iommu, kind, id) => void (kind === 'vmid' && iommu === 0 && vmids.push(id)),
          };
        },
      },
    );
    const machine = this.machine;
    this.#iotlbs = machine.iommus.map(
      ({ index }) => machine.memory.region(iotlbLayout(IOTLB_ENTRIES), `iotlb:${index}`).base,
    );
    const victim = this.#vm(VICTIM_RAM, this.victimRun);
    must(victim.vm.attachDevice(0, 5), 'the victim attaches its device');
    const descriptors = Array.from({ length: GUEST_TABLES }, (_, i) => tables + i * PAGE_TABLE_BYTES);
    const driver = new GuestDriver({
      ram: victim.ram,
      mmio: victim.vm.smmus[0]!,
      kernel: machine.kernel,
      descriptors,
    });
    must(driver.start(), "the victim's driver starts");
    const space = driver.createSpace();
    if (typeof space === 'number') throw new Error(`fuzz: the victim has no address space (${space})`);
    driver.setupStream(5, space);
    const page = victim.ram.allocZeroed(VICTIM_PAGES, VICTIM_PAGES);
    must(driver.map(space, VICTIM_IOVA_PAGE, page, VICTIM_PAGES, READ_WRITE), 'the victim maps');
    this.#victim = { ...victim, port: machine.dmaPort('0000:01:00.0') };
    this.#victimVmid = vmids.at(-1) ?? -1;
    vmids = [];

    this.#hostile = this.#vm(HOSTILE_RAM, this.#hostileRun, 8);
    must(this.#hostile.vm.attachDevice(1, SIDS[0]!), 'the guest attaches a device');
    must(this.#hostile.vm.attachDevice(2, SIDS[1]!), 'the guest attaches another');
    this.#smmu = this.#hostile.vm.smmus[0]!;
    this.#ports = ['0000:02:00.0', '0001:01:00.0'].map((label) => machine.dmaPort(label));
    this.#scratchVa = machine.user.alloc(PAGE, { contiguous: true });
    this.#enable();
    this.#warm();
    for (let i = 0; i < VICTIM_PAGES; i++) this.#victimPfns.push(this.#victimPfn(i));
    this.#victimImage = this.#victimRam().slice();
  }

  apply(ops: Uint32Array, at: number): number {
    const kind = ops[at]! % KINDS.length;
    const a = ops[at + 1]!;
    const b = ops[at + 2]!;
    const c = ops[at + 3]!;
    const low = ops[at + 4]!;
    const high = ops[at + 5]!;
    this.#entries = this.#count();
    let outcome = 0;
    switch (kind) {
      case 0:
        outcome = this.#command(a, b, c, low, high);
        break;
      case 1:
        this.#ste(a, b, c, low, high);
        break;
      case 2:
        this.#cd(a, b, c, low, high);
        break;
      case 3:
        this.#put(
          TABLES + ((a * 4096 + b) % (TABLE_FRAMES * 512)) * 8,
          (low & ~0xfff) | tableBits(c),
          high & c ? high : 0,
        );
        break;
      case 4:
        outcome = this.#invalidate(a, b, c, low, high);
        break;
      case 5:
        outcome = this.#register(a, b, low, high);
        break;
      case 6:
        return (kind << 24) ^ this.#dma(a, b, c, low, high);
      default:
        this.machine.poll();
        outcome = Math.min(this.#hostile.vm.pollEvents(), 2);
        this.#smmu.write32(0x100ac, a & 1 ? this.#smmu.read32(0x100a8) : b);
    }
    // Nothing but a DMA may take an entry's place.
    if (this.#count() !== this.#entries)
      this.#found ??= `${KINDS[kind]} removed IOTLB entries of the other VM (VMID ${this.#victimVmid}): ${this.#entries} were there, ${this.#count()} are`;
    return (kind << 24) ^ (outcome << 4);
  }

  check(): string | null {
    if (this.#found !== null) return this.#found;
    const stray = this.#strayEntry();
    if (stray !== null) return stray;
    for (let i = 0; i < VICTIM_PAGES; i++)
      if (this.#victimPfn(i) !== this.#victimPfns[i])
        return `the other VM's page ${i} is at frame ${this.#victimPfn(i)}, and was at ${this.#victimPfns[i]}`;
    if (Buffer.compare(this.#victimRam(), this.#victimImage) !== 0) return "the other VM's RAM was changed";
    this.machine.poll();
    const events = this.#victim.vm.pollEvents();
    return events === 0 ? null : `${events} events reached the other VM`;
  }

  close(): void {
    must(this.#hostile.vm.destroy(), 'the guest ends');
    must(this.#victim.vm.destroy(), 'the other VM ends');
    for (const transport of this.#transports) transport.dispose();
    this.machine.close();
  }

  // ---- the guest's doings ----

  #command(a: number, b: number, c: number, low: number, high: number): number {
    const slot = CMDQ + (this.#prod % 2 ** CMDQ_LG2) * 16;
    const opcode = a & 0x8000 ? a & 0xff : OPCODES[a % OPCODES.length]!;
    this.#put(slot, (opcode | (c & 0x800 ? b & ~0xff : 0)) >>> 0, subject(b));
    this.#put(slot + 8, c & 0x1000 ? low : c & 0x1f, c & 0x1000 ? high : 0);
    this.#prod = (this.#prod + 1) % (2 << CMDQ_LG2);
    this.#smmu.write32(0x98, this.#prod);
    const errors = this.#smmu.read32(0x60) ^ this.#smmu.read32(0x64);
    if (errors !== 0) {
      // Mostly the command is replaced before the error is acknowledged, as a driver would.
      if ((c & 3) !== 3) this.#put(CMDQ + (this.#smmu.read32(0x9c) % 2 ** CMDQ_LG2) * 16, 0x46, 0);
      this.#smmu.write32(0x64, this.#smmu.read32(0x60));
    }
    return (opcode << 4) ^ errors;
  }

  #ste(a: number, b: number, c: number, low: number, high: number): void {
    const at = STRTAB + SIDS[a & 1]! * 64;
    if (a & 0xf0) {
      const config = [5, 5, 5, 5, 4, 0, 6, 7][b & 7]!;
      this.#put(
        at,
        ((CDS + (c % CD_COUNT) * 64) | (config << 1) | 1 | ((b >>> 3) & 0x30)) >>> 0,
        b & 0x800 ? (b & 7) << 27 : 0,
      );
      this.#put(at + 8, c & 0x700 ? (b & 0x1000 ? EATS_TRANS : 0) : low, c & 0x3000 ? 0 : high);
    } else this.#put((at + ((a >>> 8) % 64)) & ~7, low, high);
  }

  #cd(a: number, b: number, c: number, low: number, high: number): void {
    const at = CDS + (a % CD_COUNT) * 64;
    if ((b & 0x700) !== 0) {
      this.#put(
        at,
        (16 + (c % 28)) | ([0, 0, 0, 1, 2, 0][b % 6]! << 6) | 0xc000_0000,
        5 | (1 << 9) | (b & 0x7800) | ((c & 3) << 16),
      );
      this.#put(at + 8, (TABLES + (low % TABLE_FRAMES) * PAGE) >>> 0, 0);
    } else this.#put((at + ((b >>> 11) % 64)) & ~7, low, high);
  }

  #invalidate(a: number, b: number, c: number, low: number, high: number): number {
    const entries = 1 + (a % MAX_ENTRIES);
    const bytes = new Uint32Array(entries * 4);
    for (let i = 0; i < entries; i++) {
      bytes[i * 4] = (OPCODES[(a + i * c) % OPCODES.length]! | (b & 0x300 ? 0 : b & ~0xff)) >>> 0;
      bytes[i * 4 + 1] = subject(b + i);
      bytes[i * 4 + 2] = low;
      bytes[i * 4 + 3] = high;
    }
    this.machine.user.copyOut(this.#scratchVa, new Uint8Array(bytes.buffer));
    HwptInvalidate.encode(
      {
        size: HwptInvalidate.size,
        hwptId: b & 0x400 ? c : (c % LIKELY_IDS) + 1,
        dataUptr: b & 0x800 ? BigInt(low) : this.#scratchVa,
        dataType: b & 0x1000 ? c & 3 : 1,
        entryLen: b & 0x2000 ? low & 0x3f : 16,
        entryNum: entries,
        reserved: 0,
      },
      this.#call,
    );
    const status = this.#hostile.fd.ioctl(IOMMU_HWPT_INVALIDATE, this.#call);
    return (-status << 4) ^ HwptInvalidate.getField(this.#call, 'entryNum');
  }

  #register(a: number, b: number, low: number, high: number): number {
    const offset = b & 0x400 ? (b % 0x2_0000) & ~3 : REGISTERS[a % REGISTERS.length]!;
    if (b & 0x800 && offset % 8 === 0) this.#smmu.write64(offset, (BigInt(high) << 32n) | BigInt(low));
    else this.#smmu.write32(offset, b & 0x1000 ? low : b & 0x1f);
    if (a % 4 !== 0) this.#enable();
    return b & 0x400 ? 0xff : REGISTERS.indexOf(offset);
  }

  #dma(a: number, b: number, c: number, low: number, high: number): number {
    const port = this.#ports[a & 1]!;
    const n = 1 + ((b >>> 20) & 7);
    for (let i = 0; i < n; i++)
      port.prepare(
        i,
        (low + i * (c & ~0xfff)) | 0,
        high,
        b & 7,
        b & 0xf000 ? port.streamId : FOREIGN_SID + (c & 0xff),
        b & 0x30000 ? 0xffff_ffff : c & 0xff,
      );
    port.translate(n);
    const status = port.status(0);
    for (let i = 0; i < n; i++) {
      if (port.status(i) !== 0) continue;
      const pfn = Math.floor(port.pa(i) / PAGE);
      const { pfn: first, pages } = this.#hostileRun;
      if (pfn < first || pfn >= first + pages)
        this.#found ??= `a DMA of stream ${port.streamId} reached frame 0x${pfn.toString(16)}, not the guest's`;
    }
    port.end();
    return status & 0xff;
  }

  // ---- looking ----

  /** An entry that leads to the victim under another VMID, or from the victim's VMID elsewhere. */
  #strayEntry(): string | null {
    const { kernel } = this.machine;
    const { pfn, pages } = this.victimRun;
    for (const [iommu, iotlb] of this.#iotlbs.entries())
      for (let i = 0; i < IOTLB_ENTRIES; i++) {
        const entry = kernel.iotlbReadEntry(iotlb, i);
        if (entry === null) continue;
        const there = entry.pfn < pfn + pages && entry.pfn + 2 ** (entry.sizeLg2 - 12) > pfn;
        const theirs = iommu === 0 && entry.vmid === this.#victimVmid && entry.stage2;
        if (there !== theirs)
          return `IOTLB of smmu${iommu}: VMID ${entry.vmid} leads to frame 0x${entry.pfn.toString(16)}, ${there ? 'which is' : 'which is not'} the other VM's`;
      }
    return null;
  }

  #count(): number {
    return this.machine.kernel.iotlbCountVmid(this.#iotlbs[0]!, this.#victimVmid);
  }

  /** The victim's device looks its page up. @returns the frame, or -status */
  #victimPfn(page: number): number {
    const { port } = this.#victim;
    port.prepare(0, (VICTIM_IOVA_PAGE + page) * PAGE, 0, 1, port.streamId, 0xffff_ffff);
    port.translate(1);
    const status = port.status(0);
    const pfn = Math.floor(port.pa(0) / PAGE);
    port.end();
    return status === 0 ? pfn : -status;
  }

  #warm(): void {
    for (let i = 0; i < VICTIM_PAGES; i++) this.#victimPfn(i);
  }

  #victimRam(): Uint8Array {
    const { memory } = this.machine;
    const from = memory.linearOf(this.victimRun.pfn * PAGE, VICTIM_RAM);
    return memory.u8.subarray(from, from + VICTIM_RAM);
  }

  // ---- the machine ----

  #vm(bytes: number, run: { pfn: number; pages: number }, eventDepth = 64) {
    const machine = this.machine;
    const fd = machine.openIommufd();
    const transport = LocalTransport.of(machine, fd);
    this.#transports.push(transport);
    const userVa = machine.user.alloc(bytes, { contiguous: true });
    machine.user.runAt(Number(userVa >> 12n), run);
    const ram = new GuestRam(machine.memory, machine.user, { userVa, bytes });
    const vm = Vm.create(transport, ram, { eventDepth, ats: true });
    if (typeof vm === 'number') throw new Error(`fuzz: no VM (${vm})`);
    return { fd, ram, vm };
  }

  #enable(): void {
    const smmu = this.#smmu;
    smmu.write64(0x90, BigInt(CMDQ | CMDQ_LG2));
    smmu.write64(0xa0, BigInt(EVTQ | 4));
    smmu.write64(0x80, BigInt(STRTAB));
    smmu.write32(0x88, 4);
    smmu.write32(0x20, 0xd);
  }

  #put(ipa: number, low: number, high: number): void {
    const { memory } = this.machine;
    const offset = ipa - IPA_BASE;
    if (offset < 0 || offset + 8 > HOSTILE_RAM) return;
    const at = memory.linearOf(this.#hostileRun.pfn * PAGE + offset, 8) >>> 2;
    memory.u32[at] = low;
    memory.u32[at + 1] = high;
  }
}

/** StreamID, or VMID and ASID: small, so that it means something, or anything. */
const subject = (b: number): number => (b & 0x8000_0000 ? b : b & 0x0003_0003);

/** A table, a page or a block; sometimes anything. */
const tableBits = (c: number): number => (c & 0x30 ? [3, 0x443, 0x441, 0x4c3][c & 3]! : c & 0xfff);

function must(status: number, what: string): void {
  if (status < 0) throw new Error(`fuzz: ${what}: ${status}`);
}
