import anyTest, { type TestFn } from 'ava';
import { Xlat } from '../../../hw/iotlb/port-layout.js';
import { createMachine, type Machine } from '../../../runtime/machine.js';
import { MachineThread } from '../../../runtime/machine-thread.js';
import { ClientFiles } from '../../../runtime/serve/client-file.js';
import { ClientAccounts, ClientTask } from '../../../runtime/serve/client-task.js';
import { ClientProcess, clientProgram } from '../../kit/client-process.js';
import { cd, S1_PAGE, steS1 } from '../../kit/smmu-structures.js';

const FROM_ATC = 5;
const F_CD_FETCH = 0x09;
const F_WALK_EABT = 0x0b;
const F_TRANSLATION = 0x10;
const EXTERNAL_ABORT = 0xf9;
const PAGE = 4096;
const MIB2 = 2 ** 21;
const IOVA = 0x1000_0000n;
const NIC = '0000:01:00.0';

interface Context {
  client: ClientProcess;
  machine: Machine;
  task: ClientTask;
  log: string[];
}

const test = anyTest as TestFn<Context>;
const program = clientProgram();
const withClient = program === null ? test.skip : test;
if (program === null) console.log('client-dma: no C compiler here, so no client to lend memory');

function machineWith(log: string[], ats: boolean): Machine {
  return createMachine(
    {
      memory: '16MiB',
      iommus: [{ name: 'smmu0', model: 'smmuv3', httu: 'dirty', ats }],
      devices: [{ bdf: NIC, iommu: 'smmu0', ats }],
      debugLocks: true,
    },
    { log: (message) => log.push(message) },
  );
}

function taskOf(machine: Machine, client: ClientProcess): ClientTask {
  return new ClientTask(client.pid, new ClientFiles(machine.foreign), new ClientAccounts(), {
    bySocket: () => undefined,
    install: () => 3,
    close: () => 0,
  });
}

test.beforeEach((t) => {
  if (program === null) return;
  const log: string[] = [];
  const machine = machineWith(log, false);
  const client = new ClientProcess(program);
  t.context = { client, machine, task: taskOf(machine, client), log };
});

test.afterEach.always(async (t) => {
  t.context.machine?.close();
  t.context.task?.release();
  await t.context.client?.exit();
});

/** An IOAS that the NIC is attached to. */
function attached(machine: Machine) {
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const vfio = machine.openVfio(NIC);
  vfio.bindIommufd(fd);
  vfio.attach(ioasId);
  return { fd, ioasId, dma: machine.dmaPort(NIC) };
}

withClient("DMA lands in the client's buffer, and reads what the client wrote", async (t) => {
  const { client, machine, task } = t.context;
  const { fd, ioasId, dma } = attached(machine);
  const at = await client.ask('anon', 8 * PAGE);
  const userVa = BigInt(at);
  machine.core.as(task, () => fd.ioasMap({ ioasId, userVa, length: 8 * PAGE, iova: IOVA }));
  t.is(machine.foreign.pinned, 8);
  t.throws(() => machine.saveImage(), { message: /client/ });
  const sent = Uint8Array.from({ length: 10_000 }, (_, i) => i);
  t.is(dma.write(IOVA + 100n, sent), 0);
  t.is(await client.ask('peek', at + 100), 0);
  t.is(await client.ask('peek', at + 100 + 9_001), 9_001 % 256);
  await client.ask('fill', at + 2 * PAGE, 10, 0xee);
  const seen = new Uint8Array(PAGE);
  t.is(dma.read(IOVA + BigInt(2 * PAGE), seen), 0);
  t.deepEqual(seen.subarray(0, 10), new Uint8Array(10).fill(0xee));
  fd.ioasUnmap({ ioasId, iova: IOVA, length: 8 * PAGE });
  t.is(dma.read(IOVA, seen), F_TRANSLATION);
  t.is(machine.foreign.pinned, 0);
  t.notThrows(() => machine.saveImage());
});

withClient('a mapping that the client may not write is mapped for reading only', async (t) => {
  const { client, machine, task } = t.context;
  const { fd, ioasId, dma } = attached(machine);
  const at = await client.ask('anon', 2 * PAGE);
  const userVa = BigInt(at);
  await client.ask('fill', at, PAGE, 9);
  await client.ask('protect', at, 2 * PAGE, 1);
  const map = (writeable: boolean) =>
    machine.core.as(task, () => fd.ioasMap({ ioasId, userVa, length: 2 * PAGE, iova: IOVA, writeable }));
  t.throws(() => map(true), { code: 'EFAULT' });
  t.is(machine.foreign.pinned, 0);
  map(false);
  const seen = new Uint8Array(1);
  t.is(dma.read(IOVA, seen), 0);
  t.is(seen[0], 9);
  t.not(dma.write(IOVA, seen), 0);
});

