/** The event queue: the SMMU's producer and the driver's consumer, both the real ones, over a queue of two records. */
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';
import { Bus } from '../../../hw/smmuv3/bus.js';
import { decodeEvent, F_TRANSLATION } from '../../../hw/smmuv3/event.js';
import { EventQueue as HardwareQueue } from '../../../hw/smmuv3/event-queue.js';
import { Interrupts } from '../../../hw/smmuv3/interrupts.js';
import { CR0, EVENTQ_BASE } from '../../../hw/smmuv3/registers.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { EventQueue } from '../../../runtime/drivers/smmuv3/events.js';
import { smmuAccess } from '../../../runtime/drivers/smmuv3/queue-host.js';
import { defineScenario, type ThreadBody, type ThreadContext } from '../scenario.js';

const LG2 = 1;
const FAULTS = 3;
const MEMORY_BYTES = 128 * 1024;
const RAM = { linear: 96 * 1024, basePa: 0x8000_0000, bytes: 32 * 1024 };
/** Ghost: records taken, then the faults they tell of. */
const TAKEN = 0;
const at = Smmuv3Layout.at;

const attach = (ctx: ThreadContext, regions: MemoryHandle['regions']): MachineMemory =>
  MachineMemory.attach({ memory: ctx.memory, ram: RAM, regions });

function driver(ctx: ThreadContext): ThreadBody {
  const memory = attach(ctx, {});
  const smmu = memory.allocRegion(Smmuv3Layout, 'smmuv3:0').base;
  memory.allocRegion(UnitLayout, 'unit:0');
  ctx.publish(memory.handle().regions);
  const { words } = memory;
  words.store64(smmu + at.eventqBase, EVENTQ_BASE.LOG2SIZE.put(BigInt(RAM.basePa), BigInt(LG2)));
  words.store(smmu + at.cr0, CR0.EVENTQEN.mask);
  words.store(smmu + at.cr0ack, CR0.EVENTQEN.mask);
  const { registers } = smmuAccess(memory, ctx.env, 0, (text) => ctx.note(text));
  const queue = new EventQueue(words, registers, RAM.linear, LG2, ctx.env.bugs);
  let last = 0;
  const drain = (): void => {
    queue.drain((record) => {
      const { id, sid, inputAddr } = decodeEvent(record);
      const whole = id === F_TRANSLATION && sid === Number(inputAddr >> 12n);
      ctx.check('R10', whole, () => `a record is torn: event ${id} of ${sid} at ${inputAddr}`);
      ctx.check('R10', sid > last, () => `fault ${sid} is taken after ${last}`);
      last = sid;
      ctx.ghost[TAKEN]!++;
    });
  };
  return {
    run() {
      for (let i = 0; i < FAULTS; i++) drain();
    },
    check() {
      drain();
      const recorded = memory.i32[(smmu + at.eventsRecorded) >> 2]!;
      const lost = memory.i32[(smmu + at.eventsLost) >> 2]!;
      ctx.check('R10', ctx.ghost[TAKEN] === recorded, () => `${ctx.ghost[TAKEN]} taken of ${recorded}`);
      ctx.check(
        'R10',
        recorded + lost === FAULTS,
        () => `${recorded} recorded and ${lost} lost of ${FAULTS}`,
      );
    },
  };
}

function smmu(ctx: ThreadContext): () => void {
  const memory = attach(ctx, ctx.published() as MemoryHandle['regions']);
  const base = memory.region(Smmuv3Layout, 'smmuv3:0').base;
  const bus = new Bus(memory);
  const queue = new HardwareQueue(bus, base, new Interrupts(bus, base), LG2);
  return () => {
    for (let fault = 1; fault <= FAULTS; fault++)
      queue.record({ id: F_TRANSLATION, sid: fault, inputAddr: BigInt(fault) << 12n });
  };
}

export const queueEvents = defineScenario({
  name: 'queue-events',
  about: 'the SMMU records faults while the driver reads the queue: each record is taken once and whole',
  checks: ['R10'],
  memory: { bytes: MEMORY_BYTES },
  threads: [
    { name: 'driver', program: driver },
    { name: 'smmu', program: smmu },
  ],
});
