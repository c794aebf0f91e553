/**
 * From a bare record of something impossible to a story someone can act on: which device, stream and address,
 * which walk made the translation, which invalidation should have killed it, and which SYNC said it had.
 */
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { COMMAND_NAMES } from '../../../hw/smmuv3/command.js';
import type { InvalidationNote } from '../../../runtime/drivers/contract.js';
import type { ViolationStory } from '../types.js';
import type { Checker, CoreFinding, UnmapRecord } from './checker.js';
import { canaryOf, type GuestInvalidation, type Shadow } from './shadow.js';
import {
  DEAD,
  KIND_CANARY_BROKEN,
  KIND_DEAD_FRAME,
  KIND_GUEST_STALE,
  KIND_NO_FAULT,
  KIND_READ_CANARY,
  KIND_WRONG_FAULT,
  KIND_WRONG_OWNER,
  V,
  VIOLATIONS,
} from './shadow-layout.js';
import { TraceReader, type WalkSeen } from './trace-reader.js';

const SOURCES = ['nowhere', "the device's micro-TLB", 'the IOTLB', 'a walk', 'bypass'];

export interface StoryDevice {
  readonly label: string;
  readonly iommu: number;
  readonly sid: number;
}

const hex = (n: number): string => `0x${n.toString(16)}`;
const pageHex = (page: number): string => `0x${(BigInt(page) << 12n).toString(16)}`;

export class Stories {
  readonly #memory: MachineMemory;
  readonly #shadow: Shadow;
  readonly #checker: Checker;
  readonly #devices: readonly StoryDevice[];
  readonly #iommus: readonly string[];
  readonly #traces: TraceReader[];
  #taken = 0;
  #takenFindings = 0;

  constructor(
    memory: MachineMemory,
    shadow: Shadow,
    checker: Checker,
    devices: readonly StoryDevice[],
    iommus: readonly string[],
  ) {
    this.#memory = memory;
    this.#shadow = shadow;
    this.#checker = checker;
    this.#devices = devices;
    this.#iommus = iommus;
    this.#traces = iommus.map((_, index) => new TraceReader(memory, index));
  }

  /** Violations seen so far by any thread, told or not. */
  get count(): number {
    return this.#shadow.violationCount() + this.#checker.findings.length;
  }

