/**
 * `report.json`: everything a command's runs found, for programs and for charts.
 *
 *   { "report": "iommufd-stress", "version": 1, "runs": [ StressResult, ... ] }
 *
 * One entry a topology, in the order they ran, as `perf/stress/types.ts` declares it. An older report is
 * replaced whole or not at all.
 */
import { renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { StressResult } from '../stress/types.js';

export interface StressReport {
  readonly report: 'iommufd-stress';
  readonly version: 1;
  readonly runs: readonly StressResult[];
}

/** Why a report could not be written to `file`, found out before the work rather than after; null when it could. */
export function reportProblem(file: string): string | null {
  const path = resolve(file);
  try {
    return placeProblem(file, path) ?? tryPlace(path);
  } catch (error) {
    return `'${file}' cannot be written: ${(error as NodeJS.ErrnoException).code}`;
  }
}

/** What is wrong with a place, as far as looking at it tells. */
function placeProblem(file: string, path: string): string | null {
  const there = statSync(path, { throwIfNoEntry: false });
  if (there?.isDirectory()) return `'${file}' is a directory`;
  // A report replaces what is there: nobody wants a file in the place of /dev/null or a pipe.
  if (there !== undefined && !there.isFile()) return `'${file}' is not a file`;
  if (!statSync(dirname(path), { throwIfNoEntry: false })?.isDirectory())
    return `there is no directory '${dirname(path)}'`;
  return null;
}

/**
 * Makes the file that a report begins as, and takes it away again: permissions and file systems say it best.
 * @throws what the file system says
 */
function tryPlace(path: string): null {
  const partial = partialOf(path);
  writeFileSync(partial, '');
  rmSync(partial);
  return null;
}

/** Next to the report, so that renaming it stays within a file system. */
function partialOf(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}`);
}

/**
 * @returns the absolute path written
 * @throws what the file system says (ENOSPC, EACCES, ...); then neither half a report nor a leftover is there
 */
export function writeReport(file: string, runs: readonly StressResult[]): string {
  const report: StressReport = { report: 'iommufd-stress', version: 1, runs };
  return writeWhole(file, `${JSON.stringify(report, null, 2)}\n`);
}

/** Replaces a file whole or not at all. As `writeReport`, for any text. */
export function writeWhole(file: string, text: string): string {
  const path = resolve(file);
  const partial = partialOf(path);
  try {
    writeFileSync(partial, text);
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
  return path;
}
