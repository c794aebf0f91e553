/**
 * R15: every object of an iommufd has the references that others have to it, and no more, when all programs are
 * through. R27: a VM has one vIOMMU on each physical IOMMU.
 *
 *   users = 1 of the table + who points at it:   IOAS <- page tables, accesses   page table <- devices, vIOMMUs
 *                                                vIOMMU <- vDEVICEs, nested tables, event and hardware queues
 *   wait_cnt = 1 of the table + short references that are kept: a vDEVICE's of its device
 */
import type { IommufdCtx } from '../../../runtime/core/ctx.js';
import type { IommufdObject } from '../../../runtime/core/iommufd-object.js';
import {
  FREE,
  LIVE,
  MAX_OBJECTS,
  OBJ_ACCESS,
  OBJ_DEVICE,
  OBJ_HW_QUEUE,
  OBJ_HWPT_NESTED,
  OBJ_HWPT_PAGING,
  OBJ_IOAS,
  OBJ_VIOMMU,
  OBJECT,
  OBJECT_BYTES,
  ObjectsLayout,
  RESERVED,
  STATE_MASK,
  STATE_SHIFT,
  WAIT_MASK,
} from '../../../runtime/core/objects-layout.js';
import type { Machine } from '../../../runtime/machine.js';
import type { Access } from '../../../runtime/objects/access.js';
import type { Device } from '../../../runtime/objects/device.js';
import type { Hwpt, HwptNested, HwptPaging } from '../../../runtime/objects/hwpt.js';
import type { Ioas } from '../../../runtime/objects/ioas.js';
import type { Viommu } from '../../../runtime/objects/viommu.js';
import type { EndMonitor, Expect } from './monitor.js';
import { viommusOf } from './tagged-tables.js';

export const references: EndMonitor = {
  name: 'references',
  about: 'users and wait_cnt of every object are what points at it',
  checks: ['R15'],
  look(machine: Machine, expect: Expect): void {
    for (const ctx of machine.core.opened) {
      const live = checkStates(machine, ctx, expect);
      const objects = all(ctx);
      expect(
        'R15',
        live === objects.length,
        () => `iommufd ${ctx.index}: ${live} IDs are live, ${objects.length} objects`,
      );
      for (const object of objects) checkCounts(ctx, object, expect);
    }
  },
};

export const oneViommu: EndMonitor = {
  name: 'one vIOMMU',
  about: 'a VM has one vIOMMU on each physical IOMMU',
  checks: ['R27'],
  look(machine: Machine, expect: Expect): void {
    for (const ctx of machine.core.opened) {
      const viommus = viommusOf(ctx);
      for (const { iommu } of viommus) {
        const there = viommus.filter((other) => other.iommu === iommu).map(({ id }) => id);
        expect('R27', there.length === 1, () => `vIOMMUs ${there} are all on ${iommu.name}`);
      }
    }
  },
};

const TYPES = Array.from({ length: 16 }, (_, type) => type);
const all = (ctx: IommufdCtx): IommufdObject[] => TYPES.flatMap((type) => ctx.published(type));

/** @returns how many IDs are live */
function checkStates({ memory }: Machine, { index }: IommufdCtx, expect: Expect): number {
  const { i32 } = memory;
  const table = memory.region(ObjectsLayout, `objects:${index}`).base + ObjectsLayout.at.objects;
  let live = 0;
  for (let id = 1; id <= MAX_OBJECTS; id++) {
    const at = table + (id - 1) * OBJECT_BYTES;
    const gate = i32[(at + OBJECT.gate) >>> 2]!;
    // IDs are given out from below: nothing has been past the first that never was.
    if (gate === 0) break;
    const state = gate & STATE_MASK;
    const users = i32[(at + OBJECT.users) >>> 2]!;
    if (state === LIVE) live++;
    if (state === FREE) {
      const held = users !== 0 || (gate & WAIT_MASK) !== 0;
      expect('R15', !held, () => `ID ${id} is free, with ${users} users and wait_cnt ${gate & WAIT_MASK}`);
    }
    // RESERVED: a tombstone.
    const settled = state === LIVE || state === FREE || state === RESERVED;
    expect('R15', settled, () => `ID ${id} is left in state ${state >>> STATE_SHIFT}`);
  }
  return live;
}

function checkCounts(ctx: IommufdCtx, object: IommufdObject, expect: Expect): void {
  const { id, type } = object;
  const users = ctx.objects.users(id);
  const waits = ctx.objects.waitCount(id);
  const kept = type === OBJ_DEVICE && (object as Device).vdevice !== null ? 1 : 0;
  expect(
    'R15',
    waits === 1 + kept,
    () => `object ${id} has wait_cnt ${waits}, ${kept} short references are kept`,
  );
  const wanted = usersOf(ctx, object);
  const [least, most] = wanted ?? [1, Number.POSITIVE_INFINITY];
  expect(
    'R15',
    users >= least && users <= most,
    () => `object ${id} of type ${type} has ${users} users, not ${least}`,
  );
}

/** @returns the least and the most that it may have; null when that cannot be told from outside */
function usersOf(ctx: IommufdCtx, object: IommufdObject): readonly [number, number] | null {
  const exactly = (n: number): readonly [number, number] => [1 + n, 1 + n];
  switch (object.type) {
    case OBJ_DEVICE: {
      const device = object as Device;
      const used = attachmentsOf(ctx).filter(({ devices }) => devices.has(device)).length;
      return exactly(1 + used + (device.vdevice === null ? 0 : 1));
    }
    case OBJ_HWPT_PAGING: {
      const parents = nested(ctx).filter(({ viommu, parent }) => viommu === null && parent === object);
      const viommus = viommusOf(ctx).filter(({ parent }) => parent === object);
      return exactly(attachedTo(ctx, object as HwptPaging) + parents.length + viommus.length);
    }
    case OBJ_HWPT_NESTED:
      return exactly(attachedTo(ctx, object as HwptNested));
    case OBJ_IOAS: {
      const accesses = (ctx.published(OBJ_ACCESS) as Access[]).filter(({ ioas }) => ioas === object);
      const known = (object as Ioas).hwpts.size + accesses.length;
      // A hardware queue has an access of its own, which is no object.
      const hidden = ctx.published(OBJ_HW_QUEUE).length;
      return [1 + known, 1 + known + hidden];
    }
    case OBJ_VIOMMU: {
      const { vdevices, veventqs, hwQueues, driver } = object as Viommu;
      const tables = nested(ctx).filter(({ viommu }) => viommu === object);
      const known = vdevices.size + veventqs.size + hwQueues.size + tables.length;
      // Of one with hardware queues the registers may be mapped, any number of times.
      return [1 + known, driver.hwQueues === undefined ? 1 + known : Number.POSITIVE_INFINITY];
    }
    default:
      return null;
  }
}

const nested = (ctx: IommufdCtx): HwptNested[] => ctx.published(OBJ_HWPT_NESTED) as HwptNested[];
const attachmentsOf = (ctx: IommufdCtx) =>
  [...ctx.groups.values()].flatMap((group) => [...group.attachments()]);
const attachedTo = (ctx: IommufdCtx, hwpt: Hwpt): number =>
  attachmentsOf(ctx).reduce((n, { handle, devices }) => n + (handle.hwpt === hwpt ? devices.size : 0), 0);
