/**
 * What `iommufd scale` sweeps: a list for each dimension, checked before anything starts. Whatever makes no sense
 * is refused by an OptionError that names the option.
 *
 *   list    N | N-M every number | N-MxK from N on, times K | several of these with commas
 */
import { randomInt } from 'node:crypto';
import { z } from 'zod';
import type { ScaleParams } from '../report/scale-data.js';
import { OptionError } from '../stress/option-error.js';

export const SCALE_DEFAULTS = {
  iommus: '1,2,4,8',
  devices: '1',
  guests: '0',
  s2Sharing: 'shared',
  batch: '64',
  queues: '1',
  repeats: 5,
  duration: 1,
} as const;

/** As many devices as a point may have: each is a thread. */
const MAX_DEVICES = 256;
const MAX_POINTS = 10_000;
const PER_PSMMU = 'per-psmmu';

export interface ScaleInput {
  readonly iommus?: string | undefined;
  /** Behind each SMMU. */
  readonly devices?: string | undefined;
  readonly guests?: string | undefined;
  readonly s2Sharing?: string | undefined;
  readonly batch?: string | undefined;
  /** Command queues that a guest drives: 1, or `per-psmmu`. */
  readonly queues?: string | undefined;
  readonly repeats?: string | number | undefined;
  /** Seconds measured in each point. */
  readonly duration?: string | number | undefined;
  readonly seed?: string | number | undefined;
}

export interface ScaleOptions {
  readonly points: readonly ScaleParams[];
  readonly repeats: number;
  readonly durationS: number;
  readonly seed: number;
  /** As given or by default, for the report. */
  readonly told: Readonly<Record<string, string | number>>;
}

/** The numbers of a list, ascending, each once; or what is wrong with it. */
export function parseList(text: string, min: number, max: number): number[] | string {
  const numbers = new Set<number>();
  for (const part of text.split(',')) {
    const [, from, to, times] = /^\s*(\d+)(?:-(\d+)(?:x(\d+))?)?\s*$/.exec(part) ?? [];
    if (from === undefined) return `'${part}' is no number, no range like 1-8 and no series like 1-64x2`;
    const first = Number(from);
    const last = Number(to ?? from);
    if (first < min || last > max || first > last)
      return `'${part.trim()}' is not within ${min} to ${max}, ascending`;
    const factor = Number(times ?? 1);
    if (times !== undefined && (factor < 2 || first === 0)) return `'${part.trim()}' would never end`;
    for (let n = first; n <= last; n = times === undefined ? n + 1 : n * factor) numbers.add(n);
  }
  return [...numbers].sort((a, b) => a - b);
}

const list = (min: number, max: number) =>
  z.string().transform((text, context) => {
    const numbers = parseList(text, min, max);
    if (typeof numbers !== 'string') return numbers;
    context.addIssue({ code: 'custom', message: numbers });
    return z.NEVER;
  });

/** Words of a list, each one of a few. */
const words = <W extends string>(known: readonly W[]) =>
  z.string().transform((text, context): W[] => {
    const given = [...new Set(text.split(',').map((word) => word.trim()))];
    const unknown = given.find((word) => !known.some((one) => one === word));
    if (unknown === undefined) return given as W[];
    context.addIssue({ code: 'custom', message: `'${unknown}' is none of ${known.join(', ')}` });
    return z.NEVER;
  });

const number = (text: RegExp, min: number, max: number, what: string) =>
  z
    .union([z.number(), z.string().regex(text, `must be ${what}`).transform(Number)])
    .refine((n) => n >= min && n <= max, `must be ${what}`);
const WHOLE = /^\d+$/;

const schema = z.strictObject({
  iommus: list(1, 64).prefault(SCALE_DEFAULTS.iommus),
  devices: list(1, 64).prefault(SCALE_DEFAULTS.devices),
  guests: list(0, 64).prefault(SCALE_DEFAULTS.guests),
  s2Sharing: words(['shared', PER_PSMMU]).prefault(SCALE_DEFAULTS.s2Sharing),
  batch: list(1, 64).prefault(SCALE_DEFAULTS.batch),
  queues: words(['1', PER_PSMMU]).prefault(SCALE_DEFAULTS.queues),
  repeats: number(WHOLE, 1, 1000, 'a whole number from 1 to 1000').default(SCALE_DEFAULTS.repeats),
  duration: number(/^\d+(\.\d+)?$/, 0.05, 3600, 'a number of seconds from 0.05 to 3600').default(
    SCALE_DEFAULTS.duration,
  ),
  seed: number(WHOLE, 0, 2 ** 32 - 1, 'a whole number from 0 to 4294967295').optional(),
});

/** @throws OptionError */
export function scaleOptions(
  input: ScaleInput,
  drawSeed: () => number = () => randomInt(2 ** 32),
): ScaleOptions {
  const parsed = schema.safeParse(input);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const option = issue.code === 'unrecognized_keys' ? issue.keys[0] : issue.path[0];
    throw new OptionError(String(option), issueText(issue));
  }
  const { iommus, devices, guests, s2Sharing, batch, queues, repeats, duration, seed } = parsed.data;
  const points = new Map<string, ScaleParams>();
  for (const psmmus of iommus)
    for (const each of devices)
      for (const vms of guests)
        for (const sharing of s2Sharing)
          for (const slots of batch)
            for (const how of queues) {
              const point = pointOf(psmmus, each, vms, sharing, slots, how);
              points.set(JSON.stringify(point), point);
            }
  if (points.size > MAX_POINTS)
    throw new OptionError(
      'iommus',
      `with the other lists it makes ${points.size} points, more than ${MAX_POINTS}`,
    );
  const chosen = seed ?? drawSeed();
  return {
    points: [...points.values()],
    repeats,
    durationS: duration,
    seed: chosen,
    told: { ...SCALE_DEFAULTS, ...withoutUndefined(input), seed: chosen },
  };
}

function pointOf(
  psmmus: number,
  devicesEach: number,
  guests: number,
  s2Sharing: ScaleParams['s2Sharing'],
  batch: number,
  queues: '1' | typeof PER_PSMMU,
): ScaleParams {
  const devices = psmmus * devicesEach;
  if (devices > MAX_DEVICES)
    throw new OptionError(
      'devices',
      `${psmmus} SMMUs with ${devicesEach} each are more than ${MAX_DEVICES} threads`,
    );
  if (guests > devices)
    throw new OptionError(
      'guests',
      `${guests} guests, and ${psmmus} SMMUs with ${devicesEach} devices each have ${devices}`,
    );
  if (guests === 0 && queues === PER_PSMMU)
    throw new OptionError(
      'queues',
      'an SMMU as modelled has one command queue (no ECMDQ); only a guest can have several, so --guests must be 1 or more',
    );
  return {
    psmmus,
    devices,
    guests,
    // Without guests there is no stage 2 to share: one point, however many ways are given.
    s2Sharing: guests === 0 ? 'shared' : s2Sharing,
    batch,
    queues: queues === PER_PSMMU ? Math.min(psmmus, devices) : 1,
  };
}

function withoutUndefined(input: ScaleInput): Record<string, string | number> {
  return Object.fromEntries(
    Object.entries(input).filter((entry): entry is [string, string | number] => entry[1] !== undefined),
  );
}

/** A union's own message is empty of meaning: what its text branch said is what to tell. */
function issueText(issue: z.core.$ZodIssue): string {
  if (issue.code !== 'invalid_union') return issue.message;
  return issue.errors.flat().find(({ code }) => code !== 'invalid_type')?.message ?? issue.message;
}
