/** What `iommufd serve` and `iommufd run` have in common: the machine, and what is told of its calls. */
import { closeSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { OptionError } from '../../perf/stress/option-error.js';
import { loadTopology } from '../../perf/stress/presets.js';
import { machineConfigOf } from '../../perf/stress/topology.js';
import type { Machine } from '../../runtime/machine.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import type { Served, ServeOptions } from '../../runtime/serve/index.js';
import { buildPreload } from '../../runtime/serve/preload-library.js';
import { formatCall, formatJson } from '../../runtime/trace/format.js';
import { formatTransfer, formatTransferJson } from '../../runtime/trace/transfer.js';
import type { Output } from '../surroundings.js';
import { isExecutable } from './program-file.js';
import { wholeOption } from './usage.js';

export interface ServeFlags {
  readonly config?: string;
  readonly topology?: string;
  readonly devices?: string;
  readonly socket?: string;
  readonly enableTestIoctl?: boolean;
  /** true: on stderr. */
  readonly trace?: string | true;
  readonly json?: boolean;
}

/** Iommufds that clients can have open at once, all together. */
const MAX_FDS = 128;

/** PASIDs of the devices below: what PCI allows. */
const PASID_BITS = 20;
/** Two SMMUs with four devices each, without ATS: vfio0 to vfio7. */
const DEFAULT_MACHINE: MachineConfig = {
  maxFds: MAX_FDS,
  iommus: [
    { name: 'smmu0', model: 'smmuv3' },
    { name: 'smmu1', model: 'smmuv3' },
  ],
  devices: [0, 1].flatMap((iommu) =>
    [0, 1, 2, 3].map((slot) => ({
      bdf: `000${iommu}:01:0${slot}.0`,
      iommu: `smmu${iommu}`,
      pasidBits: PASID_BITS,
    })),
  ),
};

/** Devices of a machine that is given as a topology. */
const DEVICES = 8;
/** Its RAM: tables and queues. What clients map is memory of theirs. */
const MEMORY_BYTES = 256 * 2 ** 20;

/** How often memory that a client has mapped is looked at, ms. */
const MAPPED_POLL_MS = 1;

export function addServeOptions(command: Command): Command {
  return command
    .option(
      '--config <file>',
      'the machine, as JSON that createMachine takes (default: two SMMUs, eight devices with PASIDs)',
    )
    .option('--topology <file|preset>', 'the machine, as `iommufd topology` takes it')
    .option('--devices <n>', `with --topology: how many, vfio0 and so on (default: ${DEVICES})`)
    .option('--socket <path>', 'where to listen (default: in a folder of its own)')
    .option(
      '--trace [file]',
      'every ioctl, read and write, a line each that `iommufd decode` takes back (default: on stderr)',
    )
    .option('--json', 'with --trace: one JSON object a line')
    .option('--enable-test-ioctl', 'serve the kernel self-test ioctl and fault injection too');
}

export interface Serving {
  readonly machine: Machine;
  readonly served: Served;
  /** The preload library. */
  readonly library: string;
  close(): Promise<void>;
}

/** @throws OptionError | ConfigError | PreloadError | an error of serve() */
export async function startServing(flags: ServeFlags, stderr: Output): Promise<Serving> {
  const log = (line: string) => stderr.write(`iommufd: ${line}\n`);
  const config = configOf(flags);
  if (flags.socket !== undefined && !isFolder(dirname(flags.socket)))
    throw new OptionError('socket', `'${dirname(flags.socket)}' is no folder`);
  const trace = openTrace(flags, stderr);
  const library = buildPreload();
  // Late: what is wrong usage is told without it.
  const { createMachine } = await import('../../runtime/machine.js');
  const { serve } = await import('../../runtime/serve/index.js');
  const testIoctl = flags.enableTestIoctl ?? false;
  const machine = createMachine(config, { log, testIoctl });
  let timer: NodeJS.Timeout | undefined;
  const served = await serve(machine, {
    log,
    faultInjection: testIoctl,
    onMapped: (mapped) => {
      clearInterval(timer);
      timer = mapped ? setInterval(() => served.poll(), MAPPED_POLL_MS) : undefined;
    },
    ...(trace === null ? {} : trace.hooks),
    ...(flags.socket === undefined ? {} : { socket: flags.socket }),
  });
  return {
    machine,
    served,
    library,
    close: async () => {
      clearInterval(timer);
      await served.close();
      machine.close();
      trace?.close();
    },
  };
}

interface Trace {
  readonly hooks: Pick<ServeOptions, 'onCall' | 'onTransfer'>;
  close(): void;
}

/** @returns null when none is wanted @throws OptionError */
function openTrace({ trace, json = false }: ServeFlags, stderr: Output): Trace | null {
  if (trace === undefined) {
    if (json) throw new OptionError('json', 'only with --trace');
    return null;
  }
  let file = -1;
  if (trace !== true && isExecutable(trace))
    throw new OptionError('trace', `'${trace}' is a program; if it is to be run: --trace -- ${trace} ...`);
  try {
    if (trace !== true) file = openSync(trace, 'w');
  } catch (error) {
    throw new OptionError('trace', `'${trace}' cannot be written: ${(error as NodeJS.ErrnoException).code}`);
  }
  // At once: what is traced may be the last thing that happens.
  let full = false;
  const write = (line: string) => {
    if (file < 0) stderr.write(`${line}\n`);
    else if (!full)
      try {
        writeSync(file, `${line}\n`);
      } catch (error) {
        // The programs go on without.
        full = true;
        stderr.write(`iommufd: --trace ends here: ${(error as Error).message}\n`);
      }
  };
  return {
    hooks: {
      onCall: (call) => write((json ? formatJson : formatCall)(call)),
      onTransfer: (transfer) => write((json ? formatTransferJson : formatTransfer)(transfer)),
    },
    close: () => {
      if (file >= 0) closeSync(file);
    },
  };
}

/** @throws OptionError */
function configOf({ config, topology, devices }: ServeFlags): MachineConfig {
  if (topology === undefined) {
    if (devices !== undefined) throw new OptionError('devices', 'only with --topology');
    return config === undefined ? DEFAULT_MACHINE : readConfig(config);
  }
  if (config !== undefined) throw new OptionError('topology', 'not together with --config');
  const machine = machineConfigOf(loadTopology(topology), {
    devices: devices === undefined ? DEVICES : wholeOption('devices', devices, 1, 1024),
    memoryBytes: MEMORY_BYTES,
    s2Sharing: 'shared',
    trace: false,
    ats: 'off',
  });
  return { ...machine, maxFds: MAX_FDS };
}

function readConfig(file: string): MachineConfig {
  let config: MachineConfig;
  try {
    config = JSON.parse(readFileSync(file, 'utf8')) as MachineConfig;
  } catch (error) {
    throw new OptionError('config', `'${file}': ${(error as Error).message}`);
  }
  // What IOMMUs have there and not in a configuration.
  const iommus: unknown = (config as Partial<MachineConfig> | null)?.iommus;
  const iommu: unknown = Array.isArray(iommus) ? iommus[0] : undefined;
  if (typeof iommu === 'object' && iommu !== null && 'base' in iommu)
    throw new OptionError('config', `'${file}' is a topology: --topology takes it`);
  return config;
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
