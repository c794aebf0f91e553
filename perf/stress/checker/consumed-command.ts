/**
 * A command as the trace recorded it, in words: its name and the fields that matter to a story, and whether it
 * names a given IOTLB entry. [IHI0070] 4.3, 4.4, 4.7.3.
 *
 * The fields are read as they stand in the queue; that an SMMU with narrower ASIDs or VMIDs ignores some of
 * their bits is not looked at.
 */
import type { IotlbEntryView } from '../../../hw/kernel/kernel.js';
import * as C from '../../../hw/smmuv3/command.js';
import type { CommandSeen } from './trace-reader.js';

const EL2 = new Set([C.CMD_TLBI_EL2_ALL, C.CMD_TLBI_EL2_ASID, C.CMD_TLBI_EL2_VA, C.CMD_TLBI_EL2_VAA]);
/** Commands that ask nothing of the stages an entry was made by. */
const ANY_STAGE = new Set([C.CMD_TLBI_S12_VMALL, C.CMD_TLBI_NSNH_ALL, ...EL2]);
const SYNC_SIGNALS = ['SIG_NONE', 'SIG_IRQ', 'SIG_SEV', 'reserved'];
/** log2 of the granule in 4 KiB pages, by TG. */
const GRANULE_PAGES_LG2 = [0, 0, 2, 4];
const PRI_ANSWERS = ['Response Failure', 'Invalid Request', 'Success', 'reserved'];

/** Of the tag and range of a TLBI, what the command has; the rest is null. */
export interface TlbiFields {
  readonly opcode: number;
  readonly vmid: number | null;
  readonly asid: number | null;
  readonly page: number | null;
  /** 4 KiB pages from `page` on. */
  readonly pages: number;
}

/** What decides whether a TLBI takes an entry away. */
export type EntryTag = Pick<
  IotlbEntryView,
  'vmid' | 'asid' | 'page' | 'sizeLg2' | 'global' | 'stage1' | 'stage2'
>;

/** @returns null for anything but a TLBI of the EL1 and EL2 regimes */
export function tlbiOf({ opcode, words }: Pick<CommandSeen, 'opcode' | 'words'>): TlbiFields | null {
  const raw = Uint32Array.from(words);
  const vmid = C.CMD_TLBI.VMID.get(raw);
  const asid = C.CMD_TLBI.ASID.get(raw);
  const tg = C.CMD_TLBI.TG.get(raw);
  const page = C.CMD_TLBI.Page.get(raw);
  const pages =
    tg === C.TG_ANY
      ? 1
      : (C.CMD_TLBI.NUM.get(raw) + 1) * 2 ** (C.CMD_TLBI.SCALE.get(raw) + GRANULE_PAGES_LG2[tg]!);
  switch (opcode) {
    case C.CMD_TLBI_NSNH_ALL:
    case C.CMD_TLBI_EL2_ALL:
      return { opcode, vmid: null, asid: null, page: null, pages: 0 };
    case C.CMD_TLBI_NH_ALL:
    case C.CMD_TLBI_S12_VMALL:
      return { opcode, vmid, asid: null, page: null, pages: 0 };
    case C.CMD_TLBI_NH_ASID:
      return { opcode, vmid, asid, page: null, pages: 0 };
    case C.CMD_TLBI_NH_VA:
      return { opcode, vmid, asid, page, pages };
    case C.CMD_TLBI_NH_VAA:
    case C.CMD_TLBI_S2_IPA:
      return { opcode, vmid, asid: null, page, pages };
    case C.CMD_TLBI_EL2_ASID:
      return { opcode, vmid: null, asid, page: null, pages: 0 };
    case C.CMD_TLBI_EL2_VA:
      return { opcode, vmid: null, asid, page, pages };
    case C.CMD_TLBI_EL2_VAA:
      return { opcode, vmid: null, asid: null, page, pages };
    default:
      return null;
  }
}

