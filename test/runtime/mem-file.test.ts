import test from 'ava';
import { CoreBench, errnoOf } from '../kit/core-bench.js';

const [ENOMEM, EINVAL] = [12, 22];
const PAGE = 4096;

test('memfd: any range of a scattered file can be mapped, and shows what the whole shows', (t) => {
  const { core, user, frames } = new CoreBench();
  const holes = Array.from({ length: 24 }, () => frames.alloc(12));
  for (const [i, pfn] of holes.entries()) if (i % 3 !== 0) frames.free(pfn, 1);
  const { file } = core.memfd(11 * PAGE + 7);
  const whole = user.map(file);
  const bytes = Uint8Array.from({ length: 12 * PAGE }, (_, i) => (i >> 12) * 16 + (i & 15));
  t.is(user.copyOut(whole, bytes), 0);
  for (let first = 0; first < 12; first++)
    for (let pages = 1; first + pages <= 12; pages++) {
      const va = user.map(file, BigInt(first * PAGE), BigInt(pages * PAGE));
      const seen = new Uint8Array(pages * PAGE);
      t.is(user.copyIn(va, seen), 0);
      if (!seen.every((byte, i) => byte === bytes[first * PAGE + i])) t.fail(`${pages} pages from ${first}`);
      t.is(user.free(va, pages * PAGE), 0);
    }
  const run = { pfn: 0, pages: 0 };
  const at: number[] = [];
  for (let page = 0; page < 11; page += run.pages) {
    t.is(file.runAt(page, run), 0);
    at.push(run.pages);
  }
  t.is(
    at.reduce((sum, pages) => sum + pages),
    11,
    'the last page is not whole',
  );
  t.true(at.length > 3, 'scattered');
  t.is(file.runAt(11, run), -EINVAL);
  t.is(file.runAt(-1, run), -EINVAL);
});

test('memfd: what cannot be mapped or made', (t) => {
  const { core, user } = new CoreBench();
  const { file } = core.memfd(2 * PAGE);
  const map = (offset: bigint, bytes?: bigint) => errnoOf(() => user.map(file, offset, bytes));
  t.is(map(1n), EINVAL);
  t.is(map(-4096n), EINVAL);
  t.is(map(0x2000n), EINVAL);
  t.is(map(0n, 0n), EINVAL);
  t.is(map(0x1000n, 0x2000n), EINVAL);
  t.is(map(0x1000n, 1n), 0);
  t.is(
    errnoOf(() => core.memfd(0)),
    EINVAL,
  );
  t.is(
    errnoOf(() => core.memfd('1TiB')),
    ENOMEM,
  );
  t.is(
    errnoOf(() => core.dmabuf(0)),
    EINVAL,
  );
});

test('memfd: closed, its frames stay as long as user memory shows them', (t) => {
  const { core, user, frames } = new CoreBench();
  const free = frames.freePages();
  const { fd, file } = core.memfd(4 * PAGE);
  const va = user.map(file, 0n, 0x2000n);
  user.copyOut(va, Uint8Array.of(7));
  core.own.files.close(fd);
  t.is(frames.freePages(), free - 2);
  const seen = new Uint8Array(1);
  user.copyIn(va, seen);
  t.is(seen[0], 7);
  user.free(va, 0x2000);
  t.is(frames.freePages(), free);
});
