/** ATS in the driver's parts: commands, their order, and what a timeout means. [IHI0070] 4.5.1, 4.6, 7.1, 8.1. */
import test from 'ava';
import { NO_BUGS } from '../../../../hw/bugs/bug-switches.js';
import { atcSpan } from '../../../../runtime/drivers/smmuv3/atc.js';
import { invalidateRange } from '../../../../runtime/drivers/smmuv3/domain-invalidate.js';
import {
  ATS,
  ATS_FULL,
  type Inv,
  mergeInv,
  S1_ASID,
  S2_VMID,
  S2_VMID_VSMMU,
  unrefInv,
} from '../../../../runtime/drivers/smmuv3/invs.js';
import { PriQueue } from '../../../../runtime/drivers/smmuv3/priq.js';
import type { SmmuDevice } from '../../../../runtime/drivers/smmuv3/smmu-device.js';
import { cdTableSte, nestedSte, stage2Ste } from '../../../../runtime/drivers/smmuv3/ste.js';
import { Random, SEED } from '../../../kit/random.js';
import { DriverFixture } from '../../../kit/smmu-driver-fixture.js';

const ETIMEDOUT = 110;

test('ATC range: the smallest aligned power of two of pages that covers all of it', (t) => {
  t.deepEqual(atcSpan(8, 4), { page: 8, sizeLg2: 2 });
  t.deepEqual(atcSpan(7, 4), { page: 0, sizeLg2: 4 });
  t.deepEqual(atcSpan(5, 1), { page: 5, sizeLg2: 0 });
  t.deepEqual(atcSpan(2 ** 51, 1), { page: 2 ** 51, sizeLg2: 0 });
  t.deepEqual(atcSpan(0, 2 ** 52), { page: 0, sizeLg2: 52 });
  const random = new Random(SEED);
  t.log(`SEED=${SEED}`);
  for (let i = 0; i < 2000; i++) {
    const first = Number(random.big(1 + random.below(51)));
    const pages = 1 + Number(random.big(1 + random.below(40)));
    const { page, sizeLg2 } = atcSpan(first, pages);
    t.true(page <= first && page + 2 ** sizeLg2 >= first + pages);
    t.is(page % 2 ** sizeLg2, 0);
    if (sizeLg2 > 0) {
      const half = 2 ** (sizeLg2 - 1);
      t.not(Math.floor(first / half), Math.floor((first + pages - 1) / half), 'half of it would not do');
    }
  }
});

test('STE: EATS, S1STALLD, S2S and STRW follow device and SMMU', (t) => {
  const s2 = { vmid: 1, root: 0, inputBits: 48, startLevel: 0, ps: 5, fwb: false };
  const plain = { attrTypesOvr: false };
  const EATS = 1n << 28n;
  const S1STALLD = 1n << 27n;
  const STRW_EL2 = 2n << 30n;
  const of = (stalls: boolean, e2h: boolean, ats: boolean, stall: boolean): bigint =>
    cdTableSte({ base: 0, s1Fmt: 0, s1CdMax: 0 }, { stalls, e2h }, { ats, stall })[1]! &
    (EATS | S1STALLD | (3n << 30n));
  t.is(of(false, false, false, false), 0n);
  t.is(of(true, false, false, false), S1STALLD);
  t.is(of(true, false, true, true), EATS);
  t.is(of(false, true, false, false), STRW_EL2);
  t.is(stage2Ste(s2, plain, { ats: true, stall: false })[1], EATS);
  t.is(stage2Ste(s2, plain, { ats: false, stall: true })[2]! & (1n << 57n), 1n << 57n);
  t.is(nestedSte(s2, plain, [1n | (5n << 1n), 0n], { ats: true, stall: false })[1]! & EATS, EATS);
});

const at = (index: number) => ({ index });