/** Whether a TLBI has to take this entry away. Entries of EL2 carry neither stage. */
export function covers(tlbi: TlbiFields, entry: EntryTag): boolean {
  const el2 = !entry.stage1 && !entry.stage2;
  if (EL2.has(tlbi.opcode) !== el2) return false;
  if (tlbi.vmid !== null && tlbi.vmid !== entry.vmid) return false;
  // Stage 1 commands leave what stage 2 alone made; an IPA says nothing of an entry whose input is a VA.
  if (tlbi.opcode === C.CMD_TLBI_S2_IPA) {
    if (entry.stage1) return false;
  } else if (!ANY_STAGE.has(tlbi.opcode) && !entry.stage1) return false;
  if (tlbi.asid !== null && tlbi.asid !== entry.asid) if (!entry.global || tlbi.page === null) return false;
  if (tlbi.asid !== null && tlbi.page === null && entry.global) return false;
  return tlbi.page === null || overlaps(tlbi, entry.page, 2 ** (entry.sizeLg2 - 12));
}

/** Whether the pages a TLBI names meet a range; one that names none meets all. */
export function overlaps({ page, pages }: TlbiFields, first: number, count: number): boolean {
  return page === null || (page < first + count && first < page + pages);
}

/** For example `CMD_TLBI_NH_VA VMID 1 ASID 1 pages 0x200400..+512`. */
export function commandText(command: Pick<CommandSeen, 'opcode' | 'words'>): string {
  const { opcode, words } = command;
  const name = C.COMMAND_NAMES[opcode] ?? `command ${hex(opcode)}`;
  const raw = Uint32Array.from(words);
  const sid = C.CMD_CFGI.StreamID.get(raw);
  switch (opcode) {
    case C.CMD_SYNC:
      return `${name} CS ${SYNC_SIGNALS[C.CMD_SYNC_FIELDS.CS.get(raw)]}`;
    case C.CMD_CFGI_STE:
    case C.CMD_CFGI_CD_ALL:
      return `${name} stream ${hex(sid)}`;
    case C.CMD_CFGI_CD:
      return `${name} stream ${hex(sid)} substream ${hex(C.CMD_CFGI.SubstreamID.get(raw))}`;
    case C.CMD_ATC_INV: {
      const lg2 = C.CMD_ATC.Size.get(raw);
      const of = `${name} stream ${hex(sid)}${C.CMD_ATC.SSV.get(raw) === 1 ? ` substream ${hex(C.CMD_ATC.SubstreamID.get(raw))}` : ''}`;
      return lg2 >= 52 ? `${of} all` : `${of} pages ${hex(C.CMD_ATC.Page.get(raw))}..+${2 ** lg2}`;
    }
    case C.CMD_PRI_RESP:
      return `${name} stream ${hex(sid)} group ${C.CMD_PRI.PRGIndex.get(raw)} ${PRI_ANSWERS[C.CMD_PRI.Resp.get(raw)]}`;
    case C.CMD_RESUME: {
      const action =
        C.CMD_STALL.Ac.get(raw) === 1 ? 'retry' : C.CMD_STALL.Ab.get(raw) === 1 ? 'abort' : 'RAZ/WI';
      return `${name} stream ${hex(sid)} STAG ${hex(C.CMD_STALL.STAG.get(raw))} ${action}`;
    }
    case C.CMD_STALL_TERM:
      return `${name} stream ${hex(sid)}`;
    case C.CMD_CFGI_STE_RANGE: {
      const range = C.CMD_CFGI_RANGE.Range.get(raw);
      return range === 31 ? 'CMD_CFGI_ALL' : `${name} stream ${hex(sid)} range ${range}`;
    }
  }
  const tlbi = tlbiOf(command);
  if (tlbi === null) return `${name} [${words.map(hex).join(' ')}]`;
  const { vmid, asid, page, pages } = tlbi;
  return [
    name,
    ...(vmid === null ? [] : [`VMID ${vmid}`]),
    ...(asid === null ? [] : [`ASID ${asid}`]),
    ...(page === null ? [] : [`pages ${hex(page)}..+${pages}`]),
  ].join(' ');
}

const hex = (n: number): string => `0x${n.toString(16)}`;
