import test from 'ava';
import { createMachine } from '../../runtime/machine.js';
import { UserMemory, UserMemoryLayout } from '../../runtime/user-memory.js';
import { IommufdError } from '../../uapi/abi/iommufd-error.js';

const EFAULT = 14;
const ENOMEM = 12;
const EINVAL = 22;
const PAGE = 4096;

function machine(memory = '16MiB') {
  return createMachine({ memory, iommus: [{ name: 's', model: 'smmuv3' }], devices: [] });
}

test('user memory: what is copied out is copied in, across runs and pages', (t) => {
  const { user } = machine();
  const va = user.alloc(10 * PAGE);
  const bytes = Uint8Array.from({ length: 3 * PAGE }, (_, i) => i * 7);
  t.is(user.copyOut(va + 100n, bytes), 0);
  const back = new Uint8Array(bytes.length);
  t.is(user.copyIn(va + 100n, back), 0);
  t.deepEqual(back, bytes);
});

test('user memory: a copy that leaves the mapping is EFAULT and moves nothing', (t) => {
  const { user } = machine();
  const va = user.alloc(PAGE);
  const bytes = new Uint8Array(PAGE).fill(5);
  t.is(user.copyOut(va + 1n, bytes), -EFAULT);
  const back = new Uint8Array(PAGE - 1);
  t.is(user.copyIn(va + 1n, back), 0);
  t.true(back.every((byte) => byte === 0));
  t.is(user.copyIn(0n, back), -EFAULT);
  t.is(user.copyIn(-1n, back), -EFAULT);
  t.is(user.copyIn(2n ** 64n - 1n, back), -EFAULT);
});

test('user memory: allocations do not touch, so running off an end faults', (t) => {
  const { user } = machine();
  const first = user.alloc(PAGE);
  user.alloc(PAGE);
  t.is(user.copyIn(first + BigInt(PAGE), new Uint8Array(1)), -EFAULT);
});

test('user memory: a contiguous allocation is one run, and another thread’s view sees it', (t) => {
  const { user, memory, env } = machine();
  const va = user.alloc(300 * PAGE, { contiguous: true });
  const run = { pfn: 0, pages: 0 };
  const elsewhere = new UserMemory(memory, env, null);
  t.is(elsewhere.runAt(Number(va >> 12n) + 10, run), 0);
  t.is(run.pages, 290);
  t.true(elsewhere.linearOf(va, 300 * PAGE) > 0);
  t.is(elsewhere.linearOf(va, 301 * PAGE), -1);
});

test('user memory: what a core was changing when it died is EFAULT, and no wait without end', (t) => {
  const { user, memory, env } = machine();
  const va = user.alloc(PAGE);
  const core = env.threads.register();
  memory.words.store(memory.region(UserMemoryLayout, 'user').base + UserMemoryLayout.at.seq, core);
  env.threads.markDead(core);
  t.is(user.copyIn(va, new Uint8Array(1)), -EFAULT);
});

test('user memory: too much is ENOMEM, and leaves everything as it was', (t) => {
  const { user, frames } = machine();
  const before = frames.freePages();
  for (const bytes of [64 * 2 ** 20, '1TiB', 2n ** 63n])
    t.is(t.throws(() => user.alloc(bytes), { instanceOf: IommufdError }).errno, ENOMEM);
  t.is(t.throws(() => user.alloc(0), { instanceOf: IommufdError }).errno, EINVAL);
  t.throws(() => user.alloc('a lot'), { instanceOf: RangeError });
  t.throws(() => user.alloc(-4096), { instanceOf: RangeError });
  t.is(frames.freePages(), before);
});

test('user memory: freeing gives the frames back; freeing what is not there is EFAULT', (t) => {
  const { user, frames } = machine();
  const before = frames.freePages();
  const keep = user.alloc(3 * PAGE);
  const va = user.alloc(100 * PAGE);
  t.is(user.free(va, 100 * PAGE), 0);
  t.is(user.free(va, 100 * PAGE), -EFAULT);
  t.is(user.copyIn(va, new Uint8Array(1)), -EFAULT);
  t.is(user.copyIn(keep, new Uint8Array(1)), 0);
  t.is(frames.freePages(), before - 3);
});

test('user memory: a pinned frame outlives its mapping', (t) => {
  const { user, frames } = machine();
  const va = user.alloc(PAGE);
  const run = { pfn: 0, pages: 0 };
  user.runAt(Number(va >> 12n), run);
  user.pin(run.pfn, 1);
  t.is(user.refs(run.pfn), 2);
  const before = frames.freePages();
  user.free(va, PAGE);
  t.is(frames.freePages(), before);
  user.unpin(run.pfn, 1);
  t.is(frames.freePages(), before + 1);
  t.throws(() => user.unpin(run.pfn, 1), { message: /unpinned once too often/ });
});

test('user memory: frames are zeroed for every new owner', (t) => {
  const { user } = machine();
  const va = user.alloc(2 ** 20);
  user.copyOut(va, new Uint8Array(2 ** 20).fill(0xaa));
  user.free(va, 2 ** 20);
  const again = user.alloc(8 * 2 ** 20);
  const seen = new Uint8Array(8 * 2 ** 20);
  user.copyIn(again, seen);
  t.true(seen.every((byte) => byte === 0));
});

test('user memory: the address space ends after 16 TiB, it does not come round', (t) => {
  const { user } = machine();
  const first = user.alloc('8TiB', { phantom: true });
  const run = { pfn: 0, pages: 0 };
  user.runAt(Number(first >> 12n), run);
  const { pfn } = run;
  t.is(t.throws(() => user.alloc('8TiB', { phantom: true }), { instanceOf: IommufdError }).errno, ENOMEM);
  user.alloc(PAGE);
  user.runAt(Number(first >> 12n), run);
  t.is(run.pfn, pfn);
});

test('user memory: an allocation is freed whole or not at all', (t) => {
  const { user } = machine();
  const va = user.alloc(8 * PAGE);
  t.is(user.free(va, 4 * PAGE), -EINVAL);
  t.is(user.free(va + BigInt(PAGE), 7 * PAGE), -EFAULT);
  t.is(user.copyIn(va, new Uint8Array(8 * PAGE)), 0);
  t.is(user.free(va, 8 * PAGE), 0);
});

test('user memory: copies take bytes and an address, nothing else', (t) => {
  const { user } = machine();
  const va = user.alloc(PAGE);
  t.throws(() => user.copyOut(va, 'hey' as never), {
    instanceOf: TypeError,
    message: /^from must be a Uint8Array/,
  });
  t.throws(() => user.copyIn(va, new Uint16Array(2) as never), {
    instanceOf: TypeError,
    message: /^into must be/,
  });
  t.throws(() => user.copyOut(4096 as never, new Uint8Array(1)), {
    instanceOf: TypeError,
    message: /^va must be/,
  });
});

test('user memory: a chunk size that does not exist is refused by its name', (t) => {
  const { user, frames } = machine();
  const before = frames.freePages();
  for (const chunkLg2 of [5, 13, 39, '12'])
    t.throws(() => user.alloc(PAGE, { chunkLg2: chunkLg2 as never }), {
      instanceOf: RangeError,
      message: `chunkLg2: ${chunkLg2} is none of 12, 21, 30`,
    });
  t.is(frames.freePages(), before);
});
