/**
 * Stories of what the core saw itself: an IOTLB (R7) or an ATC (R2) that still reached freed frames, the broken canary
 * of a dead frame (R1), a tag handed out too early (R6).
 */

import { XLAT_FROM_ATC, XLAT_FROM_IOTLB } from '../../../hw/iotlb/port-layout.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import type { ViolationStory } from '../types.js';
import { inferAtc } from './atc-inference.js';
import { atcNoteOf, type Checker, type CoreFinding, ofAtc } from './checker.js';
import { type Evidence, hex, pageHex, sizeText } from './evidence.js';
import { infer } from './inference.js';
import type { Shadow } from './shadow.js';
import { KIND_DEAD_FRAME, V, VIOLATIONS } from './shadow-layout.js';

type Finding<K extends CoreFinding['kind']> = Extract<CoreFinding, { kind: K }>;

/** Canaries whose walks are searched for: each search reads the whole trace. */
const MAX_SEARCHES = 32;
const ANY_IOMMU = '(any)';

export class FindingStories {
  readonly #memory: MachineMemory;
  readonly #shadow: Shadow;
  readonly #checker: Checker;
  readonly #evidence: Evidence;
  #searches = 0;

  constructor(memory: MachineMemory, shadow: Shadow, checker: Checker, evidence: Evidence) {
    this.#memory = memory;
    this.#shadow = shadow;
    this.#checker = checker;
    this.#evidence = evidence;
  }

  tell(finding: CoreFinding): ViolationStory {
    if (finding.kind === 'id') return this.#ofTag(finding);
    if (finding.kind === 'atc') return this.#ofAtc(finding);
    return finding.kind === 'canary' ? this.#ofCanary(finding) : this.#ofEntry(finding);
  }

