/** Live migration and demand paging while devices write on threads of their own: nothing is lost, nobody waits for ever. */
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { createMachine, type MachineConfig, startWorkers } from '../../workers/index.js';
import type { ProgramTask } from '../../workers/protocol/messages.js';
import { Random, SEED } from '../kit/random.js';
import type { DmaLoopResult, PagesArgs } from './programs.js';

const PROGRAMS = new URL('./programs.js', import.meta.url).href;
const DEVICES = ['0000:01:00.0', '0001:01:00.0'];
const IOVA = 0x4000_0000n;
const PAGE = 4096;
const [DIRTY_TRACKING, FAULT_ID_VALID, ALLOC_PASID] = [2, 4, 8];
const PASID = 3;
/** By each device. */
const WRITES = 20_000;

function machineOf(device: NonNullable<MachineConfig['devices']>[number], bugs: MachineConfig['bugs'] = {}) {
  const machine = createMachine({
    memory: '64MiB',
    iommus: DEVICES.map((_, i) => ({ name: `smmu${i}`, model: 'smmuv3' as const })),
    devices: DEVICES.map((bdf, i) => ({ ...device, bdf, iommu: `smmu${i}` })),
    bugs,
  });
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  const vfios = DEVICES.map((bdf) => {
    const vfio = machine.openVfio(bdf);
    vfio.bindIommufd(fd);
    return vfio;
  });
  return { machine, fd, ioasId, vfios, devId: vfios[0]!.devId };
}

const stampTask = (deviceIndex: number, args: PagesArgs): ProgramTask => ({
  kind: 'device',
  name: `device ${deviceIndex}`,
  program: PROGRAMS,
  export: 'stampPages',
  args,
  deviceIndex,
});

/**
 * Copies what is dirty to another place, as a migration does, while two devices, and a PASID's worth of one, write.
 * @returns pages that differ in the end
 */
async function migrate(t: import('ava').ExecutionContext, bugs: MachineConfig['bugs'] = {}): Promise<number> {
  const pages = 256;
  const { machine, fd, ioasId, vfios, devId } = machineOf({ iommu: '', pasidBits: 4 }, bugs);
  const userVa = machine.user.alloc(pages * PAGE);
  fd.ioasMap({ ioasId, userVa, length: pages * PAGE, iova: IOVA });
  const { hwptId } = fd.hwptAlloc({ devId, ptId: ioasId, flags: DIRTY_TRACKING | ALLOC_PASID });
  for (const vfio of vfios) vfio.attach(hwptId);
  vfios[1]!.attach(hwptId, { pasid: PASID });
  const copy = new Uint8Array(pages * PAGE);
  fd.hwptSetDirtyTracking(hwptId, true);
  const round = (): number => {
    const bitmap = fd.hwptGetDirtyBitmap({ hwptId, iova: IOVA, length: pages * PAGE });
    let dirty = 0;
    for (let page = 0; page < pages; page++) {
      if (((bitmap[page >> 3]! >> (page & 7)) & 1) === 0) continue;
      dirty++;
      const at = page * PAGE;
      machine.user.copyIn(userVa + BigInt(at), copy.subarray(at, at + PAGE));
    }
    return dirty;
  };
  const host = await startWorkers(machine);
  // Half each, so that no device's marks hide what another's lack.
  const half = pages / 2;
  const args = { pages: half, count: WRITES };
  let left = 2;
  const running = (
    host.run([
      stampTask(0, { ...args, iova: IOVA, seed: SEED }),
      stampTask(1, { ...args, iova: IOVA + BigInt(half * PAGE), seed: SEED + 1, pasid: PASID }),
    ]) as Promise<DmaLoopResult>[]
  ).map(async (result) => {
    const ended = await result;
    left--;
    return ended;
  });
  let copied = 0;
  while (left > 0) {
    copied += round();
    await sleep(0);
  }
  for (const { writes, faults } of await Promise.all(running)) t.deepEqual([writes, faults], [WRITES, 0]);
  t.true((await host.stop()).clean);
  t.true(copied > 0);
  round();
  const now = new Uint8Array(pages * PAGE);
  machine.user.copyIn(userVa, now);
  let differ = 0;
  for (let at = 0; at < now.byteLength; at += PAGE)
    if (!Buffer.from(now.subarray(at, at + PAGE)).equals(copy.subarray(at, at + PAGE))) differ++;
  t.is(round(), 0, 'nothing writes any more');
  machine.close();
  return differ;
}

test.serial(
  'migration: whatever devices write while the bitmap is read and cleared is found by a later read',
  async (t) => {
    t.log(`SEED=${SEED}`);
    t.is(await migrate(t), 0);
  },
);

