/**
 * R10, R12: when all programs are through, a transaction stalls only while somebody has yet to answer it: its event is
 * unread, or its fault waits on a FAULT queue; and what waits there is a transaction that still stalls.
 */

import { STALL_TAGS } from '../../../hw/iotlb/port-layout.js';
import { queueUsed } from '../../../hw/smmuv3/queue.js';
import { Smmuv3Layout, STALL_BYTES, STALL_RECORDED, StallEntry } from '../../../hw/smmuv3/smmuv3-layout.js';
import { OBJ_FAULT } from '../../../runtime/core/objects-layout.js';
import type { Machine } from '../../../runtime/machine.js';
import type { Fault } from '../../../runtime/objects/fault.js';
import { type HardwareView, viewsOf } from './hardware-view.js';
import type { EndMonitor, Expect } from './monitor.js';

const at = Smmuv3Layout.at;

export const faultGroups: EndMonitor = {
  name: 'fault groups',
  about: 'who stalls will be answered, once',
  checks: ['R10', 'R12'],
  look(machine: Machine, expect: Expect): void {
    const waiting = [...machine.core.opened]
      .flatMap((ctx) => ctx.published(OBJ_FAULT) as Fault[])
      .flatMap((fault) => fault.pending());
    for (const view of viewsOf(machine)) {
      const { instance, name } = view.iommu;
      const stalled = stalls(view, machine.memory.u32);
      const lg2 = view.log2Of('eventqBase');
      const unread = queueUsed(view.load(at.eventqProd), view.load(at.eventqCons), lg2);
      const faults = waiting.filter(({ handle }) => handle.device.iommu === instance).length;
      expect('R12', stalled <= unread + faults, () => {
        return `${name}: ${stalled} transactions stall, ${unread} events are unread and ${faults} faults wait`;
      });
      expect(
        'R10',
        faults <= stalled,
        () => `${name}: ${faults} faults wait for an answer, ${stalled} transactions stall`,
      );
    }
  },
};

function stalls({ regions }: HardwareView, u32: Uint32Array): number {
  let n = 0;
  for (let i = 0; i < STALL_TAGS; i++) {
    const state = regions.smmu + at.stalls + i * STALL_BYTES + StallEntry.at.state;
    if (u32[state >>> 2] === STALL_RECORDED) n++;
  }
  return n;
}
