/**
 * One measurement of one point, on a machine of its own: devices send traffic, and mappings change all the time,
 * made by the core (no guests) or by the guests. After a moment to warm up, counters are read twice.
 */
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { PortLayout } from '../../hw/iotlb/port-layout.js';
import { createMachine, type Machine } from '../../runtime/machine.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import { type ProgramTask, startWorkers } from '../../workers/index.js';
import { Histogram } from '../report/histogram.js';
import type { ScaleParams, ScaleRepeat } from '../report/scale-data.js';
import type { TenantArgs } from './programs/tenant.js';
import type { TrafficArgs } from './programs/traffic.js';
import { PHASE_MEASURE, PHASE_OVER, ScaleGuest, ScaleLayout } from './scale-layout.js';

const PAGE = 4096;
const MIB2 = 2 ** 21;
/** One off a block's boundary. */
const FIRST_PAGE = 0x1_0001;
const PAGES = 8192;
const CHURN_PAGE = 0x10_0001;
const GUEST_RAM_BYTES = 2 * MIB2;
const GUEST_RAM_PER_DEVICE = MIB2;
const BASE_BYTES = 32 * MIB2;
const BYTES_PER_SMMU = MIB2;
const WARM_UP_SHARE = 0.3;
const START_TIMEOUT_MS = 60_000;
/** Devices and whoever changes mappings take so much of the processors; the rest is the SMMUs'. */
const TRAFFIC_SHARE = 0.5;
const CORE_BURST_MS = 0.2;
const CORE_REST_MS = 1;

export interface PointTask {
  readonly params: ScaleParams;
  readonly durationS: number;
  readonly seed: number;
}

interface Counts {
  readonly hits: number;
  readonly misses: number;
  readonly maps: number;
  readonly invalidations: number;
}

/** @throws Error what went wrong: a program failed, a worker died */
export async function measurePoint({ params, durationS, seed }: PointTask): Promise<ScaleRepeat> {
  const { devices, guests } = params;
  const latency = Histogram.local();
  const core = { measuring: false, maps: 0, invalidations: 0 };
  const machine = createMachine(configOf(params), {
    instrument: (memory) => {
      memory.allocRegion(ScaleLayout, 'scale');
      return {
        observer: {
          mapping: () => undefined,
          unmapped: (_ioas, _page, _pfn, _pages, notes) => {
            for (const { durationNs } of notes) if (core.measuring) latency.record(durationNs);
          },
        },
      };
    },
  });
  const { base } = machine.memory.region(ScaleLayout, 'scale');
  const duty = Math.min(1, (TRAFFIC_SHARE * availableParallelism()) / (devices + guests));
  const fd = machine.openIommufd();
  const owners = ownersOf(params);
  const tasks: ProgramTask[] = [];
  for (let guest = 0; guest < guests; guest++)
    tasks.push(tenantTask(machine, fd.index, params, guest, owners, duty, seed));
  const churn = owners.flatMap((guest, device) => {
    const args: TrafficArgs = { firstPage: FIRST_PAGE, pages: PAGES, batch: params.batch, guest, duty };
    tasks.push(deviceTask(device, args, seed));
    return guest < 0 ? [hostDevice(machine, fd, device)] : [];
  });

  const host = await startWorkers(machine, { startTimeoutMs: START_TIMEOUT_MS });
  const failures: string[] = [];
  host.onDeath(({ name, reason }) => failures.push(`${name}: ${reason}`));
  host.expose(fd);
  for (const [device, guest] of owners.entries())
    if (guest >= 0) host.expose(machine.openVfio(machine.config.devices[device]!.label));
  const running = host.run(tasks).map((task) => task.catch((error: Error) => failures.push(error.message)));
  const over = (): boolean => core.measuring === false && machine.memory.words.load(base) === PHASE_OVER;
  const churning = churnMappings(churn, core, over, duty);
  const counts = (): Counts => countAll(machine, base, guests, core);
  await allReady(machine, base, params, failures);
  await sleep(durationS * 1000 * WARM_UP_SHARE);
  const before = counts();
  core.measuring = true;
  machine.memory.words.store(base, PHASE_MEASURE);
  const began = performance.now();
  await sleep(durationS * 1000);
  const seconds = (performance.now() - began) / 1000;
  core.measuring = false;
  machine.memory.words.store(base, PHASE_OVER);
  const after = counts();
  await churning;
  const report = await host.stop();
  await Promise.all(running);
  if (failures.length === 0 && !report.clean) failures.push(`did not stop: ${report.terminated.join(', ')}`);
  if (failures.length > 0) throw new Error(failures[0]);
  machine.close();
  for (let guest = 0; guest < guests; guest++)
    latency.merge(new Histogram(machine.memory.u32, guestAt(base, guest) + ScaleGuest.at.latency));
  const { p50Us, p99Us, count } = latency.summary();
  const hits = after.hits - before.hits;
  const translations = hits + after.misses - before.misses;
  if (translations === 0 || count === 0)
    throw new Error(
      `${translations} translations and ${count} invalidations were measured: the time is too short`,
    );
  return {
    throughput: translations / seconds,
    syncP50Us: p50Us,
    syncP99Us: p99Us,
    hitRate: hits / translations,
    invalidationsPerS: (after.invalidations - before.invalidations) / seconds,
    mapsPerS: (after.maps - before.maps) / seconds,
  };
}

