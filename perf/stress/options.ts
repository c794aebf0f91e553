/**
 * A stress run's options: their defaults, and their check before anything is built. Numbers may come as text,
 * for a command line; whatever makes no sense is refused by an OptionError that names the option.
 */
import { randomInt } from 'node:crypto';
import { z } from 'zod';
import type { MachineDescription } from '../../hw/acpi/description.js';
import { byteSize } from '../../runtime/core/byte-size.js';
import { KILLABLE_KINDS } from '../../workers/protocol/messages.js';
import { OptionError } from './option-error.js';
import { memoryNeeded, planStress } from './plan.js';
import { loadTopology } from './presets.js';
import { deviceCapacity, machineConfigOf } from './topology.js';
import {
  ATS_CHOICES,
  ATS_INJECTIONS,
  INJECTIONS,
  type Kill,
  type StressOptions,
  TRAFFIC_KINDS,
  type TrafficKind,
  ZOO_INJECTIONS,
} from './types.js';

/** What is taken when an option is left out; the seed is then drawn, `devices` counted from the topology. */
export const DEFAULTS = {
  duration: 9,
  guests: 2,
  mix: 'nic=3,nvme=2,gpu=1,guest=4',
  hostile: 1,
  memory: '256MiB',
  s2Sharing: 'shared',
  ats: 'auto',
  devicesPerSmmu: 2,
  devicesMin: 4,
  devicesMax: 12,
} as const;

export interface StressInput {
  /** A preset's name or a file. */
  readonly topology: string;
  /** Seconds. */
  readonly duration?: string | number | undefined;
  readonly devices?: string | number | undefined;
  readonly guests?: string | number | undefined;
  readonly seed?: string | number | undefined;
  /** `nic=3,guest=1`; kinds left out get nothing. */
  readonly mix?: string | undefined;
  readonly s2Sharing?: string | undefined;
  readonly inject?: string | undefined;
  /** `auto`, `on`, `off`. */
  readonly ats?: string | undefined;
  /** `device:250`: a kind of thread, and milliseconds of traffic. */
  readonly kill?: string | undefined;
  /** Percent. */
  readonly hostile?: string | number | undefined;
  /** A file for the timelines. */
  readonly trace?: string | undefined;
  /** `256MiB`, or bytes. */
  readonly memory?: string | number | undefined;
}

const MIB2 = 2 ** 21;
const MIN_MEMORY = 32 * 2 ** 20;
/** One linear memory has 4 GiB at most, and the control regions of 64 SMMUs take some of it. */
const MAX_MEMORY = 3.25 * 2 ** 30;
const WEEK_S = 7 * 24 * 3600;

type Mix = Record<TrafficKind, number>;

/** A number, or text that is nothing but one. */
const numeric = (pattern: RegExp, what: string) =>
  z.union([z.number(), z.string().regex(pattern, `must be ${what}`).transform(Number)]);
const whole = (min: number, max: number) => {
  const what = `a whole number from ${min} to ${max}`;
  return numeric(/^\d+$/, what).refine((n) => Number.isInteger(n) && n >= min && n <= max, `must be ${what}`);
};
const decimal = (min: number, max: number, unit: string) => {
  const what = `a number of ${unit} from ${min} to ${max}`;
  return numeric(/^\d+(\.\d+)?$/, what).refine((n) => n >= min && n <= max, `must be ${what}`);
};

const SEED_TEXT = 'a whole number from 0 to 4294967295, decimal or 0x...';

const schema = z.strictObject({
  topology: z.string().min(1, 'must be a preset or a file'),
  duration: decimal(0.1, WEEK_S, 'seconds').default(DEFAULTS.duration),
  devices: whole(1, 256).optional(),
  guests: whole(0, 64).optional(),
  seed: numeric(/^(\d+|0x[0-9a-f]+)$/i, SEED_TEXT)
    .refine((n) => Number.isInteger(n) && n >= 0 && n < 2 ** 32, `must be ${SEED_TEXT}`)
    .optional(),
  mix: z
    .string()
    .transform((text, context) => {
      const mix = parseMix(text);
      if (typeof mix !== 'string') return mix;
      context.addIssue({ code: 'custom', message: mix });
      return z.NEVER;
    })
    .optional(),
  s2Sharing: z.enum(['shared', 'per-psmmu'], "must be 'shared' or 'per-psmmu'").default(DEFAULTS.s2Sharing),
  trace: z.string().min(1, 'needs a file name').optional(),
  inject: z
    .enum(
      [...INJECTIONS, ...ZOO_INJECTIONS],
      `must be one of ${INJECTIONS.join(', ')}, or of the bugs of 'iommufd zoo --list' outside the compiled kernel`,
    )
    .optional(),
  ats: z.enum(ATS_CHOICES, `must be one of ${ATS_CHOICES.join(', ')}`).default(DEFAULTS.ats),
  kill: z
    .string()
    .transform((text, context) => {
      const kill = parseKill(text);
      if (typeof kill !== 'string') return kill;
      context.addIssue({ code: 'custom', message: kill });
      return z.NEVER;
    })
    .optional(),
  hostile: decimal(0, 100, 'percent').default(DEFAULTS.hostile),
  memory: z
    .union([z.string(), z.number()])
    .transform((size, context) => {
      const bytes = bytesOf(size);
      if (bytes >= MIN_MEMORY && bytes <= MAX_MEMORY && bytes % MIB2 === 0) return bytes;
      context.addIssue({
        code: 'custom',
        message: 'must be a size like 256MiB: a multiple of 2MiB from 32MiB to 3328MiB',
      });
      return z.NEVER;
    })
    .prefault(DEFAULTS.memory),
});

