/**
 * What the words of a vendor's struct say, for a reader: the fields of an STE, a command, an event, an ID register,
 * under the names that [IHI0070] prints. A trace carries it as a comment; nothing is read back from it.
 */
import {
  CMD,
  CMD_ATC,
  CMD_ATC_INV,
  CMD_CFGI,
  CMD_PRI,
  CMD_PRI_RESP,
  CMD_RESUME,
  CMD_STALL,
  CMD_STALL_TERM,
  CMD_SYNC,
  CMD_SYNC_FIELDS,
  CMD_TLBI,
  COMMAND_NAMES,
  COMMAND_WORDS,
} from '../../hw/smmuv3/command.js';
import { EVENT, EVENT_NAMES, EVENT_WORDS } from '../../hw/smmuv3/event.js';
import { IDR0, IDR1, IDR3, IDR5 } from '../../hw/smmuv3/registers.js';
import { STE, STE_BYTES } from '../../hw/smmuv3/ste.js';
import { u32At } from '../../uapi/abi/struct.js';
import {
  HwInfoArmSmmuv3,
  HwptArmSmmuv3,
  VeventArmSmmuv3,
  ViommuArmSmmuv3Invalidate,
} from '../../uapi/drivers/smmuv3.js';
import { TestCmd } from '../../uapi/iommufd/test.js';
import {
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VfioInfoCapHeader,
  VfioIommuType1Info,
  VfioIommuType1InfoCapIovaRange,
  VfioIommuType1InfoDmaAvail,
  VfioIovaRange,
} from '../../uapi/vfio/container.js';
import { aboutTest } from './about-test.js';
import type { AnyStruct } from './ioctls.js';

/** Ranges told of one capability, and capabilities of one chain. */
const MAX_TOLD = 16;

/** @returns what a whole struct says, or undefined when there is nothing to add to its fields */
export function aboutStruct(struct: AnyStruct | null, bytes: Uint8Array): string | undefined {
  if (struct === null || bytes.byteLength < struct.size) return undefined;
  switch (struct.cName) {
    case HwptArmSmmuv3.cName:
      return fieldsOf(STE, wordsOf(bytes, 4, STE_BYTES / 4));
    case ViommuArmSmmuv3Invalidate.cName:
      return command(wordsOf(bytes, COMMAND_WORDS));
    case VeventArmSmmuv3.cName:
      return event(wordsOf(bytes, EVENT_WORDS));
    case HwInfoArmSmmuv3.cName:
      return idRegisters(HwInfoArmSmmuv3.decode(bytes).idr);
    case VfioIommuType1Info.cName:
      return capabilities(bytes);
    case TestCmd.cName:
      return aboutTest(bytes);
    default:
      return undefined;
  }
}

interface BitReader<W> {
  get(word: W): number | bigint;
}

/** Fields that are not 0; `skip`ped are those said otherwise. */
function fieldsOf<W>(declared: object, word: W, skip: readonly string[] = []): string {
  const parts: string[] = [];
  for (const [name, field] of Object.entries(declared) as [string, unknown][]) {
    if (typeof field !== 'object' || field === null || skip.includes(name)) continue;
    const value = (field as BitReader<W>).get(word);
    if (Number(value) === 0) continue;
    parts.push(`${name}=${value > 9 ? `0x${value.toString(16)}` : value}`);
  }
  return parts.join(' ');
}

function wordsOf(bytes: Uint8Array, count: number, size = count): Uint32Array {
  const words = new Uint32Array(size);
  for (let i = 0; i < count; i++) words[i] = u32At(bytes, i * 4);
  return words;
}

function command(words: Uint32Array): string {
  const op = CMD.OP.get(words);
  const name = COMMAND_NAMES[op] ?? `opcode 0x${op.toString(16)}`;
  const fields = fieldsOf(commandFields(op), words, ['OP']);
  return fields === '' ? name : `${name} ${fields}`;
}

function commandFields(op: number): object {
  if (op < 0x10) return CMD_CFGI;
  if (op < CMD_ATC_INV) return CMD_TLBI;
  if (op === CMD_ATC_INV) return CMD_ATC;
  if (op === CMD_PRI_RESP) return CMD_PRI;
  if (op === CMD_RESUME || op === CMD_STALL_TERM) return CMD_STALL;
  return op === CMD_SYNC ? CMD_SYNC_FIELDS : CMD;
}

function event(words: Uint32Array): string {
  const id = EVENT.ID.get(words);
  return `${EVENT_NAMES[id] ?? `event 0x${id.toString(16)}`} ${fieldsOf(EVENT, words, ['ID'])}`.trim();
}

function idRegisters(idr: readonly number[]): string {
  const told: [string, object, number][] = [
    ['IDR0', IDR0, idr[0]!],
    ['IDR1', IDR1, idr[1]!],
    ['IDR3', IDR3, idr[3]!],
    ['IDR5', IDR5, idr[5]!],
  ];
  return told
    .filter(([, , word]) => word !== 0)
    .map(([name, register, word]) => `${name}: ${fieldsOf(register, word)}`)
    .join('; ');
}

/** The chain after a GET_INFO; the bytes may be anybody's, so each step is checked and there are few. */
function capabilities(bytes: Uint8Array): string | undefined {
  const parts: string[] = [];
  let at = VfioIommuType1Info.decode(bytes).capOffset;
  for (let n = 0; at !== 0 && n < MAX_TOLD; n++) {
    if (at + VfioInfoCapHeader.size > bytes.byteLength) break;
    const { id, next } = VfioInfoCapHeader.decode(bytes, at);
    parts.push(capability(bytes, at, id));
    at = next;
  }
  return parts.length === 0 ? undefined : parts.join('; ');
}

function capability(bytes: Uint8Array, at: number, id: number): string {
  const room = bytes.byteLength - at;
  if (id === VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL && room >= VfioIommuType1InfoDmaAvail.size)
    return `DMA_AVAIL ${VfioIommuType1InfoDmaAvail.decode(bytes, at).avail}`;
  if (id !== VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE || room < VfioIommuType1InfoCapIovaRange.size)
    return `capability ${id}`;
  const { nrIovas } = VfioIommuType1InfoCapIovaRange.decode(bytes, at);
  const first = at + VfioIommuType1InfoCapIovaRange.size;
  const count = Math.min(nrIovas, MAX_TOLD, Math.floor((bytes.byteLength - first) / VfioIovaRange.size));
  const ranges = Array.from({ length: Math.max(0, count) }, (_, i) => {
    const { start, end } = VfioIovaRange.decode(bytes, first + i * VfioIovaRange.size);
    return `0x${start.toString(16)}..0x${end.toString(16)}`;
  });
  return `IOVA_RANGE ${ranges.join(' ')}`.trim();
}