const guestAt = (base: number, guest: number): number =>
  base + ScaleLayout.at.guests + guest * ScaleGuest.size;

function configOf({ psmmus, devices, guests, s2Sharing }: ScaleParams): MachineConfig {
  const ram = guests * GUEST_RAM_BYTES + (guests > 0 ? devices * GUEST_RAM_PER_DEVICE : 0);
  return {
    memory: BASE_BYTES + Math.ceil((ram * 1.5) / MIB2) * MIB2 + psmmus * BYTES_PER_SMMU,
    iommus: Array.from({ length: psmmus }, (_, i) => ({ name: `smmu${i}`, model: 'smmuv3' as const })),
    devices: Array.from({ length: devices }, (_, i) => ({
      name: `device${i}`,
      iommu: `smmu${i % psmmus}`,
      streamId: 1 + Math.floor(i / psmmus),
    })),
    s2Sharing,
  };
}

/** Which guest each device belongs to, -1 for the host: neighbours, which are behind different SMMUs, go together. */
function ownersOf({ devices, guests }: ScaleParams): number[] {
  return Array.from({ length: devices }, (_, device) =>
    guests === 0 ? -1 : Math.min(guests - 1, Math.floor((device * guests) / devices)),
  );
}

type Fd = ReturnType<Machine['openIommufd']>;

/** A device in an address space of its own. @returns what maps and unmaps its page that comes and goes */
function hostDevice(machine: Machine, fd: Fd, device: number): () => void {
  const { ioasId } = fd.ioasAlloc();
  const vfio = machine.openVfio(machine.config.devices[device]!.label);
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  const userVa = machine.user.alloc(PAGES * PAGE, { phantom: true });
  fd.ioasMap({ ioasId, userVa, length: PAGES * PAGE, iova: BigInt(FIRST_PAGE * PAGE) });
  const iova = BigInt(CHURN_PAGE * PAGE);
  const map = (): void => void fd.ioasMap({ ioasId, userVa, length: PAGE, iova });
  map();
  return () => {
    fd.ioasUnmap({ ioasId, iova, length: PAGE });
    map();
  };
}

const programUrl = (name: string): string => new URL(`./programs/${name}.js`, import.meta.url).href;
const seedOf = (seed: number, what: number): number =>
  (Math.imul(seed, 0x2545_f491) + what * 0x9e37_79b1) >>> 0;

