/**
 * The device's side of page requests. [PCIe] 10.4, [IHI0070] 8: a group of requests goes out, one answer for the
 * group comes back. The device keeps at most PRG_SLOTS groups waiting.
 */
import {
  NO_SSID,
  PortLayout,
  PPR_BYTES,
  PPR_EXECUTE,
  PPR_LAST,
  PPR_PRIVILEGED,
  PPR_READ,
  PPR_RING,
  PPR_WRITE,
  Ppr,
  PRG_ANSWERED,
  PRG_CODE_MASK,
  PRG_CODE_SHIFT,
  PRG_FREE,
  PRG_INDEX_MASK,
  PRG_INDEX_SHIFT,
  PRG_INVALID,
  PRG_SLOTS,
  PRG_STATE_MASK,
  PRG_SUCCESS,
  PRG_WAITING,
} from '../iotlb/port-layout.js';
import { requireAddress } from '../memory/bytes-argument.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import { OP_STORE } from '../sync/words.js';

export interface PageRequest {
  /** Page Request Group Index, 0..511. */
  readonly group: number;
  /** Input address; its page counts. */
  readonly iova: bigint;
  readonly read?: boolean;
  readonly write?: boolean;
  readonly execute?: boolean;
  readonly privileged?: boolean;
  readonly pasid?: number;
  /** The last of its group: the default. */
  readonly last?: boolean;
}

/** What became of a group; `none` when no answer is owed. */
export type PageResponse = 'none' | 'waiting' | 'success' | 'invalid' | 'failure';

const EBUSY = 16;
const EOPNOTSUPP = 95;
const at = PortLayout.at;

export class PageRequester {
  readonly #memory: MachineMemory;
  readonly #base: number;

  /** @param port  base of the device's port */
  constructor(memory: MachineMemory, port: number) {
    this.#memory = memory;
    this.#base = port;
  }

  /**
   * Puts a request on its way; the caller rings the unit's doorbell.
   * @returns 0 | -EOPNOTSUPP the device makes no page requests | -EBUSY too many on their way, or too many groups
   *          waiting, or the group's last answer was not taken
   * @throws RangeError for a group or a PASID out of range | TypeError an iova that is no bigint; nothing is then sent
   */
  request(request: PageRequest): number {
    const { group, iova } = request;
    requireAddress(iova, 'iova');
    const ssid = ssidOf(request.pasid);
    if (!(Number.isInteger(group) && group >= 0 && group <= PRG_INDEX_MASK))
      throw new RangeError(`group is ${group}, not in 0..${PRG_INDEX_MASK}`);
    if (!this.#capable()) return -EOPNOTSUPP;
    if (this.#full()) return -EBUSY;
    const slot = this.#slotFor(group);
    if (slot < 0) return -EBUSY;
    const { words } = this.#memory;
    if ((words.load(slot) & PRG_STATE_MASK) !== PRG_WAITING)
      words.store(slot, PRG_WAITING | (group << PRG_INDEX_SHIFT));
    this.#push(
      iova,
      ((request.read ?? true) ? PPR_READ : 0) |
        (request.write ? PPR_WRITE : 0) |
        (request.execute ? PPR_EXECUTE : 0) |
        (request.privileged ? PPR_PRIVILEGED : 0) |
        ((request.last ?? true) ? PPR_LAST : 0),
      ssid,
      group,
    );
    return 0;
  }

  /**
   * A Stop Marker: no request of this PASID follows. Nobody answers it.
   * @returns as request
   * @throws RangeError for a PASID out of range, or none: without one it would be a request
   */
  stop(pasid: number): number {
    const ssid = requirePasid(pasid);
    if (!this.#capable()) return -EOPNOTSUPP;
    if (this.#full()) return -EBUSY;
    this.#push(0n, PPR_LAST, ssid, 0);
    return 0;
  }

  /** What a group was answered; an answer is told once, and the group is then free. */
  response(group: number): PageResponse {
    const { words } = this.#memory;
    for (let i = 0; i < PRG_SLOTS; i++) {
      const slot = this.#base + at.groups + i * 4;
      const word = words.load(slot);
      const state = word & PRG_STATE_MASK;
      if (state === PRG_FREE || ((word >>> PRG_INDEX_SHIFT) & PRG_INDEX_MASK) !== group) continue;
      if (state === PRG_WAITING) return 'waiting';
      words.store(slot, PRG_FREE);
      const code = (word >>> PRG_CODE_SHIFT) & PRG_CODE_MASK;
      return code === PRG_SUCCESS ? 'success' : code === PRG_INVALID ? 'invalid' : 'failure';
    }
    return 'none';
  }

  /** Gives a group up, as a device that is reset does: an answer that still comes goes nowhere. */
  forget(group: number): void {
    const { words } = this.#memory;
    for (let i = 0; i < PRG_SLOTS; i++) {
      const slot = this.#base + at.groups + i * 4;
      const word = words.load(slot);
      if (((word >>> PRG_INDEX_SHIFT) & PRG_INDEX_MASK) === group) words.store(slot, PRG_FREE);
    }
  }

  #capable(): boolean {
    return this.#memory.words.load(this.#base + at.pri) !== 0;
  }

  #full(): boolean {
    const { words } = this.#memory;
    return (words.load(this.#base + at.pprProd) - words.load(this.#base + at.pprCons)) >>> 0 >= PPR_RING;
  }

  /** The slot of a group that waits, or a free one. @returns its offset, or -1 */
  #slotFor(group: number): number {
    let free = -1;
    for (let i = 0; i < PRG_SLOTS; i++) {
      const slot = this.#base + at.groups + i * 4;
      const word = this.#memory.words.load(slot);
      const state = word & PRG_STATE_MASK;
      if (state === PRG_FREE) {
        if (free < 0) free = slot;
      } else if (((word >>> PRG_INDEX_SHIFT) & PRG_INDEX_MASK) === group) {
        return state === PRG_ANSWERED ? -1 : slot;
      }
    }
    return free;
  }

  #push(iova: bigint, flags: number, ssid: number, group: number): void {
    const { words, u32 } = this.#memory;
    const prod = words.load(this.#base + at.pprProd);
    const ppr = (this.#base + at.ppr + (prod & (PPR_RING - 1)) * PPR_BYTES) >>> 2;
    words.bytes(OP_STORE, ppr * 4);
    u32[ppr + (Ppr.at.iova >> 2)] = Number(iova & 0xffff_ffffn);
    u32[ppr + (Ppr.at.iova >> 2) + 1] = Number((iova >> 32n) & 0xffff_ffffn);
    u32[ppr + (Ppr.at.flags >> 2)] = flags;
    u32[ppr + (Ppr.at.ssid >> 2)] = ssid;
    u32[ppr + (Ppr.at.group >> 2)] = group;
    words.store(this.#base + at.pprProd, (prod + 1) | 0);
  }
}

const PASID_BITS = 20;

/** @throws RangeError for a PASID of more than 20 bits */
export function ssidOf(pasid: number | undefined): number {
  return pasid === undefined ? NO_SSID : requirePasid(pasid);
}

function requirePasid(pasid: number): number {
  if (!(Number.isInteger(pasid) && pasid >= 0 && pasid < 2 ** PASID_BITS))
    throw new RangeError(`pasid is ${pasid}, not in 0..${2 ** PASID_BITS - 1}`);
  return pasid;
}
