/** Writer and reader of a timeline (timeline-layout.ts). A machine without them has none to write to. */
import type { MachineMemory } from '../memory/machine-memory.js';
import type { Clock } from '../sync/thread.js';
import {
  ARGS,
  TIMELINES_KEY,
  TimelineRecord,
  TimelinesLayout,
  timelineKey,
  timelineLayout,
} from './timeline-layout.js';

const WORDS = TimelineRecord.size >>> 2;
const AT_ARGS = TimelineRecord.at.args >>> 2;
const LONGEST = 2 ** 32 - 1;
/** A region's header, and its alignment. */
const SLACK = 256;

export interface TimelineEvent {
  /** Nanoseconds on the clock that all threads share. */
  readonly startNs: number;
  readonly durationNs: number;
  readonly kind: number;
  readonly args: Uint32Array;
}

export class Timeline {
  readonly #u32: Uint32Array;
  readonly #clock: Clock;
  readonly #epochNs: number;
  readonly #count: number;
  readonly #records: number;
  readonly #events: number;

  /**
   * Makes a machine's timelines. Creating thread only, before any other thread attaches.
   * @param events  that each keeps
   */
  static allocRegions(memory: MachineMemory, tracks: readonly string[], events: number): void {
    const { base } = memory.allocRegion(TimelinesLayout, TIMELINES_KEY);
    memory.u32[(base + TimelinesLayout.at.events) >>> 2] = events;
    for (const track of tracks) memory.allocRegion(timelineLayout(events), timelineKey(track));
  }

  /** Bytes that `allocRegions` takes at most. */
  static bytesNeeded(tracks: number, events: number): number {
    return (tracks + 1) * (timelineLayout(events).size + SLACK);
  }

  /** @returns the track's timeline, or null where the machine has none */
  static attach(memory: MachineMemory, track: string, clock: Clock): Timeline | null {
    return memory.hasRegion(timelineKey(track)) ? new Timeline(memory, track, clock) : null;
  }

  private constructor(memory: MachineMemory, track: string, clock: Clock) {
    const { at } = TimelinesLayout;
    const events = memory.u32[(memory.region(TimelinesLayout, TIMELINES_KEY).base + at.events) >>> 2]!;
    const shape = timelineLayout(events);
    const { base } = memory.region(shape, timelineKey(track));
    this.#u32 = memory.u32;
    this.#clock = clock;
    this.#epochNs = clock.epochNs ?? 0;
    this.#count = (base + shape.at.count) >>> 2;
    this.#records = (base + shape.at.records) >>> 2;
    this.#events = events;
  }

  /** Now, ns on the shared clock. */
  nowNs(): number {
    return this.#clock.nowNs() + this.#epochNs;
  }

  /** Records what began at `startNs` and has just ended. */
  record(kind: number, startNs: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0): void {
    this.recordPast(kind, startNs, this.nowNs() - startNs, a, b, c, d, e, f, g, h);
  }

  recordPast(
    kind: number,
    startNs: number,
    durationNs: number,
    a = 0,
    b = 0,
    c = 0,
    d = 0,
    e = 0,
    f = 0,
    g = 0,
    h = 0,
  ): void {
    const u32 = this.#u32;
    const count = u32[this.#count]!;
    const w = this.#records + (count % this.#events) * WORDS;
    const start = Math.floor(startNs);
    u32[w] = start % 2 ** 32;
    u32[w + 1] = Math.floor(start / 2 ** 32);
    u32[w + 2] = Math.min(Math.max(durationNs, 0), LONGEST);
    u32[w + 3] = kind;
    u32[w + AT_ARGS] = a;
    u32[w + AT_ARGS + 1] = b;
    u32[w + AT_ARGS + 2] = c;
    u32[w + AT_ARGS + 3] = d;
    u32[w + AT_ARGS + 4] = e;
    u32[w + AT_ARGS + 5] = f;
    u32[w + AT_ARGS + 6] = g;
    u32[w + AT_ARGS + 7] = h;
    u32[this.#count] = count + 1;
  }

  // ---- reader: when the writer has stopped ----

  /** Events that were recorded, whether or not the ring still has them. */
  get recorded(): number {
    return this.#u32[this.#count]!;
  }

  /** How many it keeps. */
  get capacity(): number {
    return this.#events;
  }

  /** When the first event that it still has began; null when it has none. */
  oldestNs(): number | null {
    const { done, value } = this.events().next();
    return done ? null : value.startNs;
  }

  /** Whether the ring has lost some. */
  get wrapped(): boolean {
    return this.recorded > this.#events;
  }

  /** What the ring has, in the order of recording. */
  *events(): Generator<TimelineEvent> {
    const end = this.recorded;
    for (let n = Math.max(0, end - this.#events); n < end; n++) {
      const w = this.#records + (n % this.#events) * WORDS;
      yield {
        startNs: this.#u32[w]! + this.#u32[w + 1]! * 2 ** 32,
        durationNs: this.#u32[w + 2]!,
        kind: this.#u32[w + 3]!,
        args: this.#u32.slice(w + AT_ARGS, w + AT_ARGS + ARGS),
      };
    }
  }
}
