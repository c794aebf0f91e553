import test from 'ava';
import { PortLayout } from '../../../hw/iotlb/port-layout.js';
import { UnitLayout } from '../../../hw/iotlb/unit-layout.js';
import { OK, SmmuFixture } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const NH_ALL = 0x10;
const NH_ASID = 0x11;
const NH_VA = 0x12;
const NH_VAA = 0x13;
const S12_VMALL = 0x28;
const NSNH_ALL = 0x30;
const [ILL, ABT, ATC_INV_SYNC] = [1, 2, 3];
const ENTRIES_LG2 = 4;
const VA = 0x1000n;

// Offsets as Linux's driver has them.
const VINTF = (v: number): number => 0x1000 + 0x100 * v;
const ALLOC = (q: number): number => 0x200 + 4 * q;
const PAGE0 = (v: number, lvcmdq: number): number => 0x30000 + 0x20000 * v + 0x80 * lvcmdq;
const PAGE1 = (v: number, lvcmdq: number): number => PAGE0(v, lvcmdq) + 0x10000;
const [CONS, PROD, CONFIG, STATUS, GERROR, GERRORN] = [0x0, 0x4, 0x8, 0xc, 0x10, 0x14];

/**
 * Streams 3 and 4, of VMIDs 1 and 2, both with ASID 7 and a page at VA; VINTF 1 and 2 with these VMIDs and two
 * VCMDQs each, whose virtual StreamIDs are 0x13 and 0x14.
 */
class Bench {
  readonly f: SmmuFixture;
  readonly roots: number[] = [];
  readonly #queues = new Map<string, number>();

  constructor(options: ConstructorParameters<typeof SmmuFixture>[0] = {}) {
    const f = new SmmuFixture({ sids: [3, 4], cmdqv: { vintfs: 4 }, ...options });
    this.f = f;
    [1, 2].forEach((vmid, i) => {
      const root = f.alloc(4096);
      this.roots.push(root);
      f.map(root, 1, VA, 0x8080_0000n, 3, S.S1_PAGE);
      const cd = f.alloc(4096);
      f.writeWords(cd, S.cd({ root, asid: 7 }));
      f.setSte(3 + i, S.steS1(cd, vmid));
    });
    f.enable();
    this.host.write32(0, 1);
    for (const v of [1, 2]) {
      this.host.write32(VINTF(v), v << 1);
      this.host.write32(VINTF(v), (v << 1) | 1);
      this.host.write32(VINTF(v) + 0x80, 2 + v);
      this.host.write32(VINTF(v) + 0x40, ((0x12 + v) << 1) | 1);
      for (const lvcmdq of [0, 1]) this.place(v, lvcmdq);
    }
    f.run();
  }

  get host() {
    return this.f.cmdqv!.mmio;
  }

  /** The VINTF's logical queue gets memory and is allocated, not enabled. */
  place(v: number, lvcmdq: number, base = this.f.alloc(16 * 2 ** ENTRIES_LG2)): void {
    const q = 2 * v + lvcmdq;
    this.host.write32(ALLOC(q), (v << 15) | (lvcmdq << 1) | 1);
    this.f.run();
    this.host.write64(PAGE1(v, lvcmdq), BigInt(base) | BigInt(ENTRIES_LG2));
    this.#queues.set(`${v}.${lvcmdq}`, base);
  }

