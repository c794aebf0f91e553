/**
 * The SMMU's own accesses to memory. [IHI0070] 3.4.3. An address outside RAM is an external abort, which the
 * caller turns into the event or error that its access type asks for. Structures are read as single 64-bit
 * accesses, one by one, so that an update in between is seen torn, as on hardware.
 */
import type { MachineMemory } from '../memory/machine-memory.js';
import { setQuad } from './bitfield.js';

export class Bus {
  readonly memory: MachineMemory;

  constructor(memory: MachineMemory) {
    this.memory = memory;
  }

  /**
   * Reads `quads` 64-bit words at a physical address, 8-byte aligned, into `out`.
   * @returns false when any of them is outside RAM; `out` is then unchanged
   */
  readQuads(pa: number, quads: number, out: Uint32Array): boolean {
    const from = this.memory.linearOf(pa, quads * 8);
    if (from < 0) return false;
    for (let i = 0; i < quads; i++) setQuad(out, i * 2, this.memory.words.load64(from + i * 8));
    return true;
  }

  /** A message-signalled interrupt. @returns false on an external abort */
  write32(pa: number, value: number): boolean {
    const to = this.memory.linearOf(pa, 4);
    if (to < 0) return false;
    this.memory.words.store(to, value);
    this.memory.words.notify(to, 1);
    return true;
  }
}
