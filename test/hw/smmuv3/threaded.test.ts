import { Worker } from 'node:worker_threads';
import test from 'ava';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { waitUntil } from '../../../hw/sync/wait.js';
import { OK, SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const SECOND = 1e9;

test('hosted by a worker: the driver and a device on this thread see no stale translation after a SYNC', async (t) => {
  const f = new SmmuFixture({ sids: [3, 4] });
  const root = f.alloc(4096);
  for (const sid of f.sids) f.setSte(sid, S.steS2({ root, vmid: 1 }));
  const worker = new Worker(new URL('./host-worker.js', import.meta.url), {
    workerData: { handle: f.memory.handle(), config: f.config },
  });
  const exited = new Promise<number>((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  const { words } = f.memory;
  const env = { ...f.env, canPark: true, relax: undefined };
  const { consMoved, consParked, cr0ack } = Smmuv3Layout.at;
  const wait = (at: number, ready: () => boolean): void => {
    const parked = f.regions.smmu + consParked;
    const result = waitUntil(
      env,
      f.regions.smmu + at,
      ready,
      env.clock.nowNs() + 10 * SECOND,
      undefined,
      (delta) => words.add(parked, delta),
    );
    if (result !== 0) throw new Error(`no progress: ${result}`);
  };
  // The worker steps from here on; the fixture's own model must not.
  f.model = { step: () => false } as unknown as typeof f.model;
  f.enable();
  wait(cr0ack, () => f.mmio.read32(0x24) === 0b1101);
  const port = f.ports[0]!;
  const dma = (iova: bigint): ReturnType<SmmuFixture['finish']> => {
    f.begin(0, iova);
    wait(cr0ack, () => f.kernel.dmaPoll(port) === 0);
    const answer = f.finish(0);
    f.leave(0);
    return answer;
  };
  const sync = (...commands: S.Command[]): void => {
    f.push(...commands, S.sync());
    wait(consMoved, () => f.mmio.read32(0x9c) === f.mmio.read32(0x98));
  };
  for (let round = 0; round < 200; round++) {
    const pa = 0x8080_0000n + BigInt(round) * 0x1000n;
    f.map(root, 1, 0x1000n, pa, 3, S.S2_PAGE);
    sync(S.tlbiVa(0x2a, 1, 0, 0x1000n));
    const answer = dma(0x1008n);
    if (answer.status !== OK || answer.pa !== pa + 8n)
      t.fail(`round ${round}: status ${answer.status}, ${answer.pa.toString(16)}`);
  }
  // A SYNC waits for this thread's own epoch, on the other thread.
  f.begin(1, 0x1000n);
  f.push(S.sync());
  wait(cr0ack, () => words.load(f.regions.unit + UnitLayout.at.syncWaiting) === 1);
  t.not(f.mmio.read32(0x9c), f.mmio.read32(0x98));
  f.leave(1);
  wait(consMoved, () => f.mmio.read32(0x9c) === f.mmio.read32(0x98));
  words.store(f.regions.unit + UnitLayout.at.portCount, -1);
  f.mmio.write32(0x50, 0);
  t.is(await exited, 0);
});
