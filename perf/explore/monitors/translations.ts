/**
 * What is cached of translations, when all programs are through: every entry that a DMA would use says what the tables
 * say now.
 *
 *   IOTLB      tag -> domain or vIOMMU -> its table      none: R6; it would not hear of an unmap: R5
 *              page -> frame -> the table's frame        another: R1, behind a vIOMMU R7
 *   micro-TLB  of a batch in the current generation      R1
 *   ATC        of a device whose ATS is on               R2
 *
 * An entry counts that grants more than the table does, too. Of what a guest translates stage 2 alone is checked here
 * (R7); the rest, which the guest has to invalidate, is `guest translations`.
 */
import {
  ATC_BYTES,
  AtcEntry,
  MICRO_BYTES,
  MICRO_ENTRIES,
  PortLayout,
} from '../../../hw/iotlb/port-layout.js';
import {
  CONTEXT_BYPASS,
  CONTEXT_NESTED,
  CONTEXT_S1,
  CONTEXT_S1_EL2,
  CONTEXT_S2,
  IOTLB_ENTRY_BYTES,
  IotlbEntry,
  iotlbLayout,
  StreamContext,
  UnitLayout,
} from '../../../hw/iotlb/unit-layout.js';
import type { IotlbEntryView } from '../../../hw/kernel/kernel.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import type { GranuleLg2 } from '../../../hw/pagetable/geometry.js';
import type { Machine } from '../../../runtime/machine.js';
import { portKey } from '../../../runtime/machine-hardware.js';
import { type HardwareView, viewsOf } from './hardware-view.js';
import type { EndMonitor, Expect } from './monitor.js';
import { type Leaf, TableWalk } from './table-walk.js';
import { type TaggedTable, tagsOf } from './tagged-tables.js';

const ctx = StreamContext.at;
const PAGE_LG2 = 12;
const VALID = 1;
const READ = 1 << 1;
const WRITE = 1 << 2;
/** CD.EPD0: there is no stage-1 table. */
const NO_LEVEL = 4;

/** Where a page leads, or null. */
type Translate = (page: number) => Pick<Leaf, 'pfn' | 'writable'> | null;

export const translations: EndMonitor = {
  name: 'translations',
  about: 'IOTLBs, micro-TLBs and ATCs say what the tables say',
  checks: ['R1', 'R2', 'R5', 'R6', 'R7'],
  look(machine: Machine, expect: Expect): void {
    for (const view of viewsOf(machine)) {
      checkIotlb(machine, view, expect);
      checkDevices(machine, view, expect, false);
    }
  },
};

/** Whether the guest invalidated what it changed. Off in scenarios with a guest that does not. */
export const guestTranslations: EndMonitor = {
  name: 'guest translations',
  about: "what is cached of a guest's streams says what the guest's tables say",
  checks: ['R1', 'R2'],
  look(machine: Machine, expect: Expect): void {
    for (const view of viewsOf(machine)) {
      const guests = new Map<number, Translate>();
      for (const context of view.cachedContexts()) {
        const words = machine.memory.u32.subarray(context >>> 2, (context >>> 2) + (ctx.ssid >>> 2) + 1);
        if (words[ctx.kind >>> 2] !== CONTEXT_NESTED) continue;
        guests.set(words[ctx.tag >>> 2]!, translateBy(machine.memory, words));
      }
      eachEntry(machine, view, (entry, about) => {
        const guest = guests.get(entry.vmid + entry.asid * 0x1_0000);
        if (!entry.stage1 || !entry.stage2 || guest === undefined) return;
        agrees('R1', entry, guest, expect, about);
      });
      checkDevices(machine, view, expect, true);
    }
  },
};

function eachEntry(
  machine: Machine,
  { iommu, regions, hardware }: HardwareView,
  visit: (entry: IotlbEntryView, about: () => string) => void,
): void {
  const { kernel, memory } = machine;
  const first = (regions.iotlb + iotlbLayout(hardware.iotlbEntries).at.entries + IotlbEntry.at.page) >>> 2;
  for (let i = 0; i < hardware.iotlbEntries; i++) {
    // Most are empty.
    if ((memory.u32[first + i * (IOTLB_ENTRY_BYTES / 4)]! & VALID) === 0) continue;
    const entry = kernel.iotlbReadEntry(regions.iotlb, i);
    if (entry === null) continue;
    visit(entry, () => {
      const { page, pfn, vmid, asid } = entry;
      return `${iommu.name} has page 0x${page.toString(16)} -> frame 0x${pfn.toString(16)} cached under VMID ${vmid}, ASID ${asid}`;
    });
  }
}

