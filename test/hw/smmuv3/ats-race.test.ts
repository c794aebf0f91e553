import { Worker } from 'node:worker_threads';
import test from 'ava';
import { SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';
import { RACE_IOVA, RACE_PA, RACE_VERSIONS, RaceLayout } from './ats-race-layout.js';

const EATS = 1n << 28n;
const ROUNDS = 500;

/** This thread is the SMMU and the driver; another one is the device. */
async function race(skipAtcInv: boolean): Promise<{ stale: number; hits: number; batches: number }> {
  const f = new SmmuFixture({ ats: true, config: { ats: true, bugs: { skipAtcInv } } });
  const base = f.memory.allocRegion(RaceLayout, 'race').base;
  const { words } = f.memory;
  const at = RaceLayout.at;
  const root = f.alloc(4096);
  const map = (version: number): void =>
    f.map(root, 1, BigInt(RACE_IOVA), BigInt(RACE_PA + (version % RACE_VERSIONS) * 4096), 3, S.S2_PAGE);
  map(0);
  const ste = S.steS2({ root, vmid: 1 });
  ste[1]! |= EATS;
  f.setSte(3, ste);
  f.enable();
  const worker = new Worker(new URL('./ats-race-device.js', import.meta.url), {
    workerData: { handle: f.memory.handle() },
  });
  const exited = new Promise<number>((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  const batches = (): number => words.load(base + at.batches);
  while (batches() === 0) {
    f.model.step();
    await new Promise((resolve) => setImmediate(resolve));
  }
  for (let version = 1; version <= ROUNDS; version++) {
    map(version);
    f.push(S.tlbi(0x28, 1), S.sync(), S.atcInv(3, BigInt(RACE_IOVA), 0), S.sync());
    while (f.mmio.read32(0x9c) !== f.mmio.read32(0x98)) f.model.step();
    words.store(base + at.version, version);
    // Let the device fill its ATC again, so that there is something to take away.
    const seen = batches();
    while (((batches() - seen) | 0) < 3) f.model.step();
  }
  words.store(base + at.stop, 1);
  while (words.load(base + at.finished) === 0) f.model.step();
  await exited;
  return { stale: words.load(base + at.stale), hits: words.load(base + at.hits), batches: batches() };
}

test('ats: no device uses a translation after the SYNC of its ATC_INV', async (t) => {
  const seen = await race(false);
  t.log(seen);
  t.is(seen.stale, 0);
  t.true(seen.hits > ROUNDS / 2);
});

test('ats: an SMMU that loses ATC_INV is caught', async (t) => {
  const seen = await race(true);
  t.true(seen.stale > 0);
});
