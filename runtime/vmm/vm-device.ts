/**
 * A device assigned to a VM, and where its traffic goes: to bypass or abort while the guest has not configured
 * its stream, to a nested table made from the guest's STE afterwards. Every change is one attach, which replaces
 * what was there without a gap; the table replaced is destroyed after it.
 */
import { getQuad } from '../../hw/smmuv3/bitfield.js';
import { CONFIG_S1_TRANS, STE, STE_BYTES } from '../../hw/smmuv3/ste.js';
import type { VmServices, VmViommu } from './vm-viommu.js';

/** 32-bit words of the part of an STE that a guest has a say in: its first two 64-bit words. */
export const VSTE_WORDS = 4;

/**
 * Which bits of those words reach the kernel; others (attributes, shareability) a guest may set but they mean
 * nothing here, and IOMMU_HWPT_ALLOC would refuse them.
 */
const VSTE_MASK = ((): Uint32Array => {
  const words = new Uint32Array(STE_BYTES / 4);
  STE.V.put(words, 1);
  STE.Config.put(words, 0b111);
  STE.S1Fmt.put(words, 0b11);
  STE.S1ContextPtr.put(words, 2 ** 52 - 64);
  STE.S1CDMax.put(words, 0b1_1111);
  for (const field of [STE.S1DSS, STE.S1CIR, STE.S1COR, STE.S1CSH, STE.EATS]) field.put(words, 0b11);
  STE.S1STALLD.put(words, 1);
  return words.subarray(0, VSTE_WORDS);
})();

export class VmDevice {
  /** Index in the machine. */
  readonly index: number;
  readonly devId: number;
  readonly vSid: number;
  readonly viommu: VmViommu;
  readonly vdeviceId: number;
  readonly #vm: VmServices;
  readonly #ste = new Uint32Array(VSTE_WORDS);
  /** Attached table that is this device's own, or 0. */
  #nestedHwptId = 0;
  #attachedPtId = 0;
  /** Tables replaced whose destroy was refused; tried again when the device leaves. */
  readonly #leftover: number[] = [];

  constructor(
    vm: VmServices,
    where: { index: number; devId: number; vSid: number; viommu: VmViommu; vdeviceId: number },
  ) {
    this.#vm = vm;
    this.index = where.index;
    this.devId = where.devId;
    this.vSid = where.vSid;
    this.viommu = where.viommu;
    this.vdeviceId = where.vdeviceId;
  }

  /** Translated through the guest's own tables (an S1 STE is in force). */
  get translated(): boolean {
    return this.#nestedHwptId !== 0 && STE.Config.get(this.#ste) === CONFIG_S1_TRANS;
  }

  attachBypass(): number {
    return this.#replace(this.viommu.bypassHwptId, 0);
  }

  attachAbort(): number {
    return this.#replace(this.viommu.abortHwptId, 0);
  }

  /**
   * Puts the guest's STE in force. One the kernel refuses aborts the stream's traffic.
   * @param words  VSTE_WORDS words, from the guest
   * @returns 0 | -EIO the STE is not allowed | -errno
   */
  install(words: Uint32Array): number {
    const ste = words.map((word, i) => (word & VSTE_MASK[i]!) >>> 0);
    if (STE.V.get(ste) === 0) return this.attachAbort();
    if (this.#nestedHwptId !== 0 && ste.every((word, i) => word === this.#ste[i])) return 0;
    const quads: [bigint, bigint] = [getQuad(ste, 0), getQuad(ste, 2)];
    const hwptId = this.#vm.calls.nestedAlloc(this.devId, this.viommu.id, quads);
    const status = hwptId < 0 ? hwptId : this.#replace(hwptId, hwptId);
    if (status >= 0) {
      this.#ste.set(ste);
      return 0;
    }
    if (hwptId > 0) this.#vm.calls.destroy(hwptId);
    this.attachAbort();
    return status;
  }

  /** Takes the device out of the VM: its DMA is blocked, its vDEVICE gone, the device closed. */
  remove(): number {
    const { calls, transport } = this.#vm;
    let status = this.#attachedPtId === 0 ? 0 : calls.detach(this.index);
    this.#attachedPtId = 0;
    this.#dropNested(0);
    for (const id of [...this.#leftover.splice(0), this.vdeviceId])
      status = Math.min(status, calls.destroy(id));
    transport.vfioClose(this.index);
    return status;
  }

  #replace(ptId: number, nestedHwptId: number): number {
    if (this.#attachedPtId === ptId) return 0;
    const status = this.#vm.calls.attach(this.index, ptId);
    if (status < 0) return status;
    this.#attachedPtId = ptId;
    this.#dropNested(nestedHwptId);
    return 0;
  }

  #dropNested(next: number): void {
    const old = this.#nestedHwptId;
    this.#nestedHwptId = next;
    if (old !== 0 && this.#vm.calls.destroy(old) < 0) this.#leftover.push(old);
  }
}
