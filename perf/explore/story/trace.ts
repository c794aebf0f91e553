/**
 * A recorded schedule as Trace Event Format JSON, for Perfetto (ui.perfetto.dev) and chrome://tracing: a track a thread,
 * slices for functions (one lasts while other threads run, too), instants for accesses and notes. A step is a
 * microsecond.
 */
import type { Recording } from '../session.js';
import { frameOf, type Story } from './story.js';

const PID = 1;

interface OpenSlice {
  readonly name: string;
  readonly at: string;
  readonly startUs: number;
}

/** @returns the text of the file */
export function traceOf(story: Story, { steps }: Recording): string {
  const events: unknown[] = [
    { ph: 'M', pid: PID, name: 'process_name', args: { name: `iommufd explore ${story.scenario}` } },
  ];
  story.threads.forEach((name, thread) => {
    const tid = thread + 1;
    events.push({ ph: 'M', pid: PID, tid, name: 'thread_name', args: { name } });
    events.push({ ph: 'M', pid: PID, tid, name: 'thread_sort_index', args: { sort_index: tid } });
    const open: OpenSlice[] = [];
    let lastUs = 0;
    const closeTo = (depth: number): void => {
      while (open.length > depth) {
        const { name: what, at, startUs } = open.pop()!;
        events.push({ ph: 'X', pid: PID, tid, ts: startUs, dur: lastUs - startUs, name: what, args: { at } });
      }
    };
    for (const { step, thread: who, stack } of steps) {
      if (who !== thread || stack.length === 0) continue;
      const frames = stack.map(frameOf).reverse();
      let same = 0;
      while (same < open.length && same < frames.length && open[same]!.name === frames[same]!.name) same++;
      closeTo(same);
      for (const { name: what, at } of frames.slice(same)) open.push({ name: what, at, startUs: step });
      lastUs = step + 1;
    }
    closeTo(0);
    for (const { thread: who, first, accesses, note } of story.rows) {
      if (who !== name) continue;
      if (note !== undefined) events.push(instant(tid, first, note, 'note', {}));
      for (const { step, text, in: inside, at } of accesses)
        events.push(instant(tid, step, text, 'access', { step, in: inside, at }));
    }
  });
  if (story.violation !== null) {
    const { invariant, thread, detail } = story.violation;
    const tid = story.threads.indexOf(thread) + 1;
    const ts = (story.rows.at(-1)?.last ?? 0) + 1;
    events.push({ ph: 'i', s: 'p', pid: PID, tid, ts, name: invariant, cat: 'violation', args: { detail } });
  }
  const lines = events.map((event) => JSON.stringify(event));
  return `{"displayTimeUnit":"ns","traceEvents":[\n${lines.join(',\n')}\n]}\n`;
}

/** In the middle of its step, so that it lies in its slice. */
const instant = (
  tid: number,
  step: number,
  name: string,
  cat: string,
  args: Readonly<Record<string, string | number>>,
) => ({ ph: 'i', s: 't', pid: PID, tid, ts: step + 0.5, name, cat, args });
