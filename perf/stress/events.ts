/**
 * The ledger of faults: every event an SMMU recorded must reach the driver, and every fault a device was
 * answered must have been recorded. Page requests likewise. Wrapped around what the drivers deliver, on the core's thread.
 */
import { PortLayout } from '../../hw/iotlb/port-layout.js';
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import {
  C_BAD_STREAMID,
  C_BAD_SUBSTREAMID,
  EVENT_NAMES,
  F_BAD_ATS_TREQ,
  F_PERMISSION,
  F_TRANSL_FORBIDDEN,
  F_TRANSLATION,
} from '../../hw/smmuv3/event.js';
import { Smmuv3Layout } from '../../hw/smmuv3/smmuv3-layout.js';
import type { IommuInstance } from '../../runtime/drivers/contract.js';
import type { HostEvent } from '../../runtime/drivers/smmuv3/smmu.js';
import type { Machine } from '../../runtime/machine.js';
import { portKey } from '../../runtime/machine-hardware.js';
import { read64 } from './counters.js';
import { DeviceStats, StressLayout } from './stress-layout.js';
import type { ViolationStory } from './types.js';

const NAMED = [
  [F_TRANSLATION, 'F_TRANSLATION', 'translationFaults'],
  [F_PERMISSION, 'F_PERMISSION', 'permissionFaults'],
  [C_BAD_STREAMID, 'C_BAD_STREAMID', 'badStreams'],
  [C_BAD_SUBSTREAMID, 'C_BAD_SUBSTREAMID', 'badSubstreams'],
  [F_TRANSL_FORBIDDEN, 'F_TRANSL_FORBIDDEN', 'forbiddenTranslated'],
  [F_BAD_ATS_TREQ, 'F_BAD_ATS_TREQ', 'forbiddenRequests'],
] as const;

export class EventLedger {
  /** Comparisons made. */
  checks = 0;
  readonly #received: Map<number, number>[];
  readonly #pageRequests: number[];
  readonly #hostProblems: string[] = [];

  constructor(iommus: number) {
    this.#received = Array.from({ length: iommus }, () => new Map<number, number>());
    this.#pageRequests = Array.from({ length: iommus }, () => 0);
  }

  /** Instruments.onHostEvent: events that no guest hears of. */
  host(iommu: number, event: HostEvent): void {
    if (event.kind === 'event') this.#count(iommu, event.record.id);
    else if (event.kind === 'page-request') this.#pageRequests[iommu]!++;
    else if (event.kind !== 'overflow') this.#hostProblems.push(`IOMMU ${iommu}: ${JSON.stringify(event)}`);
  }

  /** Counts what goes to guests as well, and passes it on. */
  tap(instance: IommuInstance): void {
    const deliver = instance.onEvent;
    instance.onEvent = (event) => {
      this.#count(instance.index, event.data[0]!);
      deliver?.(event);
    };
  }

  received(iommu: number): number {
    let sum = 0;
    for (const count of this.#received[iommu]!.values()) sum += count;
    return sum;
  }

  /** Events that reached the driver, by name. */
  byName(iommu: number): Record<string, number> {
    const named: [string, number][] = [];
    for (const [id, count] of this.#received[iommu]!)
      named.push([EVENT_NAMES[id] ?? `event 0x${id.toString(16)}`, count]);
    return Object.fromEntries(named.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** After the last event has been served: do the books balance? */
  audit(machine: Machine): ViolationStory[] {
    const { memory, config, iommus } = machine;
    const stories: ViolationStory[] = [];
    const stress = memory.region(StressLayout, 'stress').base + StressLayout.at.devices;
    for (const { index, name } of iommus) {
      const { recorded, lost, merged } = eventCounters(memory, index);
      const answered = (field: keyof typeof DeviceStats.at): number =>
        config.devices.reduce(
          (sum, { iommuIndex }, device) =>
            iommuIndex === index
              ? sum + read64(memory, stress + device * DeviceStats.size + DeviceStats.at[field])
              : sum,
          0,
        );
      const expect = (what: string, got: number, wanted: number, fewer = 0): void => {
        this.checks++;
        if (got > wanted || got < wanted - fewer)
          stories.push(imbalance(name, `${what}: ${got}, but devices were answered ${wanted} such faults`));
      };
      const total = NAMED.reduce((sum, [, , field]) => sum + answered(field), 0) + answered('otherFaults');
      expect('events recorded, merged or lost to a full queue', recorded + merged + lost, total);
      this.checks++;
      if (this.received(index) !== recorded)
        stories.push(
          imbalance(name, `${recorded} events recorded, ${this.received(index)} reached the driver`),
        );
      // What was merged or lost is not known by type.
      for (const [id, event, field] of NAMED)
        expect(`${event} events`, this.#received[index]!.get(id) ?? 0, answered(field), lost + merged);
      this.checks++;
      const made = answered('pageRequests');
      const reached = this.#pageRequests[index]!;
      const waiting = unserved(machine, index);
      if (made !== reached + waiting)
        stories.push(
          imbalance(
            name,
            `page requests: ${made} made, ${reached} reached the driver, ${waiting} are still at their devices`,
          ),
        );
    }
    for (const problem of this.#hostProblems) stories.push(imbalance('(driver)', problem));
    return stories;
  }

  #count(iommu: number, id: number): void {
    const counts = this.#received[iommu]!;
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
}

export function eventCounters(
  memory: MachineMemory,
  iommu: number,
): { recorded: number; lost: number; merged: number } {
  const { base } = memory.region(Smmuv3Layout, `smmuv3:${iommu}`);
  return {
    recorded: memory.words.load(base + Smmuv3Layout.at.eventsRecorded) >>> 0,
    lost: memory.words.load(base + Smmuv3Layout.at.eventsLost) >>> 0,
    merged: memory.words.load(base + Smmuv3Layout.at.eventsMerged) >>> 0,
  };
}

/** Page requests that the SMMU had not yet taken when the run ended. */
function unserved({ memory, config }: Machine, iommu: number): number {
  return config.devices.reduce((sum, { iommuIndex }, device) => {
    if (iommuIndex !== iommu) return sum;
    const { base } = memory.region(PortLayout, portKey(device));
    const { pprProd, pprCons } = PortLayout.at;
    return sum + ((memory.words.load(base + pprProd) - memory.words.load(base + pprCons)) >>> 0);
  }, 0);
}

function imbalance(iommu: string, summary: string): ViolationStory {
  return {
    rule: 'FAULT',
    summary,
    iommu,
    device: null,
    stream: null,
    iova: null,
    pa: null,
    walk: null,
    invalidation: null,
    sync: null,
    details: [],
  };
}
