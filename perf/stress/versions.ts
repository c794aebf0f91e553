/** What ran where: figures mean little without it. */
import { readFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, release, type as systemName } from 'node:os';
import type { RunVersions } from './types.js';

export function runVersions(): RunVersions {
  return {
    iommufd: packageVersion(),
    node: process.version,
    cores: availableParallelism(),
    os: `${systemName()} ${release()} ${arch()}`,
    cpu: cpus()[0]?.model.trim() ?? 'not known',
    startedAt: new Date().toISOString(),
  };
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
