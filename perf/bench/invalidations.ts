/**
 * How long an invalidation takes from the caller's thread to the SMMU's worker and back, on a machine where
 * nothing else goes on: the host driver's TLBI + SYNC, and a guest's IOMMU_HWPT_INVALIDATE, which is made on
 * the guest's own thread, past the core.
 */
import { CMD_TLBI_NH_VA, COMMAND_BYTES, COMMAND_WORDS, encodeTlbiAddress } from '../../hw/smmuv3/command.js';
import { rest } from '../../hw/sync/wait.js';
import { CommandQueue } from '../../runtime/drivers/smmuv3/cmdq.js';
import { smmuAccess } from '../../runtime/drivers/smmuv3/queue-host.js';
import { MachineThread } from '../../runtime/machine-thread.js';
import {
  HwptInvalidate,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
} from '../../uapi/iommufd/hwpt-invalidate.js';
import { startWorkers } from '../../workers/index.js';
import { type Goal, percentile } from './figures.js';
import { FIRST_PAGE, type GuestTarget, guestTarget } from './machines.js';
import { type Case, type Group, must, repetitions, type Scale, timed } from './rounds.js';

const ROUND_TRIPS = 16000;
const FEW = 12;
/** Longer than the worker spins before it parks. */
const PAUSE_MS = 2;
const ASID = 1;
/** Commands of a batch, and batches behind which one SYNC waits. */
const BATCH = 63;
const BATCHES = 2000;

export const INVALIDATION_ROWS = [
  'TLBI + SYNC round trip, spinning, p50',
  'TLBI + SYNC round trip, spinning, p99',
  'TLBI in batches, a SYNC behind each 63',
  'TLBI + SYNC round trip, worker parked, p50',
  'TLBI + SYNC round trip, worker parked, p99',
  'guest HWPT_INVALIDATE of 1, p50',
  'guest HWPT_INVALIDATE of 1, p99',
  'guest HWPT_INVALIDATE of 64, p50',
  'guest HWPT_INVALIDATE of 64, p99',
] as const;

/** Median and 99th percentile of single calls, us. */
function latencies(
  what: string,
  n: number,
  call: () => number,
  { pause, p50 }: { pause?: () => void; p50?: Goal } = {},
): Case {
  const samples = new Float64Array(n);
  return {
    busyThreads: pause === undefined ? 2 : 0,
    figures: [
      { name: `${what}, p50`, unit: 'us', ...(p50 === undefined ? {} : { goal: p50 }) },
      { name: `${what}, p99`, unit: 'us' },
    ],
    round: () => {
      for (let i = 0; i < n; i++) {
        pause?.();
        const began = performance.now();
        const status = call();
        samples[i] = (performance.now() - began) * 1e3;
        must(status === 0, `${what} gave ${status}`);
      }
      return { values: [percentile(samples, 0.5), percentile(samples, 0.99)] };
    },
  };
}

/** TLBI_NH_VA of `n` pages that lie apart. */
function entries(n: number): Uint8Array {
  const words = new Uint32Array(n * COMMAND_WORDS);
  for (let i = 0; i < n; i++)
    encodeTlbiAddress(words, i * COMMAND_WORDS, CMD_TLBI_NH_VA, 0, ASID, FIRST_PAGE + i * 16, true);
  return new Uint8Array(words.buffer);
}

/** As many commands as an unmap that sends pages one by one would have: the rate at which they are consumed. */
function batches(queue: CommandQueue, n: number): Case {
  const commands = new Uint32Array(entries(BATCH).buffer);
  return {
    busyThreads: 2,
    figures: [{ name: INVALIDATION_ROWS[2], unit: 'M/s', goal: { kind: 'at-least', value: 2 } }],
    round: () => {
      let status = 0;
      const ms = timed(() => {
        for (let i = 0; i < n; i++) status |= queue.issue(commands, BATCH, true);
      });
      must(status === 0, `a batch of TLBI gave ${status}`);
      return { values: [(n * BATCH) / ms / 1e3] };
    },
  };
}

function guestCase({ machine, fd, viommuId }: GuestTarget, entryNum: number, n: number): Case {
  const data = entries(entryNum);
  const dataUptr = machine.user.alloc(data.byteLength);
  machine.user.copyOut(dataUptr, data);
  const bytes = HwptInvalidate.toBytes({
    size: HwptInvalidate.size,
    hwptId: viommuId,
    dataUptr,
    dataType: IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
    entryLen: COMMAND_BYTES,
    entryNum,
  });
  const shared = MachineThread.attach(machine.handle()).shared(fd.index);
  return latencies(`guest HWPT_INVALIDATE of ${entryNum}`, n, () => shared.hwptInvalidate(bytes));
}

export async function invalidations(scale: Scale): Promise<Group> {
  const target = guestTarget(1);
  const { machine } = target;
  const host = await startWorkers(machine);
  const { memory, env } = machine;
  const queue = CommandQueue.attach(
    memory,
    env,
    0,
    smmuAccess(memory, env, 0, () => undefined),
  );
  const command = new Uint32Array(entries(1).buffer);
  const roundTrip = () => queue.issue(command, 1, true);
  const n = repetitions(ROUND_TRIPS, scale);
  const nap = () => rest(env, PAUSE_MS);
  return {
    cases: [
      latencies('TLBI + SYNC round trip, spinning', n, roundTrip, { p50: { kind: 'at-most', value: 3 } }),
      batches(queue, repetitions(BATCHES, scale)),
      latencies('TLBI + SYNC round trip, worker parked', repetitions(FEW, scale), roundTrip, { pause: nap }),
      guestCase(target, 1, n),
      guestCase(target, 64, repetitions(ROUND_TRIPS / 8, scale)),
    ],
    close: async () => {
      await host.stop();
      machine.close();
    },
  };
}
