/**
 * The control page (key `control`): what the host, the supervisor and every worker thread of one machine tell
 * each other without a message, so that a thread that never returns to its event loop still hears "stop", and
 * a death can be told apart from a departure.
 *
 *   phase   STARTING --all units ready--> RUNNING --stop--> PROGRAMS_STOP --tasks gone--> UNITS_STOP
 *   unit    ABSENT -> READY -> RUNNING -> STOPPED            (a unit that dies stays where it was)
 */
import { array, i32, layout, line } from '../../hw/memory/layout.js';
import { MAX_THREADS } from '../../hw/sync/thread.js';

export const MAX_UNITS = 64;

export const PHASE_STARTING = 0;
export const PHASE_RUNNING = 1;
/** Programs return as soon as they can; units and the core still serve them. */
export const PHASE_PROGRAMS_STOP = 2;
/** Units finish what is queued and leave. */
export const PHASE_UNITS_STOP = 3;

export const UNIT_ABSENT = 0;
export const UNIT_READY = 1;
export const UNIT_RUNNING = 2;
export const UNIT_STOPPED = 3;

export const ControlLayout = layout('worker-control', 1, {
  /** PHASE_*. Futex. Writer: the host. */
  phase: line(i32()),
  /** Futex of the core's serving loop: anyone adds one after giving it work. */
  coreDoorbell: line(i32()),
  /** 1 while the core sleeps or is about to: the ringer then notifies. Writer: the core. */
  coreParked: line(i32()),
  /** Thread id of the core. Writer: the host, before any worker starts. */
  coreThread: line(i32()),
  /** UNIT_* of each pIOMMU worker. Writer: that worker. */
  unitState: line(array(i32(), MAX_UNITS)),
  /** Its thread id, 0 before it attached. Writer: that worker. */
  unitThread: line(array(i32(), MAX_UNITS)),
  /** Microseconds from the host's start() until it was ready. Writer: that worker. */
  unitStartUs: line(array(i32(), MAX_UNITS)),
  /**
   * Indexed by machine thread id: node's own thread id + 1, or 0. Writer: the thread on arrival and on
   * departure in good order; the supervisor once it has seen the exit.
   */
  node: line(array(i32(), MAX_THREADS + 1)),
  /** Indexed by machine thread id: 1 while it runs a model or a program. Writer: the thread. */
  busy: line(array(i32(), MAX_THREADS + 1)),
  /** Indexed by machine thread id: number + 1 of the task it runs, or 0. Writer: the thread. */
  task: line(array(i32(), MAX_THREADS + 1)),
});