test.serial(
  'migration: without the invalidation after a read, writes are lost (the check can fail)',
  async (t) => {
    t.log(`SEED=${SEED}`);
    t.true((await migrate(t, { skipTlbi: true })) > 0);
  },
);

test.serial(
  'demand paging: a device writes to pages that are mapped when it asks, and taken away again',
  async (t) => {
    t.log(`SEED=${SEED}`);
    const random = new Random(SEED);
    const pages = 32;
    const count = 150;
    const { machine, fd, ioasId, vfios, devId } = machineOf({ iommu: '', stall: true, pasidBits: 4 });
    const queue = fd.faultQueueAlloc();
    const { hwptId } = fd.hwptAlloc({
      devId,
      ptId: ioasId,
      flags: FAULT_ID_VALID | ALLOC_PASID,
      faultId: queue.faultId,
    });
    vfios[0]!.attach(hwptId);
    vfios[1]!.attach(hwptId);
    vfios[1]!.attach(hwptId, { pasid: PASID });
    const userVa = machine.user.alloc(pages * PAGE);
    const present = new Set<number>();
    const host = await startWorkers(machine);
    const args = { iova: IOVA, pages, count };
    let left = 2;
    const running = (
      host.run([
        stampTask(0, { ...args, seed: SEED }),
        stampTask(1, { ...args, seed: SEED + 1, pasid: PASID }),
      ]) as Promise<DmaLoopResult>[]
    ).map(async (result) => {
      const ended = await result;
      left--;
      return ended;
    });
    let asked = 0;
    while (left > 0) {
      for (const { addr, cookie, devId: asker, pasid } of queue.faults()) {
        asked++;
        t.true(vfios.some((vfio) => vfio.devId === asker));
        t.is(pasid, asker === vfios[1]!.devId ? PASID : 0);
        const page = Number((addr - IOVA) / BigInt(PAGE));
        if (!present.has(page)) {
          const at = BigInt(page * PAGE);
          fd.ioasMap({ ioasId, userVa: userVa + at, length: PAGE, iova: IOVA + at });
          present.add(page);
        }
        queue.respond(cookie, 'success');
      }
      while (present.size > 6) {
        const victim = [...present][random.below(present.size)]!;
        present.delete(victim);
        fd.ioasUnmap({ ioasId, iova: IOVA + BigInt(victim * PAGE), length: PAGE });
      }
      await sleep(0);
    }
    for (const { writes, faults } of await Promise.all(running)) t.deepEqual([writes, faults], [count, 0]);
    t.true(asked > pages, `${asked} faults`);
    t.true((await host.stop()).clean);
    machine.close();
  },
);

test.serial('page tables that come and go under faults: each is answered once, by somebody', async (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const { machine, fd, ioasId, vfios, devId } = machineOf({ iommu: '', stall: true });
  const userVa = machine.user.alloc(PAGE);
  fd.ioasMap({ ioasId, userVa, length: PAGE, iova: IOVA });
  const queues = [fd.faultQueueAlloc(), fd.faultQueueAlloc()];
  const tables = queues.map(
    ({ faultId }) => fd.hwptAlloc({ devId, ptId: ioasId, flags: FAULT_ID_VALID, faultId }).hwptId,
  );
  tables.push(fd.hwptAlloc({ devId, ptId: ioasId }).hwptId);
  for (const vfio of vfios) vfio.attach(tables[0]!);
  const host = await startWorkers(machine);
  // Two pages, of which one is mapped.
  const running = host.run(
    [0, 1].map((i) => stampTask(i, { iova: IOVA, pages: 2, seed: SEED + i })),
  ) as Promise<DmaLoopResult>[];
  let refused = 0;
  for (let i = 0; i < 200 || refused <= 10; i++) {
    for (const queue of queues) {
      const faults = queue.faults();
      for (const { cookie } of faults) {
        // Some stay unanswered until the page table goes.
        if (random.chance(0.3)) continue;
        queue.respond(cookie, random.chance(0.3) ? 'success' : 'invalid');
        t.throws(() => queue.respond(cookie, 'success'), { code: 'EINVAL' });
        refused++;
      }
    }
    const vfio = random.pick(vfios);
    if (random.chance(0.5)) vfio.attach(random.pick(tables));
    else if (random.chance(0.2)) {
      vfio.detach();
      await sleep(0);
      vfio.attach(random.pick(tables));
    }
    await sleep(0);
  }
  for (const vfio of vfios) vfio.detach();
  t.true((await host.stop()).clean, 'no device waits still');
  for (const { faults } of await Promise.all(running)) t.true(faults > 0);
  for (const queue of queues) t.false(queue.poll());
  machine.close();
});
