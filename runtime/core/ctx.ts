/**
 * What one open `/dev/iommu` owns: its objects and their lives. struct iommufd_ctx, main.c.
 *
 * Core thread only, but for the reference counts, which lie in the shared object table.
 */
import { bug } from '../../hw/memory/bug.js';
import { EBUSY, ENOENT, ENOMEM } from '../../uapi/abi/errno.js';
import { ACCOUNT_USER, type AccountMode } from '../iova/accounting.js';
import type { IommufdGroup } from '../objects/group.js';
import type { CoreContext } from './context.js';
import type { IommufdCore } from './core.js';
import { Invalidations } from './invalidations.js';
import type { IommufdObject } from './iommufd-object.js';
import { Mmaps } from './mmaps.js';
import { ObjectTable } from './object-table.js';

/** Wait for short references before destroying. */
export const REMOVE_WAIT = 1 << 0;
/** Leave the ID reserved until the fd is gone. */
export const REMOVE_TOMBSTONE = 1 << 1;

/** How long a destroy waits for short references. */
const DESTROY_TIMEOUT_NS = 60e9;

export class IommufdCtx {
  readonly core: IommufdCore;
  readonly index: number;
  readonly objects: ObjectTable;
  readonly invalidations: Invalidations;
  readonly mmaps: Mmaps = new Mmaps(this);
  /** By IOMMU and group. */
  readonly groups = new Map<string, IommufdGroup>();
  /** Whom pinned pages are charged to (IOMMU_OPTION_RLIMIT_MODE). */
  accountMode: AccountMode = ACCOUNT_USER;
  /** Which IOAS the VFIO container calls are about; it is published. */
  vfioIoas: IommufdObject | null = null;
  /** Published objects. */
  readonly #byId = new Map<number, IommufdObject>();
  /** The open descriptor, each bound device, each open event queue. */
  #fileRefs = 1;
  readonly #released: () => void;
  readonly #tombstones: number[] = [];

  constructor(core: IommufdCore, index: number, released: () => void) {
    this.core = core;
    this.index = index;
    const { memory, env } = core.context;
    this.objects = new ObjectTable(memory, env, index);
    const current = { copyIn: (va: bigint, into: Uint8Array) => core.current.mm.copyIn(va, into) };
    const { invalidators } = core.context;
    this.invalidations = new Invalidations(this.objects, current, invalidators ?? new Map(), {
      compat: core.compat,
      allocFails: (site) => core.allocFails(site),
      onCore: (id) => this.#byId.get(id)?.invalidator ?? null,
    });
    this.#released = released;
  }

  get context(): CoreContext {
    return this.core.context;
  }

  /** Published objects, in no order. */
  get objectCount(): number {
    return this.#byId.size;
  }

