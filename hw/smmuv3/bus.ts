/**
 * The SMMU's own accesses to memory. [IHI0070] 3.4.3. An address outside RAM is an external abort, which the
 * caller turns into the event or error that its access type asks for. Structures are read as single 64-bit
 * accesses, one by one, so that an update in between is seen torn, as on hardware; what lies in external memory is
 * read as bytes.
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
   * @returns false when any of them is no memory; `out` is then unchanged
   */
  readQuads(pa: number, quads: number, out: Uint32Array): boolean {
    const from = this.memory.linearOf(pa, quads * 8);
    if (from < 0) return this.#readExternal(pa, quads, out);
    for (let i = 0; i < quads; i++) setQuad(out, i * 2, this.memory.words.load64(from + i * 8));
    return true;
  }

  /** A message-signalled interrupt. @returns false on an external abort */
  write32(pa: number, value: number): boolean {
    const to = this.memory.linearOf(pa, 4);
    if (to < 0) return this.#writeExternal(pa, value);
    this.memory.words.store(to, value);
    this.memory.words.notify(to, 1);
    return true;
  }
  #readExternal(pa: number, quads: number, out: Uint32Array): boolean {
    const { external } = this.memory;
    if (external?.includes(pa) !== true) return false;
    const bytes = new Uint8Array(quads * 8);
    if (!external.read(pa, bytes)) return false;
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < quads * 2; i++) out[i] = view.getUint32(i * 4, true);
    return true;
  }

  #writeExternal(pa: number, value: number): boolean {
    const { external } = this.memory;
    if (external?.includes(pa) !== true) return false;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    return external.write(pa, bytes);
  }
}
