/**
 * A whole guest on the core's thread: the VMM library, a guest's driver over its virtual SMMU, and a device that writes
 * while the guest unmaps, maps something else at the same place, and stops. Its stores to RAM become visible late.
 */
import { PAGE_TABLE_BYTES, pageTablesLayout } from '../../../hw/pagetable/page-table-layout.js';
import { GuestDriver } from '../../../runtime/vmm/guest-driver.js';
import { GuestRam } from '../../../runtime/vmm/guest-ram.js';
import { LocalTransport } from '../../../runtime/vmm/local-transport.js';
import { Vm } from '../../../runtime/vmm/vm.js';
import { machineScenario } from '../machine-scenario.js';
import { Gate } from '../monitors/gate.js';
import { PageAccess, WRITE } from '../monitors/page-access.js';
import { PageOwners } from '../monitors/page-owners.js';
import { BDFS, PAGE_BYTES, smallMachine } from './small-host.js';

const RAM_BYTES = 256 * 1024;
const TABLES = 2;
const TABLES_KEY = 'guest-tables';
const VSID = 1;
const IOVA_PAGE = 0x10;
const IOVA = BigInt(IOVA_PAGE * PAGE_BYTES);
const READ_WRITE = 3;
const OLD = 1;
const NEW = 2;
const ACCESSES = 3;
/** Ghost word: whose pages a DMA may reach, as bits. */
const MAY = 0;

interface Shared {
  readonly ramBase: number;
  readonly gate: number;
}

function scenario(name: string, about: string, storeBuffer: readonly string[], ats: boolean) {
  return machineScenario<Shared>({
    name,
    about,
    checks: ['R1'],
    machine: {
      ...smallMachine([{ ats }], { ats }),
      memory: '4MiB',
      instrumentBytes: TABLES * PAGE_TABLE_BYTES + PAGE_BYTES,
    },
    storeBuffer,
    stepLimit: 60_000,
    instrument: () => (memory) => {
      memory.allocRegion(pageTablesLayout(TABLES), TABLES_KEY);
      return {};
    },
    core(ctx, machine, share) {
      const gate = Gate.make(ctx, machine);
      const ramBase = machine.memory.ram.basePa;
      share({ ramBase, gate: gate.at });
      const { user, memory, kernel } = machine;
      const fd = machine.openIommufd();
      const owners = new PageOwners(ctx, ramBase);
      const userVa = user.alloc(RAM_BYTES, { contiguous: true });
      const ram = new GuestRam(memory, user, { userVa, bytes: RAM_BYTES });
      const vm = ok(Vm.create(LocalTransport.of(machine, fd), ram, { ats }));
      zero(vm.attachDevice(0, VSID));
      const { base } = memory.region(pageTablesLayout(TABLES), TABLES_KEY);
      const driver = new GuestDriver({
        ram,
        mmio: vm.smmus[0]!,
        kernel,
        descriptors: Array.from({ length: TABLES }, (_, i) => base + i * PAGE_TABLE_BYTES),
        sidBits: 4,
        commandQueueLg2: 4,
        eventQueueLg2: 4,
      });
      zero(driver.start());
      const space = ok(driver.createSpace());
      const page = (owner: number): number => {
        const pfn = ram.allocZeroed();
        const linear = ram.linearOf(pfn * PAGE_BYTES, PAGE_BYTES);
        owners.give(linear - memory.ram.linear + ramBase, owner);
        return pfn;
      };
      const [first, second] = [page(OLD), page(NEW)];
      driver.map(space, IOVA_PAGE, first, 1, READ_WRITE);
      zero(driver.setupStream(VSID, space, { ats }));
      if (machine.dmaPort(BDFS[0]).write(IOVA, new Uint8Array(4)) !== 0)
        throw new Error('the first DMA fails');
      ctx.ghost[MAY] = OLD;
      return () => {
        driver.unmap(space, IOVA_PAGE, 1);
        ctx.ghost[MAY] = NEW;
        driver.map(space, IOVA_PAGE, second, 1, READ_WRITE);
        driver.clearStream(VSID);
        ctx.ghost[MAY] = 0;
        gate.open();
      };
    },
    threads: {
      device(ctx, thread, { ramBase, gate }) {
        const owners = new PageOwners(ctx, ramBase);
        const device = new PageAccess(ctx, thread, 0);
        const landed = (pa: number): void => {
          const owner = owners.ownerOf(pa);
          ctx.check(
            'R1',
            (owner & ctx.ghost[MAY]!) !== 0,
            () => `a DMA lands in page ${owner}, may: ${ctx.ghost[MAY]}`,
          );
        };
        return () => {
          for (let i = 0; i < ACCESSES; i++) device.make(IOVA, WRITE, landed);
          new Gate(ctx, gate).pass();
          const status = device.make(IOVA, WRITE, landed);
          ctx.check('R1', status !== 0, () => 'a DMA succeeds after the guest has cleared the stream');
        };
      },
    },
  });
}

function ok<T extends object>(made: T | number): T {
  if (typeof made === 'number') throw new Error(`${made}`);
  return made;
}

function zero(status: number): void {
  if (status !== 0) throw new Error(`${status}`);
}

export const guestVm = scenario(
  'guest-vm',
  'a guest unmaps and maps through its virtual SMMU while its device writes',
  ['core'],
  false,
);

export const guestVmAts = scenario(
  'guest-vm-ats',
  'a guest unmaps and maps through its virtual SMMU while its device writes through its ATC',
  ['core'],
  true,
);
