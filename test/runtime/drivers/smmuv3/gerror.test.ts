/** Every global error, injected: what the driver does about it and what it says. [IHI0070] 6.3.17, 7.1. */
import test from 'ava';
import { Smmuv3Layout } from '../../../../hw/smmuv3/smmuv3-layout.js';
import { DriverLayout, driverKey } from '../../../../runtime/drivers/smmuv3/driver-layout.js';
import { serveGerror, takeErrors } from '../../../../runtime/drivers/smmuv3/gerror.js';
import { gerrorTexts } from '../../../../runtime/drivers/smmuv3/host-event.js';
import { DriverFixture } from '../../../kit/smmu-driver-fixture.js';

const RW = 3;
const CR0 = 0x20;
const GERROR = 0x60;
const GERRORN = 0x64;
const CMDQ_CONS = 0x9c;
const CERROR_ILL = 1;
const CERROR_ABT = 2;
const CERROR_ATC_INV_SYNC = 3;
const CMD_SYNC = 0x46;
const AT = DriverLayout.at;

function fixture() {
  const logged: string[] = [];
  const f = new DriverFixture({ driver: { log: (message) => logged.push(message) } });
  const smmu = f.regions[0]!.smmu;
  return {
    f,
    logged,
    inject: (bits: number) => void f.memory.words.xor(smmu + Smmuv3Layout.at.gerror, bits),
    active: () =>
      f.memory.words.load(smmu + Smmuv3Layout.at.gerror) ^
      f.memory.words.load(smmu + Smmuv3Layout.at.gerrorn),
  };
}

for (const [bit, text] of [
  [2, 'a write to the event queue was aborted: events may have been lost'],
  [4, 'an MSI of the command queue was aborted'],
  [5, 'an MSI of the event queue was aborted'],
  [7, 'the MSI of a global error was aborted'],
] as const)
  test(`GERROR bit ${bit} is acknowledged and told: ${text}`, (t) => {
    const { f, logged, inject, active } = fixture();
    const domain = f.paging();
    domain.map(0x10, f.pages(1), 1, RW);
    f.smmus[0]!.attach(f.devices[0]!, domain);
    inject(1 << bit);
    t.true(f.smmus[0]!.poll());
    t.is(active(), 0);
    t.deepEqual(logged, [`smmu0: ${text}`]);
    t.deepEqual(f.hostEvents, [{ kind: 'gerror', bits: 1 << bit, commandSkipped: false, atcTimeouts: 0 }]);
    t.false(f.smmus[0]!.poll());
    t.is(f.write(0, 0x1_0000n), 0, 'it goes on translating');
    f.unmap(domain, 0x10, 1);
  });

test('errors of the PRI queue have their words too', (t) => {
  const texts = (bits: number, atcTimeouts = 0): string[] =>
    gerrorTexts({ kind: 'gerror', bits, commandSkipped: false, atcTimeouts });
  t.deepEqual(texts((1 << 3) | (1 << 6)), [
    'an MSI of the PRI queue was aborted',
    'a write to the PRI queue was aborted: page requests may have been lost',
  ]);
  t.deepEqual(texts(1, 2), ['a device did not complete an ATC invalidation in time']);
  t.deepEqual(texts(1), ['global error 0x1']);
});

test('several at once are told in one report, each by its own line', (t) => {
  const { f, logged, inject } = fixture();
  inject((1 << 2) | (1 << 5));
  t.true(f.smmus[0]!.poll());
  t.is(logged.length, 2);
  t.is(f.hostEvents.length, 1);
});

/** Registers and the driver's words of an SMMU that stopped at slot 1 of an 8-slot queue. */
function stopped(cerror: number) {
  const f = new DriverFixture();
  const { words } = f.env;
  const { base } = f.memory.region(DriverLayout, driverKey(0));
  const queue = f.memory.linearOf(f.pages(1) * 4096, 4096);
  words.store(base + AT.queueLg2, 3);
  words.store(base + AT.queueLinear, queue);
  for (let i = 0; i < 12; i++) words.store(queue + i * 4, 0xaaaa_0000 | i);
  const values = new Map([
    [GERROR, 1],
    [GERRORN, 0],
    [CMDQ_CONS, (cerror << 24) | 1],
  ]);
  const registers = {
    read32: (offset: number) => values.get(offset) ?? 0,
    write32: (offset: number, value: number) => void values.set(offset, value),
  };
  t0(serveGerror(words, base, registers));
  return { f, words, base, queue, values };
}
const t0 = (bits: number): void => {
  if (bits !== 1) throw new Error(`serveGerror said ${bits}`);
};

test('CERROR_ILL: the command at CONS becomes a SYNC, its neighbours stay', (t) => {
  const { words, base, queue, values } = stopped(CERROR_ILL);
  t.is(words.load(queue + 16) & 0xff, CMD_SYNC);
  t.deepEqual([words.load(queue + 20), words.load(queue + 24), words.load(queue + 28)], [0, 0, 0]);
  t.is(words.load(queue + 12) >>> 0, 0xaaaa_0003);
  t.is(words.load(queue + 32) >>> 0, 0xaaaa_0008);
  t.is(words.load(base + AT.skipped), 1);
  t.is(values.get(GERRORN), 1);
  t.is(takeErrors(words, base), 1);
  t.is(takeErrors(words, base), 0);
});

test('CERROR_ABT and CERROR_ATC_INV_SYNC: nothing is rewritten, only the second is counted', (t) => {
  for (const [cerror, timeouts] of [
    [CERROR_ABT, 0],
    [CERROR_ATC_INV_SYNC, 1],
  ] as const) {
    const { words, base, queue, values } = stopped(cerror);
    t.is(words.load(queue + 16) >>> 0, 0xaaaa_0004);
    t.is(words.load(base + AT.skipped), 0);
    t.is(words.load(base + AT.atcTimeouts), timeouts);
    t.is(values.get(GERRORN), 1);
  }
});

test('Service Failure Mode: the SMMU is disabled at once, whoever notices', (t) => {
  const f = new DriverFixture();
  const { base } = f.memory.region(DriverLayout, driverKey(0));
  const written: [number, number][] = [];
  const registers = {
    read32: (offset: number) => (offset === GERROR ? 1 << 8 : 0),
    write32: (offset: number, value: number) => void written.push([offset, value]),
  };
  t.is(serveGerror(f.env.words, base, registers), 1 << 8);
  t.deepEqual(written, [
    [CR0, 0],
    [GERRORN, 1 << 8],
  ]);
});
