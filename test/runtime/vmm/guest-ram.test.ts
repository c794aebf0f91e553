import test from 'ava';
import { GuestFrames } from '../../../runtime/vmm/guest-frames.js';
import { GuestRam } from '../../../runtime/vmm/guest-ram.js';
import { Random, SEED } from '../../kit/random.js';
import { FakeIommufd } from '../../kit/vmm-fake-iommufd.js';

const MIB = 2 ** 20;

function ram(): GuestRam {
  const fake = new FakeIommufd({ deviceSmmus: [] });
  const userVa = fake.user.alloc(2 * MIB, { contiguous: true });
  return new GuestRam(fake.memory, fake.user, { userVa, bytes: 2 * MIB, ipaBase: 0x8000_0000 });
}

test('access: what one side stores at an IPA, user memory shows at its address', (t) => {
  const fake = new FakeIommufd({ deviceSmmus: [] });
  const userVa = fake.user.alloc(2 * MIB, { contiguous: true });
  const guest = new GuestRam(fake.memory, fake.user, { userVa, bytes: 2 * MIB });
  t.true(guest.store64(0x4000_1008, 0x1122_3344_5566_7788n));
  const seen = new Uint8Array(8);
  t.is(fake.user.copyIn(userVa + 0x1008n, seen), 0);
  t.is(new DataView(seen.buffer).getBigUint64(0, true), 0x1122_3344_5566_7788n);
  t.is(guest.load64(0x4000_1008), 0x1122_3344_5566_7788n);
});

test('access: outside the RAM, or unaligned, nothing is read or written', (t) => {
  const guest = ram();
  const end = 0x8000_0000 + 2 * MIB;
  for (const ipa of [0, 0x7fff_fff8, end, end - 4, 2 ** 51, 0x8000_0004]) {
    t.is(guest.load64(ipa), null);
    t.false(guest.store64(ipa, 1n));
  }
  t.false(guest.copyWords(end - 8, new Uint32Array(4)));
  t.false(guest.writeWords(end - 8, new Uint32Array(4)));
  t.is(guest.view(end - 1, 2), null);
  t.true(guest.copyWords(end - 16, new Uint32Array(4)));
});

test('construct: memory in several runs, or cut pages, is refused', (t) => {
  const fake = new FakeIommufd({ deviceSmmus: [] });
  const userVa = fake.user.alloc(2 * MIB, { contiguous: true });
  for (const [va, bytes] of [
    [userVa, 2 * MIB + 4096],
    [userVa + 1n, 4096],
    [userVa, 100],
    [0n, 4096],
  ] as const)
    t.throws(() => new GuestRam(fake.memory, fake.user, { userVa: va, bytes }), { instanceOf: RangeError });
});

test('frames: random allocations never overlap, stay aligned, and all come back', (t) => {
  const random = new Random(SEED);
  const frames = new GuestFrames(0x100, 512);
  const held = new Map<number, number>();
  const used = new Set<number>();
  for (let step = 0; step < 4000; step++) {
    if (random.chance(0.55)) {
      const pages = random.pick([1, 1, 1, 2, 4, 16]);
      const align = random.pick([1, pages, pages]);
      const at = frames.alloc(pages, align);
      if (at < 0) continue;
      t.is(at % align, 0, `seed ${SEED}`);
      for (let i = at; i < at + pages; i++) {
        if (used.has(i) || i < 0x100 || i >= 0x300) t.fail(`frame ${i} handed out twice, seed ${SEED}`);
        used.add(i);
      }
      held.set(at, pages);
    } else if (held.size > 0) {
      const at = random.pick([...held.keys()]);
      const pages = held.get(at)!;
      frames.release(at, pages);
      held.delete(at);
      for (let i = at; i < at + pages; i++) used.delete(i);
    }
    if (frames.free !== 512 - used.size) t.fail(`count, seed ${SEED}`);
  }
  for (const [at, pages] of held) frames.release(at, pages);
  t.is(frames.alloc(512, 256), 0x100);
  t.is(frames.alloc(), -12);
  t.throws(() => frames.release(0x50), { message: /not allocated/ });
});
