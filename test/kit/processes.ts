/** Processes beside the one that a bench's machine lives in: same user addresses, accounts of their own. */
import { FileTable } from '../../runtime/core/file-table.js';
import { type AddressSpace, OwnTask, type RamFrames } from '../../runtime/core/task.js';
import type { PagesHost } from '../../runtime/iova/pages.js';
import type { PinnableMemory } from '../../runtime/iova/pinnable-memory.js';
import type { CoreBench } from './core-bench.js';

export interface Process extends OwnTask {
  readonly mm: AddressSpace & { alive: boolean };
}

/** A process that sees what `memory` has, with no privilege and without a limit. */
export function processOver(memory: PinnableMemory & Partial<AddressSpace>): Process {
  const mm = {
    account: { pinnedVm: 0, lockedVm: 0 },
    alive: true,
    copyIn: (va: bigint, into: Uint8Array) => memory.copyIn?.(va, into) ?? -14,
    copyOut: (va: bigint, from: Uint8Array) => memory.copyOut?.(va, from) ?? -14,
    runAt: (page: number, out: { pfn: number; pages: number }, write?: boolean) =>
      memory.runAt(page, out, write),
    pin: (pfn: number, pages: number) => memory.pin(pfn, pages),
    unpin: (pfn: number, pages: number) => memory.unpin(pfn, pages),
    pinsOf: () => -1,
  };
  const task = new OwnTask(mm, new FileTable());
  task.capabilities.clear();
  return task as Process;
}

/** A process of a bench, forked from the machine's own: addresses mean the same. */
export const forked = (bench: CoreBench): Process => processOver(bench.user);

/** What IoptPages asks of a core, for pages by themselves. */
export function pagesHost(current: OwnTask, physical: Partial<RamFrames> = {}): PagesHost {
  return {
    accountMode: 1,
    core: {
      current,
      compat: 'fixed',
      physical: { read: () => -14, write: () => -14, ...physical },
      allocFails: (site) => current.failNth.shouldFail(site),
    },
  };
}