  word(v: number, lvcmdq: number, register: number): number {
    return this.f.memory.words.load(this.#page(v, lvcmdq) + register) >>> 0;
  }

  /** A guest's store: nobody is told. */
  poke(v: number, lvcmdq: number, register: number, value: number): void {
    this.f.memory.words.store(this.#page(v, lvcmdq) + register, value);
  }

  enable(v: number, lvcmdq = 0): void {
    this.poke(v, lvcmdq, CONFIG, 1);
    this.f.run();
  }

  push(v: number, lvcmdq: number, ...commands: S.Command[]): void {
    const base = this.#queues.get(`${v}.${lvcmdq}`)!;
    let prod = this.word(v, lvcmdq, PROD);
    for (const [low, high] of commands) {
      const slot = base + (prod & (2 ** ENTRIES_LG2 - 1)) * 16;
      this.f.write64(slot, low);
      this.f.write64(slot + 8, high);
      prod = (prod + 1) & (2 ** (ENTRIES_LG2 + 1) - 1);
    }
    this.poke(v, lvcmdq, PROD, prod);
  }

  command(v: number, lvcmdq: number, ...commands: S.Command[]): void {
    this.push(v, lvcmdq, ...commands);
    this.f.run();
  }

  /** Whether the device's translation is still cached when its page is gone from the table. */
  cached(i: number): boolean {
    return this.f.dma(VA, 0, i).status === OK;
  }

  /** Caches the page for both devices, then takes it out of both tables. */
  makeStale(): void {
    for (const i of [0, 1]) {
      this.f.map(this.roots[i]!, 1, VA, 0x8080_0000n, 3, S.S1_PAGE);
      if (this.f.dma(VA, 0, i).status !== OK) throw new Error('bench: DMA');
      this.f.map(this.roots[i]!, 1, VA, 0n, 3, 0n);
      if (!this.cached(i)) throw new Error('bench: not cached');
    }
  }

  #page(v: number, lvcmdq: number): number {
    return this.f.cmdqv!.regions.pages + 0x10000 * v + 0x80 * lvcmdq;
  }
}

test('vcmdq: a guest enables it and is served without a trap', (t) => {
  const b = new Bench();
  b.command(1, 0, S.sync());
  t.is(b.word(1, 0, CONS), 0, 'not enabled');
  b.enable(1);
  t.is(b.word(1, 0, STATUS), 1);
  t.is(b.word(1, 0, CONS), 1);
  b.command(1, 0, S.tlbiVa(NH_VA, 0, 7, VA), S.sync());
  t.is(b.word(1, 0, CONS), 3);
  b.poke(1, 0, CONFIG, 0);
  b.f.run();
  t.is(b.word(1, 0, STATUS), 0);
  b.command(1, 0, S.sync());
  t.is(b.word(1, 0, CONS), 3);
});

test('vcmdq: invalidations reach the VMID of the VINTF, whatever the guest writes', (t) => {
  const b = new Bench();
  b.enable(1);
  for (const command of [S.tlbiVa(NH_VA, 2, 7, VA), S.tlbi(NH_ASID, 2, 7)]) {
    b.makeStale();
    b.command(1, 0, command, S.sync());
    t.false(b.cached(0));
    t.true(b.cached(1), 'the other guest keeps its translations');
    b.f.command(S.tlbi(NSNH_ALL), S.sync());
  }
});

test('vcmdq: a SYNC waits for the DMA under way, and the main queue’s SYNC of its own for itself', (t) => {
  const b = new Bench();
  b.enable(1);
  b.enable(2);
  b.f.begin(0, VA);
  t.is(b.f.finish(0).status, OK);
  b.command(1, 0, S.tlbiVa(NH_VA, 0, 7, VA), S.sync());
  t.is(b.word(1, 0, CONS), 1, 'stands at the SYNC');
  t.false(b.f.model.hasWork(), 'and rests');
  b.command(2, 0, S.tlbi(NH_ASID, 0, 7), S.sync());
  b.f.command(S.sync());
  t.is(b.word(2, 0, CONS), 1);
  t.is(b.f.mmio.read32(0x9c), 0);
  const waiting = () => b.f.memory.words.load(b.f.regions.unit + UnitLayout.at.syncWaiting);
  t.is(waiting(), 1);
  b.f.leave(0);
  t.true(b.f.model.hasWork());
  b.f.run();
  t.is(b.word(1, 0, CONS), 2);
  t.is(b.word(2, 0, CONS), 2);
  t.is(b.f.mmio.read32(0x9c), 1);
  t.is(waiting(), 0);
});

test('vcmdq: one SYNC that completes leaves the announcement to those that still wait', (t) => {
  const b = new Bench();
  b.enable(1);
  b.f.begin(0, VA);
  b.f.finish(0);
  b.command(1, 0, S.sync());
  b.f.begin(1, VA);
  b.f.finish(1);
  b.f.command(S.sync());
  b.f.leave(0);
  b.f.run();
  const waiting = () => b.f.memory.words.load(b.f.regions.unit + UnitLayout.at.syncWaiting);
  t.is(b.word(1, 0, CONS), 1);
  t.is(b.f.mmio.read32(0x9c), 0, 'the main queue waits for device 1');
  t.is(waiting(), 1, 'so device 1 will ring');
  b.f.leave(1);
  b.f.run();
  t.is(b.f.mmio.read32(0x9c), 1);
  t.is(waiting(), 0);
});

test('vcmdq: a model that takes over finds the SYNC that waits', (t) => {
  const b = new Bench();
  b.enable(1);
  b.f.begin(0, VA);
  b.f.finish(0);
  b.command(1, 0, S.sync());
  b.f.model = b.f.newModel();
  b.f.run();
  t.is(b.word(1, 0, CONS), 0);
  b.f.leave(0);
  b.f.run();
  t.is(b.word(1, 0, CONS), 1);
  b.command(1, 0, S.sync());
  t.is(b.word(1, 0, CONS), 2);
});

test('vcmdq: what a guest may not do stops its queue alone', (t) => {
  const refused: [string, S.Command][] = [
    ['NH_ALL', S.tlbi(NH_ALL)],
    ['NH_VAA', S.tlbiVa(NH_VAA, 0, 0, VA)],
    ['S12_VMALL', S.tlbi(S12_VMALL)],
    ['NSNH_ALL', S.tlbi(NSNH_ALL)],
    ['CFGI_STE', S.cfgiSte(3)],
    ['CFGI_CD', S.cfgiCd(3)],
    ['CFGI_ALL', S.CFGI_ALL],
    ['RESUME', S.resume(3, 0, 'retry')],
    ['PRI_RESP', S.priResp(3, 0, 2)],
    ['SYNC with an interrupt', S.sync(1)],
    ['SYNC with SEV', S.sync(2)],
    ['SYNC with CS = 3', S.sync(3)],
    ['an opcode of nobody', [0xffn, 0n]],
    ['opcode 0', [0n, 0n]],
  ];
  const b = new Bench();
  for (const v of [1, 2]) for (const lvcmdq of [0, 1]) b.enable(v, lvcmdq);
  for (const [name, command] of refused) {
    const cons = b.word(1, 0, CONS) & 0x1f;
    b.f.interrupts.length = 0;
    b.makeStale();
    b.command(1, 0, S.sync(), command, S.tlbi(NH_ASID, 0, 7));
    t.is(b.word(1, 0, CONS), ((ILL << 24) | ((cons + 1) & 0x1f)) >>> 0, name);
    t.is((b.word(1, 0, GERROR) ^ b.word(1, 0, GERRORN)) & 1, 1, name);
    t.is(b.host.read32(VINTF(1) + 0xc0), 1, name);
    t.is(b.host.read32(0x14), 1 << 1, name);
    t.is(b.host.read32(0x24), 1 << 2, name);
    t.deepEqual(b.f.interrupts, ['companion'], name);
    t.true(b.cached(0), name);
    for (const [v, lvcmdq] of [
      [1, 1],
      [2, 0],
      [2, 1],
    ] as const) {
      const before = b.word(v, lvcmdq, CONS);
      b.command(v, lvcmdq, S.sync());
      t.is(b.word(v, lvcmdq, CONS), (before + 1) & 0x1f, `${name}: queue ${v}.${lvcmdq} goes on`);
    }
    b.f.command(S.sync());
    t.is(b.f.mmio.read32(0x60), 0, `${name}: no error of the SMMU`);
    // The guest mends its command and acknowledges.
    const base = Number(b.host.read64(PAGE1(1, 0)) & ~0x1fn);
    const slot = base + ((cons + 1) & 15) * 16;
    b.f.writeWords(slot, S.sync());
    b.poke(1, 0, GERRORN, b.word(1, 0, GERROR));
    b.f.run();
    t.is(b.word(1, 0, CONS), (cons + 3) & 0x1f, name);
    t.is(b.host.read32(VINTF(1) + 0xc0), 0, name);
    t.is(b.host.read32(0x14), 0, name);
    t.is(b.host.read32(0x24), 0, name);
    t.false(b.cached(0), name);
    b.f.command(S.tlbi(NSNH_ALL), S.sync());
  }
});

test('vcmdq: a VINTF of the hypervisor takes every command, with its own VMIDs and StreamIDs', (t) => {
  const b = new Bench();
  b.host.write32(VINTF(1), (1 << 17) | (1 << 1) | 1);
  b.enable(1);
  b.makeStale();
  b.command(1, 0, S.tlbi(NH_ASID, 2, 7), S.sync());
  t.true(b.cached(0));
  t.false(b.cached(1));
  b.command(1, 0, S.tlbi(NSNH_ALL), S.cfgiSte(3), S.sync());
  t.is(b.word(1, 0, CONS), 5);
  t.false(b.cached(0));
});

test('vcmdq: ATC_INV goes to the device behind the virtual StreamID, and an unknown one stops the queue', (t) => {
  const b = new Bench({ ats: true });
  b.enable(1);
  const hung = (i: number, value: number) =>
    b.f.memory.words.store(b.f.ports[i]! + PortLayout.at.atcHung, value);
  // A device that hangs shows which one was meant: the SYNC waits for it.
  hung(0, 1);
  b.command(1, 0, S.atcInv(0x13, 0n, 52), S.sync());
  t.is(b.word(1, 0, CONS), 1);
  b.f.command(S.sync());
  t.is(b.f.mmio.read32(0x9c), 1, 'the SMMU’s own queue does not wait for it');
  hung(0, 0);
  b.f.run();
  t.is(b.word(1, 0, CONS), 2);
  hung(1, 1);
  b.command(1, 0, S.atcInv(0x13, 0n, 52), S.sync());
  t.is(b.word(1, 0, CONS), 4, 'device 1 was not meant');
  for (const vsid of [3, 0x14, 0]) {
    b.command(1, 0, S.atcInv(vsid, 0n, 52));
    t.is(b.word(1, 0, CONS) >>> 24, ILL, `vSID ${vsid}`);
    const base = Number(b.host.read64(PAGE1(1, 0)) & ~0x1fn);
    b.f.writeWords(base + (b.word(1, 0, CONS) & 15) * 16, S.sync());
    b.poke(1, 0, GERRORN, b.word(1, 0, GERROR));
    b.f.run();
  }
  b.host.write32(VINTF(1) + 0x40, 0);
  b.command(1, 0, S.atcInv(0x13, 0n, 52));
  t.is(b.word(1, 0, CONS) >>> 24, ILL, 'a slot that was cleared');
});

test('vcmdq: a device that never completes is reported to the queue that asked', (t) => {
  const b = new Bench({ ats: true, config: { atcTimeoutNs: 0 } });
  b.enable(1);
  b.enable(2);
  b.f.memory.words.store(b.f.ports[0]! + PortLayout.at.atcHung, 1);
  b.command(1, 0, S.atcInv(0x13, 0n, 52), S.sync());
  t.is(b.word(1, 0, CONS), ((ATC_INV_SYNC << 24) | 1) >>> 0);
  b.command(2, 0, S.sync());
  t.is(b.word(2, 0, CONS), 1);
  b.poke(1, 0, GERRORN, b.word(1, 0, GERROR));
  b.f.run();
  t.is(b.word(1, 0, CONS), 2, 'fetched anew, the SYNC has nothing left to wait for');
});

test('vcmdq: what a disabled queue left to wait for is the next main SYNC’s', (t) => {
  const b = new Bench({ ats: true, config: { atcTimeoutNs: 0 } });
  b.enable(1);
  b.f.memory.words.store(b.f.ports[0]! + PortLayout.at.atcHung, 1);
  b.command(1, 0, S.atcInv(0x13, 0n, 52));
  b.poke(1, 0, CONFIG, 0);
  b.f.run();
  b.f.command(S.sync());
  t.is((b.f.mmio.read32(0x9c) >>> 24) & 0x7f, ATC_INV_SYNC);
});

test('vcmdq: a queue outside RAM is CERROR_ABT; hostile registers hurt nobody', (t) => {
  const b = new Bench();
  b.place(1, 0, 0x10_0000);
  b.enable(1);
  b.enable(2);
  b.command(2, 0, S.sync());
  b.poke(1, 0, PROD, 1);
  b.f.run();
  t.is(b.word(1, 0, CONS), (ABT << 24) >>> 0);
  for (let i = 0; i < 0x80; i += 4) b.poke(1, 0, i, 0xffff_ffff);
  b.f.run();
  for (let i = 0; i < 0x80; i += 4) b.poke(1, 0, i, 0);
  b.f.run();
  // A PROD far away: at most a queue full of commands at a time, each step bounded.
  b.poke(2, 0, PROD, 0xffff_ffff);
  t.true(b.f.model.step());
  b.f.run();
  b.f.command(S.sync());
  t.is(b.f.mmio.read32(0x9c), 1);
});

test('vcmdq: CONS that a guest writes while the queue is enabled is not where the queue goes on', (t) => {
  const b = new Bench();
  b.enable(1);
  b.command(1, 0, S.sync());
  b.poke(1, 0, CONS, 9);
  b.command(1, 0, S.sync());
  t.is(b.word(1, 0, CONS), 2);
  b.poke(1, 0, CONFIG, 0);
  b.f.run();
  b.poke(1, 0, CONS, 5);
  b.poke(1, 0, PROD, 5);
  b.enable(1);
  t.is(b.word(1, 0, CONS), 5, 'disabled, it is the guest’s');
});

test('vcmdq: what a guest writes to what is read-only is not what the host is told, nor the next guest', (t) => {
  const b = new Bench();
  b.enable(1);
  b.command(1, 0, S.tlbi(NSNH_ALL));
  b.poke(1, 0, STATUS, 0);
  b.poke(1, 0, GERROR, 0);
  t.is(b.host.read32(PAGE0(1, 0) + STATUS), 1);
  t.is(b.host.read32(PAGE0(1, 0) + GERROR), 1);
  b.f.run();
  t.is(b.word(1, 0, STATUS), 1);
  t.is(b.word(1, 0, GERROR), 1);
  b.host.write32(ALLOC(2), 1 << 15);
  b.f.run();
  b.poke(1, 0, CONFIG, 1);
  b.poke(1, 0, PROD, 9);
  b.poke(1, 1, 0x7c, 9);
  const beyond = b.f.cmdqv!.regions.pages + 0x1_0000 + 0xfffc;
  b.f.memory.words.store(beyond, 9);
  b.host.write32(ALLOC(2), (1 << 15) | 1);
  for (const register of [CONFIG, PROD, CONS, GERRORN]) t.is(b.word(1, 0, register), 0);
  b.host.write32(ALLOC(2), 1 << 15);
  b.host.write32(ALLOC(3), 1 << 15);
  b.host.write32(VINTF(1), 0);
  b.f.run();
  b.host.write32(VINTF(1), 1);
  t.is(b.word(1, 1, 0x7c), 0);
  t.is(b.f.memory.words.load(beyond), 0);
});

test('vcmdq: wraps', (t) => {
  const b = new Bench();
  b.enable(1);
  for (let i = 1; i <= 40; i++) {
    b.command(1, 0, S.tlbi(NH_ASID, 0, 7), S.sync());
    t.is(b.word(1, 0, CONS), (2 * i) & 0x1f);
  }
});

test('vcmdq: none keeps the others waiting: a full queue is served in turns', (t) => {
  const b = new Bench({ cmdqLog2: 9 });
  b.enable(2);
  b.f.push(...Array.from({ length: 500 }, () => S.tlbi(NH_ASID, 1, 7)));
  b.push(2, 0, S.tlbi(NH_ASID, 0, 7), S.sync());
  b.f.model.step();
  t.is(b.word(2, 0, CONS), 2, 'in the first step');
  t.true(b.f.mmio.read32(0x9c) < 500);
});

test('vcmdq: a queue outside the RAM is read where something answers, and aborts where nothing does', (t) => {
  const b = new Bench();
  const base = 2 ** 40;
  const bytes = new Uint8Array(256);
  const words = new DataView(bytes.buffer);
  b.f.memory.external = {
    includes: (pa) => pa >= base,
    read: (pa, into) => {
      if (pa + into.byteLength > base + 32) return false;
      into.set(bytes.subarray(pa - base, pa - base + into.byteLength));
      return true;
    },
    write: () => false,
  };
  b.place(1, 0, base);
  b.enable(1);
  b.makeStale();
  [S.tlbi(NH_ASID, 0, 7), S.sync(), S.sync()].forEach(([low, high], i) => {
    words.setBigUint64(16 * i, low, true);
    words.setBigUint64(16 * i + 8, high, true);
  });
  b.poke(1, 0, PROD, 2);
  b.f.run();
  t.is(b.word(1, 0, CONS), 2);
  t.false(b.cached(0));
  b.poke(1, 0, PROD, 3);
  b.f.run();
  t.is(b.word(1, 0, CONS) & 0xfffff, 2);
  t.is((b.word(1, 0, CONS) >>> 24) & 0x7f, ABT);
});
