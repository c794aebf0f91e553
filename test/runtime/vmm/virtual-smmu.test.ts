import test from 'ava';
import type { VirtualSmmu } from '../../../runtime/vmm/virtual-smmu.js';
import type { VmOptions } from '../../../runtime/vmm/vm.js';
import { FAKE_IDR, type FakeOptions } from '../../kit/vmm-fake-iommufd.js';
import { VmmFixture } from '../../kit/vmm-fixture.js';

const CR0 = 0x20;
const GBPA = 0x44;
const GERROR = 0x60;
const GERRORN = 0x64;
const STRTAB_BASE = 0x80;
const STRTAB_BASE_CFG = 0x88;
const CMDQ_BASE = 0x90;
const CMDQ_PROD = 0x98;
const CMDQ_CONS = 0x9c;
const EVENTQ_BASE = 0xa0;
const EVENTQ_PROD = 0x100a8;
const EVENTQ_CONS = 0x100ac;

const CMDQEN = 8;
const EVENTQEN = 4;
const SMMUEN = 1;
const CMDQ_ERR = 1;
const EVENTQ_ABT_ERR = 4;
const SFM_ERR = 0x100;

const CFGI_STE = 0x03n;
const CFGI_RANGE = 0x04n;
const CFGI_CD = 0x05n;
const TLBI_NH_VA = 0x12n;
const SYNC = 0x46n;

const CMDQ = 0x4010_0000;
const EVTQ = 0x4020_0000;
const STRTAB = 0x4030_0000;
const LOG2 = 4;

const BYPASS_STE = [0b1001n, 0n];
const ABORT_STE = [0b0001n, 0n];
const s1Ste = (cd: number): bigint => 0b1011n | BigInt(cd);

/** Registers programmed by hand: queues of 16 entries, a linear stream table of 64. */
class Guest extends VmmFixture {
  readonly smmu: VirtualSmmu;
  #prod = 0;

  constructor(fake: FakeOptions, options: VmOptions = {}) {
    super(fake, options);
    fake.deviceSmmus.forEach((_, device) => void this.vm.attachDevice(device, 8 + device));
    this.smmu = this.vm.smmus[0]!;
    this.smmu.write64(CMDQ_BASE, BigInt(CMDQ | LOG2));
    this.smmu.write64(EVENTQ_BASE, BigInt(EVTQ | LOG2));
    this.smmu.write64(STRTAB_BASE, BigInt(STRTAB));
    this.smmu.write32(STRTAB_BASE_CFG, 6);
    this.smmu.write32(CR0, CMDQEN | EVENTQEN);
  }

  enable(): void {
    this.smmu.write32(CR0, CMDQEN | EVENTQEN | SMMUEN);
  }

  setSte(sid: number, word0: bigint, word1 = 0n): void {
    this.ram.store64(STRTAB + sid * 64, word0);
    this.ram.store64(STRTAB + sid * 64 + 8, word1);
  }

