/** What `iommufd serve` and `iommufd run` have in common: the machine, and what is told of its calls. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { OptionError } from '../../perf/stress/option-error.js';
import type { Machine } from '../../runtime/machine.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import type { Served } from '../../runtime/serve/index.js';
import type { Output } from '../surroundings.js';

export interface ServeFlags {
  readonly config?: string;
  readonly socket?: string;
  readonly enableTestIoctl?: boolean;
}

/** Two SMMUs with four devices each, without ATS: vfio0 to vfio7. */
const DEFAULT_MACHINE: MachineConfig = {
  iommus: [
    { name: 'smmu0', model: 'smmuv3' },
    { name: 'smmu1', model: 'smmuv3' },
  ],
  devices: [0, 1].flatMap((iommu) =>
    [0, 1, 2, 3].map((slot) => ({ bdf: `000${iommu}:01:0${slot}.0`, iommu: `smmu${iommu}` })),
  ),
};

/** How often memory that a client has mapped is looked at, ms. */
const MAPPED_POLL_MS = 1;

export function addServeOptions(command: Command): Command {
  return command
    .option(
      '--config <file>',
      'the machine, as JSON that createMachine takes (default: two SMMUs, eight devices)',
    )
    .option('--socket <path>', 'where to listen (default: in a folder of its own)')
    .option('--enable-test-ioctl', 'serve the kernel self-test ioctl and fault injection too');
}

export interface Serving {
  readonly machine: Machine;
  readonly served: Served;
  close(): Promise<void>;
}

/** @throws OptionError | ConfigError | an error of serve() */
export async function startServing(flags: ServeFlags, stderr: Output): Promise<Serving> {
  const log = (line: string) => stderr.write(`iommufd: ${line}\n`);
  const config = flags.config === undefined ? DEFAULT_MACHINE : readConfig(flags.config);
  // Late: what is wrong usage is told without it.
  const { createMachine } = await import('../../runtime/machine.js');
  const { serve } = await import('../../runtime/serve/index.js');
  const machine = createMachine(config, { log });
  const served = await serve(machine, {
    log,
    faultInjection: flags.enableTestIoctl ?? false,
    ...(flags.socket === undefined ? {} : { socket: flags.socket }),
  });
  const timer = setInterval(() => {
    if (served.counts.mappings > 0) served.poll();
  }, MAPPED_POLL_MS);
  return {
    machine,
    served,
    close: async () => {
      clearInterval(timer);
      await served.close();
      machine.close();
    },
  };
}

function readConfig(file: string): MachineConfig {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as MachineConfig;
  } catch (error) {
    throw new OptionError('config', `'${file}': ${(error as Error).message}`);
  }
}