  /** Published objects of a type, by ID. */
  published(type: number): IommufdObject[] {
    return [...this.#byId.values()].filter((object) => object.type === type).sort((a, b) => a.id - b.id);
  }

  /** Whether any object exists, or once did whose ID stays taken. */
  get empty(): boolean {
    return this.#byId.size === 0 && this.#tombstones.length === 0;
  }

  /** Take a short reference. @returns the object, to be given back with put(), or undefined (ENOENT) */
  get<T extends IommufdObject>(id: number, type: number): T | undefined {
    if (this.core.allocFails('get_object') || this.objects.get(id, type) < 0) return undefined;
    return this.#byId.get(id) as T;
  }

  /** get() of an object that is known to exist, though maybe not for long (iommufd_lock_obj). @returns whether it is held */
  lock(object: IommufdObject): boolean {
    return this.objects.get(object.id, object.type) === 0;
  }

  put(object: IommufdObject): void {
    this.objects.put(object.id);
  }

  /** The memory and the ID of a new object (_iommufd_object_alloc). @returns an ID | -ENOMEM */
  reserve(type: number): number {
    if (this.core.allocFails('object') || this.core.allocFails('object id')) return -ENOMEM;
    return this.objects.reserve(type);
  }

  /** Make a new object visible (iommufd_object_finalize). */
  publish(object: IommufdObject): void {
    this.#byId.set(object.id, object);
    this.objects.publish(object.id);
  }

  /** Undo a creation that failed before publish(). */
  abort(object: IommufdObject): void {
    object.destroy();
    if (this.objects.users(object.id) !== 1) bug(`object ${object.id} aborted while in use`);
    this.objects.free(object.id);
  }

  /**
   * Destroy by ID, when nothing uses it (IOMMU_DESTROY).
   * @returns 0 | -ENOENT | -EBUSY
   */
  destroyId(id: number): number {
    const object = this.#byId.get(id);
    return object === undefined ? -ENOENT : this.#remove(object, false, 0);
  }

  /**
   * Destroy an object of which the caller holds a use; that use is given up whatever the result.
   * @param flags  REMOVE_*
   * @returns 0 | -EBUSY others use it
   */
  destroyHeld(object: IommufdObject, flags: number): number {
    return this.#remove(object, true, flags);
  }

  getFile(): void {
    this.#fileRefs++;
  }

  putFile(): void {
    if (--this.#fileRefs === 0) this.#release();
  }

  /** @source main.c iommufd_object_remove */
  #remove(object: IommufdObject, held: boolean, flags: number): number {
    const { id } = object;
    const waited = (flags & REMOVE_WAIT) !== 0;
    if (waited && this.#waitUnheld(object) < 0) {
      this.objects.dropUser(id);
      return -EBUSY;
    }
    if (held) this.objects.dropUser(id);
    if (!this.objects.dropLastUser(id)) {
      if (waited) this.objects.restoreBias(id);
      return -EBUSY;
    }
    this.#byId.delete(id);
    this.objects.unpublish(id);
    if (this.vfioIoas === object) this.vfioIoas = null;
    const waits = !waited && !this.core.bugs['destroy-does-not-wait'];
    // Without users a remaining short reference is one about to be dropped.
    if (waits && this.#waitUnheld(object) < 0) {
      this.objects.republish(id);
      this.#byId.set(id, object);
      return -EBUSY;
    }
    object.destroy();
    if (flags & REMOVE_TOMBSTONE) {
      this.objects.entomb(id);
      this.#tombstones.push(id);
    } else this.objects.free(id);
    return 0;
  }

  #waitUnheld(object: IommufdObject): number {
    if (this.objects.dropBias(object.id)) return 0;
    object.preDestroy();
    const status = this.objects.waitUnheld(object.id, DESTROY_TIMEOUT_NS);
    if (status < 0) {
      this.objects.restoreBias(object.id);
      this.context.log(`iommufd: timed out waiting for object ${object.id} to become free`);
    }
    return status;
  }

  /**
   * Last reference to the file is gone: destroy leaves until nothing is left. Each destroyed leaf gives up
   * its uses of inner objects, so this ends; a thread that is just leaving an ioctl delays it.
   */
  #release(): void {
    while (this.#byId.size > 0) {
      let destroyed = 0;
      for (const object of [...this.#byId.values()].sort((a, b) => a.id - b.id))
        if (this.objects.users(object.id) === 1 && this.#remove(object, false, 0) === 0) destroyed++;
      if (destroyed === 0 && !this.#waitForStragglers()) {
        this.context.log(`iommufd: ${this.#byId.size} objects still in use at close`);
        return;
      }
    }
    for (const id of this.#tombstones) this.objects.free(id);
    if (this.groups.size > 0) bug('groups outlive their iommufd');
    this.#released();
  }

  /** @returns whether some thread has left an ioctl since */
  #waitForStragglers(): boolean {
    const held = [...this.#byId.values()].find((object) => this.objects.waitCount(object.id) > 1);
    if (held === undefined) return false;
    this.objects.dropBias(held.id);
    const status = this.objects.waitUnheld(held.id, DESTROY_TIMEOUT_NS);
    this.objects.restoreBias(held.id);
    return status === 0;
  }
}
