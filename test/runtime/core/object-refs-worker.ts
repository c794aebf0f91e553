/**
 * A thread that takes and drops short references on object 1 as fast as it can, and invalidates through it.
 * Says over its port how often it held the object, and how often what it held was not what it had asked for.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { MachineMemory, type MemoryHandle } from '../../../hw/memory/machine-memory.js';
import { SharedObjects } from '../../../runtime/core/object-table.js';

const { handle, control, id, type, tag } = workerData as {
  handle: MemoryHandle;
  /** [0] stop, [1] ready, [2] how often the object was held */
  control: SharedArrayBuffer;
  id: number;
  type: number;
  tag: number;
};

const memory = MachineMemory.attach(handle);
const objects = new SharedObjects(memory, memory, 0);
const flags = new Int32Array(control);
let held = 0;
let absent = 0;
let wrong = 0;
flags[1] = 1;
while (flags[0] === 0) {
  if (objects.get(id, type) < 0) {
    absent++;
    continue;
  }
  flags[2] = ++held;
  if (objects.typeOf(id) !== type || objects.payload(id, 0) !== tag) wrong++;
  objects.put(id);
}
parentPort!.postMessage({ held, absent, wrong });