function deviceTask(device: number, args: TrafficArgs, seed: number): ProgramTask {
  return {
    kind: 'device',
    name: `device ${device}`,
    program: programUrl('traffic'),
    export: 'traffic',
    args,
    deviceIndex: device,
    seed: seedOf(seed, device),
  };
}

function tenantTask(
  machine: Machine,
  fdIndex: number,
  { s2Sharing, queues }: ScaleParams,
  guest: number,
  owners: readonly number[],
  duty: number,
  seed: number,
): ProgramTask {
  const devices = owners.flatMap((owner, device) => (owner === guest ? [device] : []));
  const ramBytes = GUEST_RAM_BYTES + devices.length * GUEST_RAM_PER_DEVICE;
  const args: TenantArgs = {
    guest,
    devices,
    ramVa: machine.user.alloc(ramBytes, { contiguous: true }),
    ramBytes,
    s2Sharing,
    vsmmu: queues === 1 ? 'one' : 'per-psmmu',
    firstPage: FIRST_PAGE,
    pages: PAGES,
    churnPage: CHURN_PAGE,
    duty,
  };
  return {
    kind: 'guest',
    name: `guest ${guest}`,
    program: programUrl('tenant'),
    export: 'tenant',
    args,
    vmIndex: guest,
    fdIndex,
    seed: seedOf(seed, 1000 + guest),
  };
}

/** The core's part, on this thread: bursts of unmaps and maps, the devices in turn, and turns of the event loop. */
async function churnMappings(
  churn: readonly (() => void)[],
  core: { maps: number; invalidations: number },
  over: () => boolean,
  duty: number,
): Promise<void> {
  for (let next = 0; churn.length > 0 && !over(); ) {
    const began = performance.now();
    let worked = 0;
    do {
      churn[next++ % churn.length]!();
      core.maps++;
      core.invalidations++;
      worked = performance.now() - began;
    } while (worked < CORE_BURST_MS);
    await sleep(Math.max(CORE_REST_MS, worked * (1 / duty - 1)));
  }
}

/** Until every guest is up and every device has translated something. */
async function allReady(
  machine: Machine,
  base: number,
  { devices, guests }: ScaleParams,
  failures: readonly string[],
): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  const { words } = machine.memory;
  const ready = (): boolean => {
    for (let guest = 0; guest < guests; guest++)
      if (words.load(guestAt(base, guest) + ScaleGuest.at.ready) === 0) return false;
    for (let device = 0; device < devices; device++)
      if (portCounts(machine, device).misses === 0) return false;
    return true;
  };
  while (!ready()) {
    if (failures.length > 0) throw new Error(failures[0]);
    if (performance.now() > deadline) throw new Error('not every device has sent a DMA in time');
    await sleep(2);
  }
}

function portCounts(machine: Machine, device: number): { hits: number; misses: number } {
  const { memory } = machine;
  const port = memory.region(PortLayout, `port:${device}`).base;
  const count = (at: number): number =>
    memory.u32[(port + at) >>> 2]! + memory.u32[(port + at + 4) >>> 2]! * 2 ** 32;
  const { hitsMicro, hitsIotlb, misses } = PortLayout.at;
  return { hits: count(hitsMicro) + count(hitsIotlb), misses: count(misses) };
}

function countAll(
  machine: Machine,
  base: number,
  guests: number,
  core: { maps: number; invalidations: number },
): Counts {
  let { maps, invalidations } = core;
  for (let guest = 0; guest < guests; guest++) {
    const at = guestAt(base, guest);
    maps += machine.memory.words.load(at + ScaleGuest.at.maps) >>> 0;
    invalidations += machine.memory.words.load(at + ScaleGuest.at.invalidations) >>> 0;
  }
  let hits = 0;
  let misses = 0;
  for (let device = 0; device < machine.config.devices.length; device++) {
    const port = portCounts(machine, device);
    hits += port.hits;
    misses += port.misses;
  }
  return { hits, misses, maps, invalidations };
}