/**
 * `nic=3,guest=1`: relative weights, each at most 1000.
 * @returns the weights, those left out 0; or what is wrong
 */
export function parseMix(text: string): Mix | string {
  const mix: Mix = { nic: 0, nvme: 0, gpu: 0, guest: 0 };
  const given = new Set<string>();
  for (const part of text.split(',')) {
    const [, name, weight] = /^\s*([a-z]+)=(\d+)\s*$/.exec(part) ?? [];
    if (name === undefined) return `'${part}' is not KIND=WEIGHT, as in ${DEFAULTS.mix}`;
    const kind = TRAFFIC_KINDS.find((known) => known === name);
    if (kind === undefined) return `'${name}' is not a kind of traffic (${TRAFFIC_KINDS.join(', ')})`;
    if (given.has(kind)) return `'${kind}' is given twice`;
    if (Number(weight) > 1000) return `${kind}=${weight} is more than 1000`;
    given.add(kind);
    mix[kind] = Number(weight);
  }
  if (TRAFFIC_KINDS.every((kind) => mix[kind] === 0)) return 'all weights are 0: there would be no traffic';
  return mix;
}

/** `device:250`. @returns the kill, or what is wrong */
function parseKill(text: string): Kill | string {
  const [, name, ms] = /^([a-z]+)(?::(\d{1,9}))?$/.exec(text) ?? [];
  const kind = KILLABLE_KINDS.find((known) => known === name);
  if (kind === undefined)
    return `must be KIND or KIND:MILLISECONDS, KIND one of ${KILLABLE_KINDS.join(', ')}`;
  return { kind, afterMs: Number(ms ?? 0) };
}

/** `nic=3,nvme=2`, without the kinds that get nothing. */
export function mixText(mix: Readonly<Mix>): string {
  return TRAFFIC_KINDS.filter((kind) => mix[kind] > 0)
    .map((kind) => `${kind}=${mix[kind]}`)
    .join(',');
}

/**
 * @param drawSeed called when there is none in the input
 * @throws OptionError
 */
export function stressOptions(
  input: StressInput,
  drawSeed: () => number = () => randomInt(2 ** 32),
): StressOptions {
  const parsed = schema.safeParse(input);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const option = issue.code === 'unrecognized_keys' ? issue.keys[0] : issue.path[0];
    throw new OptionError(String(option), issueText(issue));
  }
  const { data } = parsed;
  const topology = loadTopology(data.topology);
  const devices = data.devices ?? defaultDevices(topology);
  const traffic = guestsAndMix(data.guests, data.mix, devices);
  const { s2Sharing, memory: memoryBytes, ats } = data;
  // Placed here only to be refused here: by the time it is built, threads are about to start.
  const placed = machineConfigOf(topology, { devices, memoryBytes, s2Sharing, ats, trace: false });
  if (ATS_INJECTIONS.some((bug) => bug === data.inject) && !placed.devices.some((device) => device.ats))
    throw new OptionError('inject', `${data.inject} needs a device with an ATC, and there is none`);
  const options: StressOptions = {
    topologyName: data.topology,
    topology,
    durationS: data.duration,
    devices,
    ...traffic,
    seed: data.seed ?? drawSeed(),
    hostilePercent: data.hostile,
    s2Sharing,
    inject: data.inject ?? null,
    ats,
    ...(data.trace === undefined ? {} : { trace: data.trace }),
    kill: data.kill ?? null,
    memoryBytes,
  };
  const needed = memoryNeeded(planStress(options, devices), topology.iommus.length);
  if (memoryBytes < needed)
    throw new OptionError(
      'memory',
      `${devices} devices and ${traffic.guests} guests need ${Math.ceil(needed / MIB2) * 2}MiB`,
    );
  return options;
}

/** Two an SMMU, at least 4 and at most 12, and never more than there are streams for. */
function defaultDevices(topology: MachineDescription): number {
  const { devicesPerSmmu, devicesMin, devicesMax } = DEFAULTS;
  const wanted = Math.min(Math.max(topology.iommus.length * devicesPerSmmu, devicesMin), devicesMax);
  return Math.max(deviceCapacity(topology, wanted), 1);
}

/** Guests and the mix's `guest` weight make sense only together: what was left out follows what was given. */
function guestsAndMix(
  guests: number | undefined,
  mix: Mix | undefined,
  devices: number,
): { guests: number; mix: Mix } {
  if (guests !== undefined && guests > devices)
    throw new OptionError('guests', `each needs a device, and there are ${devices}`);
  if (mix === undefined) {
    const all = parseMix(DEFAULTS.mix) as Mix;
    // One device is left for the rest of the mix.
    const some = guests ?? Math.min(DEFAULTS.guests, devices - 1);
    return { guests: some, mix: some === 0 ? { ...all, guest: 0 } : all };
  }
  if (mix.guest === 0) {
    if (guests !== undefined && guests > 0)
      throw new OptionError('guests', `the mix ${mixText(mix)} has no traffic for guests`);
    return { guests: 0, mix };
  }
  if (guests === 0) throw new OptionError('mix', `guest=${mix.guest}, but there are no guests`);
  return { guests: guests ?? Math.min(DEFAULTS.guests, devices), mix };
}

/** @returns NaN when it is not a size */
function bytesOf(size: string | number): number {
  try {
    return Number(byteSize(size, 'memory'));
  } catch (error) {
    if (error instanceof RangeError) return Number.NaN;
    throw error;
  }
}

/** A union's own message is empty of meaning: what its text branch said is what to tell. */
function issueText(issue: z.core.$ZodIssue): string {
  if (issue.code !== 'invalid_union') return issue.message;
  const inner = issue.errors.flat().find(({ code }) => code !== 'invalid_type');
  return inner?.message ?? issue.message;
}
