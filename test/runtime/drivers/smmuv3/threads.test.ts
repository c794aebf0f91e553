/** The driver and its SMMUs on threads of their own: the same source, with real waiting in between. */
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { DriverFixture } from '../../../kit/smmu-driver-fixture.js';

const RW = 3;
const F_TRANSLATION = 0x10;
const ROUNDS = 150;

for (const msiPolling of [false, true])
  test(`two SMMU threads, SYNC by ${msiPolling ? 'MSI' : 'CMDQ_CONS'}: no DMA uses a page after its unmap`, async (t) => {
    const f = new DriverFixture({ smmus: 2, driver: { msiPolling, queue: { deadlineNs: 10e9 } } });
    const domain = f.paging();
    for (const i of [0, 1]) t.is(f.smmus[i]!.attach(f.devices[i]!, domain), 0);
    // From here on this thread steps nothing, and may sleep.
    f.alive.clear();
    f.env.relax = undefined;
    f.mayPark();
    const url = new URL('../../../kit/smmu-host.js', import.meta.url);
    const workers = f.configs.map(
      (config) => new Worker(url, { workerData: { handle: f.memory.handle(), config } }),
    );
    const failures: unknown[] = [];
    for (const worker of workers) worker.on('error', (error) => failures.push(error));
    const pfn = f.pages(1);
    for (let round = 0; round < ROUNDS; round++) {
      t.is(domain.map(0x10, pfn, 1, RW), 0);
      for (const i of [0, 1]) t.is(f.write(i, 0x1_0000n), 0);
      f.unmap(domain, 0x10, 1);
      for (const i of [0, 1]) t.is(f.write(i, 0x1_0000n), F_TRANSLATION);
    }
    for (const worker of workers) await worker.terminate();
    t.deepEqual(failures, []);
  });
