/**
 * A run's timelines as Trace Event Format JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open: a
 * track a thread, and one more for each SMMU's SYNCs, which wait while the thread goes on. Arrows lead from a
 * DMA batch to the walk it caused, to the invalidation that ended what the walk had made, to its SYNC.
 *
 * Rings keep the last events of each thread, and busy threads forget sooner. The file begins where all of them
 * still remember, so that no arrow comes out of nowhere.
 */
import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { COMMAND_NAMES } from '../../hw/smmuv3/command.js';
import { Timeline, type TimelineEvent } from '../../hw/timeline/timeline.js';
import { smmuTrack } from '../../hw/timeline/timeline-layout.js';
import type { Machine } from '../../runtime/machine.js';
import { errnoName } from '../../uapi/abi/errno.js';
import * as uapi from '../../uapi/index.js';
import { commandText } from './checker/consumed-command.js';
import {
  CORE_TRACK,
  deviceTrack,
  guestTrack,
  TIMELINE_GUEST_BALLOON,
  TIMELINE_GUEST_MAP,
  TIMELINE_GUEST_UNMAP,
} from './timeline.js';
import { chainsOf, type Slice, type SmmuTrack, smmuTrackOf } from './timeline-causes.js';
import type { TraceSummary } from './types.js';

/** Arrows in a file: more are slow to draw, and nobody follows them. */
const MAX_FLOWS = 20_000;
const CHUNK_CHARS = 2 ** 20;
const PID = 1;

/** Something on a track, ready to be told. */
interface Told extends Slice {
  readonly name: string;
  readonly category: string;
  readonly args: Readonly<Record<string, string | number>>;
}

interface FlowPoint {
  readonly atNs: number;
  readonly id: number;
  readonly phase: 's' | 't' | 'f';
}

interface Track {
  readonly name: string;
  readonly slices: readonly Told[];
  readonly flows: FlowPoint[];
}

/** When all threads have stopped. @returns null where the machine has no timelines */
export function writeTimelines(file: string, machine: Machine, guests: number): TraceSummary | null {
  try {
    return write(file, machine, guests);
  } catch (error) {
    // A disk that is full takes no run's results with it.
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    return { file: resolve(file), bytes: 0, events: 0, flows: 0, windowMs: 0, problem: code };
  }
}

