/**
 * Layouts: where each field of a region of shared memory lies. One `*-layout.ts` declares one region, and
 * nobody else turns a number into an index. A layout has a name and a version, stored in the region's
 * header and compared when a thread attaches, so that two builds never share one memory by accident.
 *
 * Vocabulary: an offset (`at.field`) is in bytes from the region's base; a base is in bytes from the start
 * of the machine's linear memory.
 */
import { bug } from './bug.js';

export interface Field {
  readonly bytes: number;
  readonly align: number;
}

export interface Layout<F extends Record<string, Field> = Record<string, Field>> {
  readonly name: string;
  readonly version: number;
  /** Bytes of the body, a multiple of a cache line. */
  readonly size: number;
  /** Byte offset of each field from the region's base. */
  readonly at: { readonly [K in keyof F]: number };
}

export const LINE = 64;

export const i32 = (): Field => ({ bytes: 4, align: 4 });
export const u32 = (): Field => ({ bytes: 4, align: 4 });
export const u64 = (): Field => ({ bytes: 8, align: 8 });
/** `bytes` raw bytes, aligned to a cache line. */
export const raw = (bytes: number): Field => ({ bytes, align: LINE });
/** `count` fields of one kind, packed. */
export const array = (field: Field, count: number): Field => ({
  bytes: field.bytes * count,
  align: field.align,
});
/** Gives a field a cache line of its own: nothing else shares it. */
export const line = (field: Field): Field => ({
  bytes: roundUp(field.bytes, LINE),
  align: LINE,
});

export function layout<F extends Record<string, Field>>(name: string, version: number, fields: F): Layout<F> {
  const at: Record<string, number> = {};
  let offset = 0;
  for (const [key, field] of Object.entries(fields)) {
    if (field.bytes <= 0 || (field.align & (field.align - 1)) !== 0)
      bug(`layout ${name}.${key}: bad field shape`);
    offset = roundUp(offset, field.align);
    at[key] = offset;
    offset += field.bytes;
  }
  return {
    name,
    version,
    size: roundUp(offset, LINE),
    at: at as Layout<F>['at'],
  };
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