withClient('memory that the client gave up answers with an external abort, once told', async (t) => {
  const { client, machine, task, log } = t.context;
  const { fd, ioasId, dma } = attached(machine);
  const at = await client.ask('anon', 2 * PAGE);
  machine.core.as(task, () => fd.ioasMap({ ioasId, userVa: BigInt(at), length: 2 * PAGE, iova: IOVA }));
  await client.exit();
  t.is(dma.write(IOVA, new Uint8Array(8)), EXTERNAL_ABORT);
  t.is(dma.read(IOVA, new Uint8Array(8)), EXTERNAL_ABORT);
  t.is(log.length, 1);
  fd.ioasUnmap({ ioasId, iova: IOVA, length: 2 * PAGE });
  task.release();
  t.is(machine.foreign.windows, 0);
});

withClient('two processes map one memfd, and share what the device sees', async (t) => {
  const { client, machine, task } = t.context;
  const { fd, ioasId, dma } = attached(machine);
  const memfd = await client.ask('memfd', MIB2);
  const at = await client.ask('map', memfd, MIB2, 0);
  machine.core.as(task, () => fd.ioasMap({ ioasId, userVa: BigInt(at), length: MIB2, iova: IOVA }));
  const pid = await client.ask('fork');
  t.is(dma.write(IOVA + 5n, Uint8Array.of(21)), 0);
  t.is(await client.ask('peek', at + 5), 21, `in the child, ${pid}`);
  await client.endChild();
  t.is(await client.ask('peek', at + 5), 21);
});

withClient('DMA across pages that are neighbours in the client, and elsewhere on the bus', async (t) => {
  const { client, machine, task } = t.context;
  const { fd, ioasId, dma } = attached(machine);
  const memfd = await client.ask('memfd', 4 * PAGE);
  for (const [i, page] of [3, 0, 1].entries()) {
    const userVa = BigInt(await client.ask('map', memfd, PAGE, page * PAGE));
    const iova = IOVA + BigInt(i * PAGE);
    machine.core.as(task, () => fd.ioasMap({ ioasId, userVa, length: PAGE, iova }));
  }
  const at = await client.ask('map', memfd, 4 * PAGE, 0);
  const sent = Uint8Array.from({ length: 3 * PAGE - 20 }, (_, i) => i >> 7);
  t.is(dma.write(IOVA + 10n, sent), 0);
  const seen = new Uint8Array(4 * PAGE);
  t.is(task.mm.copyIn(BigInt(at), seen), 0);
  t.deepEqual(seen.subarray(3 * PAGE + 10), sent.subarray(0, PAGE - 10));
  t.deepEqual(seen.subarray(0, 2 * PAGE - 10), sent.subarray(PAGE - 10));
  t.deepEqual(seen.subarray(2 * PAGE, 3 * PAGE), new Uint8Array(PAGE));
  const back = new Uint8Array(sent.length);
  t.is(dma.read(IOVA + 10n, back), 0);
  t.deepEqual(back, sent);
});

test('threads that cannot reach a client refuse its addresses, and say so once', (t) => {
  const machine = createMachine({
    memory: '16MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [],
  });
  const log: string[] = [];
  const thread = MachineThread.attach(machine.handle(), { log: (message) => log.push(message) });
  const external = thread.memory.external!;
  const pa = machine.foreign.range.firstPfn * PAGE;
  t.false(external.includes(pa - 1));
  t.true(external.includes(pa));
  t.false(external.read(pa, new Uint8Array(8)));
  t.false(external.write(pa, new Uint8Array(8)));
  t.is(log.length, 1);
  t.regex(log[0]!, /client process/);
  machine.close();
});

withClient("physical: RAM and clients' frames by number", async (t) => {
  const { client, machine, task } = t.context;
  const at = await client.ask('anon', PAGE);
  const out = { pfn: 0, pages: 0 };
  task.mm.runAt(at / PAGE, out, true);
  const { physical } = machine.core;
  t.is(physical.write(out.pfn, 4, Uint8Array.of(5)), 0);
  t.is(await client.ask('peek', at + 4), 5);
  const userVa = machine.user.alloc(PAGE);
  machine.user.runAt(Number(userVa >> 12n), out);
  t.is(physical.write(out.pfn, 0, Uint8Array.of(8)), 0);
  const seen = new Uint8Array(1);
  machine.user.copyIn(userVa, seen);
  t.is(seen[0], 8);
});

/** Guest RAM that is the client's memory, seen at this IPA. */
const IPA = 0x4000_0000;
const TABLE = 3n;