function write(file: string, machine: Machine, guests: number): TraceSummary | null {
  const { memory, env, config, iommus } = machine;
  const attach = (track: string) => Timeline.attach(memory, track, env.clock);
  const core = attach(CORE_TRACK);
  if (core === null) return null;
  const names = [
    CORE_TRACK,
    ...iommus.map(({ index }) => smmuTrack(index)),
    ...config.devices.map((_, n) => deviceTrack(n)),
    ...Array.from({ length: guests }, (_, n) => guestTrack(n)),
  ];
  const lines = new Map(names.map((name) => [name, attach(name)!]));
  const beginNs = beginning([...lines.values()]);
  const eventsOf = (track: string): TimelineEvent[] =>
    [...lines.get(track)!.events()].filter(({ startNs }) => startNs >= beginNs);

  const tracks: Track[] = [{ name: 'core', slices: eventsOf(CORE_TRACK).map(ioctlSlice), flows: [] }];
  const devices = config.devices.map(
    ({ label }, n): Track => ({
      name: `device ${label}`,
      slices: eventsOf(deviceTrack(n)).map(dmaSlice),
      flows: [],
    }),
  );
  let flowId = 0;
  const share = Math.ceil(MAX_FLOWS / iommus.length);
  for (const { index, name } of iommus) {
    const track = smmuTrackOf(eventsOf(smmuTrack(index)));
    const work: Track = { name: `pIOMMU ${name}`, slices: smmuSlices(track), flows: [] };
    const waits: Track = { name: `pIOMMU ${name}: SYNC under way`, slices: syncSlices(track), flows: [] };
    tracks.push(work, waits);
    const bySid = new Map<number, Track>();
    config.devices.forEach(({ iommuIndex, sid }, n) => {
      if (iommuIndex === index) bySid.set(sid >>> 0, devices[n]!);
    });
    for (const { dma, serve, walk, invalidation, sync } of chainsOf(
      track,
      (sid) => bySid.get(sid)?.slices ?? [],
      share,
    )) {
      const id = ++flowId;
      // Each point lies in its slice: that is how a viewer finds what to join.
      bySid.get(walk.sid)!.flows.push({ atNs: dma.startNs, id, phase: 's' });
      work.flows.push({ atNs: serve.startNs, id, phase: 't' });
      work.flows.push({ atNs: invalidation.startNs, id, phase: 't' });
      waits.flows.push({ atNs: sync.startNs, id, phase: 'f' });
    }
  }
  tracks.push(...devices);
  for (let vm = 0; vm < guests; vm++)
    tracks.push({ name: `guest ${vm}`, slices: eventsOf(guestTrack(vm)).map(guestSlice), flows: [] });

  const events = tracks.reduce((sum, { slices }) => sum + slices.length, 0);
  const endNs = tracks.reduce(
    (last, { slices }) => slices.reduce((at, slice) => Math.max(at, slice.endNs), last),
    beginNs,
  );
  const counts = { events, flows: flowId, windowMs: (endNs - beginNs) / 1e6 };
  const bytes = writeWholeBy(file, (put) => {
    put(
      `{"displayTimeUnit":"ns","otherData":${JSON.stringify({ ...counts, keptOfEachThread: core.capacity })},"traceEvents":[\n` +
        JSON.stringify({ ph: 'M', pid: PID, name: 'process_name', args: { name: 'iommufd stress' } }),
    );
    for (const [n, track] of tracks.entries()) writeTrack(put, track, n + 1, beginNs);
    put('\n]}\n');
  });
  return { file: resolve(file), bytes, ...counts, problem: null };
}

/** Since when every ring has everything: the first event of the one that lost most. Else since any began. */
function beginning(lines: readonly Timeline[]): number {
  let first = Number.POSITIVE_INFINITY;
  let complete = 0;
  for (const line of lines) {
    const oldest = line.oldestNs();
    if (oldest === null) continue;
    first = Math.min(first, oldest);
    if (line.wrapped) complete = Math.max(complete, oldest);
  }
  return complete > 0 ? complete : Number.isFinite(first) ? first : 0;
}

function writeTrack(
  write: (text: string) => void,
  { name, slices, flows }: Track,
  tid: number,
  beginNs: number,
): void {
  write(`,\n${JSON.stringify({ ph: 'M', pid: PID, tid, name: 'thread_name', args: { name } })}`);
  write(
    `,\n${JSON.stringify({ ph: 'M', pid: PID, tid, name: 'thread_sort_index', args: { sort_index: tid } })}`,
  );
  const ts = (ns: number) => Number(((ns - beginNs) / 1000).toFixed(3));
  const ordered = [...slices].sort((a, b) => a.startNs - b.startNs);
  flows.sort((a, b) => a.atNs - b.atNs || a.id - b.id);
  let flow = 0;
  const flowsUpTo = (ns: number): void => {
    for (; flow < flows.length && flows[flow]!.atNs < ns; flow++) {
      const { atNs, id, phase } = flows[flow]!;
      const bound = phase === 'f' ? ',"bp":"e"' : '';
      write(
        `,\n{"ph":"${phase}","pid":${PID},"tid":${tid},"ts":${ts(atNs)},"id":${id},"name":"translation","cat":"flow"${bound}}`,
      );
    }
  };
  for (const { name: what, category, startNs, endNs, args } of ordered) {
    flowsUpTo(startNs);
    write(
      `,\n${JSON.stringify({ ph: 'X', pid: PID, tid, ts: ts(startNs), dur: Number(((endNs - startNs) / 1000).toFixed(3)), name: what, cat: category, args })}`,
    );
  }
  flowsUpTo(Number.POSITIVE_INFINITY);
}

