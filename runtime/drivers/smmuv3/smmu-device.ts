/**
 * One SMMU in the hands of the core thread: its command queue with the batch that collects for it, its ID
 * spaces, and the few commands that everything else is made of (Linux: struct arm_smmu_device).
 */

import { type BugSwitches, NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import {
  CMD_TLBI_EL2_ASID,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_S12_VMALL,
  COMMAND_WORDS,
  encodeAtcInv,
  encodeCfgiCd,
  encodeCfgiSte,
  encodeTlbi,
} from '../../../hw/smmuv3/command.js';
import { ANY_SSID, ATC_INV_ALL } from './atc.js';
import { CommandBatch } from './batch.js';
import type { CommandQueue } from './cmdq.js';
import type { SmmuFeatures } from './features.js';
import type { OnAllocateTag } from './tags.js';
import { TagAllocator } from './tags.js';

export interface SmmuDeviceOptions {
  readonly index: number;
  readonly name: string;
  readonly features: SmmuFeatures;
  readonly queue: CommandQueue;
  readonly onAllocate?: OnAllocateTag | undefined;
  /** Deliberate defect: invalidations of a domain carry another VMID. */
  readonly wrongVmid?: boolean;
  /** Deliberate defects: ATCs are never invalidated, or before the SMMU's own caches. */
  readonly skipAtcInv?: boolean;
  readonly atcBeforeTlbi?: boolean;
  /** Of the zoo. Default: none. */
  readonly bugs?: BugSwitches;
}

export class SmmuDevice {
  readonly index: number;
  readonly name: string;
  readonly features: SmmuFeatures;
  readonly queue: CommandQueue;
  /** Empty between calls: every user sends what it has put in. */
  readonly batch: CommandBatch;
  readonly asids: TagAllocator;
  readonly vmids: TagAllocator;
  readonly wrongVmid: boolean;
  readonly skipAtcInv: boolean;
  readonly atcBeforeTlbi: boolean;
  readonly bugs: BugSwitches;

  constructor(options: SmmuDeviceOptions) {
    this.index = options.index;
    this.name = options.name;
    this.features = options.features;
    this.queue = options.queue;
    this.batch = new CommandBatch(options.queue);
    this.asids = new TagAllocator(options.index, 'asid', options.features.asidBits, options.onAllocate);
    this.vmids = new TagAllocator(options.index, 'vmid', options.features.vmidBits, options.onAllocate);
    this.wrongVmid = options.wrongVmid ?? false;
    this.skipAtcInv = options.skipAtcInv ?? false;
    this.atcBeforeTlbi = options.atcBeforeTlbi ?? false;
    this.bugs = options.bugs ?? NO_BUGS;
  }

  /** One command and a SYNC. @returns 0 | -ETIMEDOUT */
  issueSync(encode: (words: Uint32Array, at: number) => void): number {
    this.batch.add(encode);
    return this.batch.sync();
  }

  /** @param leaf false: the level-1 descriptor changed too */
  invalidateSte(sid: number, leaf: boolean): number {
    return this.issueSync((words, at) => encodeCfgiSte(words, at, sid, leaf));
  }

  /** @param leaf false: the level-1 descriptor changed too */
  invalidateCd(sid: number, ssid: number, leaf = true): number {
    return this.issueSync((words, at) => encodeCfgiCd(words, at, sid, ssid, leaf));
  }

  /** Everything under an ASID of the host's own stage 1 (VMID 0, or the EL2-E2H regime). */
  flushAsid(asid: number): number {
    const opcode = this.features.e2h ? CMD_TLBI_EL2_ASID : CMD_TLBI_NH_ASID;
    const encode = (words: Uint32Array, at: number) => encodeTlbi(words, at, opcode, 0, asid);
    return this.bugs['asid-freed-before-flush'] ? this.issue(encode) : this.issueSync(encode);
  }

  /** All that a device's ATC holds, or all of one substream. */
  invalidateAtc(sid: number, ssid = ANY_SSID): number {
    return this.issueSync((words, at) => encodeAtcInv(words, at, sid, ssid, 0, ATC_INV_ALL));
  }

  /** A command whose effect nobody waits for: an answer to a stall or a page request. */
  issue(encode: (words: Uint32Array, at: number) => void): number {
    const command = new Uint32Array(COMMAND_WORDS);
    encode(command, 0);
    return this.queue.issue(command, 1, false);
  }

  /** Everything under a VMID, of either stage. */
  flushVmid(vmid: number): number {
    const encode = (words: Uint32Array, at: number) => encodeTlbi(words, at, CMD_TLBI_S12_VMALL, vmid, 0);
    return this.bugs['vmid-freed-before-flush'] ? this.issue(encode) : this.issueSync(encode);
  }
}
