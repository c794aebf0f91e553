/**
 * What happened in a recorded schedule, in words: rows in the order of their steps, each a few accesses that one thread
 * made in one function with nobody in between; notes; and at the end what was wrong.
 */
import { OP_FLUSH } from '../engine/control.js';
import type { RecordedNote, RecordedStep } from '../engine/messages.js';
import {
  OP_LOAD,
  OP_NOTIFY,
  OP_RMW,
  OP_STORE,
  OP_WAIT,
  type ViolationRecord,
} from '../engine/thread-scheduler.js';
import type { Recording } from '../session.js';
import type { PlaceNames } from './places.js';

/** Where a function of the compiled kernel is that has no name. */
const KERNEL = 'kernel.wasm';

/** One access, in words. */
export interface StoryAccess {
  readonly step: number;
  /** `head: 0 -> 1` */
  readonly text: string;
  /** Innermost function, and its file and line. */
  readonly in: string;
  readonly at: string;
}

/** Accesses in a row of one thread, in one function. */
export interface StoryRow {
  readonly thread: string;
  readonly first: number;
  readonly last: number;
  /** The function: of hw/sync the one that was called, and by whom. Absent for notes. */
  readonly function?: string;
  readonly accesses: readonly StoryAccess[];
  readonly note?: string;
}

/** What happened, for people: renderStory() prints it. */
export interface Story {
  readonly scenario: string;
  readonly threads: readonly string[];
  readonly rows: readonly StoryRow[];
  readonly violation: ViolationRecord | null;
}

export interface Frame {
  readonly name: string;
  /** `hw/sync/mutex.js:46` */
  readonly at: string;
}

export function tellStory(
  scenario: string,
  threads: readonly string[],
  { steps, notes }: Recording,
  violation: ViolationRecord | null,
  nameOf: PlaceNames,
): Story {
  const rows: { -readonly [K in keyof StoryRow]: StoryRow[K] }[] = [];
  const events = [...steps, ...notes].sort(
    (a, b) => a.step - b.step || Number('text' in a) - Number('text' in b),
  );
  for (const event of events) {
    const thread = threads[event.thread] ?? String(event.thread);
    if (isNote(event)) {
      rows.push({ thread, first: event.step, last: event.step, accesses: [], note: event.text });
      continue;
    }
    const frames = event.stack.map(frameOf).filter(isTold);
    const called = event.op === OP_FLUSH ? 'store buffer' : calledFunction(frames);
    const access: StoryAccess = {
      step: event.step,
      text: accessText(event, nameOf),
      in: frames[0]?.name ?? '',
      at: frames[0]?.at ?? '',
    };
    const last = rows.at(-1);
    if (last?.function === called && last.thread === thread) {
      last.last = event.step;
      last.accesses = [...last.accesses, access];
    } else rows.push({ thread, first: event.step, last: event.step, function: called, accesses: [access] });
  }
  return { scenario, threads, rows, violation: violation && withNames(violation, nameOf) };
}

const isNote = (event: RecordedStep | RecordedNote): event is RecordedNote => 'text' in event;

/**
 * `Mutex.lock (hw/sync/mutex.js:46:19)`, or without a function's name; of the compiled kernel
 * `hw/kernel/assembly/iotlb/find (wasm://wasm/...)`, whose names do not say the line.
 */
export function frameOf(text: string): Frame {
  if (text.includes('wasm://')) {
    const [, file, name = 'kernel'] = /^(\S+)\/(\S+) \(wasm:/.exec(text) ?? [];
    return { name, at: file === undefined ? KERNEL : `${file}.ts` };
  }
  const [, name = '', place = text] = /^(.*?) ?\(?([^( ]*:\d+):\d+\)?$/.exec(text) ?? [];
  const at = place.replace(/^file:\/\//, '');
  return {
    name: name.replace(/^(Object|new)[. ]/, '').replace(/ \[as .*\]$/, '') || `at ${at.split('/').at(-1)}`,
    at,
  };
}

/** Methods that only wrap an access to a word of their object. */
const isTold = ({ name }: Frame, depth: number): boolean =>
  depth > 0 || !/^#?(load|store|add|read|write)(32|64)?$/.test(name);

/**
 * A primitive is told as a whole, by what was called of it, and with its caller. A function of the compiled kernel is
 * told with the one that the kernel was entered by.
 */
function calledFunction(frames: readonly Frame[]): string {
  const inside = frames.findIndex(({ at }) => !at.startsWith('hw/sync/'));
  const caller = frames[inside === -1 ? frames.length - 1 : inside]?.name ?? '';
  if (inside > 0) return `${frames[inside - 1]!.name} < ${caller}`;
  const outside = frames.findIndex((frame) => !isKernel(frame));
  const entry = frames.at(outside === -1 ? -1 : outside - 1);
  return outside === 0 || entry === undefined || entry.name === caller ? caller : `${caller} < ${entry.name}`;
}

const isKernel = ({ at }: Frame): boolean => at === KERNEL || at.startsWith('hw/kernel/assembly/');

function accessText(
  { op, offset, before, after, kept, slept, woken }: RecordedStep,
  nameOf: PlaceNames,
): string {
  const place = nameOf(offset);
  const now = value(after ?? before);
  switch (op) {
    case OP_LOAD:
      return `${place} is ${value(before)}`;
    case OP_STORE:
      return kept === true ? `${place} := ${now}, in its store buffer` : `${place} := ${now}`;
    case OP_RMW:
      return after === before ? `${place} stays ${now}` : `${place}: ${value(before)} -> ${now}`;
    case OP_WAIT:
      return slept === false
        ? `sleeps not: ${place} is ${value(before)}`
        : `sleeps on ${place} = ${value(before)}`;
    case OP_NOTIFY:
      return `wakes ${woken ?? 0} on ${place}`;
    case OP_FLUSH:
      return `shows ${place} := ${now}`;
    default:
      return place;
  }
}

/** Small numbers as such; others are addresses or flags. */
const value = (word: number): string =>
  Math.abs(word) < 4096 ? String(word) : `0x${(word >>> 0).toString(16)}`;

/** Where somebody sleeps, by name. */
function withNames(violation: ViolationRecord, nameOf: PlaceNames): ViolationRecord {
  const detail = violation.detail.replace(
    /sleeps on 0x([0-9a-f]+)/g,
    (_, digits: string) => `sleeps on ${nameOf(Number.parseInt(digits, 16))}`,
  );
  return { ...violation, detail };
}
