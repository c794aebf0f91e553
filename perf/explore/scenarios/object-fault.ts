/**
 * A device stalls on a fault while a program moves it to a table that has the page. Whether the fault comes before or
 * after, and has been read or not, it is answered once: the device goes on, and the SMMU gets one RESUME.
 *
 *   device   write, stalled ............................ aborted, or written
 *   core         poll . [read] . replace . write(cookie) . read . write(cookie)
 */
import { CMD_RESUME, CMD_STALL } from '../../../hw/smmuv3/command.js';
import {
  HwptPageResponse,
  type HwptPgfault,
  IOMMUFD_PAGE_RESP_INVALID,
} from '../../../uapi/iommufd/fault.js';
import { machineScenario } from '../machine-scenario.js';
import { CommandStream } from '../monitors/command-stream.js';
import type { Scenario } from '../scenario.js';
import { LABELS, SMALL } from './object-guest.js';

const IOVA = 0x10000n;

export const readFaultDuringReplace = scenario('read-fault-during-replace', true);
export const unreadFaultDuringReplace = scenario('unread-fault-during-replace', false);

function scenario(name: string, read: boolean): Scenario {
  return machineScenario({
    name,
    about: `a device whose fault ${read ? 'has been read' : 'nobody has read'} gets another table: it is answered once`,
    checks: ['R10'],
    machine: {
      iommus: SMALL.iommus,
      devices: [{ bdf: LABELS[0], iommu: 'smmu0', stall: true }],
    },
    core(ctx, machine) {
      const fd = machine.openIommufd();
      const vfio = machine.openVfio(LABELS[0]);
      const { devId } = vfio.bindIommufd(fd);
      const queue = fd.faultQueueAlloc();
      const { ioasId } = fd.ioasAlloc();
      const faultId = queue.faultId;
      vfio.attach(fd.hwptAlloc({ devId, ptId: ioasId, faultId }).hwptId);
      const mapped = fd.ioasAlloc().ioasId;
      fd.ioasMap({ ioasId: mapped, userVa: machine.user.alloc('4KiB'), length: '4KiB', iova: IOVA });
      const { hwptId } = fd.hwptAlloc({ devId, ptId: mapped, faultId });
      const file = machine.core.own.files.get(queue.fd);
      const answer = (faults: readonly HwptPgfault[]): void => {
        // EINVAL when the replace was first.
        for (const { cookie } of faults)
          file?.write?.(HwptPageResponse.toBytes({ cookie, code: IOMMUFD_PAGE_RESP_INVALID }));
      };
      const stream = new CommandStream(machine.memory);
      return {
        run() {
          machine.poll();
          const faults = read ? queue.faults() : [];
          vfio.attach(hwptId);
          answer(faults);
          answer(queue.faults());
        },
        check() {
          const answers = stream.commands().filter(({ opcode }) => opcode === CMD_RESUME);
          const stags = answers.map(({ words }) => CMD_STALL.STAG.get(words));
          ctx.check(
            'R10',
            new Set(stags).size === stags.length,
            () => `RESUMEs of stalls ${stags}: one twice`,
          );
        },
      };
    },
    threads: {
      device(_ctx, thread) {
        const port = thread.dmaPort(0);
        return () => {
          port.write(IOVA, new Uint8Array(8));
        };
      },
    },
  });
}