/** Replaces a file whole or not at all, without holding it in memory. @returns its size */
function writeWholeBy(file: string, body: (write: (text: string) => void) => void): number {
  const path = resolve(file);
  const partial = `${path}.${process.pid}`;
  let bytes = 0;
  try {
    const fd = openSync(partial, 'w');
    try {
      let chunk = '';
      const flush = (): void => {
        bytes += writeSync(fd, chunk);
        chunk = '';
      };
      body((text) => {
        chunk += text;
        if (chunk.length > CHUNK_CHARS) flush();
      });
      flush();
    } finally {
      closeSync(fd);
    }
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
  return bytes;
}

const hex = (n: number): string => `0x${n.toString(16)}`;

const IOCTL_TYPE = ';'.charCodeAt(0);
/** By number, of those that a run uses. `_IO(type, nr)` has the type in bits 15 to 8; flags are smaller. */
const IOCTL_NAMES = new Map(
  Object.entries(uapi as Readonly<Record<string, unknown>>)
    .filter(([, value]) => typeof value === 'number' && value >>> 8 === IOCTL_TYPE)
    .map(([name, value]) => [value as number, name] as const),
);

function ioctlSlice({ startNs, durationNs, args }: TimelineEvent): Told {
  const [cmd, vfioFile, result, index] = args as unknown as [number, number, number, number];
  const status = result | 0;
  return {
    startNs,
    endNs: startNs + durationNs,
    name: IOCTL_NAMES.get(cmd) ?? `ioctl ${hex(cmd)}`,
    category: 'ioctl',
    args: {
      [vfioFile === 1 ? 'device' : 'file']: index,
      result: status < 0 ? `-${errnoName(-status)}` : status,
    },
  };
}

function dmaSlice({ startNs, durationNs, args }: TimelineEvent): Told {
  const [count, translated, faulted, misses] = args as unknown as [number, number, number, number];
  return {
    startNs,
    endNs: startNs + durationNs,
    name: misses > 0 ? 'DMA batch, misses' : 'DMA batch',
    category: 'dma',
    args: { transactions: count, translated, faulted, misses },
  };
}

function guestSlice({ startNs, durationNs, kind, args }: TimelineEvent): Told {
  const base = { startNs, endNs: startNs + durationNs, category: 'guest' };
  const [device, page, pages] = args as unknown as [number, number, number];
  switch (kind) {
    case TIMELINE_GUEST_MAP:
      return { ...base, name: 'map', args: { device, page: hex(page), pages } };
    case TIMELINE_GUEST_UNMAP:
      return { ...base, name: 'unmap, invalidate, SYNC', args: { device, page: hex(page), pages } };
    case TIMELINE_GUEST_BALLOON:
      return { ...base, name: 'balloon', args: { slice: device } };
    default:
      return { ...base, name: `event ${kind}`, args: {} };
  }
}

function smmuSlices({ serves, commands }: SmmuTrack): Told[] {
  return [
    ...serves.map(({ startNs, endNs, requests, faults, sid, walks }) => ({
      startNs,
      endNs,
      name: walks.length === 0 ? 'serve' : 'walk',
      category: 'walk',
      args: {
        stream: hex(sid),
        requests,
        walks: walks.length,
        faults,
        ...(walks.length === 0
          ? {}
          : {
              iovas: walks
                .slice(0, TOLD_WALKS)
                .map(({ iovaPage }) => hex(iovaPage * 4096))
                .join(' '),
            }),
      },
    })),
    ...commands.map(({ startNs, endNs, words, index }) => ({
      startNs,
      endNs,
      name: COMMAND_NAMES[words[0]! & 0xff] ?? `command ${hex(words[0]! & 0xff)}`,
      category: 'command',
      args: { command: commandText({ opcode: words[0]! & 0xff, words }), index: index & 0xfffff },
    })),
  ];
}

/** Walks of a batch whose addresses are told. */
const TOLD_WALKS = 8;

function syncSlices({ syncs }: SmmuTrack): Told[] {
  return syncs.map(({ startNs, endNs, index, seq }) => ({
    startNs,
    endNs,
    name: 'SYNC',
    category: 'sync',
    args: { index: index & 0xfffff, number: seq },
  }));
}
