/** Files that others wrote: a device or a pipe in their place might never end. */
import { type Stats, statSync } from 'node:fs';

/** @throws Error the file is not there, or is not an ordinary one */
export function regularFile(path: string): Stats {
  const stat = statSync(path);
  if (!stat.isFile()) throw new Error('it is not a file');
  return stat;
}