  /** Writes commands to the queue, then PROD. */
  send(...commands: readonly (readonly [bigint, bigint])[]): void {
    for (const [low, high] of commands) {
      this.ram.store64(CMDQ + (this.#prod % 16) * 16, low);
      this.ram.store64(CMDQ + (this.#prod % 16) * 16 + 8, high);
      this.#prod = (this.#prod + 1) % 32;
    }
    this.smmu.write32(CMDQ_PROD, this.#prod);
  }

  get consIndex(): number {
    return this.smmu.read32(CMDQ_CONS) & 0x1f;
  }

  get consError(): number {
    return (this.smmu.read32(CMDQ_CONS) >>> 24) & 0x7f;
  }

  get errors(): number {
    return this.smmu.read32(GERROR) ^ this.smmu.read32(GERRORN);
  }

  event(fd: number, id: number, sid: number): void {
    const record = new Uint8Array(40);
    new DataView(record.buffer).setUint32(8, id, true);
    new DataView(record.buffer).setUint32(12, sid, true);
    this.fake.unread.get(fd)!.push(record);
  }

  lost(fd: number): void {
    this.fake.unread.get(fd)!.push(Uint8Array.of(1, 0, 0, 0, 9, 0, 0, 0));
  }
}

const sid = (n: number): bigint => BigInt(n) << 32n;

test('ID registers: what all SMMUs have and a guest may see', (t) => {
  const { smmu } = new Guest({ deviceSmmus: [0] });
  const idr0 = smmu.read32(0);
  t.is(idr0 & 1, 0, 'no stage 2');
  t.is((idr0 >>> 1) & 1, 1, 'stage 1');
  t.is((idr0 >>> 2) & 3, 2, 'AArch64');
  t.is((idr0 >>> 12) & 1, 1, 'ASID16');
  t.is((idr0 >>> 18) & 1, 0, 'no VMID16');
  t.is((idr0 >>> 13) & 1, 0, 'no MSI');
  t.is((idr0 >>> 24) & 3, 1, 'no stalls');
  t.is(smmu.read32(4) & 0x3f, 16);
  t.is((smmu.read32(4) >>> 21) & 0x1f, 10);
  t.is((smmu.read32(0xc) >>> 10) & 1, 1, 'RIL');
  t.is(smmu.read32(0x14) & 7, 5);
  t.is(smmu.read32(0x18), 0);
});

test('a device: before the guest looks, its SMMU may lower the offer; afterwards it must keep it', (t) => {
  const weak = new VmmFixture({ deviceSmmus: [0, 0] });
  weak.vm.attachDevice(0, 1);
  const [smmu] = weak.vm.smmus;
  const features = { ...EVERYTHING, rangeInvalidate: 0, oas: 3 };
  t.is(smmu!.admit(features, { iidr: 0, aidr: 0 }), 0);
  t.is(smmu!.read32(0xc), 0);
  t.is(smmu!.read32(0x14) & 7, 3);
  t.is(smmu!.admit({ ...features, oas: 2 }, { iidr: 0, aidr: 0 }), -22);
  t.is(smmu!.admit(EVERYTHING, { iidr: 0, aidr: 0 }), 0);
});

const EVERYTHING = {
  s1p: 1,
  aarch64: 1,
  coherent: 1,
  asid16: 1,
  ats: 1,
  cd2l: 1,
  sev: 1,
  twoLevelStreamTable: 1,
  sidBits: 32,
  ssidBits: 20,
  cmdqsLg2: 19,
  eventqsLg2: 19,
  rangeInvalidate: 1,
  oas: 6,
  gran4k: 1,
  gran16k: 1,
  gran64k: 1,
};

test('CR0: acknowledged at once; bases do not change while in use', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  guest.enable();
  t.is(guest.smmu.read32(0x24), 0xd);
  guest.smmu.write64(CMDQ_BASE, 0n);
  guest.smmu.write64(EVENTQ_BASE, 0n);
  guest.smmu.write64(STRTAB_BASE, 0n);
  guest.smmu.write32(STRTAB_BASE_CFG, 0);
  guest.smmu.write32(CMDQ_CONS, 5);
  t.is(guest.smmu.read64(CMDQ_BASE), BigInt(CMDQ | LOG2));
  t.is(guest.smmu.read64(EVENTQ_BASE), BigInt(EVTQ | LOG2));
  t.is(guest.smmu.read64(STRTAB_BASE), BigInt(STRTAB));
  t.is(guest.smmu.read32(STRTAB_BASE_CFG), 6);
  t.is(guest.smmu.read32(CMDQ_CONS), 0);
});

test('SMMUEN and GBPA: bypass, then abort; without Update a GBPA write is ignored', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  const { smmu, fake } = guest;
  smmu.write32(GBPA, 1 << 20);
  t.deepEqual(fake.tableOf(0)!.data, BYPASS_STE);
  smmu.write32(GBPA, ((1 << 20) | (1 << 31)) >>> 0);
  t.is(smmu.read32(GBPA), 1 << 20);
  t.deepEqual(fake.tableOf(0)!.data, ABORT_STE);
  guest.setSte(8, 0b1001n);
  guest.enable();
  t.deepEqual(fake.tableOf(0)!.data, BYPASS_STE);
  smmu.write32(CR0, CMDQEN);
  t.deepEqual(fake.tableOf(0)!.data, ABORT_STE);
});

test('CFGI_STE: the new table is attached, the old one destroyed', (t) => {
  const guest = new Guest({ deviceSmmus: [0, 0] });
  guest.enable();
  t.deepEqual(guest.fake.tableOf(0)!.data, ABORT_STE);
  const nested = guest.fake.count('nested');
  guest.setSte(8, s1Ste(0x4040_0000), 0xff00_0000_0000_0c3fn);
  guest.setSte(9, s1Ste(0x4050_0000));
  guest.send([CFGI_STE | sid(8), 1n], [SYNC, 0n]);
  // Only the bits a guest may set arrive.
  t.deepEqual(guest.fake.tableOf(0)!.data, [s1Ste(0x4040_0000), 0x3fn]);
  t.deepEqual(guest.fake.tableOf(1)!.data, ABORT_STE, 'stream 9 was not invalidated');
  t.is(guest.fake.count('nested'), nested + 1);
  const before = guest.fake.tableOf(0)!.id;
  guest.setSte(8, s1Ste(0x4048_0000));
  guest.send([CFGI_STE | sid(8), 1n], [SYNC, 0n]);
  t.not(guest.fake.tableOf(0)!.id, before);
  t.false(guest.fake.objects.has(before));
  guest.setSte(8, 0n);
  guest.send([CFGI_STE | sid(8), 1n], [SYNC, 0n]);
  t.deepEqual(guest.fake.tableOf(0)!.data, ABORT_STE);
  t.is(guest.fake.count('nested'), nested);
});

test('CFGI_STE: EATS reaches the kernel only where ATS is offered', (t) => {
  const EATS = 1n << 28n;
  const withAts = [FAKE_IDR[0]! | (1 << 10), ...FAKE_IDR.slice(1)];
  for (const [idr, ats, wanted] of [
    [withAts, true, EATS],
    [withAts, false, 0n],
    [FAKE_IDR, true, 0n],
  ] as const) {
    const guest = new Guest({ deviceSmmus: [0], idr }, { ats });
    guest.enable();
    guest.setSte(8, s1Ste(0x4040_0000), EATS);
    guest.send([CFGI_STE | sid(8), 1n], [SYNC, 0n]);
    t.deepEqual(guest.fake.tableOf(0)!.data, [s1Ste(0x4040_0000), wanted]);
    guest.send([0x40n | sid(8), 52n], [SYNC, 0n]);
    t.is(guest.consError, idr === withAts && ats ? 0 : 1, 'ATC_INV');
  }
});

test('CFGI_STE: of an unchanged STE keeps the table and still drops its CDs', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  guest.setSte(8, s1Ste(0x4040_0000));
  guest.enable();
  const { id } = guest.fake.tableOf(0)!;
  guest.send([CFGI_STE | sid(8), 1n], [SYNC, 0n]);
  t.is(guest.fake.tableOf(0)!.id, id);
  t.deepEqual(
    guest.fake.issued.map(({ command }) => command[0]),
    [0x06n | sid(8)],
  );
});

test('CFGI_STE_RANGE and CFGI_ALL: every stream of the aligned range', (t) => {
  const guest = new Guest({ deviceSmmus: [0, 0, 0, 0, 0] });
  guest.enable();
  const bypassed = (): boolean[] => [0, 1, 2, 3, 4].map((d) => guest.fake.tableOf(d)!.data[0] === 0b1001n);
  for (let n = 8; n < 13; n++) guest.setSte(n, 0b1001n);
  // Streams 8..11: range 1 covers four, whatever the low bits of the ID.
  guest.send([CFGI_RANGE | sid(10), 1n]);
  t.deepEqual(bypassed(), [true, true, true, true, false]);
  guest.send([CFGI_RANGE | sid(0), 31n]);
  t.deepEqual(bypassed(), [true, true, true, true, true]);
});

test('CFGI_STE: an STE the kernel refuses aborts the stream, the queue goes on', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  guest.setSte(8, 0b1001n);
  guest.enable();
  guest.setSte(8, 0b1111n);
  guest.send([CFGI_STE | sid(8), 1n], [SYNC, 0n]);
  t.deepEqual(guest.fake.tableOf(0)!.data, ABORT_STE);
  t.is(guest.consIndex, 2);
  t.is(guest.errors, 0);
  t.is(guest.smmu.refusedStes, 1);
});

test('commands: unknown StreamIDs are ignored', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  guest.enable();
  guest.send([CFGI_STE | sid(99), 1n], [CFGI_CD | sid(99), 1n], [SYNC, 0n]);
  t.is(guest.consIndex, 3);
  t.is(guest.errors, 0);
  t.is(guest.fake.issued.length, 0);
});

