/**
 * R6: no translation carries an ID on an SMMU at the moment that the ID is given out there. Looked for in the IOTLB,
 * by the thread that gives it out.
 */
import { iotlbLayout } from '../../../hw/iotlb/unit-layout.js';
import type { CreateOptions } from '../../../runtime/machine.js';
import type { ThreadContext } from '../scenario.js';

/** For MachineScenario.instrument. */
export const watchTags =
  (ctx: ThreadContext): NonNullable<CreateOptions['instrument']> =>
  (memory, kernel, config) => ({
    onAllocateTag(iommu, kind, id) {
      const { base } = memory.region(iotlbLayout(config.iommus[iommu]!.iotlbEntries), `iotlb:${iommu}`);
      const left = kind === 'vmid' ? kernel.iotlbCountVmid(base, id) : kernel.iotlbCountAsid(base, 0, id);
      ctx.check(
        'R6',
        left === 0,
        () => `${kind} ${id} is given out, and ${left} cached translations carry it`,
      );
    },
  });