test('invs: ATS entries come after every tag of their SMMU, one for each StreamID and substream', (t) => {
  let invs: readonly Inv<{ index: number }>[] = [];
  const add = (type: Inv<never>['type'], id: number, ssid?: number): void => {
    invs = mergeInv(invs, { smmu: SMMU0, type, id, ...(ssid !== undefined && { ssid }) });
  };
  const SMMU0 = at(0);
  invs = mergeInv(invs, { smmu: at(1), type: S1_ASID, id: 1 });
  add(ATS_FULL, 1);
  add(ATS, 9);
  add(ATS, 9, 4);
  add(ATS, 9);
  add(S2_VMID, 77);
  t.deepEqual(
    invs.map(({ smmu, type, id, ssid, users }) => [smmu.index, type, id, ssid, users]),
    [
      [0, S2_VMID, 77, undefined, 1],
      [0, ATS, 9, undefined, 2],
      [0, ATS, 9, 4, 1],
      [0, ATS_FULL, 1, undefined, 1],
      [1, S1_ASID, 1, undefined, 1],
    ],
  );
  t.true(unrefInv(invs, { smmu: SMMU0, type: ATS, id: 9, ssid: 4 }).last);
  t.false(unrefInv(invs, { smmu: SMMU0, type: ATS, id: 9 }).last);
});

/** An SMMU that writes down what reaches it; `timeouts` is what its ATC_INV rounds add. */
function recorder(
  index: number,
  log: string[],
  over: { e2h?: boolean; timeouts?: number; skipAtcInv?: boolean; atcBeforeTlbi?: boolean } = {},
): SmmuDevice {
  let pending: string[] = [];
  let hasAtc = false;
  const queue = {
    atcTimeouts: 0,
    nowNs: () => 0,
    wait: () => {
      log.push(`${index} done`);
      if (hasAtc) queue.atcTimeouts += over.timeouts ?? 0;
      return 0;
    },
  };
  return {
    index,
    wrongVmid: false,
    bugs: NO_BUGS,
    skipAtcInv: over.skipAtcInv ?? false,
    atcBeforeTlbi: over.atcBeforeTlbi ?? false,
    features: { ranged: true, e2h: over.e2h ?? false },
    queue,
    batch: {
      add: (encode: (words: Uint32Array, at: number) => void) => {
        const words = new Uint32Array(4);
        encode(words, 0);
        pending.push(`${(words[0]! & 0xff).toString(16)}:${words[1]!.toString(16)}`);
      },
      submit: () => {
        hasAtc = pending.some((command) => command.startsWith('40'));
        log.push(`${index} ${pending.join(' ')} sync`);
        pending = [];
        return 5;
      },
    },
  } as unknown as SmmuDevice;
}

test('order: every SMMU has confirmed its TLBIs before the first ATC_INV, and all work at the same time', (t) => {
  const log: string[] = [];
  const [a, b] = [recorder(0, log), recorder(1, log)];
  let invs: readonly Inv<SmmuDevice>[] = [];
  for (const [smmu, type, id] of [
    [a, S2_VMID_VSMMU, 3],
    [a, ATS_FULL, 0x100],
    [b, S2_VMID, 4],
    [b, ATS, 0x200],
    [b, ATS, 0x201],
  ] as const)
    invs = mergeInv(invs, { smmu, type, id });
  const notes: { command: string; tag: number }[] = [];
  t.is(
    invalidateRange(invs, { firstPage: 16, pages: 16, leaf: true }, notes as never, () => 0),
    0,
  );
  t.deepEqual(log, [
    '0 2a:3 10:3 sync',
    '1 2a:4 sync',
    '0 done',
    '1 done',
    '0 40:100 sync',
    '1 40:200 40:201 sync',
    '0 done',
    '1 done',
  ]);
  t.deepEqual(
    notes.map(({ command, tag }) => [command, tag]),
    [
      ['CMD_TLBI_S2_IPA', 3],
      ['CMD_TLBI_S2_IPA', 4],
      ['CMD_ATC_INV', 0x100],
      ['CMD_ATC_INV', 0x200],
      ['CMD_ATC_INV', 0x201],
    ],
  );
});

