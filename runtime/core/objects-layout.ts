/**
 * The object table of one open iommufd, in shared memory: region `objects:N`, N the fd's index.
 *
 *   id 1      id 2            ...            id 4096
 *   | gate users type payload[4] | ... |          one cache line each
 *
 *   gate  31        16 15   14 13        0
 *         | generation | state | wait_cnt |
 *
 * Linux keeps `users` and `wait_cnt` as two counters under the object xarray's lock. Here any thread takes a
 * reference without a lock, so what must be judged together (is it live, is it still the same object, count
 * me in) shares one word and changes by compare-exchange.
 *
 *   FREE --reserve--> RESERVED --publish--> LIVE --remove--> DYING --free--> FREE
 *          (generation + 1)  \--abort--> FREE                  \--> RESERVED (a tombstone, until the fd goes)
 */
import { i32, layout, line, raw } from '../../hw/memory/layout.js';

export const MAX_OBJECTS = 4096;
export const OBJECT_BYTES = 64;

/**
 * waiting: +1 and -1 by the core around parking, read by whoever drops the last short reference.
 * objects: gate and users by any thread (atomic); type and payload by the core, only while not LIVE.
 */
export const ObjectsLayout = layout('objects', 1, {
  waiting: line(i32()),
  objects: raw(OBJECT_BYTES * MAX_OBJECTS),
});

/** Byte offsets inside one object. */
export const OBJECT = { gate: 0, users: 4, type: 8, payload: 16 } as const;

export const WAIT_MASK = 0x3fff;
export const STATE_SHIFT = 14;
export const STATE_MASK = 3 << STATE_SHIFT;
export const GENERATION_SHIFT = 16;

export const FREE = 0 << STATE_SHIFT;
export const RESERVED = 1 << STATE_SHIFT;
export const LIVE = 2 << STATE_SHIFT;
export const DYING = 3 << STATE_SHIFT;

/** enum iommufd_object_type; the order is this project's. */
export const OBJ_ANY = 0;
export const OBJ_DEVICE = 1;
export const OBJ_IOAS = 2;
export const OBJ_HWPT_PAGING = 3;
export const OBJ_HWPT_NESTED = 4;
export const OBJ_VIOMMU = 5;
export const OBJ_VDEVICE = 6;
export const OBJ_VEVENTQ = 7;
export const OBJ_HW_QUEUE = 8;
export const OBJ_ACCESS = 9;
export const OBJ_SELFTEST = 15;
export const OBJ_FAULT = 10;

/** payload of a vIOMMU: the driver's shared record, and which driver. */
export const VIOMMU_SHARED_BASE = 0;
export const VIOMMU_DRIVER = 1;
/** payload of a nested HWPT: its vIOMMU, or 0. */
export const NESTED_VIOMMU_ID = 0;

/** A driver's name as one word (FNV-1a), so that any thread can tell whose vIOMMU it holds. */
export function driverKey(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash | 0;
}
