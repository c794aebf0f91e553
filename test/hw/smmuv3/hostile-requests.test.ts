/** Everything that can be on is on, and devices, tables and commands are random: answers, an end, and nothing outside. */
import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { Random, SEED } from '../../kit/random.js';
import { SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const EVERYTHING = { stalls: 'optional', ats: true, pri: true, hyp: true, ssidBits: 6 } as const;
/** Commands of faults, ATS and configuration, and a SYNC without MSI. */
const OPCODES = [1, 2, 3, 4, 5, 6, 0x20, 0x21, 0x22, 0x23, 0x30, 0x40, 0x41, 0x44, 0x45, 0x46];

test(`stalls, ATS and page requests among random tables and commands (SEED=${SEED})`, (t) => {
  const r = new Random(SEED);
  const u64 = (): bigint => (BigInt(r.u32()) << 32n) | BigInt(r.u32());
  const f = new SmmuFixture({ sids: [3, 4], ats: true, pri: true, config: EVERYTHING, evtqLog2: 3 });
  const table = f.alloc(64 * 64, 64 * 64);
  const root = f.alloc(64 * 1024, 64 * 1024);
  f.map(root, 1, 0x1000n, 0x8080_0000n, 3, S.S2_PAGE);
  f.enable(0b11111);
  const end = f.ports[1]! + PortLayout.size;
  const after = f.memory.u8.slice(end, end + 65536);
  const seen = new Map<number, number>();
  const devices = [f.dmaPort(0), f.dmaPort(1)];
  for (let round = 0; round < 4000; round++) {
    const sid = r.pick([3, 4]);
    const ste = r.pick([
      () => S.steS1(table),
      () => S.steS2({ root, vmid: 1 }),
      () => S.steNested(table, { root, vmid: 1 }),
      () => [...S.STE_BYPASS],
    ])();
    // S1CDMax; EATS; S1DSS; S2S; S1STALLD.
    if (r.chance(0.4)) ste[0]! |= BigInt(r.below(7)) << 59n;
    if (r.chance(0.5)) ste[1]! |= BigInt(r.below(4)) << 28n;
    if (r.chance(0.3))
      ste[1]! |= BigInt(r.below(4)) | (BigInt(r.below(2)) << 27n) | (BigInt(r.below(2)) << 19n);
    if (r.chance(0.3)) ste[2]! |= BigInt(r.below(2)) << 57n;
    if (r.chance(0.1)) ste[r.below(4)]! ^= 1n << BigInt(r.below(64));
    f.setSte(sid, ste);
    const cd = S.cd({ root, asid: 1 });
    // S and A.
    if (r.chance(0.5)) cd[0]! ^= (BigInt(r.below(2)) << 44n) | (BigInt(r.below(2)) << 46n);
    if (r.chance(0.1)) cd[r.below(2)]! ^= 1n << BigInt(r.below(64));
    f.writeWords(table + r.below(64) * 64, cd);
    f.push(r.chance(0.7) ? S.cfgiSte(sid) : S.cfgiCd(sid, r.below(64)));
    for (let n = r.below(4); n > 0; n--) {
      const op = r.pick(OPCODES);
      const high = op === 0x46 ? 0n : u64();
      f.push([(u64() & ~0xf000_04ffn & ~(0xffff_ffffn << 32n)) | BigInt(op) | (BigInt(sid) << 32n), high]);
    }
    f.run();
    if (((f.mmio.read32(0x60) ^ f.mmio.read32(0x64)) & 1) === 1) {
      f.mmio.write32(0x98, (f.mmio.read32(0x9c) & 0xfffff) >>> 0);
      f.mmio.write32(0x64, f.mmio.read32(0x60));
      f.run();
    }
    const device = devices[r.below(2)]!;
    const count = 1 + r.below(8);
    for (let slot = 0; slot < count; slot++) {
      const flags = r.chance(0.6) ? r.below(2) : r.below(32);
      const ssid = r.chance(0.5) ? 0xffff_ffff : r.below(70);
      device.prepare(
        slot,
        r.chance(0.5) ? 0x1000 : r.u32(),
        r.chance(0.9) ? 0 : r.u32(),
        flags,
        r.pick([3, 4]),
        ssid,
      );
    }
    device.translate(count);
    for (let slot = 0; slot < count; slot++) {
      const status = device.status(slot);
      seen.set(status, (seen.get(status) ?? 0) + 1);
      if (status === 0xfe && r.chance(0.7))
        f.push(
          S.resume(r.pick([3, 4]), device.stallTag(slot), r.pick(['retry', 'abort', 'raz-wi'] as const)),
        );
    }
    device.end();
    if (r.chance(0.3)) {
      const group = r.below(512);
      device.pageRequest({ group, iova: u64(), last: r.chance(0.5), pasid: r.below(64) });
      f.push(S.priResp(r.pick([3, 4]), group, r.below(3)));
      f.run();
      if (device.pageResponse(group) === 'waiting') device.forgetPageRequests(group);
    }
    if (r.chance(0.1)) device.ats[r.chance(0.7) ? 'enable' : 'disable']();
    if (r.chance(0.3)) f.events();
    if (r.chance(0.1)) {
      f.pageRecords();
      const overflow = f.mmio.read32(0x100c8) & 0x8000_0000;
      f.mmio.write32(0x100cc, ((f.mmio.read32(0x100cc) & 0x7fff_ffff) | overflow) >>> 0);
    }
    f.run();
  }
  t.log(Object.fromEntries([...seen].map(([status, n]) => [`0x${status.toString(16)}`, n])));
  for (const status of [0, 0x04, 0x10, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa])
    t.true(seen.has(status), `status 0x${status.toString(16)} was reached`);
  t.deepEqual(f.memory.u8.subarray(end, end + 65536), after);
  // Whatever is outstanding ends with SMMUEN, and nothing is left behind.
  f.mmio.write32(0x20, 0b1100);
  f.run();
  t.false(f.model.hasWork());
});
