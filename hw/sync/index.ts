/**
 * Public entry point `iommufd/sync`: shared memory for threads that take turns. What is built on it runs as it is, and
 * under `iommufd/explore`, schedule by schedule.
 */
export { array, i32, type Layout, layout, line, raw, u32, u64 } from '../memory/layout.js';
export * from './barrier.js';
export * from './condition.js';
export * from './doorbell.js';
export * from './epoch.js';
export { setLockOrderCheck } from './lock-rank.js';
export * from './mpsc-ring.js';
export * from './mutex.js';
export * from './once.js';
export * from './rw-lock.js';
export * from './semaphore.js';
export * from './seq-lock.js';
export * from './spin-lock.js';
export * from './spsc-ring.js';
export * from './thread.js';
export * from './wait.js';
export {
  type ScheduleHook,
  scheduleHook,
  setScheduleHook,
  type WaitResult,
  type WordOp,
  Words,
} from './words.js';
