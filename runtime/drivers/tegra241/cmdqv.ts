/**
 * The CMDQV beside an SMMU: its reset, its VINTFs, its interrupt. struct tegra241_cmdqv.
 *
 *   VINTF 0    the kernel's own (HYP_OWN); no VCMDQ is put there: the driver's commands all take the SMMU's queue
 *   VINTF 1..  one a vIOMMU of type TEGRA241_CMDQV (vintf.ts), with VCMDQs that its guest brings (vcmdq.ts)
 *
 * Every VCMDQ belongs to one logical place for good: global number = VINTF x VCMDQs of one + logical number.
 *
 * @source drivers/iommu/arm/arm-smmu-v3/tegra241-cmdqv.c
 */
import { type BugSwitches, NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import type { SyncEnv } from '../../../hw/sync/thread.js';
import { waitUntil } from '../../../hw/sync/wait.js';
import {
  CMDQ_ALLOC,
  CMDQV_CMDQ_ALLOC,
  CMDQV_CONFIG,
  CMDQV_PARAM,
  CMDQV_STATUS,
  CMDQV_VINTF_ERR_MAP,
  VINTF_BASE,
  VINTF_CONFIG,
  VINTF_LVCMDQ_ERR_MAP,
  VINTF_SID_MATCH,
  VINTF_SID_REPLACE,
  VINTF_STATUS,
  VINTF_STRIDE,
} from '../../../hw/tegra241-cmdqv/registers.js';
import { ENOSPC, ETIMEDOUT } from '../../../uapi/abi/errno.js';
import { VeventTegra241Cmdqv } from '../../../uapi/drivers/tegra241.js';
import { IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV } from '../../../uapi/iommufd/veventq.js';
import type { Compat } from '../../core/context.js';
import type { DriverViommu, ViommuEvent } from '../contract.js';
import type { SmmuDevice } from '../smmuv3/smmu-device.js';

/** ARM_SMMU_POLL_TIMEOUT_US. */
const POLL_TIMEOUT_NS = 1e9;
const SLICE_MS = 1;
/** The enable of every CONFIG, and what STATUS shows of it. */
const ENABLE = 1;

/** The CMDQV's registers, by offset in its aperture. */
export interface CmdqvRegisters {
  read32(offset: number): number;
  write32(offset: number, value: number): void;
  read64(offset: number): bigint;
  write64(offset: number, value: bigint): void;
}

export interface CmdqvOptions {
  readonly env: SyncEnv;
  readonly registers: CmdqvRegisters;
  readonly compat: Compat;
  /** Linear offset of a VINTF's page 0, for mmap: its physical address. */
  page0(vintf: number): number;
  /** Whether the interrupt fired since it was asked last. */
  interrupted(): boolean;
  /** A word that changes when hardware has moved on, to wait on. */
  readonly word: number;
}

export class Tegra241Cmdqv {
  readonly smmu: SmmuDevice;
  readonly registers: CmdqvRegisters;
  readonly compat: Compat;
  /** Known bugs that are on. */
  readonly bugs: BugSwitches;
  readonly vcmdqsPerVintf: number;
  readonly sidsPerVintf: number;
  readonly version: number;
  readonly #options: CmdqvOptions;
  /** By number; VINTF 0 is the kernel's. */
  readonly #vintfs: (DriverViommu | 'kernel' | null)[];

  constructor(smmu: SmmuDevice, options: CmdqvOptions) {
    this.smmu = smmu;
    this.registers = options.registers;
    this.compat = options.compat;
    this.bugs = options.env.bugs ?? NO_BUGS;
    this.#options = options;
    const param = options.registers.read32(CMDQV_PARAM.offset);
    const vintfs = 2 ** CMDQV_PARAM.NUM_VINTF_LOG2.get(param);
    this.vcmdqsPerVintf = 2 ** CMDQV_PARAM.NUM_VCMDQ_LOG2.get(param) / vintfs;
    this.sidsPerVintf = 2 ** CMDQV_PARAM.NUM_SID_PER_VM_LOG2.get(param);
    this.version = CMDQV_PARAM.VER.get(param);
    this.#vintfs = Array.from({ length: vintfs }, () => null);
    this.#vintfs[0] = 'kernel';
  }

  /** @returns 0: it is enabled | -ETIMEDOUT. @source tegra241_cmdqv_hw_reset */
  reset(): number {
    const { registers } = this;
    const config = registers.read32(CMDQV_CONFIG.offset);
    for (const next of [config & ~ENABLE, config | ENABLE]) {
      const status = this.writeConfig(CMDQV_CONFIG.offset, CMDQV_STATUS.offset, next);
      if (status < 0) return status;
    }
    let q = 0;
    this.#vintfs.forEach((_, vintf) => {
      for (let lvcmdq = 0; lvcmdq < this.vcmdqsPerVintf; lvcmdq++) {
        const place = CMDQ_ALLOC.LVCMDQ.put(CMDQ_ALLOC.VINTF.put(0, vintf), lvcmdq);
        registers.write32(CMDQV_CMDQ_ALLOC + 4 * q++, place);
      }
    });
    return this.initVintf(0, 0, true);
  }

  /** The lowest free VINTF. @returns its number | -ENOSPC */
  freeVintf(): number {
    const vintf = this.#vintfs.indexOf(null);
    return vintf < 0 ? -ENOSPC : vintf;
  }

  setVintf(vintf: number, owner: DriverViommu | null): void {
    this.#vintfs[vintf] = owner;
  }

  page0(vintf: number): number {
    return this.#options.page0(vintf);
  }

  /** @source tegra241_vintf_hw_init */
  initVintf(vintf: number, vmid: number, hypOwn: boolean): number {
    this.deinitVintf(vintf);
    const base = vintfBase(vintf);
    const config = VINTF_CONFIG.HYP_OWN.put(VINTF_CONFIG.VMID.put(0, vmid), hypOwn ? 1 : 0);
    this.registers.write32(base + VINTF_CONFIG.offset, config);
    return this.writeConfig(base + VINTF_CONFIG.offset, base + VINTF_STATUS.offset, config | ENABLE);
  }

  /** Its VCMDQs are gone already. @source tegra241_vintf_hw_deinit */
  deinitVintf(vintf: number): void {
    const base = vintfBase(vintf);
    this.writeConfig(base + VINTF_CONFIG.offset, base + VINTF_STATUS.offset, 0);
    for (let slot = 0; slot < this.sidsPerVintf; slot++) this.setSid(vintf, slot, 0, 0);
  }

  /** A pair of StreamID registers; what invalidates a slot is written before, what makes it valid after. */
  setSid(vintf: number, slot: number, match: number, replace: number): void {
    const base = vintfBase(vintf);
    const pair: [number, number][] = [
      [base + VINTF_SID_MATCH + 4 * slot, match],
      [base + VINTF_SID_REPLACE + 4 * slot, replace],
    ];
    for (const [offset, value] of match === 0 ? pair : pair.reverse()) this.registers.write32(offset, value);
  }

  /** @returns 0 | -ETIMEDOUT STATUS does not follow */
  writeConfig(config: number, status: number, value: number): number {
    const { env, word } = this.#options;
    this.registers.write32(config, value);
    const follows = (): boolean => (this.registers.read32(status) & ENABLE) === (value & ENABLE);
    const deadline = env.clock.nowNs() + POLL_TIMEOUT_NS;
    return waitUntil(env, word, follows, deadline, undefined, undefined, SLICE_MS) < 0 ? -ETIMEDOUT : 0;
  }

  /** Errors are the guests' own affair: each is told which of its queues have one. @source tegra241_cmdqv_isr */
  poll(report: (event: ViommuEvent) => void): boolean {
    if (!this.#options.interrupted()) return false;
    this.#vintfs.forEach((vintf, i) => {
      const map = this.registers.read32(CMDQV_VINTF_ERR_MAP + 4 * (i >>> 5));
      if ((map & (1 << (i & 31))) === 0 || vintf === null || vintf === 'kernel') return;
      const base = vintfBase(i) + VINTF_LVCMDQ_ERR_MAP;
      const lvcmdqErrMap = [this.registers.read64(base), this.registers.read64(base + 8)];
      const data = VeventTegra241Cmdqv.toBytes({ lvcmdqErrMap });
      report({ viommu: vintf, type: IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV, data });
    });
    return true;
  }
}

const vintfBase = (vintf: number): number => VINTF_BASE + VINTF_STRIDE * vintf;
