/**
 * From a bare record of something impossible to a story someone can act on: which device, stream and address,
 * which walk made the translation, which invalidation should have killed it, which SYNC said it had, and what
 * all this implies (inference.ts).
 */
import { XLAT_FROM_ATC } from '../../../hw/iotlb/port-layout.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import type { InvalidationNote } from '../../../runtime/drivers/contract.js';
import { pageResponseName } from '../programs/hostile.js';
import type { ViolationStory } from '../types.js';
import { inferAtc } from './atc-inference.js';
import { atcNoteOf, type Checker, ofAtc, type UnmapRecord } from './checker.js';
import type { EntryTag } from './consumed-command.js';
import { Evidence, hex, pageHex, type StoryDevice } from './evidence.js';
import { FindingStories } from './finding-stories.js';
import { infer } from './inference.js';
import { canaryOf, type Shadow } from './shadow.js';
import {
  DEAD,
  KIND_ATC_KEPT,
  KIND_CANARY_BROKEN,
  KIND_DEAD_FRAME,
  KIND_GUEST_STALE,
  KIND_NO_FAULT,
  KIND_READ_CANARY,
  KIND_WRONG_FAULT,
  KIND_WRONG_OWNER,
  KIND_WRONG_PAGE_RESPONSE,
  V,
  VIOLATIONS,
} from './shadow-layout.js';

export class Stories {
  readonly #memory: MachineMemory;
  readonly #shadow: Shadow;
  readonly #checker: Checker;
  readonly #evidence: Evidence;
  readonly #findings: FindingStories;
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
    this.#evidence = new Evidence(memory, devices, iommus);
    this.#findings = new FindingStories(memory, shadow, checker, this.#evidence);
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
      told.push(this.#findings.tell(this.#checker.findings[this.#takenFindings++]!));
    return told;
  }

