/**
 * A device writes with a PASID while the core moves the PASID to another table, detaches it, and detaches the device
 * itself: CDs of one table are written while others of it are in use.
 */
import { NO_SSID } from '../../../hw/iotlb/port-layout.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { smallHost, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const PASID = 2;
const ALLOC_PASID = 8;
const RID = 1;
const FIRST = 2;
const SECOND = 4;
const ACCESSES = 3;
/** Ghost words: whose pages a DMA may reach with the PASID and without, as bits. */
const MAY = 0;
const MAY_RID = 1;

interface Shared {
  readonly ramBase: number;
  readonly gate: number;
}

export const pasidReplace = machineScenario<Shared>({
  name: 'pasid-replace',
  about: 'a device writes with a PASID and without while the PASID gets another table and is detached',
  checks: ['R4'],
  machine: smallMachine([{ pasidBits: 4 }], { ssidBits: 4 }),
  core(ctx, machine, share) {
    const gate = Gate.make(ctx, machine);
    share({ ramBase: machine.memory.ram.basePa, gate: gate.at });
    const { fd, ioasId, vfios, devIds, map } = smallHost(ctx, machine);
    const vfio = vfios[0]!;
    const table = (owner: number, of: number): number => {
      map(IOVA, owner, of);
      return fd.hwptAlloc({ devId: devIds[0]!, ptId: of, flags: ALLOC_PASID }).hwptId;
    };
    const own = table(RID, ioasId);
    const first = table(FIRST, fd.ioasAlloc().ioasId);
    const second = table(SECOND, fd.ioasAlloc().ioasId);
    vfio.attach(own);
    vfio.attach(first, { pasid: PASID });
    ctx.ghost[MAY] = FIRST;
    ctx.ghost[MAY_RID] = RID;
    return () => {
      ctx.ghost[MAY] = FIRST | SECOND;
      vfio.attach(second, { pasid: PASID });
      ctx.ghost[MAY] = SECOND;
      vfio.detach({ pasid: PASID });
      ctx.ghost[MAY] = 0;
      gate.open();
    };
  },
  threads: {
    device(ctx, thread, { ramBase, gate }) {
      const owners = new PageOwners(ctx, ramBase);
      const device = new PageAccess(ctx, thread, 0);
      const landed = (word: number) => (pa: number) => {
        const owner = owners.ownerOf(pa);
        ctx.check('R4', (owner & ctx.ghost[word]!) !== 0, () => `a DMA lands in a page of table ${owner}`);
      };
      return () => {
        for (let i = 0; i < ACCESSES; i++) {
          device.make(IOVA, WRITE, landed(MAY), PASID);
          const status = device.make(IOVA, WRITE, landed(MAY_RID), NO_SSID);
          ctx.check('R4', status === 0, () => `without a PASID a DMA ends in ${status}`);
        }
        new Gate(ctx, gate).pass();
        device.make(IOVA, WRITE, landed(MAY), PASID);
      };
    },
  },
});
