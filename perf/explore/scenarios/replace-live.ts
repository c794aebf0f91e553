/**
 * A device that writes all the time is moved from table to table and back. What it reaches while an attach is under way
 * is a page of the old table, of the new one, or none; once it has returned, the new one's alone. The tables that it
 * has left go in the end, and their pages with them.
 */
import type { IommufdFd } from '../../../runtime/core/fd.js';
import type { MachineConfig } from '../../../runtime/machine-schema.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { PAGE_BYTES, smallHost, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
/** Owners of pages, by bit. */
const FIRST = 1;
const SECOND = 2;
const NEST_PARENT = 1;
/** Ghost word: whose pages a DMA may reach now, as bits. */
const MAY = 0;
const EARLY = 4;

interface Shared {
  readonly ramBase: number;
  readonly gate: number;
}

/** @param stage2  whether the second table is a nest parent, on which no device caches what it had on the first */
function scenario(name: string, about: string, stage2: boolean, machine: MachineConfig) {
  return machineScenario<Shared>({
    name,
    about,
    checks: ['R1'],
    machine,
    core(ctx, machine, share) {
      const gate = Gate.make(ctx, machine);
      share({ ramBase: machine.memory.ram.basePa, gate: gate.at });
      const { fd, ioasId, vfios, devIds, map, warm } = smallHost(ctx, machine);
      const vfio = vfios[0]!;
      const other = fd.ioasAlloc().ioasId;
      const flags = stage2 ? NEST_PARENT : 0;
      const first = table(fd, devIds[0]!, ioasId, 0);
      const second = table(fd, devIds[0]!, other, flags);
      const pages = [map(IOVA, FIRST), map(IOVA, SECOND, other)];
      for (const hwptId of [second, first]) {
        vfio.attach(hwptId);
        warm(0, IOVA);
      }
      // Still pinned: the unmaps give the frames back.
      for (const { userVa } of pages) machine.user.free(userVa, PAGE_BYTES);
      ctx.ghost[MAY] = FIRST;
      const move = (hwptId: number, owner: number): void => {
        ctx.ghost[MAY] = FIRST | SECOND;
        vfio.attach(hwptId);
        ctx.ghost[MAY] = owner;
      };
      return () => {
        move(second, SECOND);
        move(first, FIRST);
        move(second, SECOND);
        fd.destroy(first);
        fd.destroy(ioasId);
        gate.open();
      };
    },
    threads: {
      device(ctx, thread, { ramBase, gate }) {
        const owners = new PageOwners(ctx, ramBase);
        const device = new PageAccess(ctx, thread, 0);
        const landed = (pa: number): void => {
          const owner = owners.ownerOf(pa);
          ctx.check(
            'R1',
            (owner & ctx.ghost[MAY]!) !== 0,
            () => `a DMA lands in a page of table ${owner}, it may reach ${ctx.ghost[MAY]}`,
          );
        };
        return () => {
          for (let i = 0; i < EARLY; i++) device.make(IOVA, WRITE, landed);
          new Gate(ctx, gate).pass();
          const status = device.make(IOVA, WRITE, landed);
          ctx.check('R1', status === 0, () => `on the second table a DMA ends in ${status}`);
        };
      },
    },
  });
}

const table = (fd: IommufdFd, devId: number, ptId: number, flags: number): number =>
  fd.hwptAlloc({ devId, ptId, flags }).hwptId;

export const replaceLive = scenario(
  'replace-live',
  'a device writes while it is moved from table to table and back, and the first goes',
  false,
  smallMachine(),
);

export const replaceLiveAts = scenario(
  'replace-live-ats',
  'a device writes through its ATC while it is moved from stage 1 to stage 2 and back',
  true,
  smallMachine([{ ats: true }], { ats: true }),
);