  #ofDevice(record: number): ViolationStory {
    const { i32, u32 } = this.#memory;
    const signed = (field: number): number => i32[record + field]!;
    const word = (field: number): number => u32[record + field]!;
    const evidence = this.#evidence;
    const { label, iommu, sid } = evidence.device(word(V.device))!;
    const iova = (BigInt(word(V.iovaHigh)) << 32n) | BigInt(word(V.iovaLow));
    const kind = signed(V.kind);
    const pfn = word(V.pfn);
    const access = signed(V.write) !== 0 ? 'write' : 'read';
    const answered = kind === KIND_WRONG_FAULT || kind === KIND_WRONG_PAGE_RESPONSE;
    const faulty = answered || kind === KIND_NO_FAULT;
    const translated = !answered && kind !== KIND_CANARY_BROKEN;
    const fromAtc = translated && !faulty && word(V.source) === XLAT_FROM_ATC;
    const fillSeq = word(V.fillSeq);
    const walk = translated ? evidence.walk(iommu, fillSeq) : null;
    const entry = translated ? this.#checker.entryOf(iommu, fillSeq) : null;
    const guestKind = [KIND_GUEST_STALE, KIND_CANARY_BROKEN, KIND_ATC_KEPT].includes(kind);
    const guest = guestKind ? this.#shadow.guestInvalidation(word(V.guestInv)) : null;
    const unmap = faulty || guestKind ? null : this.#checker.unmap(word(V.unmap));
    const note = unmap === null ? null : noteFor(unmap, iommu, entry);
    const facts =
      guest !== null ? evidence.ofGuest(guest, iommu) : note !== null ? evidence.ofNote(note) : null;
    const atcNote = unmap === null || !fromAtc ? undefined : atcNoteOf(unmap.notes, iommu, sid);
    const atcFacts = atcNote === undefined ? null : evidence.ofNote(atcNote);
    // Without a DMA there is nobody whose use could be compared with the invalidation.
    const use =
      translated && kind !== KIND_ATC_KEPT
        ? { began: word(V.began), translated: word(V.translated), judged: word(V.tick) }
        : null;
    const sameGuest = guest === null || signed(V.guestPage) === DEAD;
    const sameUnmap =
      unmap === null ||
      (unmap.ioasId === signed(V.expectedOwner) &&
        ((unmap.iovaPage + pfn - unmap.pfn) | 0) === signed(V.expectedPage));
    // An unmap of other pages, or by somebody else, says nothing of this translation.
    const walkTick = walk?.tick ?? null;
    const inference =
      sameGuest && sameUnmap
        ? (infer({
            iommu: evidence.iommus[iommu]!,
            invalidation: facts,
            entry,
            walkTick,
            freedTick: unmap?.freedTick ?? null,
            use,
            seenTick: null,
          }) ??
          (fromAtc
            ? inferAtc({
                iommu: evidence.iommus[iommu]!,
                sid,
                tlbi: facts,
                atc: guest !== null ? facts : atcFacts,
                walkTick,
              })
            : null))
        : null;
    return {
      rule: faulty ? 'FAULT' : fromAtc ? 'R2' : 'R1',
      summary: this.#summary(kind, access, signed, word),
      device: label,
      iommu: evidence.iommus[iommu]!,
      stream: kind === KIND_CANARY_BROKEN ? null : hex(word(V.sid)),
      iova: kind === KIND_CANARY_BROKEN && guest === null ? null : `0x${iova.toString(16)}`,
      pa: answered ? null : pageHex(pfn),
      walk: translated ? evidence.walkText(fillSeq, walk, word(V.source), word(V.sizeLg2)) : null,
      invalidation:
        guest !== null
          ? evidence.guestText(guest)
          : unmap === null
            ? null
            : evidence.unmapText(
                unmap,
                [note, atcNote ?? null].filter((sent) => sent !== null),
                iommu,
              ),
      sync:
        guest !== null
          ? `the guest's CMD_SYNC, complete at tick ${guest.tickDone}`
          : note === null
            ? null
            : [note, atcNote ?? null]
                .filter((sent) => sent !== null)
                .map((sent) => evidence.syncText(sent))
                .join('; '),
      details: [
        kind === KIND_CANARY_BROKEN || kind === KIND_ATC_KEPT || kind === KIND_WRONG_PAGE_RESPONSE
          ? `the page was looked at at tick ${word(V.tick)}`
          : `the DMA ${access} began at tick ${word(V.began)}, was judged at tick ${word(V.tick)}`,
        ...(unmap === null ? [] : [`the frame was freed at tick ${unmap.freedTick}`]),
        ...(entry === null ? [] : [`the IOTLB entry carries VMID ${entry.vmid}, ASID ${entry.asid}`]),
        ...(signed(V.vm) >= 0 ? [`guest ${signed(V.vm)}; IPA ${pageHex(word(V.ipaPage))}`] : []),
        ...evidence.commandTexts(iommu, facts),
        ...evidence.commandTexts(iommu, atcFacts),
        ...(inference === null ? [] : [inference]),
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
        return `DMA ${access} reached frame ${pa} after an unmap had freed it`;
      case KIND_WRONG_OWNER:
        return (
          `DMA ${access} reached frame ${pa}, which now belongs to page ${pageHex(word(V.page))} of address ` +
          `space ${signed(V.owner)}; the device asked for page ${pageHex(word(V.expectedPage))} of ${signed(V.expectedOwner)}`
        );
      case KIND_GUEST_STALE:
        return signed(V.guestPage) === DEAD
          ? `DMA ${access} used a stage-1 translation after the guest's invalidation of it had completed`
          : `DMA ${access} reached a guest page that ${this.#evidence.label(word(V.guestDevice) - 1)} now holds at ` +
              pageHex(word(V.guestPage) - 1);
      case KIND_READ_CANARY:
        return `DMA read the canary ${hex(canaryOf(word(V.pfn)) >>> 0)} of a dead frame ${pa}`;
      case KIND_CANARY_BROKEN:
        return `the canary of guest page ${pageHex(word(V.ipaPage))}, dead since the guest's invalidation, was overwritten with ${hex(word(V.found))}`;
      case KIND_ATC_KEPT:
        return `a guest's invalidation was complete while the ATC of ${this.#evidence.label(word(V.device))} still led to ${pa}`;
      case KIND_WRONG_PAGE_RESPONSE:
        return `a page request was answered '${pageResponseName(word(V.found))}', and not refused`;
      case KIND_NO_FAULT:
        return `a DMA ${access} that had to fault was translated to ${pa}`;
      default:
        return `a DMA ${access} was answered with status ${hex(word(V.found))}, which is not what it had to be`;
    }
  }
}

/** Of the invalidations an unmap sent to one SMMU the one with the entry's tag, or the first. */
function noteFor(unmap: UnmapRecord, iommu: number, entry: EntryTag | null): InvalidationNote | null {
  const notes = unmap.notes.filter((note) => note.iommu === iommu && !ofAtc(note));
  const tagged = notes.find(({ tag }) => entry !== null && tag === (entry.stage2 ? entry.vmid : entry.asid));
  return tagged ?? notes[0] ?? null;
}
