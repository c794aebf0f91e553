/**
 * An open iommufd as a thread other than the core's sees it: the one ioctl that does not travel to the core.
 * A guest's invalidations are frequent and must not queue behind somebody's 64 GiB map.
 */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { SyncEnv } from '../../hw/sync/thread.js';
import { EFAULT } from '../../uapi/abi/errno.js';
import { HwptInvalidate } from '../../uapi/iommufd/hwpt-invalidate.js';
import type { SharedInvalidator } from '../drivers/contract.js';
import type { Compat } from './context.js';
import { Invalidations, type ReadableUser } from './invalidations.js';
import { SharedObjects } from './object-table.js';
import { copyStructIn, structSize } from './struct-copy.js';

export class SharedIommufd {
  readonly #invalidations: Invalidations;

  /**
   * @param env           this thread's
   * @param fdIndex       `IommufdFd.index`
   * @param invalidators  by driver name, this thread's own
   * @param compat        the machine's; default 'fixed'
   */
  constructor(
    env: SyncEnv,
    memory: MachineMemory,
    user: ReadableUser,
    fdIndex: number,
    invalidators: ReadonlyMap<string, SharedInvalidator>,
    compat?: Compat,
  ) {
    this.#invalidations = new Invalidations(new SharedObjects(memory, env, fdIndex), user, invalidators, {
      compat,
    });
  }

  /**
   * IOMMU_HWPT_INVALIDATE, exactly as through the core.
   * @param bytes  struct iommu_hwpt_invalidate; entry_num is written back
   * @returns 0 | -errno
   */
  hwptInvalidate(bytes: Uint8Array): number {
    if (bytes.byteLength < 4) return -EFAULT;
    const cmd = copyStructIn(HwptInvalidate, bytes, structSize(bytes));
    if (typeof cmd === 'number') return cmd;
    const status = this.#invalidations.execute(cmd);
    HwptInvalidate.put(bytes, 'entryNum', cmd.entryNum);
    return status;
  }
}
