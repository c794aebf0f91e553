/**
 * Hostile traffic: what a broken or malicious device sends, each with the one answer that it has to get. Page
 * requests have an answer of their own, which comes later: nobody here handles them, so the driver refuses.
 */
import { XLAT_FLAG_ATS, XLAT_FLAG_TRANSLATED } from '../../../hw/iotlb/port-layout.js';
import type { MachineMemory } from '../../../hw/memory/machine-memory.js';
import type { DmaPort } from '../../../hw/pci/dma-port.js';
import {
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  F_BAD_ATS_TREQ,
  F_PERMISSION,
  F_TRANSL_FORBIDDEN,
  F_TRANSLATION,
} from '../../../hw/smmuv3/event.js';
import type { Shadow } from '../checker/shadow.js';
import { KIND_WRONG_PAGE_RESPONSE, V } from '../checker/shadow-layout.js';
import { bump } from '../counters.js';
import type { Random } from '../random.js';
import { DeviceStats } from '../stress-layout.js';
import type { DmaBatch } from './dma-batch.js';

export interface HostileArgs {
  /** Index in the machine. */
  readonly device: number;
  /** A page that is always mapped, and only readable. */
  readonly readOnlyPage: number;
  /** A page that is never mapped. */
  readonly holePage: number;
  /** A stream that no stream table has. */
  readonly badSid: number;
}

/** No stream of ours has substreams. */
const PASIDS = 2 ** 20;
const PAGE_REQUEST_GROUPS = 512;
/** What page requests answer to, as a number for a record. */
const RESPONSES = ['none', 'waiting', 'success', 'invalid', 'failure'];

export class Hostile {
  readonly #memory: MachineMemory;
  readonly #port: DmaPort;
  readonly #shadow: Shadow;
  readonly #random: Random;
  readonly #args: HostileArgs;
  readonly #stats: number;
  /** Page request group that is waited for, -1 for none; and the page it asked for. */
  #group = -1;
  #groups = 0;

  /** @param stats  base of this device's DeviceStats */
  constructor(
    memory: MachineMemory,
    port: DmaPort,
    shadow: Shadow,
    random: Random,
    args: HostileArgs,
    stats: number,
  ) {
    this.#memory = memory;
    this.#port = port;
    this.#shadow = shadow;
    this.#random = random;
    this.#args = args;
    this.#stats = stats;
  }

  /** One transaction more in a batch that has room, or a page request. */
  add(batch: DmaBatch): void {
    const { readOnlyPage, holePage, badSid } = this.#args;
    const write = this.#random.chance(50);
    switch (this.#random.below(6)) {
      case 0:
        batch.add(holePage, write, F_TRANSLATION);
        break;
      case 1:
        batch.add(readOnlyPage, true, F_PERMISSION);
        break;
      case 2:
        batch.add(holePage, false, C_BAD_STREAMID, { sid: badSid });
        break;
      case 3:
        batch.add(readOnlyPage, write, C_BAD_SUBSTREAMID, { ssid: this.#random.below(PASIDS) });
        break;
      default:
        // A device that may use ATS is trusted with addresses: it can send any.
        if (this.#port.ats.enabled) this.#askForPage();
        else if (write) batch.add(readOnlyPage, true, F_TRANSL_FORBIDDEN, { kind: XLAT_FLAG_TRANSLATED });
        else batch.add(readOnlyPage, false, F_BAD_ATS_TREQ, { kind: XLAT_FLAG_ATS });
    }
  }

  #askForPage(): void {
    if (!this.#port.ats.pageRequests || !this.#answered()) return;
    this.#groups = (this.#groups + 1) % PAGE_REQUEST_GROUPS;
    const iova = BigInt(this.#args.holePage) << 12n;
    if (this.#port.pageRequest({ group: this.#groups, iova, write: true }) !== 0) return;
    this.#group = this.#groups;
    bump(this.#memory, this.#stats + DeviceStats.at.pageRequests);
  }

  /** @returns whether no answer is outstanding */
  #answered(): boolean {
    if (this.#group < 0) return true;
    const response = this.#port.pageResponse(this.#group);
    if (response === 'waiting') return false;
    bump(this.#memory, this.#stats + DeviceStats.at.faultChecks);
    if (response !== 'failure') this.#note(response);
    this.#group = -1;
    return true;
  }

  #note(response: string): void {
    const record = this.#shadow.claimViolation();
    if (record < 0) return;
    const { i32 } = this.#memory;
    i32.fill(0, record + 1, record + 32);
    i32[record + V.kind] = KIND_WRONG_PAGE_RESPONSE;
    i32[record + V.device] = this.#args.device;
    i32[record + V.sid] = this.#port.streamId;
    i32[record + V.iovaLow] = this.#args.holePage << 12;
    i32[record + V.iovaHigh] = this.#args.holePage >>> 20;
    i32[record + V.found] = RESPONSES.indexOf(response);
    i32[record + V.vm] = -1;
    this.#shadow.publishViolation(record);
  }
}

/** Of V.found in a record of KIND_WRONG_PAGE_RESPONSE. */
export const pageResponseName = (found: number): string => RESPONSES[found] ?? 'unknown';
