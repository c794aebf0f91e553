/**
 * A translation on its way to a device while it is invalidated: the SMMU's caches and the device's in one go, with one
 * SYNC behind both. What arrives at the device after the ATC_INV, and is older, must not stay in its ATC.
 */
import { CMD_TLBI_NH_ASID, encodeAtcInv, encodeTlbi } from '../../../hw/smmuv3/command.js';
import { ANY_SSID } from '../../../runtime/drivers/smmuv3/atc.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { driverHost, STAGE_1 } from './driver-host.js';
import { BDFS, PAGE_BYTES, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const PAGE_NUMBER = Number(IOVA) / PAGE_BYTES;
/** The device has used it: it is not the configuration that it waits for. */
const OTHER = 0x11000n;
const MINE = 1;

export const invalidateDuringFill = machineScenario<{ ramBase: number; gate: number }>({
  name: 'invalidate-during-fill',
  about: 'a device fills its ATC while the page is invalidated with one SYNC for IOTLB and ATC',
  checks: ['R2'],
  machine: smallMachine([{ ats: true }], { ats: true }),
  core(ctx, machine, share) {
    const gate = Gate.make(ctx, machine);
    share({ ramBase: machine.memory.ram.basePa, gate: gate.at });
    const { instance, devices, owners, domain, map, attach } = driverHost(ctx, machine);
    const { smmu } = instance;
    const { streamId } = devices[0]!;
    const used = domain(STAGE_1);
    const pa = map(used, IOVA, MINE);
    map(used, OTHER, MINE);
    attach(0, used);
    machine.dmaPort(BDFS[0]).write(OTHER, new Uint8Array(4));
    const asid = used.tagOn(smmu);
    const gather = { firstUnit: PAGE_NUMBER, lastUnit: -1, freedTables: [], notes: [], wantNotes: false };
    return () => {
      used.unmap(PAGE_NUMBER, 1, gather);
      smmu.batch.add((words, at) => encodeTlbi(words, at, CMD_TLBI_NH_ASID, 0, asid));
      smmu.batch.add((words, at) => encodeAtcInv(words, at, streamId, ANY_SSID, PAGE_NUMBER, 0));
      const status = smmu.batch.sync();
      ctx.check('R2', status === 0, () => `the SYNC ended in ${status}`);
      owners.give(pa, 0);
      gate.open();
    };
  },
  threads: {
    device(ctx, thread, { ramBase, gate }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 0);
      const landed = (at: number): void =>
        ctx.check('R2', owners.ownerOf(at) === MINE, () => 'a DMA lands in a page that is invalidated');
      return () => {
        if (device.make(IOVA, WRITE, landed) !== 0) return;
        new Gate(ctx, gate).pass();
        device.make(IOVA, WRITE, landed);
      };
    },
  },
});
