/**
 * The logical VCMDQs of a VINTF, each a queue of the guest's: allocated from 0 up and destroyed from the last down,
 * as the hardware wants them. struct tegra241_vcmdq. The guest enables its queue itself, through the VINTF's page.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/tegra241-cmdqv.c tegra241_vintf_alloc_lvcmdq_user,
 *   tegra241_vcmdq_hw_deinit
 */
import { COMMAND_BYTES, encodeSync, SYNC_CS_NONE } from '../../../hw/smmuv3/command.js';
import {
  CMDQ_ALLOC,
  CMDQV_CMDQ_ALLOC,
  PAGE_BYTES,
  VCMDQ_BASE,
  VCMDQ_CONFIG,
  VCMDQ_CONS,
  VCMDQ_CONS_INDX_BASE,
  VCMDQ_GERROR,
  VCMDQ_GERRORN,
  VCMDQ_PROD,
  VCMDQ_STATUS,
  VCMDQ_STRIDE,
  VINTF_PAGES,
} from '../../../hw/tegra241-cmdqv/registers.js';
import { EEXIST, EINVAL, EIO } from '../../../uapi/abi/errno.js';
import { IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV } from '../../../uapi/iommufd/hw-queue.js';
import type { DriverHwQueue, DriverHwQueues, HwQueuePlace } from '../contract.js';
import type { Tegra241Cmdqv } from './cmdqv.js';

const MIN_BYTES = 32n;
/** Bits of a physical address that VCMDQ_BASE has. */
const ADDRESS = VCMDQ_BASE.ADDR.mask;

export class LogicalVcmdqs implements DriverHwQueues {
  readonly #cmdqv: Tegra241Cmdqv;
  readonly #vintf: number;
  readonly #queues: (Vcmdq | null)[];

  constructor(cmdqv: Tegra241Cmdqv, vintf: number) {
    this.#cmdqv = cmdqv;
    this.#vintf = vintf;
    this.#queues = Array.from({ length: cmdqv.vcmdqsPerVintf }, () => null);
  }

  supports(type: number): boolean {
    return type === IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV;
  }

  /** @returns it | -EINVAL index, length, alignment | -EEXIST | -EIO the one before is missing */
  init({ index, basePa, lengthBytes }: HwQueuePlace): DriverHwQueue | number {
    if (index >= this.#queues.length) return -EINVAL;
    if (this.#queues[index] !== null) return -EEXIST;
    const before = index === 0 ? null : this.#queues[index - 1]!;
    if (index > 0 && before === null) return -EIO;
    const max = BigInt(COMMAND_BYTES) << BigInt(this.#cmdqv.smmu.features.cmdqLg2);
    if ((lengthBytes & (lengthBytes - 1n)) !== 0n || lengthBytes < MIN_BYTES || lengthBytes > max)
      return -EINVAL;
    const base = BigInt(basePa);
    if ((base & ~ADDRESS) !== 0n || base % lengthBytes !== 0n) return -EINVAL;
    const log2 = BigInt(Math.log2(Number(lengthBytes) / COMMAND_BYTES));
    const queue = new Vcmdq(this.#cmdqv, this.#vintf, index, before, () => {
      this.#queues[index] = null;
    });
    this.#queues[index] = queue;
    queue.init(VCMDQ_BASE.LOG2SIZE.put(base, log2));
    return queue;
  }
}

class Vcmdq implements DriverHwQueue {
  readonly dependsOn: Vcmdq | null;
  readonly #cmdqv: Tegra241Cmdqv;
  /** Offsets in the CMDQV's aperture. */
  readonly #page0: number;
  readonly #page1: number;
  readonly #alloc: number;
  readonly #gone: () => void;

  constructor(cmdqv: Tegra241Cmdqv, vintf: number, lvcmdq: number, before: Vcmdq | null, gone: () => void) {
    this.#cmdqv = cmdqv;
    this.dependsOn = before;
    this.#page0 = VINTF_PAGES + 2 * PAGE_BYTES * vintf + VCMDQ_STRIDE * lvcmdq;
    this.#page1 = this.#page0 + PAGE_BYTES;
    this.#alloc = CMDQV_CMDQ_ALLOC + 4 * (vintf * cmdqv.vcmdqsPerVintf + lvcmdq);
    this.#gone = gone;
  }

  init(base: bigint): void {
    const { registers } = this.#cmdqv;
    registers.write32(this.#alloc, CMDQ_ALLOC.ALLOCATED.put(registers.read32(this.#alloc), 1));
    this.#deinit();
    registers.write64(this.#page1 + VCMDQ_BASE.offset, base);
  }

  destroy(): void {
    const { registers } = this.#cmdqv;
    this.#deinit();
    registers.write32(this.#alloc, CMDQ_ALLOC.ALLOCATED.put(registers.read32(this.#alloc), 0));
    this.#gone();
  }

  /** Off, and nothing of it left for whoever has it next. The queue must be allocated to its VINTF. */
  #deinit(): void {
    const { registers, smmu } = this.#cmdqv;
    const page0 = this.#page0;
    if (this.#cmdqv.bugs['hw-queue-freed-before-sync']) {
      registers.write32(page0 + VCMDQ_CONFIG.offset, 0);
      return;
    }
    this.#cmdqv.writeConfig(page0 + VCMDQ_CONFIG.offset, page0 + VCMDQ_STATUS.offset, 0);
    // A device that did not complete an ATC_INV of this queue is reported now, not to the next guest.
    smmu.issueSync((words, at) => encodeSync(words, at, SYNC_CS_NONE));
    registers.write32(page0 + VCMDQ_PROD.offset, 0);
    registers.write32(page0 + VCMDQ_CONS.offset, 0);
    registers.write64(this.#page1 + VCMDQ_BASE.offset, 0n);
    registers.write64(this.#page1 + VCMDQ_CONS_INDX_BASE.offset, 0n);
    const gerror = registers.read32(page0 + VCMDQ_GERROR.offset);
    if (gerror !== registers.read32(page0 + VCMDQ_GERRORN.offset))
      registers.write32(page0 + VCMDQ_GERRORN.offset, gerror);
  }
}
