/**
 * What `createMachine` takes, checked whole before anything is built: every refusal names the key
 * (`devices[1].iommu`), and what is not modelled yet is refused by its own name.
 */
import { z } from 'zod';
import { MAX_PORTS } from '../hw/iotlb/unit-layout.js';
import { type Smmuv3Config, Smmuv3ConfigError } from '../hw/smmuv3/config.js';
import { byteSize } from './core/byte-size.js';
import { hardwareOf } from './machine-hardware.js';

/** A machine cannot be built from this configuration; `key` says which part. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly key: string;
  /** @param message  may begin with the key itself, as one from below does */
  constructor(key: string, message: string) {
    super(key === '' || message.startsWith(`${key}: `) ? message : `${key}: ${message}`);
    this.key = key;
  }
}

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
  oasBits: z.union([z.literal(40), z.literal(42), z.literal(44), z.literal(48), z.literal(52)]).default(48),
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
});

const schema = keyed({
  memory: sizeOf('memory', MIB2).default(256 * 2 ** 20),
  iommus: z.array(iommuSchema).min(1).max(64),
  devices: z.array(deviceSchema).max(1024),
  /** One nesting parent for every pSMMU (each vIOMMU with a VMID of its own), or one for each as Linux 7.0. */
  s2Sharing: z.enum(['shared', 'per-psmmu']).default('shared'),
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
  }).prefault({}),
});

export type MachineConfig = z.input<typeof schema>;
export type ResolvedConfig = z.output<typeof schema>;
export type ResolvedDevice = ResolvedConfig['devices'][number] & {
  readonly label: string;
  readonly iommuIndex: number;
  readonly sid: number;
};
export type CheckedConfig = Omit<ResolvedConfig, 'devices'> & { readonly devices: readonly ResolvedDevice[] };

/** @throws ConfigError */
export function checkConfig(config: MachineConfig): CheckedConfig {
  const parsed = schema.safeParse(config);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new ConfigError(keyOf(issue), issue.message);
  }
  const { iommus } = parsed.data;
  const names = new Map<string, number>();
  const hardware: Smmuv3Config[] = [];
  iommus.forEach(({ name, model, iotlbEntries }, index) => {
    if (names.has(name)) throw new ConfigError(`iommus[${index}].name`, `'${name}' is taken`);
    if (model !== 'smmuv3')
      throw new ConfigError(`iommus[${index}].model`, `'${model}' is not modelled yet, only 'smmuv3'`);
    if ((iotlbEntries & (iotlbEntries - 1)) !== 0)
      throw new ConfigError(`iommus[${index}].iotlbEntries`, `${iotlbEntries} is not a power of two`);
    names.set(name, index);
    try {
      hardware.push(hardwareOf(iommus[index]!, index));
    } catch (error) {
      if (!(error instanceof Smmuv3ConfigError)) throw error;
      throw new ConfigError(`iommus[${index}].${error.key}`, error.message.replace(/^smmuv3: \w+ /, ''));
    }
  });
  const labels = new Set<string>();
  const streams = new Set<string>();
  const ports = iommus.map(() => 0);
  const devices = parsed.data.devices.map((device, index): ResolvedDevice => {
    const at = `devices[${index}]`;
    const label = device.bdf ?? device.name;
    if (label === undefined) throw new ConfigError(at, "needs 'bdf' or 'name'");
    if (labels.has(label))
      throw new ConfigError(`${at}.${device.bdf ? 'bdf' : 'name'}`, `'${label}' is taken`);
    labels.add(label);
    const iommuIndex = names.get(device.iommu);
    if (iommuIndex === undefined)
      throw new ConfigError(
        `${at}.iommu`,
        `there is no IOMMU '${device.iommu}' (${[...names.keys()].join(', ')})`,
      );
    checkTraits(at, device, hardware[iommuIndex]!);
    const sid = device.streamId ?? (device.bdf ? ridOf(device.bdf) : -1);
    if (sid < 0) throw new ConfigError(`${at}.streamId`, 'needed for a device without a bdf');
    if (sid >= 2 ** iommus[iommuIndex]!.sidBits)
      throw new ConfigError(`${at}.streamId`, `${sid} does not fit ${iommus[iommuIndex]!.sidBits} bits`);
    const stream = `${iommuIndex}:${sid}`;
    if (streams.has(stream))
      throw new ConfigError(`${at}.streamId`, `stream ${sid} of ${device.iommu} belongs to another device`);
    streams.add(stream);
    if (++ports[iommuIndex]! > MAX_PORTS)
      throw new ConfigError(`${at}.iommu`, `more than ${MAX_PORTS} devices behind '${device.iommu}'`);
    return { ...device, label, iommuIndex, sid };
  });
  const { bugs } = parsed.data;
  if (bugs.iommu >= iommus.length)
    throw new ConfigError('bugs.iommu', `there is no IOMMU number ${bugs.iommu}`);
  return { ...parsed.data, devices };
}

/** Requester ID of a PCI address: bus << 8 | device << 3 | function. */
export function ridOf(bdf: string): number {
  const [, bus, slot] = bdf.split(':');
  const [device, fn] = slot!.split('.');
  return (Number.parseInt(bus!, 16) << 8) | (Number.parseInt(device!, 16) << 3) | Number(fn);
}

/** What a device says of itself has to fit the IOMMU before it. @throws ConfigError */
function checkTraits(at: string, device: ResolvedConfig['devices'][number], iommu: Smmuv3Config): void {
  const refuse = (key: 'ats' | 'pri' | 'stall', why: string): never => {
    throw new ConfigError(`${at}.${key}`, why);
  };
  if (device.ats && device.bdf === undefined) refuse('ats', 'is for PCI devices: it needs a bdf');
  if (device.ats && !iommu.ats) refuse('ats', `'${device.iommu}' has no ATS`);
  if (device.pri && !device.ats) refuse('pri', 'needs ats');
  if (device.pri && !iommu.pri) refuse('pri', `'${device.iommu}' has no page requests`);
  if (device.stall && iommu.stalls === 'none') refuse('stall', `'${device.iommu}' has no stalls`);
  // STE.S2S with EATS = 1 is a bad STE. [IHI0070] 5.2
  if (device.ats && (device.stall || iommu.stalls === 'forced')) refuse('ats', 'excludes stalls');
}

/** `path[0].name` for a validation issue; an unknown key is named itself. */
function keyOf(issue: z.core.$ZodIssue): string {
  const path = [...issue.path];
  if (issue.code === 'unrecognized_keys') path.push(issue.keys[0]!);
  return path.reduce<string>(
    (text, part) =>
      typeof part === 'number' ? `${text}[${part}]` : text === '' ? String(part) : `${text}.${String(part)}`,
    '',
  );
}
