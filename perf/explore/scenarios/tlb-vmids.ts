/**
 * One stage-2 table under two VMIDs of an SMMU: a device on it directly, another through a vIOMMU. An unmap reaches
 * what is cached under either before it returns.
 */

import type { MachineThread } from '../../../runtime/machine-thread.js';
import { IOMMU_HWPT_DATA_ARM_SMMUV3 } from '../../../uapi/iommufd/hwpt.js';
import { IOMMU_VIOMMU_TYPE_ARM_SMMUV3 } from '../../../uapi/iommufd/viommu.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import type { ThreadContext } from '../scenario.js';
import { PAGE, smallHost, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const MINE = 1;
const NEST_PARENT = 1;
const ACCESSES = 4;

interface Shared {
  readonly ramBase: number;
  readonly gate: number;
}

/** A guest's STE that skips stage 1: V, Config = bypass. */
export function bypassVste(): Uint8Array {
  const ste = new Uint8Array(16);
  ste[0] = 0b1001;
  return ste;
}

const program = (device: number) => (ctx: ThreadContext, thread: MachineThread, shared: Shared) => {
  const owners = new PageOwners(ctx, shared.ramBase);
  const gate = new Gate(ctx, shared.gate);
  const access = new PageAccess(ctx, thread, device);
  const landed = (pa: number): void =>
    ctx.check(
      'R7',
      owners.ownerOf(pa) === MINE,
      () => `a DMA lands in ${pa.toString(16)}, which is unmapped`,
    );
  return () => {
    for (let i = 0; i < ACCESSES; i++) if (access.make(IOVA, WRITE, landed) !== 0) return;
    gate.pass();
    access.make(IOVA, WRITE, landed);
  };
};

export const unmapTwoVmids = machineScenario<Shared>({
  name: 'unmap-two-vmids',
  about: 'two devices write to a page under two VMIDs while it is unmapped',
  checks: ['R7'],
  machine: smallMachine([{}, {}]),
  core(ctx, machine, share) {
    const gate = Gate.make(ctx, machine);
    share({ ramBase: machine.memory.ram.basePa, gate: gate.at });
    const { fd, ioasId, owners, vfios, devIds, map, warm } = smallHost(ctx, machine);
    const parent = fd.hwptAlloc({ devId: devIds[0]!, ptId: ioasId, flags: NEST_PARENT }).hwptId;
    const { pa } = map(IOVA, MINE);
    vfios[0]!.attach(parent);
    const { viommuId } = fd.viommuAlloc({
      devId: devIds[1]!,
      hwptId: parent,
      type: IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
    });
    const data = { dataType: IOMMU_HWPT_DATA_ARM_SMMUV3, data: bypassVste() };
    vfios[1]!.attach(fd.hwptAlloc({ devId: devIds[1]!, ptId: viommuId, ...data }).hwptId);
    warm(0, IOVA);
    warm(1, IOVA);
    return () => {
      fd.ioasUnmap({ ioasId, iova: IOVA, length: PAGE });
      // The program keeps the frame: it is no other invariant's.
      owners.give(pa, 0);
      gate.open();
    };
  },
  threads: { device0: program(0), device1: program(1) },
});
