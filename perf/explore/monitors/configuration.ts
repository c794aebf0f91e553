/**
 * R3: what an SMMU has cached of a stream's configuration is what STE and CD say. The driver invalidates and waits
 * before an update returns, so when all programs are through nothing older may be left. A guest's CD is the guest's to
 * invalidate: a scenario in which it does not switches this off.
 */
import { StreamContext } from '../../../hw/iotlb/unit-layout.js';
import type { Machine } from '../../../runtime/machine.js';
import { viewsOf } from './hardware-view.js';
import type { EndMonitor, Expect } from './monitor.js';

const ctx = StreamContext.at;
const FIRST = ctx.kind >>> 2;
const LAST = ctx.ssid >>> 2;
const FIELDS = Object.entries(ctx).map(([name, offset]) => [name, offset >>> 2] as const);

export const configuration: EndMonitor = {
  name: 'configuration',
  about: 'cached stream configurations are what STE and CD say',
  checks: ['R3'],
  look(machine: Machine, expect: Expect): void {
    const { u32 } = machine.memory;
    for (const view of viewsOf(machine)) {
      if (!view.enabled) continue;
      for (const context of view.cachedContexts()) {
        const cached = u32.slice(context >>> 2, (context >>> 2) + LAST + 1);
        const [sid, ssid] = [cached[ctx.sid >>> 2]!, cached[ctx.ssid >>> 2]!];
        const now = view.fresh(sid, ssid);
        const differs = differing(cached, now);
        expect('R3', differs === null, () => {
          const what = `${view.iommu.name} has StreamID ${sid}, SubstreamID ${ssid} cached`;
          return now === null
            ? `${what}, which now faults`
            : `${what} with another ${differs} than its STE and CD say`;
        });
      }
    }
  },
};

/** @returns the first field that differs, or null */
function differing(cached: Uint32Array, now: Uint32Array | null): string | null {
  for (let i = FIRST; i <= LAST; i++)
    if (now?.[i] !== cached[i]) return FIELDS.findLast(([, word]) => word <= i)?.[0] ?? `word ${i}`;
  return null;
}
