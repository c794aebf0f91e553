/**
 * A guest's device faults while the core moves its events to the vEVENTQ and a program reads them. The SMMU's own
 * count of what it recorded is the ledger.
 *
 *   device   fault . fault . fault
 *   SMMU        event 0 . event 1 ...        EVENTQ_PROD
 *   core     poll . read . poll . read       records: header, event | LOST header
 */
import { EVENTQ_PROD } from '../../../hw/smmuv3/registers.js';
import type { Veventq } from '../../../runtime/core/fd.js';
import type { Machine } from '../../../runtime/machine.js';
import type { MachineThread } from '../../../runtime/machine-thread.js';
import { IOMMU_HWPT_DATA_ARM_SMMUV3 } from '../../../uapi/iommufd/hwpt.js';
import {
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
  VeventHeader,
} from '../../../uapi/iommufd/veventq.js';
import { machineScenario } from '../machine-scenario.js';
import type { ThreadContext } from '../scenario.js';
import { type Guest, makeGuest, SMALL } from './object-guest.js';

const VSID = 5;
const DEPTH = 1;
const DMAS = 4;
const HEADER_BYTES = 8;
const EVENT_BYTES = 32;
/** Of the guest: a CD table of zeroes, so that every transaction is C_BAD_CD. */
const CDS_IPA = 0x10000n;
/** V, Config = stage 1, S1ContextPtr. */
const GUEST_STE = BigUint64Array.of(1n | (0b101n << 1n) | CDS_IPA, 0n);

export const veventqOverflow = machineScenario({
  name: 'veventq-overflow',
  about: 'events come faster than they are read: what was delivered and what was lost is what was produced',
  checks: ['R11'],
  machine: SMALL,
  core(ctx, machine) {
    const { queue } = makeFaulting(machine);
    const ledger = new Ledger(ctx);
    const first = recorded(machine);
    return {
      run() {
        for (let i = 0; i < 3; i++) {
          machine.poll();
          ledger.read(queue);
        }
      },
      check() {
        machine.poll();
        ledger.read(queue);
        ledger.close((recorded(machine) - first) >>> 0);
      },
    };
  },
  threads: { device: faulting },
});

export const eventAfterVdevice = machineScenario({
  name: 'event-after-vdevice',
  about: 'a vDEVICE is destroyed while its device faults: no event of it is delivered afterwards',
  checks: ['R9'],
  machine: SMALL,
  core(ctx, machine) {
    const { guest, queue, vdeviceId } = makeFaulting(machine);
    const nothing = (when: string): void => {
      const late = queue.read(4096).byteLength;
      ctx.check('R9', late === 0, () => `${late} bytes of events ${when}`);
    };
    return {
      run() {
        machine.poll();
        guest.fd.destroy(vdeviceId);
        // What came before is the guest's.
        queue.read(4096);
        machine.poll();
        nothing('after the vDEVICE was destroyed');
      },
      check() {
        machine.poll();
        nothing('long after the vDEVICE was destroyed');
      },
    };
  },
  threads: { device: faulting },
});

function makeFaulting(machine: Machine): { guest: Guest; queue: Veventq; vdeviceId: number } {
  const guest = makeGuest(machine);
  const { fd, devIds, ioasId, viommuId, vfios } = guest;
  const devId = devIds[0]!;
  const userVa = machine.user.alloc('4KiB');
  fd.ioasMap({ ioasId, userVa, length: '4KiB', iova: CDS_IPA });
  const { vdeviceId } = fd.vdeviceAlloc({ viommuId, devId, virtId: VSID });
  const data = new Uint8Array(GUEST_STE.buffer);
  const { hwptId } = fd.hwptAlloc({ devId, ptId: viommuId, dataType: IOMMU_HWPT_DATA_ARM_SMMUV3, data });
  const queue = fd.veventqAlloc({ viommuId, type: IOMMU_VEVENTQ_TYPE_ARM_SMMUV3, depth: DEPTH });
  vfios[0]!.attach(hwptId);
  return { guest, queue, vdeviceId };
}

function faulting(_ctx: ThreadContext, thread: MachineThread): () => void {
  const port = thread.dmaPort(0);
  return () => {
    for (let i = 0; i < DMAS; i++) port.write(0x4000n, new Uint8Array(8));
  };
}

/** Events that the SMMU has recorded, as EVENTQ_PROD says: no index wraps here. */
function recorded(machine: Machine): number {
  const { mmio } = machine.iommus[0]!;
  return mmio.read32(EVENTQ_PROD.offset) & 0x7fff_ffff;
}

/** What a reader can know of a vEVENTQ. */
class Ledger {
  readonly #ctx: ThreadContext;
  /** Sequence number that comes next. */
  #next = 0;
  /** The last read emptied the queue: the next event finds room. */
  #room = true;

  constructor(ctx: ThreadContext) {
    this.#ctx = ctx;
  }

  /** Empties the queue. */
  read(queue: Veventq): void {
    const bytes = queue.read(4096);
    let events = 0;
    for (let at = 0; at < bytes.byteLength; ) {
      const { flags, sequence } = VeventHeader.decode(bytes, at);
      at += HEADER_BYTES;
      const lost = (flags & IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0;
      if (!lost) {
        at += EVENT_BYTES;
        events++;
      }
      const unexplained = this.#room && (lost || sequence !== this.#next);
      this.#check(!unexplained, () => `event ${this.#next} is lost, though nothing waited before it`);
      this.#check(sequence >= this.#next, () => `number ${sequence} after ${this.#next - 1}`);
      this.#next = sequence + 1;
      this.#room = false;
    }
    this.#check(events <= DEPTH, () => `${events} events waited in a queue of ${DEPTH}`);
    this.#room = true;
  }

  /** Everything has been read. */
  close(produced: number): void {
    this.#check(
      this.#next === produced,
      () => `${produced} events were recorded, ${this.#next} are accounted for`,
    );
  }

  #check(holds: boolean, story: () => string): void {
    this.#ctx.check('R11', holds, story);
  }
}
