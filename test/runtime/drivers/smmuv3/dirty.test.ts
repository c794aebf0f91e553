/** Dirty tracking in a domain of the SMMU's: what DMA marks, what reading takes away, and nothing in between lost. */
import test from 'ava';
import type { PagingDomain } from '../../../../runtime/drivers/contract.js';
import { Random, SEED } from '../../../kit/random.js';
import { DriverFixture, newGather } from '../../../kit/smmu-driver-fixture.js';

const RW = 3;
const READ = 1;
const [DIRTY_TRACKING, ALLOC_PASID] = [2, 8];
const F_PERMISSION = 0x13;

function scene(pages = 64, flags = DIRTY_TRACKING, options = {}) {
  const f = new DriverFixture(options);
  const domain = f.paging(0, flags);
  const pfn = f.pages(pages);
  if (domain.map(0x40, pfn, pages, RW) !== 0) throw new Error('map failed');
  f.smmus[0]!.attach(f.devices[0]!, domain);
  return { f, domain, pfn };
}

/** Pages that are dirty, from `first` on; then one sync, as the core does. */
function dirtyPages(domain: PagingDomain, clear = true, first = 0x40, pages = 64): number[] {
  const found: number[] = [];
  const gather = newGather(false);
  const status = domain.dirty!.readAndClear(
    first,
    pages,
    clear,
    (unit, count) => {
      for (let i = 0; i < count; i++) found.push(unit + i);
    },
    gather,
  );
  if (status !== 0) throw new Error(`readAndClear said ${status}`);
  domain.sync(gather);
  return found;
}

const all = (first: number, pages: number): number[] => Array.from({ length: pages }, (_, i) => first + i);

test('what is mapped begins dirty, then what DMA writes is, once each', (t) => {
  const { f, domain } = scene();
  t.is(domain.dirty!.setTracking(true), 0);
  t.deepEqual(dirtyPages(domain), all(0x40, 64), 'as in Linux, which clears before it tracks');
  t.deepEqual(dirtyPages(domain), []);
  for (const page of [0x41, 0x50, 0x7f, 0x50]) t.is(f.write(0, BigInt(page) << 12n), 0);
  t.is(f.ports[0]!.read(0x42_000n, new Uint8Array(8)), 0, 'a read marks nothing');
  t.deepEqual(dirtyPages(domain, false), [0x41, 0x50, 0x7f], 'NO_CLEAR leaves the marks');
  t.deepEqual(dirtyPages(domain), [0x41, 0x50, 0x7f]);
  t.deepEqual(dirtyPages(domain), []);
  t.is(f.write(0, 0x50_000n), 0);
  t.deepEqual(dirtyPages(domain), [0x50], 'marked anew, though it was in the TLB');
});

test('reading part of a range touches that part; a block is reported as far as asked, and stays dirty', (t) => {
  const { f, domain } = scene();
  dirtyPages(domain);
  for (const page of [0x44, 0x45, 0x46]) f.write(0, BigInt(page) << 12n);
  t.deepEqual(dirtyPages(domain, true, 0x45, 1), [0x45]);
  t.deepEqual(dirtyPages(domain), [0x44, 0x46]);
  const block = f.frames.alloc(21);
  t.is(domain.map(0x200, block, 512, RW), 0);
  t.deepEqual(dirtyPages(domain, true, 0x210, 4), all(0x210, 4));
  t.deepEqual(dirtyPages(domain, true, 0x200, 512), all(0x200, 512));
  t.is(f.write(0, 0x2ff_000n), 0);
  t.deepEqual(dirtyPages(domain, true, 0x200, 512), all(0x200, 512), 'a block is dirty as a whole');
});

test('read-only mappings are never dirty, and DMA does not make them so', (t) => {
  const { f, domain } = scene();
  dirtyPages(domain);
  domain.map(0x100, f.pages(2), 2, READ);
  t.is(f.write(0, 0x100_000n), F_PERMISSION);
  t.deepEqual(dirtyPages(domain, true, 0x100, 2), []);
});

test('one flush for a whole read: the range from the first to the last page that was dirty', (t) => {
  const TLBI_NH_VA = 0x12;
  const { f, domain } = scene();
  dirtyPages(domain);
  for (const page of [0x48, 0x60]) f.write(0, BigInt(page) << 12n);
  const from = f.commandCount(0);
  dirtyPages(domain, false);
  t.is(f.commandCount(0), from, 'NO_CLEAR flushes nothing');
  const gather = newGather();
  domain.dirty!.readAndClear(0x40, 64, true, () => undefined, gather);
  t.deepEqual([gather.firstUnit, gather.lastUnit], [0x48, 0x60]);
  t.is(f.commandCount(0), from, 'the caller flushes');
  domain.sync(gather);
  t.true(f.commands(0, from).some(({ opcode }) => opcode === TLBI_NH_VA));
});

test('a PASID of a tracked domain marks as the device itself does', (t) => {
  const { f, domain } = scene(64, DIRTY_TRACKING | ALLOC_PASID, { traits: { pasidBits: 4 } });
  t.is(f.smmus[0]!.attachPasid(f.devices[0]!, 3, domain), 0);
  dirtyPages(domain);
  t.is(f.write(0, 0x55_000n, 1, 3), 0);
  t.deepEqual(dirtyPages(domain), [0x55]);
});

test('an ATC: a translation that is kept for reading marks nothing, one for writing does, and reading takes it away', (t) => {
  const { f, domain } = scene(64, DIRTY_TRACKING, {
    traits: { ats: true },
    hardware: { ats: true },
  });
  dirtyPages(domain);
  t.is(f.write(0, 0x55_000n), 0);
  t.is(f.write(0, 0x55_000n), 0);
  t.deepEqual(dirtyPages(domain), [0x55]);
  t.is(f.write(0, 0x55_000n), 0);
  t.deepEqual(dirtyPages(domain), [0x55], 'the ATC had to ask again');
});

test('random writes, reads, maps and unmaps: the marks are what was written since', (t) => {
  t.log(`SEED=${SEED}`);
  const random = new Random(SEED);
  const { f, domain } = scene();
  dirtyPages(domain);
  const pfn = f.pages(64);
  const mapped = new Set(all(0x40, 64));
  const dirty = new Set<number>();
  for (let step = 0; step < 600; step++) {
    const page = 0x40 + random.below(64);
    switch (random.below(5)) {
      case 0:
        if (mapped.delete(page)) {
          f.unmap(domain, page, 1);
          dirty.delete(page);
        } else {
          domain.map(page, pfn + page - 0x40, 1, RW);
          mapped.add(page);
          dirty.add(page);
        }
        break;
      case 1: {
        const clear = random.chance(0.5);
        t.deepEqual(
          dirtyPages(domain, clear),
          [...dirty].sort((a, b) => a - b),
        );
        if (clear) dirty.clear();
        break;
      }
      case 2:
        f.ports[0]!.read(BigInt(page) << 12n, new Uint8Array(4));
        break;
      default:
        if (f.write(0, BigInt(page) << 12n) === 0) dirty.add(page);
    }
  }
});
