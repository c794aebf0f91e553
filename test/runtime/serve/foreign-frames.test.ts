import test from 'ava';
import { foreignRangeOf } from '../../../runtime/foreign-range.js';
import { ForeignFrames, type FrameOwner } from '../../../runtime/serve/foreign-frames.js';
import { OwnerWindows } from '../../../runtime/serve/owner-windows.js';
import { Random, SEED } from '../../kit/random.js';

const ENOMEM = 12;
const EFAULT = 14;
const GIB = 2 ** 18;

class Owner implements FrameOwner {
  readonly name = 'owner';
  readonly windows: OwnerWindows;
  readonly calls: (readonly [number, number, number])[] = [];
  pins = 0;

  constructor(frames: ForeignFrames) {
    this.windows = new OwnerWindows(frames, this);
  }

  read(page: number, offset: number, into: Uint8Array): boolean {
    this.calls.push([page, offset, into.byteLength]);
    return true;
  }

  write(): boolean {
    return false;
  }

  isCompound(): boolean {
    return false;
  }

  pinned(_window: unknown, pinned: boolean): void {
    this.pins += pinned ? 1 : -1;
  }

  forget(window: Parameters<FrameOwner['forget']>[0]): void {
    this.windows.forget(window);
  }
}

const range = { firstPfn: 4 * GIB, endPfn: 8 * GIB, windowPages: GIB };
const silent = (): void => undefined;

function frameOf(owner: Owner, page: number): number {
  const out = { pfn: 0, pages: 0 };
  const status = owner.windows.runAt(page, 1, out);
  return status < 0 ? status : out.pfn;
}

test('windows: a run ends with its window, and data goes on in the next', (t) => {
  const frames = new ForeignFrames(range, silent);
  const owner = new Owner(frames);
  const out = { pfn: 0, pages: 0 };
  owner.windows.runAt(2 * GIB - 3, 10, out);
  t.is(out.pages, 3);
  t.is(out.pfn % GIB, GIB - 3);
  const second = frameOf(owner, 2 * GIB);
  t.is(second, out.pfn + 3, 'made one after the other');
  t.is(frames.read(out.pfn + 2, 4000, new Uint8Array(200)), 0);
  t.deepEqual(owner.calls, [
    [2 * GIB - 1, 4000, 96],
    [2 * GIB, 0, 104],
  ]);
});

test("windows: pinned ones are nobody else's, the others are given away when there are no more", (t) => {
  const frames = new ForeignFrames(range, silent);
  const owner = new Owner(frames);
  const held = frameOf(owner, 0);
  frames.pin(held, 1);
  for (let i = 1; i < 4; i++) frames.pin(frameOf(owner, i * GIB), 1);
  t.is(frameOf(new Owner(frames), 0), -ENOMEM);
  t.is(owner.pins, 4);
  frames.unpin(held, 1);
  t.is(owner.pins, 3);
  // As long as somebody may be about to pin it.
  for (let i = 0; i < 20; i++) frameOf(owner, GIB);
  const other = new Owner(frames);
  t.is(frameOf(other, 5), held + 5);
  t.is(frames.windows, 4);
  for (let i = 1; i < 4; i++) frames.unpin(frameOf(owner, i * GIB), 1);
  owner.windows.release();
  other.windows.release();
  t.is(frames.windows, 0);
  t.is(frames.pinned, 0);
});

test('pins: in whole, in parts and overlapping, counted for each frame', (t) => {
  const frames = new ForeignFrames(range, silent);
  const owner = new Owner(frames);
  const base = frameOf(owner, 0);
  const expected = new Int32Array(4096);
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const held: [number, number][] = [];
  const near = () => Math.min(4095, random.below(9) * 512 + random.below(3));
  for (let step = 0; step < 2000; step++) {
    if (held.length > 0 && random.below(100) < 45) {
      // A part of it first, then the rest.
      const [first, pages] = held.splice(random.below(held.length), 1)[0]!;
      const cut = 1 + random.below(pages);
      frames.unpin(base + first, cut);
      if (cut < pages) frames.unpin(base + first + cut, pages - cut);
      for (let i = first; i < first + pages; i++) expected[i]!--;
    } else {
      const first = near();
      const pages = Math.max(1, Math.min(4096 - first, near()));
      frames.pin(base + first, pages);
      held.push([first, pages]);
      for (let i = first; i < first + pages; i++) expected[i]!++;
    }
    const at = random.below(4096);
    if (frames.pins(base + at) !== expected[at]) t.fail(`frame ${at} after step ${step}`);
  }
  t.is(
    frames.pinned,
    expected.reduce((sum, n) => sum + n, 0),
  );
  for (const [first, pages] of held) frames.unpin(base + first, pages);
  t.is(frames.pinned, 0);
  t.is(owner.pins, 0);
  frames.pin(base, 1024);
  frames.unpin(base + 3, 1);
  t.throws(() => frames.unpin(base, 512), { message: /once too often/ });
});

test("windows: nothing answers at frames that are nobody's", (t) => {
  const frames = new ForeignFrames(range, silent);
  t.is(frames.read(5 * GIB, 0, new Uint8Array(1)), -EFAULT);
  t.is(frames.read(range.endPfn, 0, new Uint8Array(1)), -EFAULT);
  t.is(frames.pins(5 * GIB), 0);
  t.false(frames.isCompound(5 * GIB));
});

test('windows: what cannot be reached is said once for each owner', (t) => {
  const said: string[] = [];
  const frames = new ForeignFrames(range, (message) => said.push(message));
  const owner = new Owner(frames);
  const pfn = frameOf(owner, 0);
  t.is(frames.write(pfn, 0, new Uint8Array(1)), -EFAULT);
  t.is(frames.write(pfn, 0, new Uint8Array(1)), -EFAULT);
  t.is(said.length, 1);
});

test('range: past the RAM, within what the narrowest SMMU puts out', (t) => {
  const of = (memory: number, ...oasBits: number[]) =>
    foreignRangeOf({ memory, iommus: oasBits.map((bits) => ({ oasBits: bits })) } as never);
  const MIB = 2 ** 20;
  t.deepEqual(of(256 * MIB, 48), { firstPfn: 2 ** 35, endPfn: 2 ** 36, windowPages: GIB });
  t.deepEqual(of(256 * MIB, 48, 40), { firstPfn: 2 ** 27, endPfn: 2 ** 28, windowPages: GIB });
  t.deepEqual(of(256 * MIB, 36), { firstPfn: 2 ** 23, endPfn: 2 ** 24, windowPages: 512 });
  // RAM begins at 2 GiB.
  t.deepEqual(of(256 * MIB, 32), {
    firstPfn: (2 ** 31 + 256 * MIB) / 4096,
    endPfn: 2 ** 20,
    windowPages: 512,
  });
  t.deepEqual(of(2048 * MIB, 32), { firstPfn: 2 ** 20, endPfn: 2 ** 20, windowPages: 512 });
});
