/**
 * A map that needs new tables, in frames that were full of something else, while the device reads there: the walk
 * sees the table as it was or as it will be, never what the frames held before.
 */
import type { Machine } from '../../../runtime/machine.js';
import { machineScenario } from '../machine-scenario.js';
import { PageAccess, READ } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { litter, PAGE, PAGE_BYTES, smallHost, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
/** A gigabyte on: its tables are not there. */
const NEW = 0x4000_0000n;
const MINE = 1;
const CANARY = 2;
/** A stage-1 page or table descriptor: valid, access flag, inner shareable, writable unprivileged. */
const DESCRIPTOR = 0x743n;
/** It ends earlier, when the page is there. */
const MAX_ACCESSES = 10;

/** First and last + 1 of a frame's 64-bit words in linear memory. */
function quadsOf(machine: Machine, pfn: number): [number, number] {
  const linear = machine.memory.linearOf(pfn * PAGE_BYTES, PAGE_BYTES);
  return [linear / 8, (linear + PAGE_BYTES) / 8];
}

export const tableGrowth = machineScenario<{ ramBase: number }>({
  name: 'table-growth',
  about: 'a device reads where the core maps, by tables in frames that hold old descriptors',
  checks: ['R24'],
  machine: smallMachine(),
  core(ctx, machine, share) {
    share({ ramBase: machine.memory.ram.basePa });
    // What tables will be made of says that everything leads to the canary: as a page, and as a table.
    const canary = machine.frames.alloc();
    const leads = BigInt(canary * PAGE_BYTES) | DESCRIPTOR;
    machine.memory.i64.fill(leads, ...quadsOf(machine, canary));
    litter(machine, leads);
    const { fd, ioasId, vfios, owners, map, warm } = smallHost(ctx, machine);
    owners.give(canary * PAGE_BYTES, CANARY);
    map(IOVA, MINE);
    vfios[0]!.attach(ioasId);
    warm(0, IOVA);
    const page = machine.user.alloc(PAGE);
    const run = { pfn: 0, pages: 0 };
    machine.user.runAt(Number(page / PAGE), run);
    owners.give(run.pfn * PAGE_BYTES, MINE);
    return () => {
      fd.ioasMap({ ioasId, userVa: page, length: PAGE, iova: NEW });
    };
  },
  threads: {
    device(ctx, thread, { ramBase }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 0);
      const landed = (pa: number): void =>
        ctx.check(
          'R24',
          owners.ownerOf(pa) === MINE,
          () => `a read goes to ${pa.toString(16)}, by an old descriptor`,
        );
      return () => {
        for (let i = 0; i < MAX_ACCESSES; i++) if (device.make(NEW, READ, landed) === 0) return;
      };
    },
  },
});