/**
 * A guest whose CD and stage-1 tables lie in the client's memory: IOVA page n is the RAM at 0x8000 + n pages.
 * @param options.leaf     what a leaf says besides its address
 * @param options.cdBits   what the first word of the CD says besides
 * @param options.steBits  what the second word of the STE says
 */
async function guest(
  { client, machine, task }: Omit<Context, 'log'>,
  { leaf = S1_PAGE, cdBits = 0n, steBits = 0n } = {},
) {
  const at = await client.ask('anon', MIB2);
  const put = (offset: number, words: readonly bigint[]) =>
    task.mm.copyOut(BigInt(at + offset), new Uint8Array(BigUint64Array.from(words).buffer));
  const [first, ...rest] = cd({ root: IPA + 0x1000, asid: 1 });
  put(0, [first! | cdBits, ...rest]);
  put(0x1000, [BigInt(IPA + 0x2000) | TABLE]);
  put(0x2000, [BigInt(IPA + 0x3000) | TABLE]);
  put(
    0x3000,
    Array.from({ length: 16 }, (_, page) => BigInt(IPA + 0x8000 + page * PAGE) | leaf),
  );
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const vfio = machine.openVfio(NIC);
  const { devId } = vfio.bindIommufd(fd);
  machine.core.as(task, () => fd.ioasMap({ ioasId, userVa: BigInt(at), length: MIB2, iova: BigInt(IPA) }));
  const parent = fd.hwptAlloc({ devId, ptId: ioasId, flags: 1 }).hwptId;
  const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: 1 });
  fd.vdeviceAlloc({ viommuId, devId, virtId: 5 });
  const data = new Uint8Array(BigUint64Array.of(steS1(IPA)[0]!, steBits).buffer);
  vfio.attach(fd.hwptAlloc({ devId, ptId: viommuId, dataType: 2, data }).hwptId);
  return { dma: machine.dmaPort(NIC), at };
}

withClient("nested: the SMMU walks the tables that a guest keeps in the client's memory", async (t) => {
  const { client } = t.context;
  const { dma, at } = await guest(t.context);
  const sent = Uint8Array.from({ length: 5 * PAGE }, (_, i) => i >> 12);
  t.is(dma.write(0x1800n, sent), 0);
  t.is(await client.ask('peek', at + 0x8000 + PAGE + 0x800), 0);
  t.is(await client.ask('peek', at + 0x8000 + 5 * PAGE + 0x900), 4);
  t.is(dma.write(0x10_000n, sent), F_TRANSLATION, 'a leaf that is zero');
  t.is(dma.write(0x4000_0000n, sent), F_TRANSLATION, 'a table that is none');
  t.deepEqual(t.context.log, []);
});

withClient("nested: hardware does not update descriptors in the client's memory, and says so", async (t) => {
  // No Access flag in the leaves; CD.HA.
  const { dma } = await guest(t.context, { leaf: S1_PAGE & ~(1n << 10n), cdBits: 1n << 43n });
  t.is(dma.read(0x1000n, new Uint8Array(8)), F_WALK_EABT);
  t.is(dma.read(0x1000n, new Uint8Array(8)), F_WALK_EABT);
  t.is(t.context.log.filter((line) => line.includes('hardware update')).length, 1);
});

withClient('nested: a translation request is answered from tables in the client, too', async (t) => {
  const { client } = t.context;
  const log: string[] = [];
  const machine = machineWith(log, true);
  const task = taskOf(machine, client);
  t.teardown(() => {
    machine.close();
    task.release();
  });
  // STE.EATS.
  const { dma, at } = await guest({ client, machine, task }, { steBits: 1n << 28n });
  t.true(dma.ats.enabled);
  t.is(dma.write(0x2003n, Uint8Array.of(44)), 0);
  t.is(await client.ask('peek', at + 0x8000 + 2 * PAGE + 3), 44);
  t.is(dma.write(0x2004n, Uint8Array.of(45)), 0);
  t.is(dma.field(0, Xlat.at.source), FROM_ATC);
  t.deepEqual(log, []);
});

withClient('nested: tables and CD that are gone with the client end in an external abort', async (t) => {
  const { client } = t.context;
  const { dma } = await guest(t.context);
  t.is(dma.read(0x1000n, new Uint8Array(8)), 0);
  await client.exit();
  t.is(dma.read(0x3000n, new Uint8Array(8)), F_WALK_EABT);
});

withClient('nested: a CD that is not there is F_CD_FETCH', async (t) => {
  const { client } = t.context;
  const { dma, at } = await guest(t.context);
  await client.ask('unmap', at, PAGE);
  t.is(dma.read(0x1000n, new Uint8Array(8)), F_CD_FETCH);
});