test('dispatch: with one virtual SMMU a TLBI goes to every vIOMMU, CFGI_CD to the owner', (t) => {
  const guest = new Guest({ deviceSmmus: [0, 1, 2] });
  guest.enable();
  guest.send([TLBI_NH_VA | (5n << 48n), 0x1000n], [CFGI_CD | sid(9), 1n], [SYNC, 0n]);
  const [a, b, c] = guest.vm.viommus.map(({ id }) => guest.takeOpcodes(id));
  t.deepEqual(a, [0x12]);
  t.deepEqual(b, [0x12, 0x05]);
  t.deepEqual(c, [0x12]);
});

test('dispatch: with one per SMMU each sees its own commands only', (t) => {
  const guest = new Guest({ deviceSmmus: [0, 1, 2] }, { vsmmu: 'per-psmmu' });
  t.is(guest.vm.smmus.length, 3);
  guest.enable();
  guest.send([TLBI_NH_VA, 0x1000n], [SYNC, 0n]);
  t.deepEqual(
    guest.vm.viommus.map(({ id }) => guest.takeOpcodes(id)),
    [[0x12], [], []],
  );
});

test('commands: more than a batch holds are all issued, in order', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  guest.smmu.write32(CR0, 0);
  guest.smmu.write64(CMDQ_BASE, BigInt(CMDQ | 8));
  guest.smmu.write32(CR0, CMDQEN);
  for (let i = 0; i < 200; i++) {
    guest.ram.store64(CMDQ + i * 16, TLBI_NH_VA);
    guest.ram.store64(CMDQ + i * 16 + 8, BigInt(i) << 12n);
  }
  guest.smmu.write32(CMDQ_PROD, 200);
  t.is(guest.smmu.read32(CMDQ_CONS), 200);
  t.deepEqual(
    guest.fake.issued.map(({ command }) => Number(command[1] >> 12n)),
    Array.from({ length: 200 }, (_, i) => i),
  );
});

