/**
 * One access of a device to one page, with its data phase: between translation and the end of the epoch the page is
 * the device's, and that is when a check may ask whose it ought to be.
 */
import { NO_SSID, XLAT_FLAG_WRITE, XLAT_OK } from '../../../hw/iotlb/port-layout.js';
import type { DmaPort } from '../../../hw/pci/dma-port.js';
import type { MachineThread } from '../../../runtime/machine-thread.js';
import type { ThreadContext } from '../scenario.js';

export const WRITE = XLAT_FLAG_WRITE;
export const READ = 0;

export class PageAccess {
  readonly port: DmaPort;
  readonly #ctx: ThreadContext;
  readonly #thread: MachineThread;

  /** @param device  its index in the machine's configuration */
  constructor(ctx: ThreadContext, thread: MachineThread, device: number) {
    this.#ctx = ctx;
    this.#thread = thread;
    this.port = thread.dmaPort(device);
  }

  /**
   * Moves a word.
   * @param kind    READ or WRITE
   * @param landed  after the word was moved, and before the epoch is left
   * @param ssid    its PASID, or NO_SSID
   * @returns XLAT_OK, or the fault
   */
  make(iova: bigint, kind: number, landed: (pa: number) => void, ssid: number = NO_SSID): number {
    const { port } = this;
    port.prepare(0, Number(iova & 0xffff_ffffn), Number(iova >> 32n), kind, port.streamId, ssid);
    port.translate(1);
    const status = port.status(0);
    if (status === XLAT_OK) {
      const pa = port.pa(0);
      const { memory } = this.#thread;
      const linear = memory.linearOf(pa, 4);
      if (kind === WRITE) memory.words.store(linear, this.#ctx.index);
      else memory.words.load(linear);
      landed(pa);
    }
    port.end();
    return status;
  }
}
