/** Bugs of the SMMU's queues: runtime/drivers/smmuv3/{cmdq,events,gerror}.ts. */
import type { BugName } from '../../../hw/bugs/bug-switches.js';
import type { ZooEntry } from '../entry.js';

const entry = (
  bug: BugName,
  name: string,
  strategy: ZooEntry['strategy'],
  budget: number,
  file = 'queue-zoo',
): ZooEntry => ({ bug, scenario: { file, export: name }, strategy, budget });

export const queueEntries: readonly ZooEntry[] = [
  entry('sync-waits-on-wrong-index', 'queueLongList', 'pct', 1000),
  { ...entry('cmdq-published-before-valid', 'queueTwoLists', 'pct', 3000), depth: 5 },
  { ...entry('cmdq-valid-before-written', 'queueTwoLists', 'pct', 3000), depth: 5 },
  entry('cmdq-owner-does-not-wait', 'queueTwoLists', 'pct', 1000),
  entry('cmdq-full-taken-for-empty', 'queueLastSlot', 'pct', 100),
  entry('cmdq-cons-published-early', 'queueLapped', 'pct', 1000),
  entry('cmdq-unlock-drops-sharers', 'queueFullSync', 'pct', 1000),
  entry('sync-sequence-taken-early', 'queueTwoSyncs', 'random', 500),
  entry('msi-waiter-sleeps-on-cons', 'queueMsi', 'pct', 500),
  entry('cerror-skips-next-command', 'queueError', 'pct', 100),
  entry('gerror-served-twice', 'queueError', 'pct', 500),
  entry('gerror-acknowledged-early', 'queueError', 'pct', 200),
  entry('evtq-consumer-advanced-early', 'queueEvents', 'pct', 1000, 'queue-events'),
  entry('priq-overflow-never-acknowledged', 'pageRequestOverflow', 'pct', 300, 'queue-overflow'),
];
