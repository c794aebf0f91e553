/**
 * Builds what a plan asks for on a machine: address spaces, attached devices, buffers, and the tasks that the
 * workers will run. Core thread, before any traffic.
 */
import { availableParallelism } from 'node:os';
import type { IommufdFd } from '../../runtime/core/fd.js';
import type { Machine } from '../../runtime/machine.js';
import type { VfioDevice } from '../../runtime/objects/vfio-device.js';
import { IommufdError } from '../../uapi/abi/iommufd-error.js';
import type { ProgramTask } from '../../workers/protocol/messages.js';
import { OptionError } from './option-error.js';
import { GUEST_RAM_BYTES, type GuestPlan, type HostPlan, type StressPlan } from './plan.js';
import type { GuestChurnArgs } from './programs/guest-churn.js';
import { type HostTrafficArgs, mappedAtStart, type Window } from './programs/host-traffic.js';
import type { NestedTrafficArgs } from './programs/nested-traffic.js';
import type { StressOptions } from './types.js';

const PAGE = 4096;
const TRAFFIC_SHARE = 0.5;
const GUEST_EAGERNESS = 4;
/** Pages of a guest's IOVA space: slots of each device, then the pages that stay. */
const GUEST_FIRST_PAGE = 0x1_0000;
const GUEST_SLOTS = 192;
const GUEST_STEADY_PAGE = GUEST_FIRST_PAGE + 0x1000;
const GUEST_READ_ONLY_PAGE = GUEST_FIRST_PAGE + 0x1001;
const GUEST_HOLE_PAGE = GUEST_FIRST_PAGE + 0x2000;
/** No stream table of ours reaches this far: StreamIDs are 16 bits. */
const BAD_SID = 0x7fff_0001;

export interface StressSetup {
  readonly fd: IommufdFd;
  readonly vfios: readonly VfioDevice[];
  readonly tasks: readonly ProgramTask[];
}

/** @throws OptionError when the machine has too little memory for the plan */
export function setUp(machine: Machine, plan: StressPlan, options: StressOptions): StressSetup {
  const fd = machine.openIommufd();
  const vfios = machine.config.devices.map(({ label }) => machine.openVfio(label));
  const spaces = Array.from({ length: plan.spaces }, () => fd.ioasAlloc().ioasId);
  // Devices and guests together take half of the cores; the rest is the core's and the SMMUs'.
  const duty = Math.min(
    1,
    (TRAFFIC_SHARE * availableParallelism()) /
      (plan.hosts.length + plan.guests.reduce((sum, { devices }) => sum + 1 + devices.length, 0)),
  );
  const hosts = plan.hosts.map((host) => {
    const ioasId = spaces[host.space]!;
    const vfio = vfios[host.device]!;
    vfio.bindIommufd(fd);
    vfio.attach(ioasId);
    const neighbours = plan.hosts
      .filter((other) => other.space === host.space && other !== host)
      .map((other) => other.window);
    return hostTask(machine, fd, host, ioasId, neighbours, options, duty);
  });
  const guests = plan.guests.flatMap((guest) => guestTasks(machine, fd, guest, options, duty));
  return { fd, vfios, tasks: [...guests, ...hosts] };
}

const programUrl = (name: string): string => new URL(`./programs/${name}.js`, import.meta.url).href;

/** Distinct, and the same for the same run seed. */
const seedOf = (seed: number, what: number): number =>
  (Math.imul(seed, 0x2545f491) + what * 0x9e3779b1) >>> 0;

function allocate(
  machine: Machine,
  bytes: number,
  options: Parameters<Machine['user']['alloc']>[1],
  what: string,
): bigint {
  try {
    return machine.user.alloc(bytes, options);
  } catch (error) {
    if (!(error instanceof IommufdError)) throw error;
    throw new OptionError('memory', `no ${bytes} bytes are left for ${what}`);
  }
}

