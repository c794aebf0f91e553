/**
 * From a machine's description to the machine that is built: which devices there are, which stream each one's DMA
 * carries, and which have an ATC.
 *
 * Devices are dealt out over the SMMUs in turn, and behind one SMMU over its masters in turn, so that few
 * devices already reach all parts of the topology. A PCI device is a function on a bus of its own (01:00.0,
 * 02:00.0, ...) while there are buses; a named component's device is its path and input ID, `\_SB_.NPU0#0`.
 * Every device has a stream to itself; IDs that share a stream, as one behind a PCI bridge would, are skipped.
 * One with an ATC makes page requests as well.
 */
import {
  type MachineDescription,
  type MasterDescription,
  type StreamMapping,
  streamIdFor,
} from '../../hw/acpi/description.js';
import { MAX_PORTS } from '../../hw/iotlb/unit-layout.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import { OptionError } from './option-error.js';
import type { AtsChoice } from './types.js';

export interface MachineChoices {
  /** How many devices in all. */
  readonly devices: number;
  readonly memoryBytes: number;
  readonly s2Sharing: 'shared' | 'per-psmmu';
  readonly trace: boolean;
  /** Default: auto. */
  readonly ats?: AtsChoice | undefined;
  /** Room for regions of an instrument. */
  readonly instrumentBytes?: number;
  readonly bugs?: MachineConfig['bugs'];
}

type Device = MachineConfig['devices'][number];

/** IDs tried of one mapping. More than all streams that a machine can have devices for. */
const MAX_TRIED = 0x1_0000;

/**
 * @throws OptionError naming `topology` when there is no SMMU that we model or nothing behind one, `devices`
 *   when there are fewer streams than devices
 */
export function machineConfigOf(description: MachineDescription, choices: MachineChoices): MachineConfig {
  return {
    memory: choices.memoryBytes,
    iommus: description.iommus.map(({ name, model }) => ({ name, model })),
    devices: placeDevices(description, choices.devices, choices.ats ?? 'auto'),
    s2Sharing: choices.s2Sharing,
    trace: choices.trace,
    instrumentBytes: choices.instrumentBytes ?? 0,
    ...(choices.bugs === undefined ? {} : { bugs: choices.bugs }),
  };
}

/** How many devices a machine of this description has room for, counted up to `limit`. */
export function deviceCapacity(description: MachineDescription, limit: number): number {
  return deal(description, limit, 'off').length;
}

function placeDevices(description: MachineDescription, count: number, ats: AtsChoice): Device[] {
  if (description.iommus.length === 0) throw new OptionError('topology', noSmmu(description));
  const devices = deal(description, count, ats);
  if (devices.length === count) return devices;
  if (devices.length === 0)
    throw new OptionError('topology', 'no master has a stream mapping to an SMMUv3: nothing could do DMA');
  throw new OptionError(
    'devices',
    `${count} are asked for, and this topology has streams for ${devices.length} ` +
      `(at most ${MAX_PORTS} behind one SMMU)`,
  );
}

function noSmmu(description: MachineDescription): string {
  const names = [...new Set(description.unsupported.map(({ name }) => name))];
  const has = names.length === 0 ? 'none at all' : `only ${names.join(', ')}, which is not modelled`;
  return `needs an SMMUv3; this machine has ${has}`;
}

function deal(description: MachineDescription, count: number, ats: AtsChoice): Device[] {
  const devices: Device[] = [];
  let sources = description.iommus.map(({ name }) => devicesOf(description, name, ats));
  while (sources.length > 0) {
    const left: Generator<Device>[] = [];
    for (const source of sources) {
      if (devices.length >= count) return devices;
      const { value, done } = source.next();
      if (done) continue;
      devices.push(value);
      left.push(source);
    }
    sources = left;
  }
  return devices;
}

/** The devices that fit behind one SMMU, best choice first. */
function* devicesOf(description: MachineDescription, iommu: string, ats: AtsChoice): Generator<Device> {
  const streams = new Set<number>();
  let masters = description.masters.map((master) => identitiesOf(master, iommu, ats));
  while (masters.length > 0) {
    const left: typeof masters = [];
    for (const identities of masters) {
      const device = nextFree(description, iommu, identities, streams);
      if (device === undefined) continue;
      yield device;
      if (streams.size >= MAX_PORTS) return;
      left.push(identities);
    }
    masters = left;
  }
}

interface Identity {
  readonly label: { bdf: string } | { name: string };
  readonly query: Parameters<typeof streamIdFor>[1];
  /** It has an ATC. */
  readonly ats: boolean;
}

function nextFree(
  description: MachineDescription,
  iommu: string,
  identities: Generator<Identity>,
  streams: Set<number>,
): Device | undefined {
  for (;;) {
    const { value, done } = identities.next();
    if (done) return undefined;
    const stream = streamIdFor(description, value.query);
    if (stream === undefined || stream.iommu !== iommu || streams.has(stream.streamId)) continue;
    streams.add(stream.streamId);
    return { ...value.label, iommu, streamId: stream.streamId, ats: value.ats, pri: value.ats };
  }
}

/** Only PCI devices have ATCs; `auto`: where the root complex passes their requests on. */
function* identitiesOf(master: MasterDescription, iommu: string, choice: AtsChoice): Generator<Identity> {
  for (const mapping of master.idMappings) {
    if (mapping.iommu !== iommu) continue;
    if (master.kind === 'named-component') {
      const { path } = master;
      for (const inputId of inputsOf(mapping))
        yield { label: { name: `${path}#${inputId}` }, query: { path, inputId }, ats: false };
    } else {
      const { segment } = master;
      const ats = choice === 'on' || (choice === 'auto' && master.ats);
      for (const rid of mapping.single ? inputsOf(mapping) : ridsOf(mapping))
        yield { label: { bdf: bdfOf(segment, rid) }, query: { segment, rid }, ats };
    }
  }
}

function* inputsOf({ inputBase, count, single }: StreamMapping): Generator<number> {
  const end = inputBase + (single ? 1 : Math.min(count, MAX_TRIED));
  for (let id = inputBase; id < end; id++) yield id;
}

/** The RIDs of a mapping: a bus each first, as cards in slots are; bus 0, where the root ports sit, last. */
function* ridsOf({ inputBase, count }: StreamMapping): Generator<number> {
  for (let devfn = 0; devfn < 256; devfn++)
    for (let nth = 0; nth < 256; nth++) {
      const rid = (((nth + 1) & 0xff) << 8) | devfn;
      if (rid >= inputBase && rid < inputBase + count) yield rid;
    }
}

/** `SSSS:BB:DD.F`. */
function bdfOf(segment: number, rid: number): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  return `${hex(segment, 4)}:${hex(rid >> 8, 2)}:${hex((rid >> 3) & 0x1f, 2)}.${rid & 7}`;
}