test('an illegal command: CERROR_ILL at it, earlier ones issued, and on after the acknowledge', (t) => {
  for (const illegal of [
    0xffn,
    0x28n,
    0x2an,
    0x20n,
    0x40n,
    0x41n,
    0x44n,
    TLBI_NH_VA | (1n << 10n),
    SYNC | 0x3000n,
  ]) {
    const guest = new Guest({ deviceSmmus: [0] });
    guest.send([TLBI_NH_VA, 0x1000n], [illegal, 0n], [TLBI_NH_VA, 0x2000n], [SYNC, 0n]);
    t.is(guest.consIndex, 1, `0x${illegal.toString(16)}`);
    t.is(guest.consError, 1);
    t.is(guest.errors, CMDQ_ERR);
    t.is(guest.fake.issued.length, 1);
    // Stopped: more commands change nothing.
    guest.send([SYNC, 0n]);
    t.is(guest.consIndex, 1);
    guest.ram.store64(CMDQ + 16, SYNC);
    guest.smmu.write32(GERRORN, guest.smmu.read32(GERROR));
    t.is(guest.errors, 0);
    t.is(guest.consIndex, 5);
    t.is(guest.consError, 0);
    t.is(guest.fake.issued.length, 2);
  }
});

test('a command the kernel refuses: CONS stops at it, entry_num says which', (t) => {
  const guest = new Guest({ deviceSmmus: [0, 1] });
  guest.fake.failInvalidate = { after: 2, errno: 5 };
  guest.send([TLBI_NH_VA, 0x1000n], [TLBI_NH_VA, 0x2000n], [TLBI_NH_VA, 0x3000n], [SYNC, 0n]);
  t.is(guest.consIndex, 2);
  t.is(guest.consError, 1);
  t.is(guest.errors, CMDQ_ERR);
});

test('a physical SMMU that no longer answers: service failure, the queue stays where it is', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  guest.fake.failInvalidate = { after: 0, errno: 110 };
  guest.send([TLBI_NH_VA, 0x1000n], [SYNC, 0n]);
  t.is(guest.consIndex, 0);
  t.is(guest.errors, SFM_ERR);
});

test('a command queue outside guest RAM: CERROR_ABT', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  guest.smmu.write32(CR0, 0);
  guest.smmu.write64(CMDQ_BASE, 0x10_0000_0004n);
  guest.smmu.write32(CR0, CMDQEN);
  guest.send([SYNC, 0n]);
  t.is(guest.consError, 2);
  t.is(guest.errors, CMDQ_ERR);
});

