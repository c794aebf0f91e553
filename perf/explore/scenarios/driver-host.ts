/**
 * What scenarios of the SMMU's driver begin with: domains, pages and devices without the objects of iommufd, whose
 * locks are steps that say nothing of the driver.
 */

import type { Domain, HostDevice } from '../../../runtime/drivers/contract.js';
import { Smmuv3PagingDomain } from '../../../runtime/drivers/smmuv3/domain.js';
import type { Smmuv3Instance } from '../../../runtime/drivers/smmuv3/smmu.js';
import type { Machine } from '../../../runtime/machine.js';
import { PageOwners } from '../monitors/page-owners.js';
import type { ThreadContext } from '../scenario.js';
import { PAGE_BYTES } from './small-host.js';

/** Of allocPaging(). */
export const STAGE_1 = 0;
export const STAGE_2 = 1;
const READ_WRITE = 3;

export interface DriverHost {
  readonly instance: Smmuv3Instance;
  readonly devices: readonly HostDevice[];
  readonly owners: PageOwners;
  /** @param kind  STAGE_1, or STAGE_2: a nest parent */
  domain(kind: number): Smmuv3PagingDomain;
  /** Maps a new frame. @returns its PA */
  map(domain: Smmuv3PagingDomain, iova: bigint, owner: number): number;
  /** @throws Error it does not succeed */
  attach(device: number, domain: Domain | null): void;
}

export function driverHost(ctx: ThreadContext, machine: Machine): DriverHost {
  const owners = PageOwners.watch(ctx, machine);
  const { instance } = machine.iommus[0]!;
  const devices = machine.config.devices.map(({ label }) => machine.device(label));
  return {
    instance,
    devices,
    owners,
    domain(kind) {
      const made = instance.allocPaging(devices[0]!, kind);
      if (made instanceof Smmuv3PagingDomain) return made;
      throw new Error(`no domain: ${String(made)}`);
    },
    map(domain, iova, owner) {
      const pfn = machine.frames.alloc();
      const status = domain.map(Number(iova) / PAGE_BYTES, pfn, 1, READ_WRITE);
      if (status < 0) throw new Error(`map: ${status}`);
      owners.give(pfn * PAGE_BYTES, owner);
      return pfn * PAGE_BYTES;
    },
    attach(device, domain) {
      const status = instance.attach(devices[device]!, domain);
      if (status < 0) throw new Error(`attach: ${status}`);
    },
  };
}
