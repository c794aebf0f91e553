/**
 * The command queue as an object: whatever its producers do at once, what the SMMU takes is what a sequential bounded
 * queue would have given it (queue-history.ts). Most begin with pointers that are about to wrap, some with a queue that
 * has room for a part of what is coming.
 */
import { type Producer, type QueueScenario, queueScenario, type Rig, SLOTS } from './queue-rig.js';

type Program = (producer: Producer) => void;

const sync1: Program = (producer) => producer.sync(1);
const put2: Program = (producer) => producer.put(2);
const putThenSync: Program = (producer) => {
  producer.put(2);
  producer.sync(1);
};
const syncThenPut: Program = (producer) => {
  producer.sync(2);
  producer.put(1);
};
const three: Program = (producer) => {
  producer.put(1);
  producer.sync(2);
  producer.put(3);
};

/** Not a promise: in how many schedules it happened. */
export const WRAPPED = 'reached: wrap';
export const FULL = 'reached: full';

function check(rig: Rig): void {
  rig.checkHistory();
  if (rig.wrapped) rig.ctx.check(WRAPPED, true, () => '');
  if (rig.wasFull) rig.ctx.check(FULL, true, () => '');
}

const linear = (
  name: string,
  about: string,
  producers: readonly Program[],
  options: Partial<QueueScenario> = {},
) =>
  queueScenario({
    name: `queue-linear-${name}`,
    about,
    checks: ['R17', 'R18', WRAPPED, FULL],
    producers,
    start: SLOTS - 3,
    check,
    ...options,
  });

export const queueLinear2 = linear('2', 'two producers round the end of the queue, one with a SYNC', [
  sync1,
  put2,
]);
export const queueLinear2Syncs = linear('2-syncs', 'two producers round the end of the queue, two SYNCs', [
  sync1,
  sync1,
]);
export const queueLinear2Msi = linear(
  '2-msi',
  'two producers round the end of the queue, two SYNCs that tell by MSI',
  [sync1, sync1],
  { msi: true },
);
export const queueLinear2Full = linear(
  '2-full',
  'two producers on a queue with room for one of them, about to wrap',
  [sync1, put2],
  { start: 0, waiting: SLOTS - 2 },
);
export const queueLinear2Lists = linear('2-lists', 'two producers, two lists each, round the end', [
  putThenSync,
  syncThenPut,
]);
export const queueLinear3 = linear('3', 'three producers, two lists each, round the end of the queue', [
  putThenSync,
  syncThenPut,
  putThenSync,
]);
export const queueLinear3Full = linear(
  '3-full',
  'three producers, two lists each, on a queue that is nearly full',
  [putThenSync, syncThenPut, putThenSync],
  { start: 0, waiting: SLOTS - 3 },
);
export const queueLinear4 = linear(
  '4',
  'four producers, two or three lists each, round the end of the queue',
  [putThenSync, syncThenPut, three, sync1],
);
export const queueLinear4Full = linear(
  '4-full',
  'four producers, two or three lists each, on a queue that is nearly full',
  [putThenSync, syncThenPut, three, sync1],
  { start: 0, waiting: SLOTS - 3 },
);
export const queueLinear4Msi = linear(
  '4-msi',
  'four producers on a queue that is nearly full, SYNCs that tell by MSI',
  [putThenSync, syncThenPut, three, sync1],
  { start: 0, waiting: SLOTS - 3, msi: true },
);
export const queueLinear2Late = linear(
  '2-late',
  'two producers whose stores become visible late, round the end of the queue',
  [sync1, put2],
  { storeBuffer: true },
);
export const queueLinear4Late = linear(
  '4-late',
  'four producers whose stores become visible late, on a queue that is nearly full',
  [putThenSync, syncThenPut, three, sync1],
  { start: 0, waiting: SLOTS - 3, storeBuffer: true },
);
