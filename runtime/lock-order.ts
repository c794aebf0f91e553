/**
 * The one list of lock ranks, outermost first, after the kernel's own order. A thread that holds a lock of one
 * rank may take only locks of a higher number.
 *
 * The core is a single thread, so the ranks from `ioas` to `pages` name critical sections rather than words in
 * memory: today nobody else enters them. Where threads really meet there is a lock or a lock-free protocol:
 * object references (core/object-table.ts, lock-free), the vSID table (drivers), command queues and rings (hw).
 *
 * @source iommufd_private.h (domains_rwsem -> iova_rwsem -> pages::mutex), design of this project
 */
export const LOCK_ORDER = [
  'objects',
  'ioas',
  'domains',
  'iova',
  'pages',
  'group',
  'vdevs',
  'veventqs',
  'cmdq',
  'ring',
] as const;

export type LockName = (typeof LOCK_ORDER)[number];

/** Rank of a lock: lower is outer. Gaps leave room for a driver's own. */
export const LOCK_RANK: Readonly<Record<LockName, number>> = Object.fromEntries(
  LOCK_ORDER.map((name, i) => [name, (i + 1) * 10]),
) as Record<LockName, number>;
