/**
 * A device stalls on a page, the program maps it and answers, and detaches the device with the next fault unread, or
 * read and not answered, while yet another comes. The device goes on each time: nothing stalls for ever.
 *
 *   device   write A ............. written . write B ............. aborted . write C . aborted
 *   core             poll . read . map A . answer . poll . [read] . detach
 */
import { rest } from '../../../hw/sync/wait.js';
import { HwptPageResponse, IOMMUFD_PAGE_RESP_SUCCESS } from '../../../uapi/iommufd/fault.js';
import { machineScenario } from '../machine-scenario.js';
import type { Scenario } from '../scenario.js';
import { PAGE, smallHost, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const MINE = 1;
/** The first alone is mapped. */
const PAGES = 3n;
const REST_MS = 1;

function scenario(name: string, about: string, read: boolean): Scenario {
  return machineScenario({
    name,
    about,
    checks: ['R10'],
    machine: smallMachine([{ stall: true }], { stalls: 'optional' }),
    core(ctx, machine) {
      const { fd, ioasId, vfios, devIds, map } = smallHost(ctx, machine);
      const queue = fd.faultQueueAlloc();
      const { hwptId } = fd.hwptAlloc({ devId: devIds[0]!, ptId: ioasId, faultId: queue.faultId });
      vfios[0]!.attach(hwptId);
      const file = machine.core.own.files.get(queue.fd);
      const untilEvent = (): void => {
        while (!machine.poll()) rest(machine.env, REST_MS);
      };
      return () => {
        untilEvent();
        const faults = queue.faults();
        ctx.check('R10', faults.length === 1, () => `${faults.length} faults for one stall`);
        map(IOVA, MINE);
        for (const { cookie } of faults) {
          const taken = file?.write?.(HwptPageResponse.toBytes({ cookie, code: IOMMUFD_PAGE_RESP_SUCCESS }));
          ctx.check('R10', taken === 8, () => `an answer is refused: ${taken}`);
        }
        untilEvent();
        if (read) queue.faults();
        vfios[0]!.detach();
      };
    },
    threads: {
      device(ctx, thread) {
        const port = thread.dmaPort(0);
        return () => {
          for (let page = 0n; page < PAGES; page++) {
            const status = port.write(IOVA + page * PAGE, new Uint8Array(8));
            ctx.check('R10', (status === 0) === (page === 0n), () => `write ${page} ends in ${status}`);
          }
        };
      },
    },
  });
}

export const stallDetachRead = scenario(
  'stall-detach-read',
  'a device whose fault has been read and not answered is detached: it goes on',
  true,
);

export const stallDetachUnread = scenario(
  'stall-detach-unread',
  'a device whose fault nobody has read is detached: it goes on',
  false,
);
