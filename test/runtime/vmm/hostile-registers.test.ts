import test from 'ava';
import { Random, SEED } from '../../kit/random.js';
import { VmmFixture } from '../../kit/vmm-fixture.js';

const REGISTERS = [
  0x00, 0x04, 0x20, 0x24, 0x28, 0x2c, 0x40, 0x44, 0x50, 0x60, 0x64, 0x80, 0x84, 0x88, 0x90, 0x94, 0x98, 0x9c,
  0xa0, 0xa4, 0xb0, 0xc0, 0x100a8, 0x100ac, 0x100c8,
];
const IPA_BASE = 0x4000_0000;
const RAM = 8 * 2 ** 20;

test('a guest that writes anything anywhere: no exception, nothing outside its RAM, and it can be destroyed', (t) => {
  const random = new Random(SEED);
  t.log(`SEED=${SEED}`);
  const fixture = new VmmFixture({ deviceSmmus: [0, 1, 1] });
  const { vm, fake, ram } = fixture;
  for (let device = 0; device < 3; device++) vm.attachDevice(device, device * 3);
  const [smmu] = vm.smmus;
  const canary = fake.user.alloc(4096, { contiguous: true });
  fake.user.copyOut(canary, new Uint8Array(4096).fill(0xa5));
  for (let step = 0; step < 20_000; step++) {
    const dice = random.below(10);
    if (dice < 3) ram.store64(IPA_BASE + random.below(RAM / 8) * 8, random.big(64));
    else if (dice < 5) {
      // A plausible command or STE, at a plausible place.
      const word =
        (random.big(64) << 32n) |
        BigInt(random.pick([3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x30, 0x46, 0xb, 9]));
      ram.store64(IPA_BASE + random.below(64) * 16, BigInt.asUintN(64, word));
    } else if (dice < 6) {
      smmu!.write32(0x64, smmu!.read32(0x60));
      smmu!.write32(0x20, random.pick([0, 0xd, 0xd, 8, 0xc, 0x1ff]));
    } else if (dice < 7) {
      smmu!.write64(
        random.pick([0x80, 0x90, 0xa0]),
        BigInt(IPA_BASE + random.below(8) * 64 + random.below(16)),
      );
    } else if (dice < 8) smmu!.write32(0x98, random.below(64));
    else {
      const value = random.chance(0.5) ? random.u32() : random.below(64);
      smmu!.write32(random.chance(0.8) ? random.pick(REGISTERS) : random.below(0x20000), value);
    }
    if (random.chance(0.05)) {
      const record = new Uint8Array(40);
      record[8] = 0x10;
      fake.unread.get(random.pick(vm.viommus).veventqFd)!.push(record);
      vm.pollEvents();
    }
  }
  for (const offset of REGISTERS) t.true(smmu!.read32(offset) >= 0);
  const seen = new Uint8Array(4096);
  fake.user.copyIn(canary, seen);
  t.true(seen.every((byte) => byte === 0xa5));
  t.true(smmu!.commandsHandled > 100, `${smmu!.commandsHandled} commands`);
  t.is(vm.destroy(), 0);
  t.is(fake.objects.size, 0);
});
