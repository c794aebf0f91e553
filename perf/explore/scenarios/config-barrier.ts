/**
 * A device's STE is switched to another CD table, by one store, right after that table was written: nobody may see the
 * STE before it sees the CD. The core's stores become visible late and in any order, unless there is a barrier.
 *
 * The old CD is where the guest has no memory, the new one leads to an empty table: either way the access is a
 * translation fault, and no cache keeps the configuration. Guest memory, as only there CDs are written by somebody who
 * does not wait for a CMD_SYNC afterwards.
 */
import { CD_BYTES } from '../../../hw/smmuv3/cd.js';
import { C_BAD_CD } from '../../../hw/smmuv3/event.js';
import { Smmuv3NestedDomain, validateVste } from '../../../runtime/drivers/smmuv3/nested.js';
import { Smmuv3Viommu } from '../../../runtime/drivers/smmuv3/viommu.js';
import { IOMMU_VIOMMU_TYPE_ARM_SMMUV3 } from '../../../uapi/iommufd/viommu.js';
import { machineScenario } from '../machine-scenario.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { driverHost, STAGE_2 } from './driver-host.js';
import { S1_VSTE, VSID, writeCd } from './small-guest.js';
import { PAGE_BYTES, smallMachine } from './small-host.js';

const IOVA = 0n;
/** Guest pages. */
const NO_MEMORY = 1;
const NEW_CD = 2;
const EMPTY_TABLE = 3;
const MINE = 1;
const ACCESSES = 3;
const INTERRUPTED = 80;
/** CDs that the guest writes: about what a store buffer holds. The last is that of traffic without a SubstreamID. */
const CDS = 7;
/** STE.S1CDMax = 3, and in word 1 S1DSS: CD 0 for traffic without a SubstreamID. */
const S1_CD_MAX = 3n << 59n;
const S1DSS_SSID0 = 2n;

export const switchCdTable = machineScenario({
  name: 'switch-cd-table',
  about: 'a device writes while its STE is switched to a CD that was written just before',
  checks: ['R3'],
  machine: smallMachine(),
  storeBuffer: ['core'],
  core(ctx, machine) {
    const { instance, devices, domain, map, attach } = driverHost(ctx, machine);
    const parent = domain(STAGE_2);
    const guestPage = (page: number): number => {
      const pa = map(parent, BigInt(page * PAGE_BYTES), MINE);
      machine.frames.zero(pa / PAGE_BYTES, 1);
      return machine.memory.linearOf(pa, PAGE_BYTES);
    };
    guestPage(EMPTY_TABLE);
    const cd = guestPage(NEW_CD);
    const viommu = instance.allocViommu(devices[0]!, parent, IOMMU_VIOMMU_TYPE_ARM_SMMUV3);
    if (!(viommu instanceof Smmuv3Viommu)) throw new Error(`no vIOMMU: ${String(viommu)}`);
    viommu.vdeviceInit(devices[0]!, BigInt(VSID));
    const nested = (cdPage: number): Smmuv3NestedDomain => {
      const vste = validateVste(S1_VSTE | S1_CD_MAX | BigInt(cdPage * PAGE_BYTES), S1DSS_SSID0);
      if (typeof vste === 'number') throw new Error(`vSTE: ${vste}`);
      return new Smmuv3NestedDomain(viommu, vste);
    };
    attach(0, nested(NO_MEMORY));
    const next = nested(NEW_CD);
    // Something else takes the processor between the STE and the command that tells of it; it stores nothing.
    const { smmu } = instance;
    const invalidateSte = smmu.invalidateSte.bind(smmu);
    smmu.invalidateSte = (sid, leaf) => {
      for (let i = 0; i < INTERRUPTED; i++) ctx.words.load(cd + PAGE_BYTES - 8);
      return invalidateSte(sid, leaf);
    };
    return () => {
      for (let ssid = CDS - 1; ssid >= 0; ssid--)
        writeCd(machine, cd + ssid * CD_BYTES, EMPTY_TABLE * PAGE_BYTES);
      attach(0, next);
    };
  },
  threads: {
    device(ctx, thread) {
      const device = new PageAccess(ctx, thread, 0);
      return () => {
        for (let i = 0; i < ACCESSES; i++) {
          const status = device.make(IOVA, WRITE, () => undefined);
          ctx.check('R3', status !== C_BAD_CD, () => 'the STE leads to a CD that is not there');
        }
      };
    },
  },
});
