/**
 * Memory of the machine that a client has mapped. The machine's memory cannot be lent to another process, so the
 * client maps a file of ours, and what either side stored is carried over to the other word by word, at each sync().
 * A word that both stored to in between is the client's.
 */
import { closeSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import type { Mapping } from '../core/file-table.js';

export class SharedWindow {
  readonly path: string;
  readonly #fd: number;
  readonly #machine: Int32Array;
  /** As both sides had it when they last agreed. */
  readonly #agreed: Int32Array;
  readonly #client: Int32Array;
  readonly #mapping: Mapping;
  readonly #log: (line: string) => void;
  #failed = false;

  /**
   * @param path  of the file to make, readable by nobody else
   * @param log  told when the file can no longer be read or written, once: the client may do to it what it likes
   * @throws an error of fs
   */
  constructor(path: string, memory: MachineMemory, mapping: Mapping, log: (line: string) => void) {
    this.path = path;
    this.#log = log;
    this.#mapping = mapping;
    const { linear, bytes } = mapping;
    this.#machine = memory.i32.subarray(linear >> 2, (linear + bytes) >> 2);
    this.#agreed = this.#machine.slice();
    this.#client = new Int32Array(this.#agreed.length);
    this.#fd = openSync(path, 'wx+', 0o600);
    try {
      ftruncateSync(this.#fd, bytes);
      writeSync(this.#fd, this.#agreed, 0, bytes, 0);
    } catch (error) {
      closeSync(this.#fd);
      rmSync(path, { force: true });
      throw error;
    }
  }

  sync(): void {
    try {
      this.#carryOver();
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #carryOver(): void {
    const client = this.#client;
    const agreed = this.#agreed;
    const machine = this.#machine;
    readSync(this.#fd, client, 0, client.byteLength, 0);
    for (let i = 0; i < agreed.length; i++) {
      if (client[i] !== agreed[i]) machine[i] = agreed[i] = client[i]!;
      else if (machine[i] !== agreed[i]) {
        agreed[i] = machine[i]!;
        writeSync(this.#fd, agreed, i * 4, 4, i * 4);
      }
    }
  }

  /** Nobody has it mapped any more. */
  release(): void {
    this.sync();
    closeSync(this.#fd);
    try {
      rmSync(this.path, { force: true });
    } catch (error) {
      // It is a folder by now, say: that goes with ours.
      this.#fail(error as Error);
    }
    this.#mapping.unmap();
  }

  #fail(error: Error): void {
    if (!this.#failed) this.#log(`serve: memory that a client has mapped: ${error.message}`);
    this.#failed = true;
  }
}