function checkIotlb(machine: Machine, view: HardwareView, expect: Expect): void {
  const tags = tagsOf(machine, view.iommu.instance.smmu);
  eachEntry(machine, view, (entry, about) => {
    const { vmid, asid, stage1, stage2 } = entry;
    const owner = stage2 ? tags.vmids.get(vmid) : tags.asids.get(asid);
    expect('R6', owner !== undefined, () => `${about()}, a tag of nobody's`);
    if (owner === undefined) return;
    expect('R5', owner.listed, () => `${about()}, of ${owner.name}, whose array of invalidations has it not`);
    const broken = owner.guest ? 'R7' : 'R1';
    if (stage1 && stage2) {
      // Of the guest's part its outcome is known: the first page's IPA.
      const of = { ...entry, page: entry.ipaPage, sizeLg2: PAGE_LG2 };
      agrees(broken, of, byTable(owner), expect, () => `${about()} by IPA page ${entry.ipaPage}`);
    } else agrees(broken, entry, byTable(owner), expect, about);
  });
}

const byTable =
  ({ walk }: TaggedTable): Translate =>
  (page) =>
    pageOf(walk, page);

function pageOf(walk: TableWalk, page: number): { pfn: number; writable: boolean } | null {
  const leaf = walk.find(page);
  return leaf === null ? null : { pfn: leaf.pfn + (page - leaf.page), writable: leaf.writable };
}

/** The first and the last page of an entry. */
function agrees(
  invariant: string,
  entry: Pick<IotlbEntryView, 'page' | 'pfn' | 'sizeLg2' | 'writable'>,
  translate: Translate,
  expect: Expect,
  about: () => string,
): void {
  const last = 2 ** (entry.sizeLg2 - PAGE_LG2) - 1;
  for (const page of last === 0 ? [0] : [0, last]) {
    const now = translate(entry.page + page);
    expect(invariant, now?.pfn === entry.pfn + page, () => `${about()}; by the tables it is ${tell(now)}`);
    expect(
      invariant,
      !entry.writable || now?.writable === true,
      () => `${about()}, writable, which it is not`,
    );
  }
}

const tell = (now: { readonly pfn: number } | null): string =>
  now === null ? 'not mapped' : `frame 0x${now.pfn.toString(16)}`;

/** @param guests  those whose stage 1 is a guest's, or the others */
function checkDevices(machine: Machine, view: HardwareView, expect: Expect, guests: boolean): void {
  machine.config.devices.forEach(({ iommuIndex }, index) => {
    if (iommuIndex === view.iommu.index) checkDevice(machine, view, index, expect, guests);
  });
}

