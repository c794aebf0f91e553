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
import { percentile } from './figures.js';
import { FIRST_PAGE, type GuestTarget, guestTarget } from './machines.js';
import { type Case, type Group, must, repetitions, type Scale } from './rounds.js';

const ROUND_TRIPS = 400;
const FEW = 12;
/** Longer than the worker spins before it parks. */
const PAUSE_MS = 2;
const ASID = 1;

/** Median and 99th percentile of single calls, us. */
function latencies(what: string, n: number, call: () => number, pause?: () => void): Case {
  const samples = new Float64Array(n);
  return {
    busyThreads: pause === undefined ? 2 : 0,
    figures: [
      { name: `${what}, p50`, unit: 'us' },
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
      return [percentile(samples, 0.5), percentile(samples, 0.99)];
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
      latencies('TLBI + SYNC round trip, back to back', n, roundTrip),
      latencies('TLBI + SYNC round trip, worker parked', repetitions(FEW, scale), roundTrip, nap),
      guestCase(target, 1, n),
      guestCase(target, 64, repetitions(ROUND_TRIPS / 4, scale)),
    ],
    close: async () => {
      await host.stop();
      machine.close();
    },
  };
}
