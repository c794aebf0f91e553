/**
 * What stories are told from: the traces of the SMMUs, the unmaps and guest invalidations on record, and the
 * sentences that each of them makes.
 */

import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import { CMD_SYNC } from '../../../hw/smmuv3/command.js';
import type { TracedSync, Walk } from '../../../hw/smmuv3/trace.js';
import type { InvalidationNote } from '../../../runtime/drivers/contract.js';
import { ofAtc, type UnmapRecord } from './checker.js';
import { commandText } from './consumed-command.js';
import type { InvalidationFacts } from './inference.js';
import type { GuestInvalidation } from './shadow.js';
import { TraceReader } from './trace-reader.js';

const SOURCES = ['nowhere', "the device's micro-TLB", 'the IOTLB', 'a walk', 'bypass', "the device's ATC"];
/** Commands told of one invalidation. */
const MAX_COMMANDS = 8;
/** Queue indexes carry a wrap bit and at most 19 bits of index. */
const INDEX_MASK = 0xfffff;

export interface StoryDevice {
  readonly label: string;
  readonly iommu: number;
  readonly sid: number;
}

export const hex = (n: number): string => `0x${n.toString(16)}`;
export const pageHex = (page: number): string => `0x${(BigInt(page) << 12n).toString(16)}`;

/** @param lg2  log2 of bytes, 12 or more */
export function sizeText(lg2: number): string {
  const unit = Math.min(Math.floor(lg2 / 10), 4);
  return `${2 ** (lg2 - unit * 10)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

export class Evidence {
  readonly iommus: readonly string[];
  readonly #devices: readonly StoryDevice[];
  readonly #traces: TraceReader[];

  constructor(memory: MachineMemory, devices: readonly StoryDevice[], iommus: readonly string[]) {
    this.iommus = iommus;
    this.#devices = devices;
    this.#traces = iommus.map((_, index) => new TraceReader(memory, index));
  }

  device(index: number): StoryDevice | undefined {
    return this.#devices[index];
  }

  label(device: number): string {
    return this.#devices[device]?.label ?? `device ${device}`;
  }

  labelOf(iommu: number, sid: number): string | null {
    return this.#devices.find((device) => device.iommu === iommu && device.sid === sid)?.label ?? null;
  }

  walk(iommu: number, fillSeq: number): Walk | null {
    return this.#traces[iommu]!.walk(fillSeq);
  }

  lastWalk(iommu: number, iovaPage: number, pfn: number): Walk | null {
    return this.#traces[iommu]!.lastWalk(iovaPage, pfn);
  }

  /** @param sizeLg2  of the translation; 0 not known */
  walkText(fillSeq: number, walk: Walk | null, source: number, sizeLg2: number): string {
    const size = sizeLg2 < 12 ? '' : `${sizeText(sizeLg2)} `;
    const from = `${size}translation served by ${SOURCES[source] ?? 'an unknown source'}`;
    if (walk === null) return `${from}; walk ${fillSeq} has left the trace ring`;
    return `${from}, made by ${this.walkOnly(walk)}`;
  }

  walkOnly(walk: Walk): string {
    const ipa = walk.ipaPage === 0 ? '' : ` -> IPA ${pageHex(walk.ipaPage)}`;
    return (
      `walk ${walk.seq} at tick ${walk.tick}: stream ${hex(walk.sid)} ` +
      `${pageHex(walk.iovaPage)}${ipa} -> PA ${pageHex(walk.paPage)}`
    );
  }

  unmapText(unmap: UnmapRecord, notes: readonly InvalidationNote[], iommu: number): string {
    const range = `unmap ${unmap.number} of ${unmap.pages} pages at ${pageHex(unmap.iovaPage)} in IOAS ${unmap.ioasId}`;
    if (notes.length === 0)
      return iommu < 0
        ? `${range}; no invalidation of it is on record`
        : `${range}; no invalidation of it by ${this.iommus[iommu]} is on record`;
    const sent = notes.map((note) => {
      const whose = ofAtc(note) ? `of stream ${hex(note.tag)}` : `with tag ${note.tag}`;
      return `${note.command} ${whose} to ${this.iommus[note.iommu]}, issued after tick ${note.tickIssued}`;
    });
    return `${range}: ${sent.join('; ')}`;
  }

  guestText(guest: GuestInvalidation): string {
    return (
      `guest ${guest.vm} invalidated ${guest.pages} pages at ${pageHex(guest.page)} of ${this.label(guest.device)} ` +
      `(invalidation ${guest.number}), issued after tick ${guest.tickIssued}`
    );
  }

  syncText(note: InvalidationNote): string {
    const seen = this.#syncOf(note);
    const claim = `CMD_SYNC at index ${note.syncIndex} of ${this.iommus[note.iommu]}'s command queue`;
    return seen === null
      ? `${claim}; seen complete by the driver at tick ${note.tickDone}`
      : `${claim} (number ${seen.seq}, generation ${seen.gen}) completed at tick ${seen.tick}, seen by the driver at ${note.tickDone}`;
  }

  ofNote(note: InvalidationNote): InvalidationFacts {
    const { iommu, tickIssued, tickDone, command, firstPage, pages } = note;
    const consumed = this.#traces[iommu]!.commandsBetween(tickIssued, tickDone);
    const fetched = consumed.find(
      ({ opcode, index }) => opcode === CMD_SYNC && ((index ^ note.syncIndex) & INDEX_MASK) === 0,
    );
    return {
      tickIssued,
      tickDone,
      syncFetched: fetched?.tick ?? null,
      syncCompleted: this.#syncOf(note)?.tick ?? null,
      sent: { command, firstPage, pages },
      consumed,
    };
  }

  /** Which SYNC was the guest's is known only if the SMMU had no other in that time. */
  ofGuest({ tickIssued, tickDone }: GuestInvalidation, iommu: number): InvalidationFacts {
    const consumed = this.#traces[iommu]!.commandsBetween(tickIssued, tickDone);
    const syncs = consumed.filter(({ opcode }) => opcode === CMD_SYNC);
    const only = syncs.length === 1 ? syncs[0]! : null;
    const completed = only === null ? null : this.#sync(iommu, only.index, tickIssued, tickDone);
    return {
      tickIssued,
      tickDone,
      syncFetched: only?.tick ?? null,
      syncCompleted: completed?.tick ?? null,
      sent: null,
      consumed,
    };
  }

  /** What the SMMU really consumed while the invalidation was under way. */
  commandTexts(iommu: number, facts: InvalidationFacts | null): string[] {
    if (facts === null) return [];
    const name = this.iommus[iommu];
    if (facts.consumed.length === 0) return [`the trace has no command of ${name} in that time`];
    return facts.consumed
      .slice(0, MAX_COMMANDS)
      .map(
        (command) =>
          `${name} consumed ${commandText(command)} at index ${command.index}, tick ${command.tick}`,
      );
  }

  #syncOf({ iommu, syncIndex, tickIssued, tickDone }: InvalidationNote): TracedSync | null {
    return this.#sync(iommu, syncIndex, tickIssued, tickDone);
  }

  #sync(iommu: number, index: number, from: number, to: number): TracedSync | null {
    return this.#traces[iommu]!.syncsAt(index).find(({ tick }) => tick >= from && tick <= to) ?? null;
  }
}