test('an ATC invalidation that timed out makes the round fail, though its SYNC completed; the others are done', (t) => {
  const log: string[] = [];
  const [a, b] = [recorder(0, log, { timeouts: 1 }), recorder(1, log)];
  let invs: readonly Inv<SmmuDevice>[] = [];
  for (const smmu of [a, b])
    for (const type of [S1_ASID, ATS] as const) invs = mergeInv(invs, { smmu, type, id: 1 });
  const notes: { failed: boolean }[] = [];
  t.is(
    invalidateRange(invs, { firstPage: 0, pages: 1, leaf: true }, notes as never, () => 0),
    -ETIMEDOUT,
  );
  t.is(log.length, 8);
  t.deepEqual(
    notes.map(({ failed }) => failed),
    [false, false, true, false],
  );
});

test('deliberate defects: ATC_INV left out, or sent first, on the SMMU that has them', (t) => {
  const run = (over: { skipAtcInv?: boolean; atcBeforeTlbi?: boolean }) => {
    const log: string[] = [];
    const [a, b] = [recorder(0, log), recorder(1, log, over)];
    let invs: readonly Inv<SmmuDevice>[] = [];
    for (const smmu of [a, b])
      for (const type of [S1_ASID, ATS] as const) invs = mergeInv(invs, { smmu, type, id: 1 });
    const notes: { command: string; iommu: number }[] = [];
    t.is(
      invalidateRange(invs, { firstPage: 0, pages: 1, leaf: true }, notes as never, () => 0),
      0,
    );
    return {
      sent: log.filter((line) => line.includes('sync')),
      notes: notes.map(({ command, iommu }) => `${iommu} ${command}`),
    };
  };
  const tlbis = ['0 12:10000 sync', '1 12:10000 sync'];
  t.deepEqual(run({}).sent, [...tlbis, '0 40:1 sync', '1 40:1 sync']);
  const skipped = run({ skipAtcInv: true });
  t.deepEqual(skipped.sent, [...tlbis, '0 40:1 sync']);
  t.deepEqual(skipped.notes, ['0 CMD_TLBI_NH_VA', '1 CMD_TLBI_NH_VA', '0 CMD_ATC_INV']);
  t.deepEqual(run({ atcBeforeTlbi: true }).sent, ['1 40:1 sync', ...tlbis, '0 40:1 sync']);
});

test('a host at EL2 invalidates its stage 1 by the EL2 commands', (t) => {
  const log: string[] = [];
  const invs = mergeInv([], { smmu: recorder(0, log, { e2h: true }), type: S1_ASID, id: 6 } as const);
  invalidateRange(invs, { firstPage: 0, pages: 1, leaf: true }, null, () => 0);
  invalidateRange(invs, { firstPage: 0, pages: 2 ** 31, leaf: true }, null, () => 0);
  t.deepEqual(log, ['0 22:60000 sync', '0 done', '0 21:60000 sync', '0 done']);
});

test('PRI queue: every field of a record; an overflow is acknowledged once the queue is empty', (t) => {
  const f = new DriverFixture();
  const linear = f.memory.linearOf(f.pages(1) * 4096, 64);
  const values = new Map([
    [0x100c8, 0x8000_0002],
    [0x100cc, 0],
  ]);
  const registers = {
    read32: (offset: number) => values.get(offset)!,
    write32: (offset: number, value: number) => void values.set(offset, value),
  };
  const { words } = f.env;
  words.store64(linear, (0xf400_0000n << 32n) | (0x77n << 32n) | 0x1234n);
  words.store64(linear + 8, 0xffff_ffff_ffff_f1ffn);
  words.store64(linear + 16, (0x4800_0000n << 32n) | 0xffff_ffffn);
  words.store64(linear + 24, 0x5000n);
  const seen: unknown[] = [];
  t.deepEqual(
    new PriQueue(words, registers, linear, 2).drain((request) => seen.push(request)),
    { taken: 2, overflow: true },
  );
  t.deepEqual(seen, [
    {
      sid: 0x1234,
      ssid: 0x77,
      group: 0x1ff,
      last: true,
      read: true,
      write: true,
      exec: false,
      priv: true,
      page: 2 ** 52 - 1,
    },
    {
      sid: 0xffff_ffff,
      ssid: -1,
      group: 0,
      last: true,
      read: false,
      write: false,
      exec: true,
      priv: false,
      page: 5,
    },
  ]);
  t.is(values.get(0x100cc), 0x8000_0002);
});
