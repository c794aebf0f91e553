/** 64-bit counters in shared memory, one writer each: exact as Numbers, cheap to bump, readable by anyone. */
import type { MachineMemory } from '../../hw/memory/machine-memory.js';

export function bump(memory: MachineMemory, offset: number, by = 1): void {
  const { u32 } = memory;
  const word = offset >>> 2;
  const low = u32[word]! + by;
  u32[word] = low;
  if (low > 0xffff_ffff) u32[word + 1] = u32[word + 1]! + 1;
}

export function read64(memory: MachineMemory, offset: number): number {
  const { u32 } = memory;
  const word = offset >>> 2;
  for (;;) {
    const high = u32[word + 1]!;
    const low = u32[word]!;
    if (u32[word + 1] === high) return high * 2 ** 32 + low;
  }
}
