/** What every object of an iommufd has: an ID, a type, an end. struct iommufd_object. */
import type { UserDataArray } from '../drivers/user-data.js';
import type { IommufdCtx } from './ctx.js';

/** What IOMMU_HWPT_INVALIDATE calls where no SharedInvalidator serves. */
export interface CoreInvalidator {
  cacheInvalidate?(array: UserDataArray): number;
}

export abstract class IommufdObject {
  readonly ctx: IommufdCtx;
  readonly id: number;
  /** OBJ_*. */
  readonly type: number;

  /** @param id  reserved in the ctx's table for this object */
  constructor(ctx: IommufdCtx, id: number, type: number) {
    this.ctx = ctx;
    this.id = id;
    this.type = type;
  }

  /** Release what the object holds; nobody can see it any more. Never fails. Also undoes a creation. */
  abstract destroy(): void;

  /** A forced destroy is about to wait for short references: revoke those held on behalf of other objects. */
  preDestroy(): void {
    // Most objects hand out none.
  }

  /** Its driver's half, for an object that user space invalidates. */
  get invalidator(): CoreInvalidator | null {
    return null;
  }

  addUser(): void {
    this.ctx.objects.addUser(this.id);
  }

  dropUser(): void {
    this.ctx.objects.dropUser(this.id);
  }
}
