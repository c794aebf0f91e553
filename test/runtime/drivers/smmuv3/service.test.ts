/** What the driver does about events and errors, and in which order it attaches. Event numbers: [IHI0070] 7.3. */
import test from 'ava';
import { Smmuv3PagingDomain } from '../../../../runtime/drivers/smmuv3/domain.js';
import { DriverLayout, driverKey } from '../../../../runtime/drivers/smmuv3/driver-layout.js';
import { type Entry, writeEntry } from '../../../../runtime/drivers/smmuv3/entry-writer.js';
import { EventQueue, FORWARDED_EVENTS } from '../../../../runtime/drivers/smmuv3/events.js';
import { serveGerror } from '../../../../runtime/drivers/smmuv3/gerror.js';
import { DriverFixture } from '../../../kit/smmu-driver-fixture.js';

const ETIMEDOUT = 110;
const ABORTED = 0xff;
const GERROR = 0x60;
const GERRORN = 0x64;
const CMDQ_CONS = 0x9c;
const EVENTQ_PROD = 0x100a8;

test('events: a guest is told of eight kinds, all of its own making', (t) => {
  t.deepEqual(
    [...FORWARDED_EVENTS].sort((a, b) => a - b),
    [0x04, 0x06, 0x08, 0x0a, 0x10, 0x11, 0x12, 0x13],
  );
});

test('events: a flood holds the reader for one queue’s worth, no more', (t) => {
  const f = new DriverFixture();
  let prod = 1;
  const registers = {
    read32: (offset: number) => (offset === EVENTQ_PROD ? prod : 0),
    write32: () => undefined,
  };
  const queue = new EventQueue(f.env.words, registers, f.memory.linearOf(f.pages(1) * 4096, 64), 1);
  let seen = 0;
  const { taken } = queue.drain(() => {
    if (++seen < 20) prod = (prod + 1) & 3;
  });
  t.is(taken, 2);
});

test('gerror: one thread at a time, and without a reason no command is skipped', (t) => {
  const f = new DriverFixture();
  const { words } = f.env;
  const { base } = f.memory.region(DriverLayout, driverKey(0));
  const values = new Map([
    [GERROR, 1],
    [GERRORN, 0],
    [CMDQ_CONS, 0],
  ]);
  const registers = {
    read32: (offset: number) => values.get(offset) ?? 0,
    write32: (offset: number, value: number) => void values.set(offset, value),
  };
  words.store(base + DriverLayout.at.errorLock, 1);
  t.is(serveGerror(words, base, registers), 0);
  t.is(values.get(GERRORN), 0);
  words.store(base + DriverLayout.at.errorLock, 0);
  t.is(serveGerror(words, base, registers), 1);
  t.is(values.get(GERRORN), 1);
  t.is(words.load(base + DriverLayout.at.skipped), 0);
});

test('entry writer: a sync that failed is reported though later ones succeed', (t) => {
  const words = new Array<bigint>(8).fill(0n);
  const all = new Array<bigint>(8).fill(2n ** 64n - 1n);
  const none: Entry = [1n, 0n, 0n, 0n, 0n, 0n, 0n, 0n];
  let syncs = 0;
  const status = writeEntry(
    {
      load: (i) => words[i]!,
      store: (i, value) => {
        words[i] = value;
      },
      used: (entry) => ((entry[0]! & 1n) === 0n ? none : all),
      barrier: () => undefined,
      sync: () => (syncs++ === 0 ? -ETIMEDOUT : 0),
    },
    [1n, 2n, 3n, 0n, 0n, 0n, 0n, 0n],
  );
  t.true(syncs > 1);
  t.is(status, -ETIMEDOUT);
});

test('attach: the domain knows its new user before the SMMU sees the entry', (t) => {
  const f = new DriverFixture();
  const domain = f.paging();
  if (!(domain instanceof Smmuv3PagingDomain)) throw new Error('not a domain of this driver');
  const step = f.step.bind(f);
  const users: number[] = [];
  f.step = () => {
    users.push(domain.invs.length);
    return step();
  };
  const from = f.commandCount(0);
  t.is(f.smmus[0]!.attach(f.devices[0]!, domain), 0);
  t.true(f.commandCount(0) > from);
  t.is(domain.invs.length, 1);
  t.is(users.at(-1), 1);
  t.false(users.slice(users.indexOf(1)).includes(0));
  t.true(users.filter((count) => count === 1).length > 1, 'an entry was synced with it in place');
});

test('stream table: the last stream of a new leaf aborts', (t) => {
  const f = new DriverFixture({
    devices: [
      [0, 0x100],
      [0, 0x1ff],
    ],
  });
  t.is(f.smmus[0]!.attach(f.devices[0]!, f.paging()), 0);
  t.is(f.write(1, 0x1000n), ABORTED);
});
