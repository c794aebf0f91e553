/**
 * A page that a device has used is unmapped and given back while the device goes on. However they meet, the device
 * never touches the frame once it is free.
 */
import type { MachineConfig } from '../../../runtime/machine-schema.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import type { Unmonitored } from '../monitors/machine-monitors.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import type { Scenario } from '../scenario.js';
import { PAGE, PAGE_BYTES, type SmallHost, smallHost } from './small-host.js';

const IOVA = 0x10000n;
/** Nothing is mapped there. */
export const NOWHERE = 0x11000n;
const MINE = 1;
/** It ends earlier, with the first fault. */
const MAX_ACCESSES = 8;

export interface Unmapping {
  readonly name: string;
  readonly about: string;
  readonly invariant: string;
  readonly machine: MachineConfig;
  /** Where the device writes before it writes to the page, each time. */
  readonly before?: readonly bigint[];
  /** Before the threads run: the page is cached wherever it can be. */
  readonly prepare?: (host: SmallHost) => void;
  readonly timeouts?: boolean;
  readonly unmonitored?: Unmonitored;
}

export function unmapping(spec: Unmapping): Scenario {
  const { name, about, invariant, machine: config, before = [], prepare, timeouts = false } = spec;
  const { unmonitored = {} } = spec;
  return machineScenario<{ ramBase: number; gate: number }>({
    name,
    about,
    checks: [invariant],
    means: { R1: invariant },
    machine: config,
    timeouts,
    unmonitored,
    core(ctx, machine, share) {
      const gate = Gate.make(ctx, machine);
      share({ ramBase: machine.memory.ram.basePa, gate: gate.at });
      const host = smallHost(ctx, machine);
      const { fd, ioasId, vfios, map, warm } = host;
      const { userVa } = map(IOVA, MINE);
      vfios[0]!.attach(ioasId);
      warm(0, IOVA);
      // Still pinned: what gives the frame back is the unmap.
      machine.user.free(userVa, PAGE_BYTES);
      prepare?.(host);
      return () => {
        fd.ioasUnmap({ ioasId, iova: IOVA, length: PAGE });
        gate.open();
      };
    },
    threads: {
      device(ctx, thread, { ramBase, gate }) {
        const owners = new PageOwners(ctx, ramBase);
        const device = new PageAccess(ctx, thread, 0);
        const landed = (pa: number): void =>
          ctx.check(
            invariant,
            owners.ownerOf(pa) === MINE,
            () => `a DMA lands in free frame ${pa.toString(16)}`,
          );
        return () => {
          for (let i = 0; i < MAX_ACCESSES; i++) {
            for (const iova of before) device.make(iova, WRITE, landed);
            if (device.make(IOVA, WRITE, landed) !== 0) return;
          }
          new Gate(ctx, gate).pass();
          device.make(IOVA, WRITE, landed);
        };
      },
    },
  });
}
