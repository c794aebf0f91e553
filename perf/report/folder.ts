/** Whether a folder takes files, asked before the work whose results are to go there. */
import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

/** Makes the folder. @returns why nothing could be written there, or null */
export function folderProblem(folder: string): string | null {
  try {
    makeFolder(resolve(folder));
    if (!statSync(folder).isDirectory()) return `'${folder}' is not a folder`;
    // Permissions and file systems say it best.
    const trial = join(folder, `.${process.pid}`);
    writeFileSync(trial, '');
    rmSync(trial);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** One level at a time: Node's own recursion never ends where the system lets nobody make a folder (/proc). */
function makeFolder(folder: string): void {
  if (existsSync(folder)) return;
  makeFolder(dirname(folder));
  mkdirSync(folder);
}