  /** Stories not told before. Soon after the fact: the traces are rings. */
  take(): ViolationStory[] {
    const told: ViolationStory[] = [];
    while (this.#taken < Math.min(this.#shadow.violationCount(), VIOLATIONS)) {
      const record = this.#shadow.violation(this.#taken);
      if (record < 0) break;
      told.push(this.#ofDevice(record));
      this.#taken++;
    }
    while (this.#takenFindings < this.#checker.findings.length)
      told.push(this.#ofFinding(this.#checker.findings[this.#takenFindings++]!));
    return told;
  }

  #ofDevice(record: number): ViolationStory {
    const { i32, u32 } = this.#memory;
    const signed = (field: number): number => i32[record + field]!;
    const word = (field: number): number => u32[record + field]!;
    const device = this.#devices[word(V.device)]!;
    const iommu = device.iommu;
    const iova = (BigInt(word(V.iovaHigh)) << 32n) | BigInt(word(V.iovaLow));
    const kind = signed(V.kind);
    const pfn = word(V.pfn);
    const access = signed(V.write) !== 0 ? 'write' : 'read';
    const faulty = kind === KIND_WRONG_FAULT || kind === KIND_NO_FAULT;
    const walk = faulty && kind === KIND_WRONG_FAULT ? null : this.#traces[iommu]!.walk(word(V.fillSeq));
    const unmap = faulty ? null : this.#checker.unmap(word(V.unmap));
    const guest =
      kind === KIND_GUEST_STALE || kind === KIND_CANARY_BROKEN
        ? this.#shadow.guestInvalidation(word(V.guestInv))
        : null;
    const note = unmap === null ? null : (unmap.notes.find((n) => n.iommu === iommu) ?? null);
    const tick = word(V.tick);
    return {
      rule: faulty ? 'FAULT' : 'R1',
      summary: this.#summary(kind, access, signed, word),
      device: device.label,
      iommu: this.#iommus[iommu]!,
      stream: hex(word(V.sid)),
      iova: `0x${iova.toString(16)}`,
      pa: faulty && kind === KIND_WRONG_FAULT ? null : pageHex(pfn),
      walk: this.#walk(word(V.fillSeq), walk, word(V.source), kind === KIND_WRONG_FAULT),
      invalidation:
        guest !== null ? this.#guestText(guest) : unmap === null ? null : this.#unmapText(unmap, note, iommu),
      sync:
        guest !== null
          ? `the guest's CMD_SYNC, complete at tick ${guest.tickDone}`
          : note === null
            ? null
            : this.#syncText(note, iommu),
      details: [
        `the DMA ${access} was judged at tick ${tick}`,
        ...(signed(V.vm) >= 0 ? [`guest ${signed(V.vm)}; IPA ${pageHex(word(V.ipaPage))}`] : []),
        ...this.#commands(iommu, note, guest),
      ],
    };
  }

  #summary(
    kind: number,
    access: string,
    signed: (field: number) => number,
    word: (field: number) => number,
  ): string {
    const pa = pageHex(word(V.pfn));
    switch (kind) {
      case KIND_DEAD_FRAME:
        return `DMA ${access} reached frame ${pa} after the unmap that freed it had completed`;
      case KIND_WRONG_OWNER:
        return (
          `DMA ${access} reached frame ${pa}, which now belongs to page ${pageHex(word(V.page))} of address ` +
          `space ${signed(V.owner)}; the device asked for page ${pageHex(word(V.expectedPage))} of ${signed(V.expectedOwner)}`
        );
      case KIND_GUEST_STALE:
        return signed(V.guestPage) === DEAD
          ? `DMA ${access} used a stage-1 translation after the guest's invalidation of it had completed`
          : `DMA ${access} reached a guest page that ${this.#label(word(V.guestDevice) - 1)} now holds at ` +
              pageHex(word(V.guestPage) - 1);
      case KIND_READ_CANARY:
        return `DMA read the canary ${hex(canaryOf(word(V.pfn)) >>> 0)} of a dead frame ${pa}`;
      case KIND_CANARY_BROKEN:
        return `the canary of guest page ${pageHex(word(V.ipaPage))}, dead since the guest's invalidation, was overwritten with ${hex(word(V.found))}`;
      case KIND_NO_FAULT:
        return `a DMA ${access} that had to fault was translated to ${pa}`;
      default:
        return `a DMA ${access} was answered with status ${hex(word(V.found))}, which is not what it had to be`;
    }
  }

  #walk(fillSeq: number, walk: WalkSeen | null, source: number, none: boolean): string | null {
    if (none) return null;
    const from = `translation served by ${SOURCES[source] ?? 'an unknown source'}`;
    if (walk === null) return `${from}; walk ${fillSeq} has left the trace ring`;
    const ipa = walk.ipaPage === 0 ? '' : ` -> IPA ${pageHex(walk.ipaPage)}`;
    return (
      `${from}, made by walk ${walk.seq} at tick ${walk.tick}: stream ${hex(walk.sid)} ` +
      `${pageHex(walk.iovaPage)}${ipa} -> PA ${pageHex(walk.pfn)}`
    );
  }

