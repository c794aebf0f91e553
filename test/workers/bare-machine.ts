/** A machine's memory with a thread table and no IOMMU: what the mailbox alone needs. */
import { MachineMemory, type MemoryHandle } from '../../hw/memory/machine-memory.js';
import { monotonicClock, type SyncEnv, ThreadTable, ThreadTableLayout } from '../../hw/sync/thread.js';

export interface Bare {
  readonly memory: MachineMemory;
  readonly env: SyncEnv;
}

export function createBare(): Bare {
  const memory = MachineMemory.create({ ramBytes: 2 * 1024 * 1024, controlBytes: 2 * 1024 * 1024 });
  memory.allocRegion(ThreadTableLayout, 'threads');
  return { memory, env: envOf(memory) };
}

export function attachEnv(handle: MemoryHandle): Bare {
  const memory = MachineMemory.attach(handle);
  return { memory, env: envOf(memory) };
}

function envOf(memory: MachineMemory): SyncEnv {
  const threads = new ThreadTable(memory, memory.region(ThreadTableLayout, 'threads'));
  return { words: memory.words, threads, threadId: threads.register(), clock: monotonicClock, canPark: true };
}