function hostTask(
  machine: Machine,
  fd: IommufdFd,
  host: HostPlan,
  ioasId: number,
  neighbours: readonly Window[],
  options: StressOptions,
  duty: number,
): ProgramTask {
  const { window, kind, device } = host;
  const name = machine.config.devices[device]!.label;
  const chunkLg2 = kind === 'gpu' ? 21 : 12;
  const va = allocate(machine, window.slots * window.slotPages * PAGE, { chunkLg2 }, name);
  const readOnly = allocate(machine, PAGE, {}, name);
  fd.ioasMap({
    ioasId,
    userVa: readOnly,
    length: PAGE,
    iova: BigInt(host.readOnlyPage) * BigInt(PAGE),
    writeable: false,
  });
  for (let slot = 0; slot < window.slots; slot++) {
    if (!mappedAtStart(slot)) continue;
    const offset = BigInt(slot * window.slotPages) << 12n;
    const iova = (BigInt(window.firstPage) << 12n) + offset;
    fd.ioasMap({ ioasId, userVa: va + offset, length: window.slotPages * PAGE, iova });
  }
  const args: HostTrafficArgs = {
    kind,
    device,
    fdIndex: fd.index,
    ioasId,
    window,
    userPage: Number(va >> 12n),
    neighbours,
    readOnlyPage: host.readOnlyPage,
    holePage: host.holePage,
    badSid: BAD_SID,
    hostilePercent: options.hostilePercent,
    duty,
  };
  return {
    kind: 'device',
    name: `${kind} ${name}`,
    program: programUrl('host-traffic'),
    export: 'hostTraffic',
    args,
    deviceIndex: device,
    seed: seedOf(options.seed, device),
  };
}

function guestTasks(
  machine: Machine,
  fd: IommufdFd,
  guest: GuestPlan,
  options: StressOptions,
  duty: number,
): ProgramTask[] {
  const { vm } = guest;
  const name = `guest ${vm}`;
  const ramVa = allocate(machine, GUEST_RAM_BYTES, { contiguous: true }, name);
  const ram = { pfn: 0, pages: 0 };
  machine.user.runAt(Number(ramVa >> 12n), ram);
  const args: GuestChurnArgs = {
    vm,
    devices: guest.devices.map((index, i) => ({ index, vSid: i + 1 })),
    ramVa,
    ramBytes: GUEST_RAM_BYTES,
    ramPfn: ram.pfn,
    // Both ways of building a VM's SMMUs, turn and turn about.
    vsmmu: vm % 2 === 0 ? 'one' : 'per-psmmu',
    s2Sharing: options.s2Sharing,
    firstPage: GUEST_FIRST_PAGE,
    slots: GUEST_SLOTS,
    steadyPage: GUEST_STEADY_PAGE,
    readOnlyPage: GUEST_READ_ONLY_PAGE,
    // Most of a guest's time is waiting for SYNCs, which takes nothing from the others.
    duty: Math.min(1, duty * GUEST_EAGERNESS),
  };
  const churn: ProgramTask = {
    kind: 'guest',
    name,
    program: programUrl('guest-churn'),
    export: 'guestChurn',
    args,
    vmIndex: vm,
    fdIndex: fd.index,
    seed: seedOf(options.seed, 1000 + vm),
  };
  const devices = guest.devices.map((device): ProgramTask => {
    const traffic: NestedTrafficArgs = {
      device,
      vm,
      firstPage: GUEST_FIRST_PAGE,
      slots: GUEST_SLOTS,
      steadyPage: GUEST_STEADY_PAGE,
      readOnlyPage: GUEST_READ_ONLY_PAGE,
      holePage: GUEST_HOLE_PAGE,
      badSid: BAD_SID,
      hostilePercent: options.hostilePercent,
      duty,
    };
    return {
      kind: 'device',
      name: `nested ${machine.config.devices[device]!.label}`,
      program: programUrl('nested-traffic'),
      export: 'nestedTraffic',
      args: traffic,
      deviceIndex: device,
      seed: seedOf(options.seed, device),
    };
  });
  return [churn, ...devices];
}
