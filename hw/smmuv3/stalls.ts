/**
 * Stalled transactions. [IHI0070] 3.12.2, 4.7.1, 4.7.2. The device holds the transaction, the SMMU its STAG: an
 * index in a table of STALL_TAGS, and above it a count that makes the tag another one at each use.
 *
 *   FREE --fault, record written--> RECORDED   --RESUME, STALL_TERM, SMMUEN = 0--> FREE, with a verdict
 *   FREE --fault, queue unwritable--> UNRECORDED --queue writable again--> FREE, verdict: retry
 *
 * A transaction whose record could not be written arrives anew when the queue takes records again (7.2.1): it then
 * faults, and is recorded, under the configuration of that moment. A verdict is a word in the port of the device,
 * which sends the transaction again or ends it.
 */
import {
  PortLayout,
  STALL_TAGS,
  VERDICT_ABORT,
  VERDICT_RAZ_WI,
  VERDICT_RETRY,
} from '../iotlb/port-layout.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import {
  Smmuv3Layout,
  STALL_BYTES,
  STALL_FREE,
  STALL_RECORDED,
  STALL_UNRECORDED,
  StallEntry,
} from './smmuv3-layout.js';

const at = Smmuv3Layout.at;
const entry = StallEntry.at;
const INDEX_BITS = Math.log2(STALL_TAGS);
const VERDICT_BITS = 8;

export class Stalls {
  readonly #memory: MachineMemory;
  readonly #base: number;

  constructor(memory: MachineMemory, smmu: number) {
    this.#memory = memory;
    this.#base = smmu;
  }

  /** Whether some wait for the Event queue. */
  get unrecorded(): number {
    return this.#memory.words.load(this.#base + at.stallsUnrecorded);
  }

  /**
   * @param port      base of the port of the device that waits
   * @param recorded  whether an event will tell of it
   * @returns the STAG, or -1 when no more can be outstanding
   */
  hold(port: number, sid: number, recorded: boolean): number {
    const { words, u32 } = this.#memory;
    if (words.load(this.#base + at.stallsHeld) >= STALL_TAGS) return -1;
    let index = words.load(this.#base + at.stallNext) % STALL_TAGS;
    while (u32[(this.#entry(index) + entry.state) >> 2] !== STALL_FREE) index = (index + 1) % STALL_TAGS;
    words.store(this.#base + at.stallNext, (index + 1) % STALL_TAGS);
    const e = this.#entry(index);
    const uses = ((u32[(e + entry.stag) >> 2]! >>> INDEX_BITS) + 1) & (0xffff >>> INDEX_BITS);
    const stag = (uses << INDEX_BITS) | index;
    words.store(e + entry.stag, stag);
    words.store(e + entry.sid, sid | 0);
    words.store(e + entry.port, port);
    words.store(e + entry.state, recorded ? STALL_RECORDED : STALL_UNRECORDED);
    words.add(this.#base + at.stallsHeld, 1);
    if (!recorded) words.add(this.#base + at.stallsUnrecorded, 1);
    return stag;
  }

  /** CMD_RESUME. A pair that software was not told of has no effect. */
  resume(sid: number, stag: number, retry: boolean, abort: boolean): void {
    const e = this.#entry(stag % STALL_TAGS);
    const { words } = this.#memory;
    if (
      words.load(e + entry.state) !== STALL_RECORDED ||
      words.load(e + entry.stag) !== stag ||
      words.load(e + entry.sid) >>> 0 !== sid
    )
      return;
    this.#decide(e, retry ? VERDICT_RETRY : abort ? VERDICT_ABORT : VERDICT_RAZ_WI);
  }

  /** CMD_STALL_TERM. */
  terminateStream(sid: number): void {
    this.#each((e) => {
      if (this.#memory.words.load(e + entry.sid) >>> 0 === sid) this.#decide(e, VERDICT_ABORT);
    });
  }

  /** SMMUEN was cleared (6.3.9.6), or the SMMU is reset. */
  terminateAll(): void {
    this.#each((e) => this.#decide(e, VERDICT_ABORT));
  }

  /** The Event queue takes records again. */
  retryUnrecorded(): void {
    this.#each((e) => {
      if (this.#memory.words.load(e + entry.state) === STALL_UNRECORDED) this.#decide(e, VERDICT_RETRY);
    });
  }

  #entry(index: number): number {
    return this.#base + at.stalls + index * STALL_BYTES;
  }

  #each(visit: (e: number) => void): void {
    const { words } = this.#memory;
    if (words.load(this.#base + at.stallsHeld) === 0) return;
    for (let i = 0; i < STALL_TAGS; i++) {
      const e = this.#entry(i);
      if (words.load(e + entry.state) !== STALL_FREE) visit(e);
    }
  }

  #decide(e: number, verdict: number): void {
    const { words } = this.#memory;
    if (words.load(e + entry.state) === STALL_UNRECORDED) words.sub(this.#base + at.stallsUnrecorded, 1);
    words.store(e + entry.state, STALL_FREE);
    words.sub(this.#base + at.stallsHeld, 1);
    const port = words.load(e + entry.port) >>> 0;
    const stag = words.load(e + entry.stag);
    words.store(port + PortLayout.at.verdicts + (stag % STALL_TAGS) * 4, (stag << VERDICT_BITS) | verdict);
    wakeDevice(this.#memory, port);
  }
}

/** The device may be parked on its port: what it waits for is visible. */
export function wakeDevice({ words }: MachineMemory, port: number): void {
  words.add(port + PortLayout.at.answered, 1);
  if (words.load(port + PortLayout.at.parked) !== 0)
    words.notify(port + PortLayout.at.answered, Number.POSITIVE_INFINITY);
}