  #unmapText(unmap: UnmapRecord, note: InvalidationNote | null, iommu: number): string {
    const range = `unmap ${unmap.number} of ${unmap.pages} pages at ${pageHex(unmap.iovaPage)} in IOAS ${unmap.ioasId}`;
    if (note === null) return `${range}; it sent ${this.#iommus[iommu]} nothing`;
    return (
      `${range}: ${note.command} with tag ${note.tag} to ${this.#iommus[iommu]}, ` +
      `issued after tick ${note.tickIssued}`
    );
  }

  #guestText(guest: GuestInvalidation): string {
    return (
      `guest ${guest.vm} invalidated ${guest.pages} pages at ${pageHex(guest.page)} of ${this.#label(guest.device)} ` +
      `(invalidation ${guest.number}), issued after tick ${guest.tickIssued}`
    );
  }

  #syncText(note: InvalidationNote, iommu: number): string {
    const seen = this.#traces[iommu]!.syncsAt(note.syncIndex).find(
      ({ tick }) => tick >= note.tickIssued && tick <= note.tickDone,
    );
    const claim = `CMD_SYNC at index ${note.syncIndex} of ${this.#iommus[iommu]}'s command queue`;
    return seen === undefined
      ? `${claim}; seen complete by the driver at tick ${note.tickDone}`
      : `${claim} (number ${seen.seq}, generation ${seen.gen}) completed at tick ${seen.tick}, seen by the driver at ${note.tickDone}`;
  }

  /** What the SMMU really consumed while the invalidation was under way. */
  #commands(iommu: number, note: InvalidationNote | null, guest: GuestInvalidation | null): string[] {
    const span = note ?? guest;
    if (span === null) return [];
    const commands = this.#traces[iommu]!.commandsBetween(span.tickIssued, span.tickDone).slice(0, 8);
    if (commands.length === 0) return [`${this.#iommus[iommu]} consumed no command meanwhile`];
    return commands.map(
      ({ opcode, words, index, tick }) =>
        `${this.#iommus[iommu]} consumed ${COMMAND_NAMES[opcode] ?? hex(opcode)} [${words.map((w) => hex(w)).join(' ')}] at index ${index}, tick ${tick}`,
    );
  }

  #ofFinding(finding: CoreFinding): ViolationStory {
    const nothing = {
      device: null,
      stream: null,
      iova: null,
      pa: null,
      walk: null,
      invalidation: null,
      sync: null,
    };
    if (finding.kind === 'id')
      return {
        ...nothing,
        rule: 'R6',
        iommu: this.#iommus[finding.iommu]!,
        summary: `${finding.id.toUpperCase()} ${finding.value} was allocated while ${finding.entries} IOTLB entries carry it`,
        details: [],
      };
    if (finding.kind === 'canary') {
      const { unmap } = finding;
      return {
        ...nothing,
        rule: 'R1',
        iommu: '(any)',
        summary: `the canary of dead frame ${pageHex(finding.pfn)} was overwritten with ${hex(finding.value >>> 0)}`,
        pa: pageHex(finding.pfn),
        iova: unmap === null ? null : pageHex(unmap.iovaPage),
        invalidation:
          unmap === null ? null : this.#unmapText(unmap, unmap.notes[0] ?? null, unmap.notes[0]?.iommu ?? 0),
        sync: unmap?.notes[0] ? this.#syncText(unmap.notes[0], unmap.notes[0].iommu) : null,
        details: [`word ${finding.word} of the frame`],
      };
    }
    const { entry, unmap, iommu } = finding;
    const note = unmap.notes.find((n) => n.iommu === iommu) ?? null;
    const walk = this.#traces[iommu]!.walk(entry.fillSeq);
    const device = walk === null ? null : (this.#deviceOf(iommu, walk.sid) ?? null);
    return {
      rule: 'R7',
      summary:
        `an unmap returned while the IOTLB of ${this.#iommus[iommu]} still held ` +
        `${pageHex(entry.page)} -> ${pageHex(entry.pfn)} (VMID ${entry.vmid}, ASID ${entry.asid})`,
      iommu: this.#iommus[iommu]!,
      device,
      stream: walk === null ? null : hex(walk.sid),
      iova: pageHex(entry.page),
      pa: pageHex(entry.pfn),
      walk: this.#walk(entry.fillSeq, walk, 2, false),
      invalidation: this.#unmapText(unmap, note, iommu),
      sync: note === null ? null : this.#syncText(note, iommu),
      details: this.#commands(iommu, note, null),
    };
  }

  #label(device: number): string {
    return this.#devices[device]?.label ?? `device ${device}`;
  }

  #deviceOf(iommu: number, sid: number): string | undefined {
    return this.#devices.find((device) => device.iommu === iommu && device.sid === sid)?.label;
  }
}
