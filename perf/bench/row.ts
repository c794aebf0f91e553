/** A benchmark's result as a program reads it, and the file it may be kept in: `iommufd bench --json`. */
import { z } from 'zod';
import type { Figure } from './figures.js';

const number = z.number();
const rowSchema = z.object({
  name: z.string().min(1),
  /** At least `target` is good, and more is better; null where nothing was compared. */
  ratio: number.nullable(),
  target: number.nullable(),
  median: number,
  /** First and third quartile, in `unit`. */
  spread: z.tuple([number, number]),
  unit: z.enum(['ns', 'us', 'ms', 'M/s', '1/s', 'MiB']),
});

const resultSchema = z.object({
  rows: z.array(rowSchema),
  node: z.string(),
  cores: z.number().int().min(1),
});

export type Row = z.output<typeof rowSchema>;
export type BenchResult = z.output<typeof resultSchema>;

export function rowOf({ name, ratio, target, median, spread, unit }: Figure): Row {
  return { name, ratio, target, median, spread: [...spread], unit };
}

/** @returns the result, or what is wrong with it, led by the key */
export function parseResult(text: string): BenchResult | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `not JSON: ${(error as Error).message}`;
  }
  const parsed = resultSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  return path.length === 0 ? message : `${path.join('.')}: ${message}`;
}
