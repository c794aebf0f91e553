/**
 * The Event and the PRI queue run full while the driver reads them when an interrupt tells it to. Whatever the order,
 * all is told of, and the queue works again afterwards: nothing lies in it, and no overflow waits to be acknowledged,
 * without an interrupt since the driver last looked.
 *
 *   device   asks . asks . asks . asks . asks
 *   SMMU         record . record . full: OVFLG, answers itself . ...
 *   core     interrupts? poll until there is nothing . interrupts? poll ...
 */
import { InterruptLines, type InterruptSource } from '../../../hw/smmuv3/interrupt-lines.js';
import { QUEUE_OVERFLOW, queueUsed } from '../../../hw/smmuv3/queue.js';
import { smmuv3Regions } from '../../../hw/smmuv3/regions.js';
import { EVENTQ_CONS, EVENTQ_PROD, PRIQ_CONS, PRIQ_PROD } from '../../../hw/smmuv3/registers.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import type { Machine } from '../../../runtime/machine.js';
import { smmuConfigOf } from '../../../runtime/machine-hardware.js';
import { machineScenario } from '../machine-scenario.js';
import type { ThreadContext } from '../scenario.js';
import { BDFS, smallHost, smallMachine } from './small-host.js';

const IOVA = 0x10000n;
const PRIQ_LOG2 = 1;
const GROUPS = 5;
const EVTQ_LOG2 = 2;
const FAULTS = 7;
const LOOKS = 3;
const at = Smmuv3Layout.at;

interface Queue {
  readonly source: InterruptSource;
  readonly prod: { readonly offset: number };
  readonly cons: { readonly offset: number };
  readonly log2: number;
}

const EVENTS: Queue = { source: 'eventq', prod: EVENTQ_PROD, cons: EVENTQ_CONS, log2: EVTQ_LOG2 };
const REQUESTS: Queue = { source: 'priq', prod: PRIQ_PROD, cons: PRIQ_CONS, log2: PRIQ_LOG2 };

/** An embedder's loop: the driver is called when an interrupt came, until it has nothing more to do. */
class Driver {
  readonly #ctx: ThreadContext;
  readonly #machine: Machine;
  readonly #queue: Queue;
  readonly #lines: InterruptLines;
  readonly #smmu: number;

  constructor(ctx: ThreadContext, machine: Machine, queue: Queue) {
    const regions = smmuv3Regions(machine.memory, smmuConfigOf(machine.config, 0));
    this.#ctx = ctx;
    this.#machine = machine;
    this.#queue = queue;
    this.#lines = new InterruptLines(machine.env, regions);
    this.#smmu = regions.smmu;
  }

  run(): void {
    for (let i = 0; i < LOOKS; i++) if (this.#lines.take().length > 0) while (this.#machine.poll());
  }

  counter(offset: number): number {
    return this.#machine.memory.u32[(this.#smmu + offset) >>> 2]!;
  }

  /** @returns records that are unread */
  check(): number {
    const { source, log2, ...registers } = this.#queue;
    const { mmio } = this.#machine.iommus[0]!;
    const [prod, cons] = [mmio.read32(registers.prod.offset), mmio.read32(registers.cons.offset)];
    const unread = queueUsed(prod, cons, log2);
    const overflow = ((prod ^ cons) & QUEUE_OVERFLOW) !== 0;
    const told = this.#lines.take().includes(source);
    this.#ctx.check(
      'R20',
      told || (unread === 0 && !overflow),
      () => `${source}: ${unread} unread, overflow ${overflow ? 'active' : 'none'}, and no interrupt`,
    );
    return unread;
  }
}

export const eventOverflow = machineScenario({
  name: 'event-overflow',
  about: 'a device faults until the Event queue overflows: the driver is told, and the queue works again',
  checks: ['R20'],
  machine: smallMachine([{}], { evtqLog2: EVTQ_LOG2 }),
  core(ctx, machine) {
    const { vfios, ioasId } = smallHost(ctx, machine);
    vfios[0]!.attach(ioasId);
    const driver = new Driver(ctx, machine, EVENTS);
    return {
      run: () => driver.run(),
      check() {
        driver.check();
        const [recorded, lost] = [driver.counter(at.eventsRecorded), driver.counter(at.eventsLost)];
        ctx.check('R20', recorded + lost === FAULTS, () => `${recorded} recorded, ${lost} lost of ${FAULTS}`);
      },
    };
  },
  threads: {
    device(_ctx, thread) {
      const port = thread.dmaPort(0);
      return () => {
        for (let i = 0; i < FAULTS; i++) port.write(IOVA, new Uint8Array(4));
      };
    },
  },
});

export const pageRequestOverflow = machineScenario({
  name: 'page-request-overflow',
  about:
    'a device asks for pages until the PRI queue overflows: each group is answered, and the queue works again',
  checks: ['R20'],
  machine: smallMachine([{ ats: true, pri: true }], { ats: true, pri: true, priqLog2: PRIQ_LOG2 }),
  core(ctx, machine) {
    const { vfios, ioasId } = smallHost(ctx, machine);
    vfios[0]!.attach(ioasId);
    const driver = new Driver(ctx, machine, REQUESTS);
    const port = machine.dmaPort(BDFS[0]);
    return {
      run: () => driver.run(),
      check() {
        const unread = driver.check();
        const answers = Array.from({ length: GROUPS }, (_, group) => port.pageResponse(group));
        const count = (is: string): number => answers.filter((answer) => answer === is).length;
        const told = (): string => `answers are ${answers}, ${unread} requests are unread`;
        ctx.check('R20', count('waiting') === unread, told);
        // The driver denies what it reads; the SMMU itself says Success to what finds no room.
        ctx.check('R20', count('success') === driver.counter(at.pageRequestsLost), told);
        ctx.check('R20', count('failure') + unread === driver.counter(at.pageRequests), told);
      },
    };
  },
  threads: {
    device(_ctx, thread) {
      const port = thread.dmaPort(0);
      return () => {
        for (let group = 0; group < GROUPS; group++) port.pageRequest({ group, iova: IOVA });
      };
    },
  },
});
