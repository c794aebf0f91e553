/** Small histories of the command queue, each for the bugs of the zoo that it brings out. */
import { queueScenario, type Rig, SLOTS } from './queue-rig.js';

const checks = ['R17'];
/** Virtual; a schedule takes microseconds. */
const DEADLINE_NS = 1e6;

export const queueLongList = queueScenario({
  name: 'queue-long-list',
  about: 'a list so long that CMDQ_CONS shows the SMMU in the middle of it',
  checks,
  producers: [(p) => p.sync(17)],
});

export const queueTwoLists = queueScenario({
  name: 'queue-two-lists',
  about: 'two producers without a SYNC: one may gather the list of the other',
  checks,
  producers: [(p) => p.put(1), (p) => p.put(3)],
});

export const queueTwoSyncs = queueScenario({
  name: 'queue-two-syncs',
  about: 'two producers reserve at once, each waits for its own SYNC',
  checks: ['R21'],
  producers: [(p) => p.sync(1, 'R21'), (p) => p.sync(1, 'R21')],
});

export const queueLastSlot = queueScenario({
  name: 'queue-last-slot',
  about: 'two producers, and one slot left',
  checks: ['R18'],
  producers: [(p) => p.put(1), (p) => p.put(2)],
  waiting: SLOTS - 1,
});

export const queueLapped = queueScenario({
  name: 'queue-lapped',
  about: 'one producer waits for its SYNC while another goes round the queue',
  checks,
  producers: [
    (p) => p.sync(1),
    (p) => {
      p.put(SLOTS / 2);
      p.put(SLOTS / 2);
    },
  ],
  deadlineNs: DEADLINE_NS,
});

export const queueFullSync = queueScenario({
  name: 'queue-full-sync',
  about: 'one producer looks for room while another begins to wait for its SYNC',
  checks,
  producers: [(p) => p.put(3), (p) => p.sync(1)],
  waiting: SLOTS - 2,
  deadlineNs: DEADLINE_NS,
});

export const queueMsi = queueScenario({
  name: 'queue-msi',
  about: 'a SYNC whose MSI is written after CMDQ_CONS has moved',
  checks,
  producers: [(p) => p.sync(1)],
  msi: true,
  dma: true,
});

const eachRefusedIsSkipped = (rig: Rig): void =>
  rig.ctx.check(
    'R19',
    rig.skipped === rig.refused,
    () => `${rig.skipped} commands replaced, ${rig.refused} were refused`,
  );

export const queueError = queueScenario({
  name: 'queue-error',
  about: 'two waiters find one command error',
  checks: ['R19', 'R17'],
  producers: [(p) => p.sync(2, 'R19', 0), (p) => p.sync(1, 'R19')],
  check: eachRefusedIsSkipped,
});

export const queueErrors = queueScenario({
  name: 'queue-errors',
  about: 'two waiters, and a command error of each',
  checks: ['R19', 'R17'],
  producers: [(p) => p.sync(2, 'R19', 0), (p) => p.sync(2, 'R19', 0)],
  check: eachRefusedIsSkipped,
});

export const queueErrorsPolled = queueScenario({
  name: 'queue-errors-polled',
  about: 'two command errors of one producer, while the core polls and goes',
  checks: ['R19', 'R17'],
  producers: [
    (p) => p.serveErrors(),
    (p) => {
      p.sync(2, 'R19', 0);
      p.sync(2, 'R19', 0);
    },
  ],
  check: eachRefusedIsSkipped,
});

export const queueRoomAlone = queueScenario({
  name: 'queue-room-alone',
  about: 'two producers look for room, nobody waits for a SYNC',
  checks,
  producers: [(p) => p.put(2), (p) => p.put(2)],
  waiting: SLOTS - 1,
  check: (rig) => rig.checkHistory(),
});

export const queueRoomSyncs = queueScenario({
  name: 'queue-room-syncs',
  about: 'one producer looks for room while two leave their SYNCs',
  checks,
  producers: [(p) => p.put(3), (p) => p.sync(1), (p) => p.sync(1)],
  waiting: SLOTS - 4,
  check: (rig) => rig.checkHistory(),
});