/** A device's own caches: what the next batch would take without asking. */
function checkDevice(
  machine: Machine,
  view: HardwareView,
  index: number,
  expect: Expect,
  guests: boolean,
): void {
  const { memory, kernel, config } = machine;
  const { u32 } = memory;
  const at = PortLayout.at;
  const port = memory.region(PortLayout, portKey(index)).base;
  const { label, sid } = config.devices[index]!;
  const word = (offset: number): number => u32[(port + offset) >>> 2]!;
  const streams = new Map<number, Translate | null>();
  /** By SubstreamID; null: it is not of those that are looked at. */
  const translateOf = (ssid: number): Translate | null => {
    let stream = streams.get(ssid);
    if (stream === undefined) {
      const words = view.enabled ? view.fresh(sid, ssid) : null;
      const nested = words?.[ctx.kind >>> 2] === CONTEXT_NESTED;
      if (nested !== guests) stream = null;
      else stream = words === null ? () => null : translateBy(memory, words);
      streams.set(ssid, stream);
    }
    return stream;
  };

  if (word(at.lastGen) === u32[(view.regions.unit + UnitLayout.at.gen) >>> 2])
    for (let i = 0; i < MICRO_ENTRIES; i++) {
      const entry = at.micro + i * MICRO_BYTES;
      const [low, high] = [word(entry), word(entry + 4)];
      if ((low & VALID) === 0) continue;
      const of = {
        page: (high * 2 ** 32 + ((low & ~0xfff) >>> 0)) / 4096,
        pfn: (word(entry + 12) * 2 ** 32 + ((word(entry + 8) & ~0xfff) >>> 0)) / 4096,
        sizeLg2: PAGE_LG2,
        writable: (low & WRITE) !== 0,
      };
      if ((low & (READ | WRITE)) === 0) continue;
      const translate = translateOf((word(at.microSsid) - 1) >>> 0);
      if (translate === null) continue;
      const about = (): string =>
        `the micro-TLB of ${label} has page 0x${of.page.toString(16)} -> frame 0x${of.pfn.toString(16)}`;
      agrees('R1', of, translate, expect, about);
    }

  // What a device that answers no invalidation keeps is R22's: its frames are not given back.
  if (word(at.atcHung) !== 0) return;
  for (let from = 0; ; ) {
    const found = kernel.atcFindPage(port, 0, 2 ** 52, from);
    if (found === null) break;
    from = found.index + 1;
    const entry = at.atc + found.index * ATC_BYTES;
    const ssid = word(entry + AtcEntry.at.ssid);
    const translate = translateOf(ssid);
    const of = { page: found.page, pfn: found.pfn, sizeLg2: PAGE_LG2, writable: false };
    const about = (): string =>
      `the ATC of ${label} has page 0x${found.page.toString(16)} -> frame 0x${found.pfn.toString(16)}`;
    if (translate !== null) agrees('R2', of, translate, expect, about);
    const words = guests ? null : view.fresh(sid, ssid);
    if (words?.[ctx.kind >>> 2] !== CONTEXT_NESTED) continue;
    const byIpa = { ...of, page: word(entry + AtcEntry.at.ipaPage) };
    agrees('R7', byIpa, translateBy(memory, words, CONTEXT_S2), expect, about);
  }
}

/** @param words  of a StreamContext @param kind  its own, or a part of that */
function translateBy(memory: MachineMemory, words: Uint32Array, kind = words[ctx.kind >>> 2]!): Translate {
  const field = (offset: number): number => words[offset >>> 2]!;
  const address = (offset: number): number => field(offset) + field(offset + 4) * 2 ** 32;
  const stage2 = (): TableWalk =>
    new TableWalk(memory, {
      stage: 2,
      root: address(ctx.s2Root),
      inputBits: field(ctx.s2InputBits),
      startLevel: field(ctx.s2StartLevel),
      granuleLg2: field(ctx.s2GranuleLg2) as GranuleLg2,
    });
  const stage1 = (place?: (ipa: number) => number): TableWalk =>
    new TableWalk(
      memory,
      {
        stage: 1,
        root: address(ctx.s1Root),
        inputBits: field(ctx.s1InputBits),
        startLevel: field(ctx.s1StartLevel),
        granuleLg2: field(ctx.s1GranuleLg2) as GranuleLg2,
      },
      place,
    );
  switch (kind) {
    case CONTEXT_BYPASS:
      return (page) => ({ pfn: page, writable: true });
    case CONTEXT_S1:
    case CONTEXT_S1_EL2: {
      if (field(ctx.s1StartLevel) === NO_LEVEL) return () => null;
      const walk = stage1();
      return (page) => pageOf(walk, page);
    }
    case CONTEXT_S2: {
      const walk = stage2();
      return (page) => pageOf(walk, page);
    }
    case CONTEXT_NESTED: {
      if (field(ctx.s1StartLevel) === NO_LEVEL) return () => null;
      const outer = stage2();
      const inner = stage1((ipa) => {
        const frame = pageOf(outer, Math.floor(ipa / 4096));
        return frame === null ? -1 : memory.linearOf(frame.pfn * 4096 + (ipa % 4096), 8);
      });
      return (page) => {
        const first = pageOf(inner, page);
        const second = first === null ? null : pageOf(outer, first.pfn);
        return second === null ? null : { pfn: second.pfn, writable: first!.writable && second.writable };
      };
    }
    default:
      return () => null;
  }
}
