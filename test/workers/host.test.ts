import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { PortLayout } from '../../hw/iotlb/port-layout.js';
import {
  createMachine,
  type Machine,
  startWorkers,
  TaskError,
  type WorkerDeath,
} from '../../workers/index.js';
import type { ProgramTask } from '../../workers/protocol/messages.js';
import type { DmaLoopArgs, DmaLoopResult, MailboxArgs } from './programs.js';

const ENOENT = 2;
const EIO = 5;
const EOWNERDEAD = 130;
const PROGRAMS = new URL('./programs.js', import.meta.url).href;
const IOVA = 0x1000_0000n;
const UNMAPPED = 0x9000_0000n;
const BYTES = 64 * 1024;
const DEVICES = ['0000:01:00.0', '0001:01:00.0'];

/** Two SMMUs with a device behind each, both devices in one address space. */
function twoSmmus(traits: readonly { ats?: boolean; stall?: boolean }[] = []): {
  machine: Machine;
  fd: ReturnType<Machine['openIommufd']>;
  ioasId: number;
  userVa: bigint;
} {
  const machine = createMachine({
    memory: '32MiB',
    iommus: [
      { name: 'smmu0', model: 'smmuv3' },
      { name: 'smmu1', model: 'smmuv3' },
    ],
    devices: [
      { bdf: DEVICES[0]!, iommu: 'smmu0', ...traits[0] },
      { bdf: DEVICES[1]!, iommu: 'smmu1', ...traits[1] },
    ],
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  for (const bdf of DEVICES) {
    const vfio = machine.openVfio(bdf);
    vfio.bindIommufd(fd);
    vfio.attach(ioasId);
  }
  const userVa = machine.user.alloc(BYTES);
  fd.ioasMap({ ioasId, userVa, length: BYTES, iova: IOVA });
  return { machine, fd, ioasId, userVa };
}

const dmaTask = (deviceIndex: number, iova = IOVA): ProgramTask => {
  const args: DmaLoopArgs = { iova, bytes: 16384 };
  return {
    kind: 'device',
    name: `device ${deviceIndex}`,
    program: PROGRAMS,
    export: 'dmaLoop',
    args,
    deviceIndex,
  };
};

test.serial('workers: a machine that has them gets no second set, and does not close', async (t) => {
  const { machine } = twoSmmus();
  const host = await startWorkers(machine);
  await t.throwsAsync(startWorkers(machine), { message: /has workers already/ });
  t.throws(() => machine.close(), { message: /await host\.stop\(\)/ });
  t.true((await host.stop()).clean);
  const again = await startWorkers(machine);
  t.true((await again.stop()).clean);
  machine.close();
});

test.serial('workers: tasks that name no device are refused before anything is sent', async (t) => {
  const { machine } = twoSmmus();
  const host = await startWorkers(machine);
  t.teardown(() => host.stop());
  const free = machine.frames.freePages();
  const { deviceIndex: _, ...nowhere } = dmaTask(0);
  const guest: ProgramTask = { kind: 'guest', name: 'guest 0', program: PROGRAMS };
  t.throws(() => host.run([dmaTask(0), nowhere]), {
    instanceOf: TypeError,
    message: 'device 0: a device task needs a deviceIndex',
  });
  t.throws(() => host.run([dmaTask(2)]), {
    instanceOf: RangeError,
    message: /^device 2: there is no device 2/,
  });
  t.throws(() => host.run([{ ...guest, fdIndex: 5 }]), { instanceOf: RangeError, message: /not exposed/ });
  t.throws(() => host.run([{ ...guest, kind: 'vm' as never }]), { instanceOf: TypeError, message: /'vm'/ });
  t.is(machine.frames.freePages(), free);
  const report = await host.stop();
  t.true(report.clean);
  t.deepEqual(report.deaths, []);
  machine.close();
});

test.serial('workers: calls that take long leave turns to timers and signals in between', async (t) => {
  const { machine } = twoSmmus();
  const host = await startWorkers(machine);
  t.teardown(() => host.stop());
  let turns = 0;
  const seenAt: number[] = [];
  // A call that takes its time, as one does that waits for an SMMU which does not answer.
  const slow = (): number => {
    const until = performance.now() + 10;
    while (performance.now() < until);
    seenAt.push(turns);
    return 0;
  };
  host.expose({ index: 9, fd: 900, ioctl: slow });
  const timer = setInterval(() => turns++, 1);
  t.teardown(() => clearInterval(timer));
  const args: MailboxArgs = { fdIndex: 9, calls: 40 };
  const [answered] = host.run([
    { kind: 'guest', name: 'poster', program: PROGRAMS, export: 'postAll', args },
  ]);
  t.is(await answered, 40);
  t.true(seenAt[19]! - seenAt[0]! >= 10, `turns at each call: ${seenAt.join(' ')}`);
});

test.serial(
  'workers: a task that cannot be sent is refused at once, and stop() does not wait for it',
  async (t) => {
    const { machine } = twoSmmus();
    const host = await startWorkers(machine);
    t.teardown(() => host.stop());
    const task: ProgramTask = { ...dmaTask(0), args: () => undefined };
    // A DOMException is no Error to ava's throws().
    let refused = '';
    try {
      host.run([task]);
    } catch (error) {
      refused = (error as DOMException).name;
    }
    t.is(refused, 'DataCloneError');
    t.throws(() => host.run([{ ...dmaTask(0), kind: 'vcpu' as 'guest' }]), { message: /'vcpu'/ });
    t.true((await host.stop()).clean);
  },
);

test.serial('workers: DMA behind two SMMUs goes on while the core unmaps', async (t) => {
  const { machine, fd, ioasId, userVa } = twoSmmus();
  const host = await startWorkers(machine);
  t.teardown(() => host.stop());
  t.is(host.startup.unitsMs.length, 2);
  t.true(host.startup.totalMs > 0);
  host.expose(fd);
  const logged: string[] = [];
  host.onLog((name, text) => logged.push(`${name}: ${text}`));
  const mailboxArgs: MailboxArgs = { fdIndex: fd.index, calls: 50 };
  const [dma0, dma1, calls, vmm] = host.run([
    dmaTask(0),
    dmaTask(1),
    { kind: 'guest', name: 'caller', program: PROGRAMS, export: 'allocAndDestroy', args: mailboxArgs },
    { kind: 'guest', name: 'vmm', program: PROGRAMS, export: 'vmm', vmIndex: 3, fdIndex: fd.index },
  ]);
  t.is(await calls, 50);
  // A ticket left behind is free again once its program is over, or the last of these would get none.
  for (let round = 0; round < 3; round++) {
    const args: MailboxArgs = { fdIndex: fd.index, calls: 900 };
    const [posted] = host.run([{ kind: 'guest', name: 'litter', program: PROGRAMS, export: 'litter', args }]);
    t.is(await posted, 900);
  }
  t.deepEqual(await vmm, { vm: 3, alloc: 0, invalidate: -ENOENT });
  for (let round = 0; round < 40; round++) {
    await sleep(5);
    t.is(fd.ioasUnmap({ ioasId, iova: IOVA, length: BYTES }).length, BigInt(BYTES));
    fd.ioasMap({ ioasId, userVa, length: BYTES, iova: IOVA });
  }
  host.requestStop();
  for (const result of (await Promise.all([dma0, dma1])) as DmaLoopResult[]) {
    t.is(result.dead, 0);
    t.true(result.writes > 0);
  }
  t.deepEqual(await host.stop(), { clean: true, terminated: [], deaths: [] });
  t.deepEqual(logged.sort(), ['device 0: first write', 'device 1: first write']);

  // The models are back on this thread, and go on from where they were.
  const bytes = new Uint8Array([1, 2, 3]);
  t.is(machine.dmaPort(DEVICES[1]!).write(IOVA, bytes), 0);
  fd.ioasUnmap({ ioasId, iova: IOVA, length: BYTES });
  t.not(machine.dmaPort(DEVICES[1]!).write(IOVA, bytes), 0);
  machine.close();
});

test.serial(
  'workers: an ATC forgets what was unmapped; a stalled transaction is answered by the core',
  async (t) => {
    const { machine, fd, ioasId, userVa } = twoSmmus([{ ats: true }, { stall: true }]);
    const host = await startWorkers(machine);
    host.expose(fd);
    const [ats, stalling] = host.run([dmaTask(0), dmaTask(1, UNMAPPED)]) as Promise<DmaLoopResult>[];
    const byte = new Uint8Array(1);
    const written = async (): Promise<void> => {
      for (byte[0] = 0; byte[0] === 0; await sleep(1)) machine.user.copyIn(userVa, byte);
    };
    for (let round = 0; round < 20; round++) {
      await written();
      fd.ioasUnmap({ ioasId, iova: IOVA, length: BYTES });
      machine.user.copyOut(userVa, new Uint8Array(16384));
      await sleep(5);
      machine.user.copyIn(userVa, byte);
      t.is(byte[0], 0, `round ${round}: written by a device after the unmap returned`);
      fd.ioasMap({ ioasId, userVa, length: BYTES, iova: IOVA });
    }
    await written();
    // It is sent again only after an answer.
    const asked = machine.memory.region(PortLayout, 'port:1').base + PortLayout.at.misses;
    while (machine.memory.words.load64(asked) < 3n) await sleep(1);
    t.true((await host.stop()).clean);
    const [first, second] = [await ats!, await stalling!];
    t.true(first.writes > 0 && first.faults > 0);
    t.is(second.writes, 0);
    t.true(second.faults > 0, 'each waited until it was told to abort');
    const hits = machine.memory.region(PortLayout, 'port:0').base + PortLayout.at.hitsAtc;
    t.true(machine.memory.words.load64(hits) > 0n);
    machine.close();
  },
);

test.serial('workers: a pIOMMU that dies is reported, its waiters fail, its neighbour goes on', async (t) => {
  const { machine } = twoSmmus();
  const host = await startWorkers(machine, { fault: { unit: 1, crashAfterSteps: 200 } });
  t.teardown(() => host.stop());
  const died = new Promise<WorkerDeath>((resolve) => host.onDeath(resolve));
  // What is not mapped is in no cache: every write of device 1 waits for its pIOMMU.
  const [dma0, dma1] = host.run([dmaTask(0), dmaTask(1, UNMAPPED)]);
  const { name, kind, index, reason } = await died;
  t.deepEqual(
    { name, kind, index, reason },
    { name: 'pIOMMU smmu1', kind: 'piommu', index: 1, reason: 'crash after 200 steps, as the test asked' },
  );
  t.is(((await dma1) as DmaLoopResult).dead, EOWNERDEAD);
  host.requestStop();
  t.is(((await dma0) as DmaLoopResult).dead, 0);
  const report = await host.stop();
  t.false(report.clean);
  t.deepEqual(report.terminated, []);
  t.is(report.deaths.length, 1);
  machine.close();
});

test.serial('workers: the death of the supervisor ends every program and is reported', async (t) => {
  const { machine } = twoSmmus();
  const host = await startWorkers(machine, { fault: { supervisor: true } });
  t.teardown(() => host.stop());
  const [dma] = host.run([dmaTask(0)]);
  await t.throwsAsync(dma, { message: /supervisor died/ });
  const { clean, deaths } = await host.stop();
  t.false(clean);
  t.deepEqual(
    deaths.map(({ name, exitCode }) => [name, exitCode]),
    [['supervisor', 3]],
  );
  t.is(machine.dmaPort(DEVICES[0]!).write(IOVA, new Uint8Array(8)), 0, 'inline again');
  machine.close();
});

test.serial('workers: start fails with the name of the pIOMMU that cannot come up', async (t) => {
  const { machine } = twoSmmus();
  await t.throwsAsync(startWorkers(machine, { fault: { unit: 1, crashAfterSteps: 0 } }), {
    message: /pIOMMU smmu1: crash before the unit was ready/,
  });
  t.is(machine.dmaPort(DEVICES[0]!).write(IOVA, new Uint8Array(8)), 0, 'inline as before');
  machine.close();
});

test.serial('workers: programs that throw, vanish or never return end as errors', async (t) => {
  const { machine, fd, ioasId } = twoSmmus();
  const host = await startWorkers(machine, { stopTimeoutMs: 400 });
  t.teardown(() => host.stop());
  const task = (name: string): ProgramTask => ({ kind: 'guest', name, program: PROGRAMS, export: name });
  const results = host.run([
    ...['throwing', 'unclonable', 'missing', 'exiting', 'deaf'].map(task),
    { ...dmaTask(0), export: 'exitInEpoch' },
  ]);
  const thrown = await t.throwsAsync(results[0], { instanceOf: TaskError });
  t.is(thrown?.errno, EIO);
  t.is(thrown?.message, 'throwing: out of luck');
  await t.throwsAsync(results[1], { message: /^unclonable: .*could not be cloned/s });
  await t.throwsAsync(results[2], { message: /exports no function 'missing'/ });
  await t.throwsAsync(results[3], { message: /^exiting: .*exited with code: 7/ });
  await t.throwsAsync(results[5]!, { message: /^device 0: .*exited with code: 8/ });
  // Its epoch died with it: a SYNC would otherwise wait for its DMA for ever.
  const port = machine.memory.region(PortLayout, 'port:0').base;
  t.is(machine.memory.words.load(port + PortLayout.at.ack), 0);
  t.is(fd.ioasUnmap({ ioasId, iova: IOVA, length: BYTES }).length, BigInt(BYTES));

  const report = await host.stop();
  await t.throwsAsync(results[4], { instanceOf: TaskError });
  t.false(report.clean);
  t.deepEqual(report.deaths.map(({ name, kind, reason }) => `${kind} ${name}: ${reason}`).sort(), [
    'device device 0: exit code 8',
    'guest deaf: ended: it did not stop in time',
    'guest exiting: exit code 7',
  ]);
  machine.close();
});

test.serial('workers: after stop() nothing keeps the process alive', async (t) => {
  const script = fileURLToPath(new URL('./start-and-stop.js', import.meta.url));
  const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (data) => {
    output += data;
  });
  const [code] = await once(child, 'exit');
  t.is(code, 0);
  t.is(output, 'clean\nclean\n');
});
