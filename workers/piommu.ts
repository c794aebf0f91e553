/**
 * Worker entry: one physical IOMMU. Attaches to the machine, says that it is ready, waits for the host's go,
 * and hosts the model until the host stops it. Whatever the model throws ends this thread, which the
 * supervisor reports.
 */
import { threadId as nodeThreadId, parentPort, workerData } from 'node:worker_threads';
import { UnitLayout } from '../hw/iotlb/unit-layout.js';
import { HardwareThread } from '../runtime/hardware-thread.js';
import { Control } from './protocol/control.js';
import {
  PHASE_RUNNING,
  PHASE_UNITS_STOP,
  UNIT_READY,
  UNIT_RUNNING,
  UNIT_STOPPED,
} from './protocol/control-layout.js';
import type { FromUnit, UnitData } from './protocol/messages.js';
import { runUnit, type SteppedModel } from './unit-loop.js';

const { handle, unit: index, startedAtMs, crashAfterSteps } = workerData as UnitData;

const post = (message: FromUnit): void => parentPort?.postMessage(message);

const thread = new HardwareThread(handle, { log: (text) => post({ type: 'log', text }) });
const { words } = thread.memory;
const control = new Control(thread.memory);
const unit = thread.memory.region(UnitLayout, `unit:${index}`).base;
if (crashAfterSteps === 0) throw new Error('crash before the unit was ready, as the test asked');

control.arrive(thread.threadId, nodeThreadId);
control.setUnitThread(index, thread.threadId);
control.setUnitStartUs(index, (performance.timeOrigin + performance.now() - startedAtMs) * 1000);
control.setUnitState(index, UNIT_READY);
post({ type: 'ready' });
control.awaitGo();

if (control.phase >= PHASE_RUNNING && control.phase < PHASE_UNITS_STOP) {
  // Not before the go: whoever builds a model becomes the unit's owner.
  const model = thread.smmuModel(index);
  control.setUnitState(index, UNIT_RUNNING);
  runUnit({
    model: crashAfterSteps === undefined ? model : crashing(model, crashAfterSteps),
    words,
    clock: thread.env.clock,
    unit,
    stopping: () => control.phase === PHASE_UNITS_STOP,
  });
}
control.setUnitState(index, UNIT_STOPPED);
control.depart(thread.threadId);
thread.retire();

/** For the death tests: a model that breaks. */
function crashing(real: SteppedModel, after: number): SteppedModel {
  let steps = 0;
  return {
    step: () => {
      if (++steps >= after) throw new Error(`crash after ${after} steps, as the test asked`);
      return real.step();
    },
    hasWork: () => real.hasWork(),
    polled: real.polled ?? false,
  };
}