test('without RIL the range fields of a TLBI are ignored', (t) => {
  const guest = new Guest({ deviceSmmus: [0], idr: [0x0920_1017, 0x014a_0010, 0, 0, 0, 0x15] });
  guest.send([TLBI_NH_VA | (7n << 12n) | (3n << 20n), 0x5401n | (3n << 8n) | (1n << 10n)], [SYNC, 0n]);
  t.deepEqual(guest.fake.issued[0]!.command, [TLBI_NH_VA, 0x5001n]);
});

test('two-level stream table: found, missing level 2, span too small, reserved span', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  const attach = (l1: bigint): bigint => {
    guest.smmu.write32(CR0, CMDQEN);
    guest.ram.store64(STRTAB, l1);
    guest.enable();
    return guest.fake.tableOf(0)!.data[0]!;
  };
  guest.smmu.write32(STRTAB_BASE_CFG, 16 | (8 << 6) | (1 << 16));
  guest.ram.store64(0x4050_0000 + 8 * 64, 0b1001n);
  t.is(attach(0x4050_0000n | 9n), 0b1001n);
  t.is(attach(0x4050_0000n), 0b0001n);
  t.is(attach(0x4050_0000n | 5n), 0b1001n, '16 STEs hold stream 8');
  t.is(attach(0x4050_0000n | 4n), 0b0001n, '8 STEs do not');
  t.is(attach(0x4050_0000n | 10n), 0b0001n, 'reserved');
  t.is(attach(0xf_ffff_0000_0000n | 9n), 0b0001n, 'outside RAM');
});

test('events: records reach the queue with their StreamID; lost ones toggle OVFLG', (t) => {
  const guest = new Guest({ deviceSmmus: [0, 1] });
  const [a, b] = guest.vm.viommus.map(({ veventqFd }) => veventqFd);
  guest.event(a!, 0x10, 8);
  guest.event(b!, 0x13, 9);
  t.is(guest.vm.pollEvents(), 2);
  t.is(guest.smmu.read32(EVENTQ_PROD), 2);
  t.is(guest.ram.load64(EVTQ), 0x8_0000_0010n);
  t.is(guest.ram.load64(EVTQ + 32), 0x9_0000_0013n);
  guest.lost(a!);
  t.is(guest.vm.pollEvents(), 0);
  t.is(guest.smmu.read32(EVENTQ_PROD), 0x8000_0002);
});

test('events: a full queue loses records, toggles OVFLG once until acknowledged, and takes more when there is room', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  const fd = guest.vm.viommus[0]!.veventqFd;
  for (let i = 0; i < 20; i++) guest.event(fd, 0x10, 8);
  guest.vm.pollEvents();
  t.is(guest.smmu.read32(EVENTQ_PROD), 0x8000_0010);
  guest.event(fd, 0x10, 8);
  guest.vm.pollEvents();
  t.is(guest.smmu.read32(EVENTQ_PROD), 0x8000_0010, 'not toggled back');
  guest.smmu.write32(EVENTQ_CONS, 0x8000_0004);
  guest.event(fd, 0x10, 8);
  guest.vm.pollEvents();
  t.is(guest.smmu.read32(EVENTQ_PROD), 0x8000_0011);
});

test('events: a queue outside guest RAM raises EVENTQ_ABT_ERR; a disabled queue drops', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  const fd = guest.vm.viommus[0]!.veventqFd;
  guest.smmu.write32(CR0, 0);
  guest.smmu.write64(EVENTQ_BASE, 0x10_0000_0004n);
  guest.event(fd, 0x10, 8);
  guest.vm.pollEvents();
  t.is(guest.errors, 0);
  guest.smmu.write32(CR0, EVENTQEN);
  guest.event(fd, 0x10, 8);
  guest.vm.pollEvents();
  t.is(guest.errors, EVENTQ_ABT_ERR);
});

test('interrupts: raised only while enabled', (t) => {
  const guest = new Guest({ deviceSmmus: [0] });
  const seen: string[] = [];
  guest.smmu.onInterrupt = (which) => void seen.push(which);
  const fd = guest.vm.viommus[0]!.veventqFd;
  guest.event(fd, 0x10, 8);
  guest.vm.pollEvents();
  t.deepEqual(seen, []);
  guest.smmu.write32(0x50, 5);
  guest.event(fd, 0x10, 8);
  guest.vm.pollEvents();
  guest.send([0xffn, 0n]);
  t.deepEqual(seen, ['eventq', 'gerror']);
});
