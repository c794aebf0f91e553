import test from 'ava';
import { Random, SEED } from '../../kit/random.js';
import { ok } from '../../kit/vmm-fixture.js';
import { MachineFixture, pattern } from '../../kit/vmm-machine.js';

const READ_WRITE = 3;
const PAGE = 4096;
const IPA_BASE = 0x4000_0000;
const RAM = 4 * 2 ** 20;
const STEPS = 6000;
const CMDQ = IPA_BASE + 0x1000;
const STRTAB = IPA_BASE + 0x2000;
const EVTQ = IPA_BASE + 0x4000;
/** Commands of every kind, legal and not. */
const OPCODES = [
  1, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x20, 0x22, 0x28, 0x2a, 0x30, 0x40, 0x41, 0x44, 0x46, 0x46, 0x7f,
];

test('a hostile guest next to another VM: whatever it programs, the other VM and the host are untouched', (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const fixture = new MachineFixture([0, 0, 1]);
  const { machine } = fixture;

  const victim = fixture.vm();
  t.is(victim.vm.attachDevice(0, 5), 0);
  const driver = fixture.driver(victim);
  const space = ok(driver.createSpace());
  driver.setupStream(5, space);
  const pages = 16;
  const pfn = victim.ram.allocZeroed(pages, 16);
  driver.map(space, 0x1000, pfn, pages, READ_WRITE);
  const canary = machine.user.alloc(2 ** 20);
  const clean = new Uint8Array(2 ** 20).fill(0xa5);
  machine.user.copyOut(canary, clean);

  const hostile = fixture.vm({ eventDepth: 8 }, RAM);
  t.is(hostile.vm.attachDevice(1, 1), 0);
  t.is(hostile.vm.attachDevice(2, 2), 0);
  const smmu = hostile.vm.smmus[0]!;
  const anywhere = (): bigint =>
    random.chance(0.7) ? BigInt(IPA_BASE + random.below(RAM)) : random.big(random.pick([32, 40, 48, 52, 64]));
  const poke = (ipa: number, value: bigint): void =>
    void hostile.ram.store64(ipa - (ipa % 8), BigInt.asUintN(64, value));
  smmu.write64(0x90, BigInt(CMDQ | 6));
  smmu.write64(0xa0, BigInt(EVTQ | 4));
  smmu.write64(0x80, BigInt(STRTAB));
  smmu.write32(0x88, 4);
  smmu.write32(0x20, 0xd);

  let prod = 0;
  let faults = 0;
  let errors = 0;
  let dead = false;
  for (let step = 0; step < STEPS; step++) {
    const dice = random.below(12);
    if (dice < 2) {
      // An STE that has a good chance of being taken.
      const sid = 1 + random.below(2);
      const config = random.pick([0, 4, 5, 5, 5, 6, 7, 1]);
      const word = (anywhere() & 0xf_ffff_ffff_ffc0n) | BigInt((config << 1) | (random.chance(0.9) ? 1 : 0));
      poke(STRTAB + sid * 64, random.chance(0.2) ? word | random.big(64) : word);
      poke(STRTAB + sid * 64 + 8, random.chance(0.2) ? random.big(64) : 0n);
    } else if (dice < 4) {
      // A CD, or a table entry, wherever the STE may point.
      const at = IPA_BASE + random.below(RAM / 64) * 64;
      const cd =
        (1n << 31n) | (1n << 30n) | (1n << 41n) | (1n << 35n) | BigInt(16 + random.below(24)) | (5n << 32n);
      poke(at, random.chance(0.7) ? cd | (BigInt(random.below(65536)) << 48n) : random.big(64));
      poke(at + 8, (anywhere() & 0xf_ffff_ffff_f000n) | BigInt(random.pick([0, 1, 3])));
    } else if (dice < 8) {
      const low =
        BigInt(random.pick(OPCODES)) |
        (BigInt(random.below(4)) << 32n) |
        (random.chance(0.2) ? random.big(64) & ~0xffn : 0n);
      poke(CMDQ + (prod % 64) * 16, low);
      poke(CMDQ + (prod % 64) * 16 + 8, random.chance(0.7) ? BigInt(random.below(32)) : random.big(64));
      prod = (prod + 1) % 128;
      smmu.write32(0x98, prod);
      // Stopped at an illegal command: mostly it is replaced before the acknowledge, sometimes not.
      if (smmu.read32(0x60) !== smmu.read32(0x64) && random.chance(0.8)) {
        errors++;
        poke(CMDQ + (smmu.read32(0x9c) % 64) * 16, 0x46n);
      }
      smmu.write32(0x64, smmu.read32(0x60));
      dead ||= ((smmu.read32(0x60) >>> 8) & 1) === 1;
    } else if (dice < 9) {
      if (random.chance(0.1)) {
        smmu.write32(0x20, random.below(16));
        smmu.write64(random.pick([0x80, 0x90, 0xa0]), anywhere());
        smmu.write32(0x88, random.u32());
        smmu.write32(0x98, random.u32());
        smmu.write64(0x90, BigInt(CMDQ | 6));
        smmu.write64(0xa0, BigInt(EVTQ | 4));
        smmu.write64(0x80, BigInt(STRTAB));
        smmu.write32(0x88, 4);
      }
      smmu.write32(0x20, 0xd);
    } else if (dice < 11) {
      if (fixture.write(1 + random.below(2), anywhere(), 1 + random.below(64), step) !== 0) faults++;
    } else {
      machine.poll();
      hostile.vm.pollEvents();
      smmu.write32(0x100ac, random.chance(0.5) ? smmu.read32(0x100a8) : random.u32());
    }
    if (step % 50 === 0) {
      const page = random.below(pages);
      t.is(fixture.write(0, BigInt((0x1000 + page) * PAGE), 256, step), 0, `step ${step}`);
      t.deepEqual(victim.ram.view((pfn + page) * PAGE, 256)!.slice(), pattern(256, step), `step ${step}`);
    }
  }
  t.log(`${faults} faults, ${errors} illegal commands, ${smmu.refusedStes} STEs refused`);
  t.false(dead, 'the physical SMMUs answered to the end');
  t.true(faults > 100, `${faults} faults`);
  t.true(smmu.commandsHandled > 500, `${smmu.commandsHandled} commands`);
  const seen = new Uint8Array(2 ** 20);
  machine.user.copyIn(canary, seen);
  t.deepEqual(Buffer.compare(seen, clean), 0);
  machine.poll();
  t.is(victim.vm.pollEvents(), 0, 'no event of the other VM');
  t.is(driver.unmap(space, 0x1000, pages), pages);
  t.is(hostile.end(), 0);
  t.is(victim.end(), 0);
});