  #ofTag({ iommu, id, value, entries }: Finding<'id'>): ViolationStory {
    return {
      rule: 'R6',
      summary: `${id.toUpperCase()} ${value} was allocated while ${entries} IOTLB entries carry it`,
      device: null,
      iommu: this.#evidence.iommus[iommu]!,
      stream: null,
      iova: null,
      pa: null,
      walk: null,
      invalidation: null,
      sync: null,
      details: [],
    };
  }

  #ofEntry({ iommu, entry, unmap }: Finding<'iotlb'>): ViolationStory {
    const evidence = this.#evidence;
    const name = evidence.iommus[iommu]!;
    const notes = unmap.notes.filter((note) => note.iommu === iommu && !ofAtc(note));
    const tag = entry.stage2 ? entry.vmid : entry.asid;
    const note = notes.find((sent) => sent.tag === tag) ?? notes[0] ?? null;
    const walk = evidence.walk(iommu, entry.fillSeq);
    const facts = note === null ? null : evidence.ofNote(note);
    const inference = infer({
      iommu: name,
      invalidation: facts,
      entry,
      walkTick: walk?.tick ?? null,
      freedTick: unmap.freedTick,
      use: null,
      seenTick: unmap.freedTick,
    });
    return {
      rule: 'R7',
      summary:
        `the frames of an unmap were freed while the IOTLB of ${name} still held ` +
        `${pageHex(entry.page)} -> ${pageHex(entry.pfn)} ` +
        `(${sizeText(entry.sizeLg2)}, VMID ${entry.vmid}, ASID ${entry.asid})`,
      iommu: name,
      device: walk === null ? null : evidence.labelOf(iommu, walk.sid),
      stream: walk === null ? null : hex(walk.sid),
      iova: pageHex(entry.page),
      pa: pageHex(entry.pfn),
      walk: evidence.walkText(entry.fillSeq, walk, XLAT_FROM_IOTLB, entry.sizeLg2),
      invalidation: evidence.unmapText(unmap, note === null ? [] : [note], iommu),
      sync: note === null ? null : evidence.syncText(note),
      details: [
        `the frames were freed at tick ${unmap.freedTick}`,
        ...evidence.commandTexts(iommu, facts),
        ...(inference === null ? [] : [inference]),
      ],
    };
  }

  #ofAtc({ iommu, device, entry, unmap }: Finding<'atc'>): ViolationStory {
    const evidence = this.#evidence;
    const name = evidence.iommus[iommu]!;
    const { label, sid } = evidence.device(device)!;
    const note = unmap.notes.find((sent) => sent.iommu === iommu && !ofAtc(sent)) ?? null;
    const atcNote = atcNoteOf(unmap.notes, iommu, sid) ?? null;
    const notes = [note, atcNote].filter((sent) => sent !== null);
    const walk = evidence.walk(iommu, entry.fillSeq);
    const walkTick = walk?.tick ?? null;
    const tlbi = note === null ? null : evidence.ofNote(note);
    const atc = atcNote === null ? null : evidence.ofNote(atcNote);
    const { freedTick } = unmap;
    const inference =
      infer({
        iommu: name,
        invalidation: tlbi,
        entry: this.#checker.entryOf(iommu, entry.fillSeq),
        walkTick,
        freedTick,
        use: null,
        seenTick: freedTick,
      }) ?? inferAtc({ iommu: name, sid, tlbi, atc, walkTick });
    return {
      rule: 'R2',
      summary:
        `the frames of an unmap were freed while the ATC of ${label} still held ` +
        `${pageHex(entry.page)} -> ${pageHex(entry.pfn)} (${sizeText(entry.sizeLg2)})`,
      iommu: name,
      device: label,
      stream: hex(sid),
      iova: pageHex(entry.page),
      pa: pageHex(entry.pfn),
      walk: evidence.walkText(entry.fillSeq, walk, XLAT_FROM_ATC, entry.sizeLg2),
      invalidation: evidence.unmapText(unmap, notes, iommu),
      sync: notes.length === 0 ? null : notes.map((sent) => evidence.syncText(sent)).join('; '),
      details: [
        `the frames were freed at tick ${freedTick}`,
        ...evidence.commandTexts(iommu, tlbi),
        ...evidence.commandTexts(iommu, atc),
        ...(inference === null ? [] : [inference]),
      ],
    };
  }

  /** Who wrote is known only if that DMA was itself seen (R1); the walks to the frame are in the trace. */
  #ofCanary({ pfn, word, value, unmap }: Finding<'canary'>): ViolationStory {
    const evidence = this.#evidence;
    const { u32 } = this.#memory;
    const record = unmap === null ? -1 : this.#writeTo(pfn, unmap.number);
    const writer = record < 0 ? undefined : evidence.device(u32[record + V.device]!);
    const told = unmap === null ? [] : [...new Set(unmap.notes.map(({ iommu }) => iommu))];
    // Told to one SMMU only: no other had the mapping at that time.
    const iommu = writer?.iommu ?? (told.length === 1 ? told[0]! : -1);
    const notes = unmap === null ? [] : unmap.notes.filter((note) => iommu < 0 || note.iommu === iommu);
    const iovaPage = unmap === null ? -1 : unmap.iovaPage + pfn - unmap.pfn;
    const note = iommu < 0 ? undefined : notes.find((sent) => !ofAtc(sent));
    const facts = note === undefined ? null : evidence.ofNote(note);
    const fillSeq = record < 0 ? 0 : u32[record + V.fillSeq]!;
    const walk = writer === undefined ? null : evidence.walk(writer.iommu, fillSeq);
    const walkTick = walk?.tick ?? null;
    const name = evidence.iommus[iommu] ?? ANY_IOMMU;
    const byTlb = infer({
      iommu: name,
      invalidation: facts,
      entry: writer === undefined ? null : this.#checker.entryOf(writer.iommu, fillSeq),
      walkTick,
      freedTick: unmap?.freedTick ?? null,
      use:
        writer === undefined
          ? null
          : {
              began: u32[record + V.began]!,
              translated: u32[record + V.translated]!,
              judged: u32[record + V.tick]!,
            },
      seenTick: null,
    });
    const byAtc = writer !== undefined && u32[record + V.source] === XLAT_FROM_ATC;
    const atcNote = byAtc ? atcNoteOf(notes, writer.iommu, writer.sid) : undefined;
    const atc = atcNote === undefined ? null : evidence.ofNote(atcNote);
    const inference =
      byTlb ?? (byAtc ? inferAtc({ iommu: name, sid: writer.sid, tlbi: facts, atc, walkTick }) : null);
    return {
      rule: 'R1',
      summary: `the canary of dead frame ${pageHex(pfn)} was overwritten with ${hex(value >>> 0)}`,
      device: writer?.label ?? null,
      iommu: evidence.iommus[iommu] ?? ANY_IOMMU,
      stream: record < 0 ? null : hex(u32[record + V.sid]!),
      iova: unmap === null ? null : pageHex(iovaPage),
      pa: pageHex(pfn),
      walk:
        writer === undefined
          ? this.#walksTo(iovaPage, pfn, iommu < 0 ? told : [iommu])
          : evidence.walkText(fillSeq, walk, u32[record + V.source]!, u32[record + V.sizeLg2]!),
      invalidation: unmap === null ? null : evidence.unmapText(unmap, notes, iommu),
      sync: notes.length === 0 ? null : notes.map((sent) => evidence.syncText(sent)).join('; '),
      details: [
        `word ${word} of the frame`,
        ...(writer === undefined
          ? []
          : [
              `a DMA write of ${writer.label} to this frame began at tick ${u32[record + V.began]!}, ` +
                `was judged at tick ${u32[record + V.tick]!}`,
            ]),
        ...(unmap === null ? [] : [`the frame was freed at tick ${unmap.freedTick}`]),
        ...evidence.commandTexts(iommu, facts),
        ...(inference === null ? [] : [inference]),
      ],
    };
  }

  /** @returns the record (index of a word) of a write to this frame that was seen after this unmap, or -1 */
  #writeTo(pfn: number, unmap: number): number {
    const { i32, u32 } = this.#memory;
    for (let n = 0; n < Math.min(this.#shadow.violationCount(), VIOLATIONS); n++) {
      const record = this.#shadow.violation(n);
      if (record < 0 || i32[record + V.kind] !== KIND_DEAD_FRAME || i32[record + V.write] === 0) continue;
      if (u32[record + V.pfn] === pfn && i32[record + V.unmap] === unmap) return record;
    }
    return -1;
  }

  #walksTo(iovaPage: number, pfn: number, iommus: readonly number[]): string | null {
    if (iovaPage < 0 || this.#searches >= MAX_SEARCHES) return null;
    this.#searches++;
    const walks = iommus.flatMap((iommu) => {
      const walk = this.#evidence.lastWalk(iommu, iovaPage, pfn);
      return walk === null
        ? []
        : [`last translated on ${this.#evidence.iommus[iommu]} by ${this.#evidence.walkOnly(walk)}`];
    });
    return walks.length === 0 ? null : walks.join('; ');
  }
}
