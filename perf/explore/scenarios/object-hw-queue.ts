/**
 * A guest has the hardware read its command queue while the host takes that queue away: when IOMMU_DESTROY returns,
 * the hardware has read the queue's memory, which may be anybody's from then on, for the last time.
 *
 *   guest   PROD = 8
 *   SMMU       fetch . execute . fetch ...
 *   core          DESTROY(HW queue) ...... returns . the memory is overwritten
 */
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { CMD_TLBI_NH_ASID, COMMAND_BYTES } from '../../../hw/smmuv3/command.js';
import { InterruptLines } from '../../../hw/smmuv3/interrupt-lines.js';
import { smmuv3Regions } from '../../../hw/smmuv3/regions.js';
import { CmdqvLayout, cmdqvKey } from '../../../hw/tegra241-cmdqv/cmdqv-layout.js';
import { VcmdqPage } from '../../../hw/tegra241-cmdqv/page-driver.js';
import { smmuConfigOf } from '../../../runtime/machine-hardware.js';
import { ViommuTegra241Cmdqv } from '../../../uapi/drivers/tegra241.js';
import { IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV } from '../../../uapi/iommufd/hw-queue.js';
import { IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV } from '../../../uapi/iommufd/viommu.js';
import { machineScenario } from '../machine-scenario.js';
import { makeGuest, SMALL } from './object-guest.js';

const QUEUE_IPA = 0x10000n;
const COMMANDS = 8;
const ENTRIES = 16;
/** No command there is. */
const POISON = 0xff;

interface Shared {
  /** Linear offset of the VINTF's page. */
  readonly page: number;
}

export const destroyHwQueue = machineScenario<Shared>({
  name: 'destroy-hw-queue',
  about: 'a HW queue is destroyed while the hardware reads it: it reads no more when that returns',
  checks: ['R23'],
  // The driver looks at STATUS every millisecond: nothing wakes it.
  timeouts: true,
  machine: {
    ...SMALL,
    iommus: [{ ...SMALL.iommus[0]!, cmdqv: { vintfs: 2, vcmdqsPerVintf: 1, sidsPerVintf: 1 } }],
  },
  core(ctx, machine, share) {
    const { memory, user, env } = machine;
    const { fd, ioasId, viommuId, out } = makeGuest(machine, {
      type: IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
      data: new Uint8Array(ViommuTegra241Cmdqv.size),
    });
    const userVa = user.alloc('4KiB', { contiguous: true });
    fd.ioasMap({ ioasId, userVa, length: '4KiB', iova: QUEUE_IPA });
    const type = IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV;
    const length = BigInt(ENTRIES * COMMAND_BYTES);
    const { hwQueueId } = fd.hwQueueAlloc({ viommuId, type, index: 0, iova: QUEUE_IPA, length });
    const { outVintfMmapOffset: offset, outVintfMmapLength } = ViommuTegra241Cmdqv.decode(out);
    const mapping = fd.mmap({ offset, length: outVintfMmapLength });
    const queue = user.linearOf(userVa, Number(length));
    for (let i = 0; i < COMMANDS; i++) memory.u8[queue + i * COMMAND_BYTES] = CMD_TLBI_NH_ASID;
    new VcmdqPage(env.words, mapping.linear, 0).enable = true;
    machine.settle();
    share({ page: mapping.linear });
    const regions = smmuv3Regions(memory, smmuConfigOf(machine.config, 0));
    const lines = new InterruptLines(env, regions);
    const consumedAt = memory.region(CmdqvLayout, cmdqvKey(0)).base + CmdqvLayout.at.commandsConsumed;
    const consumed = (): number => memory.u32[consumedAt >>> 2]!;
    let before = 0;
    return {
      run() {
        fd.destroy(hwQueueId);
        before = consumed();
        memory.u8.fill(POISON, queue, queue + Number(length));
        // The vIOMMU goes with a SYNC: what the hardware was in the middle of is done then.
        mapping.unmap();
        fd.destroy(viommuId);
      },
      check() {
        const more = consumed() - before;
        const error = lines.take().includes('companion');
        ctx.check(
          'R23',
          more === 0 && !error,
          () => `${more} commands after the destroy, an error: ${error}`,
        );
      },
    };
  },
  threads: {
    guest(_ctx, thread, { page }) {
      const { words } = thread.memory;
      const doorbell = thread.memory.region(UnitLayout, 'unit:0').base + UnitLayout.at.doorbell;
      const queue = new VcmdqPage(words, page, 0, () => {
        words.add(doorbell, 1);
        words.notify(doorbell, 1);
      });
      return () => {
        queue.prod = COMMANDS;
      };
    },
  },
});
