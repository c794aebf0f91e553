/**
 * A thread names an object in its IOMMU_HWPT_INVALIDATE while that is destroyed and the ID goes to another. Whatever
 * it is told (an IOAS is nothing to invalidate), no object may have a reference too many or too few afterwards: of a
 * freed ID none is left, of a live one that of the table.
 *
 *   guest   get(id) . type . put(id)
 *   core        DESTROY . IOAS_ALLOC: the same id
 */
import {
  FREE,
  GENERATION_SHIFT,
  LIVE,
  OBJECT,
  OBJECT_BYTES,
  ObjectsLayout,
  STATE_MASK,
  WAIT_MASK,
} from '../../../runtime/core/objects-layout.js';
import { Destroy, IOMMU_DESTROY } from '../../../uapi/iommufd/destroy.js';
import { machineScenario } from '../machine-scenario.js';
import { invalidation, SMALL } from './object-guest.js';

/** IDs that are looked at: all that are ever given out here. */
const IDS = 8;

interface Shared {
  readonly fdIndex: number;
  readonly ioctl: readonly number[];
}

export const referenceDuringDestroy = machineScenario<Shared>({
  name: 'reference-during-destroy',
  about: 'a thread names an object that is destroyed, and whose ID is given to another',
  checks: ['R15'],
  machine: SMALL,
  core(ctx, machine, share) {
    const fd = machine.openIommufd();
    const { ioasId } = fd.ioasAlloc();
    share({ fdIndex: fd.index, ioctl: [...invalidation(machine, ioasId, [])] });
    const objects =
      machine.memory.region(ObjectsLayout, `objects:${fd.index}`).base + ObjectsLayout.at.objects;
    const { u32 } = machine.memory;
    return {
      run() {
        // EBUSY while the guest is in the middle of its call.
        fd.ioctl(IOMMU_DESTROY, Destroy.toBytes({ size: Destroy.size, id: ioasId }));
        fd.ioasAlloc();
      },
      check() {
        for (let id = 1; id <= IDS; id++) {
          const at = objects + (id - 1) * OBJECT_BYTES;
          const gate = u32[(at + OBJECT.gate) >>> 2]!;
          const [state, held] = [gate & STATE_MASK, gate & WAIT_MASK];
          const life = gate >>> GENERATION_SHIFT;
          ctx.check(
            'R15',
            (state === FREE && held === 0) || (state === LIVE && held === 1),
            () =>
              `object ${id}, life ${life}: ${held} references where nobody has one, state ${state >>> 14}`,
          );
        }
      },
    };
  },
  threads: {
    guest(_ctx, thread, { fdIndex, ioctl }) {
      const shared = thread.shared(fdIndex);
      return () => {
        for (let i = 0; i < 2; i++) shared.hwptInvalidate(Uint8Array.from(ioctl));
      };
    },
  },
});
