/**
 * One page table under two devices that write to the same page while it is unmapped and its frame given back: behind
 * one SMMU both are in epochs that its SYNC has to wait for, behind two SMMUs each has its own invalidation.
 */
import type { MachineConfig } from '../../../runtime/machine-schema.js';
import type { MachineThread } from '../../../runtime/machine-thread.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import type { ThreadContext } from '../scenario.js';
import { BDFS, PAGE, PAGE_BYTES, smallHost, smallIommu, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const MINE = 1;
const ACCESSES = 3;

interface Shared {
  readonly ramBase: number;
  readonly gate: number;
}

/** The devices, each behind an SMMU of its own. */
export const twoSmmus = (more: Parameters<typeof smallIommu>[1] = {}): MachineConfig => ({
  iommus: [0, 1].map((index) => smallIommu(index, more)),
  devices: BDFS.map((bdf, index) => ({ bdf, iommu: `smmu${index}` })),
});

const program = (device: number) => (ctx: ThreadContext, thread: MachineThread, shared: Shared) => {
  const owners = new PageOwners(ctx, shared.ramBase);
  const access = new PageAccess(ctx, thread, device);
  const landed = (pa: number): void =>
    ctx.check('R1', owners.ownerOf(pa) === MINE, () => `a DMA lands in free frame ${pa.toString(16)}`);
  return () => {
    for (let i = 0; i < ACCESSES; i++) if (access.make(IOVA, WRITE, landed) !== 0) return;
    new Gate(ctx, shared.gate).pass();
    access.make(IOVA, WRITE, landed);
  };
};

const scenario = (name: string, about: string, machine: MachineConfig) =>
  machineScenario<Shared>({
    name,
    about,
    checks: ['R1'],
    machine,
    core(ctx, machine, share) {
      const gate = Gate.make(ctx, machine);
      share({ ramBase: machine.memory.ram.basePa, gate: gate.at });
      const { fd, ioasId, vfios, map, warm } = smallHost(ctx, machine);
      const { userVa } = map(IOVA, MINE);
      vfios.forEach((vfio, device) => {
        vfio.attach(ioasId);
        warm(device, IOVA);
      });
      // Still pinned: what gives the frame back is the unmap.
      machine.user.free(userVa, PAGE_BYTES);
      return () => {
        fd.ioasUnmap({ ioasId, iova: IOVA, length: PAGE });
        gate.open();
      };
    },
    threads: { device0: program(0), device1: program(1) },
  });

export const unmapTwoDevices = scenario(
  'unmap-two-devices',
  'two devices behind one SMMU write to a page while it is unmapped and its frame given back',
  smallMachine([{}, {}]),
);

export const unmapTwoSmmus = scenario(
  'unmap-two-smmus',
  'devices behind two SMMUs write to a page of one table while it is unmapped and its frame given back',
  twoSmmus(),
);
