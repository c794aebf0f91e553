/**
 * What a machine's configuration consists of: every key, its range and its default. What keys mean together is
 * checked by machine-config.ts.
 */

import { z } from 'zod';
import { BUG_NAMES } from '../hw/bugs/bug-switches.js';
import { byteSize } from './core/byte-size.js';

const MIB2 = 2 ** 21;
const sizeOf = (what: string, multiple: number) =>
  z.union([z.string(), z.number()]).transform((value, context) => {
    try {
      const bytes = Number(byteSize(value, what));
      if (bytes > 0 && bytes % multiple === 0) return bytes;
      context.addIssue({ code: 'custom', message: `must be a positive multiple of ${multiple} bytes` });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      context.addIssue({ code: 'custom', message: error.message });
    }
    return z.NEVER;
  });

/** An object whose unknown keys are refused with a list of the known ones. */
const keyed = <S extends z.core.$ZodLooseShape>(shape: S) =>
  z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? `there is no such key, only ${Object.keys(shape).join(', ')}`
        : undefined,
  });

/** Below 40 bits there would be no room for user memory without frames. */
const OAS_BITS: readonly number[] = [40, 42, 44, 48, 52];

const MODELS = ['smmuv3', 'amd', 'vtd'] as const;

const iommuSchema = keyed({
  name: z.string().min(1),
  model: z.enum(MODELS, {
    error: ({ input }) =>
      `${typeof input === 'string' ? `'${input}'` : `of type ${typeof input}, which`} is none of the models ${MODELS.join(', ')}, of which only 'smmuv3' is modelled`,
  }),
  /** IOTLB entries, a power of two. */
  iotlbEntries: z.number().int().min(16).max(65536).default(2048),
  /** StreamID bits (IDR1.SIDSIZE). */
  sidBits: z.number().int().min(1).max(32).default(32),
  /** Physical address bits (IDR5.OAS). */
  oasBits: z
    .number()
    .refine((bits) => OAS_BITS.includes(bits), `must be one of ${OAS_BITS.join(', ')}`)
    .default(48),
  /** Translation granules (IDR5.GRAN4K, GRAN16K, GRAN64K). */
  granules: z
    .array(z.enum(['4KiB', '16KiB', '64KiB']))
    .min(1)
    .optional(),
  /** Hardware update of the Access flag, and of dirty state (IDR0.HTTU). */
  httu: z.enum(['none', 'access', 'dirty']).optional(),
  /** SubstreamID (PASID) bits (IDR1.SSIDSIZE). */
  ssidBits: z.number().int().min(0).max(20).optional(),
  /** Whether faults stall (IDR0.STALL_MODEL): never, as configured, always. */
  stalls: z.enum(['none', 'optional', 'forced']).optional(),
  ats: z.boolean().optional(),
  pri: z.boolean().optional(),
  /** Stage 1 of EL2 (IDR0.Hyp). */
  hyp: z.boolean().optional(),
  /** How long a CMD_SYNC waits for a device to complete an ATC invalidation. */
  atcTimeoutNs: z.number().int().min(0).optional(),
  /** Largest command and event queue, log2 of entries. The driver's batches need 128 command slots. */
  cmdqLog2: z.number().int().min(7).max(14).default(10),
  evtqLog2: z.number().int().min(2).max(14).default(10),
  priqLog2: z.number().int().min(1).max(14).default(10),
  /** NVIDIA's CMDQV beside it: command queues for guests. */
  cmdqv: z
    .union([
      z.boolean(),
      keyed({
        vintfs: z.number().optional(),
        vcmdqsPerVintf: z.number().optional(),
        sidsPerVintf: z.number().optional(),
      }),
    ])
    .default(false),
});

const deviceSchema = keyed({
  /** PCI address `SSSS:BB:DD.F`. */
  bdf: z
    .string()
    .regex(/^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/, 'not a PCI address SSSS:BB:DD.F')
    .optional(),
  /** For a device that is not on PCI. */
  name: z.string().min(1).optional(),
  iommu: z.string(),
  /** StreamID; a PCI device's own RID when left out. */
  streamId: z.number().int().min(0).max(0xffff_ffff).optional(),
  /** It has an ATC, and may keep translations in it; a PCI device whose IOMMU has ATS. */
  ats: z.boolean().default(false),
  /** It asks for pages by page requests; one with ATS whose IOMMU has PRI. */
  pri: z.boolean().default(false),
  /** Its transactions may wait for software (firmware's dma-can-stall); not with ATS. */
  stall: z.boolean().default(false),
  /** Max PASID Width of its PASID capability; 0 is a device without one. */
  pasidBits: z.number().int().min(0).max(20).default(0),
  /** Its PASIDs may carry execute requests, and privileged ones. */
  pasidExec: z.boolean().default(false),
  pasidPriv: z.boolean().default(false),
});

export const machineSchema = keyed({
  memory: sizeOf('memory', MIB2).default(256 * 2 ** 20),
  iommus: z.array(iommuSchema).min(1).max(64),
  devices: z.array(deviceSchema).max(1024),
  /** One nesting parent for every pSMMU (each vIOMMU with a VMID of its own), or one for each as Linux 7.0. */
  s2Sharing: z.enum(['shared', 'per-psmmu']).default('shared'),
  /** Known defects of Linux 7.0 repeated, or corrected as later kernels have it. */
  compat: z.enum(['7.0', 'fixed']).default('fixed'),
  /** Iommufds that can be open at once; each takes 256 KiB for its objects. */
  maxFds: z.number().int().min(1).max(1024).default(16),
  /** Keep walk and command logs, for reports. */
  trace: z.boolean().default(false),
  /** Room for regions that an instrument of createMachine makes, bytes, besides what there is anyway. */
  instrumentBytes: z
    .number()
    .int()
    .min(0)
    .max(2 ** 30)
    .default(0),
  /** Check lock ranks (lock-order.ts) on every thread: an inversion throws. Costs a little at each lock. */
  debugLocks: z.boolean().default(false),
  /** Deliberate defects, each on one IOMMU: the proof that a checker fires. */
  bugs: keyed({
    iommu: z.number().int().min(0).default(0),
    skipTlbi: z.boolean().default(false),
    earlySync: z.boolean().default(false),
    wrongVmid: z.boolean().default(false),
    earlyFree: z.boolean().default(false),
    skipAtcInv: z.boolean().default(false),
    atcBeforeTlbi: z.boolean().default(false),
    /** Of the bug zoo, by name; on the whole machine. */
    zoo: z.array(z.enum(BUG_NAMES)).default([]),
  }).prefault({}),
});

export type MachineConfig = z.input<typeof machineSchema>;
export type ResolvedConfig = z.output<typeof machineSchema>;
export type ResolvedDevice = ResolvedConfig['devices'][number] & {
  readonly label: string;
  readonly iommuIndex: number;
  readonly sid: number;
};
export type CheckedConfig = Omit<ResolvedConfig, 'devices'> & { readonly devices: readonly ResolvedDevice[] };
