/** From the words of STE and CD to what a device gets: granules, 52 bits, hardware update, permissions. [IHI0070] 5.2, 5.4 */
import test from 'ava';
import { INSTRUCTION, OK, PRIVILEGED, SmmuFixture, WRITE } from '../../kit/smmu-fixture.js';
import * as S from '../../kit/smmu-structures.js';

const F_TRANSLATION = 0x10;
const F_ADDR_SIZE = 0x11;
const F_ACCESS = 0x12;
const F_PERMISSION = 0x13;
const RAZ_WI = 0xfd;
const C_BAD_CD = 0x0a;
const PA = 0x8080_0000n;
const AF = 1n << 10n;
const READ_ONLY = 1n << 7n;
const EL0 = 1n << 6n;
const DBM = 1n << 51n;
const PXN = 1n << 53n;
const UXN = 1n << 54n;
const PAGE = 3n | EL0 | AF;

interface Stream {
  readonly f: SmmuFixture;
  /** Where the leaf of address 0 of the 25-bit table lies. */
  readonly leaf: number;
}

/** 25 input bits: a single table of the granule. ORed into CD words 0 and 1, and STE words 0 and 1. */
function stream(
  leaf: bigint,
  options: { tg?: bigint; cd?: bigint; cd1?: bigint; ste1?: bigint; config?: object; ips?: number } = {},
): Stream {
  const f = new SmmuFixture({ config: { oasBits: 52, ...options.config } });
  const tg = options.tg ?? 1n;
  const root = f.alloc(64 * 1024, 64 * 1024);
  const cd = f.alloc(64);
  const words = S.cd({ root, asid: 7, t0sz: 39, ips: options.ips ?? 6 });
  words[0]! |= (tg << 6n) | (options.cd ?? 0n);
  words[1]! |= options.cd1 ?? 0n;
  f.writeWords(cd, words);
  const ste = S.steS1(cd);
  ste[1]! |= options.ste1 ?? 0n;
  f.setSte(3, ste);
  f.write64(root, leaf);
  f.enable();
  return { f, leaf: root };
}

test('granules: a 16 KiB and a 64 KiB page', (t) => {
  t.like(stream(PA | PAGE, { tg: 2n }).f.dma(0x3ffcn), { status: OK, pa: PA | 0x3ffcn, sizeLg2: 14 });
  const { f } = stream(PA | PAGE, { tg: 1n });
  t.like(f.dma(0xfffcn), { status: OK, pa: PA | 0xfffcn, sizeLg2: 16 });
  t.is(f.dma(0x1_0000n).status, F_TRANSLATION);
  t.is(f.dma(1n << 25n).status, F_TRANSLATION);
});

test('granules: stage 2 with 64 KiB pages from level 3, 16 tables side by side', (t) => {
  const f = new SmmuFixture({ config: { oasBits: 52 } });
  const root = f.alloc(2 * 1024 * 1024, 2 * 1024 * 1024);
  const ste = S.steS2({ root, vmid: 9, t0sz: 31, sl0: 0 });
  ste[2]! |= 1n << 46n;
  f.setSte(3, ste);
  f.write64(root + 0x1_8003 * 8, PA | 3n | (3n << 6n) | AF);
  f.enable();
  t.like(f.dma(0x1_8003_1234n), { status: OK, pa: PA | 0x1234n, sizeLg2: 16 });
});

test('52 bits: a 64 KiB descriptor holds them; the output size bounds them', (t) => {
  const high = PA | PAGE | (0x9n << 12n);
  t.like(stream(high).f.dma(0x1234n), { status: OK, pa: (9n << 48n) | PA | 0x1234n });
  t.is(stream(high, { ips: 5 }).f.dma(0x1234n).status, F_ADDR_SIZE);
  t.is(stream(PA | PAGE).f.dma(0x1234n).status, OK);
});

test('httu: HA sets the Access flag, HD makes a writable-clean page dirty', (t) => {
  const [HD, HA] = [1n << 42n, 1n << 43n] as const;
  const clean = PA | 3n | EL0 | READ_ONLY | DBM;
  t.is(stream(clean).f.dma(0n).status, F_ACCESS);
  const access = stream(clean, { cd: HA });
  t.is(access.f.dma(0n).status, OK);
  t.is(access.f.read64(access.leaf), clean | AF);
  t.is(access.f.dma(0n, WRITE).status, F_PERMISSION);
  const dirty = stream(clean, { cd: HA | HD });
  t.is(dirty.f.dma(0n).status, OK);
  t.is(dirty.f.read64(dirty.leaf), clean | AF);
  t.is(dirty.f.dma(0n, WRITE).status, OK);
  t.is(dirty.f.read64(dirty.leaf), (clean | AF) & ~READ_ONLY);
  t.is(stream(clean, { cd: HD }).f.dma(0n).status, F_ACCESS, 'HD without HA is as neither');
  t.is(stream(clean, { cd: HA | HD, config: { httu: 'access' } }).f.dma(0n).status, C_BAD_CD);
});

test('permissions: PRIVCFG and INSTCFG say what a transaction counts as', (t) => {
  const kernel = PA | 3n | AF;
  const config = (privcfg: bigint, instcfg: bigint): { ste1: bigint } => ({
    ste1: (privcfg << 48n) | (instcfg << 50n),
  });
  for (const [privcfg, unprivileged, privileged] of [
    [0n, F_PERMISSION, OK],
    [1n, F_PERMISSION, OK],
    [2n, F_PERMISSION, F_PERMISSION],
    [3n, OK, OK],
  ] as const) {
    const { f } = stream(kernel, config(privcfg, 0n));
    for (let round = 0; round < 2; round++) {
      t.is(f.dma(0n).status, unprivileged, `PRIVCFG ${privcfg}`);
      t.is(f.dma(0n, PRIVILEGED).status, privileged, `PRIVCFG ${privcfg}, privileged`);
    }
  }
  for (const [instcfg, data, instruction] of [
    [0n, OK, F_PERMISSION],
    [1n, OK, F_PERMISSION],
    [2n, OK, OK],
    [3n, F_PERMISSION, F_PERMISSION],
  ] as const) {
    const { f } = stream(PA | PAGE | UXN, config(0n, instcfg));
    t.is(f.dma(0n).status, data, `INSTCFG ${instcfg}`);
    t.is(f.dma(0n, INSTRUCTION).status, instruction, `INSTCFG ${instcfg}, instruction`);
    t.is(f.dma(0n, WRITE).status, OK, 'a write is data');
  }
});

test('permissions: WXN, PAN, E0PD0', (t) => {
  const [WXN, PAN] = [1n << 36n, 1n << 40n] as const;
  const page = PA | PAGE | PXN;
  t.is(stream(page).f.dma(0n, INSTRUCTION).status, OK);
  t.is(stream(page, { cd: WXN }).f.dma(0n, INSTRUCTION).status, F_PERMISSION);
  t.is(stream(page).f.dma(0n, PRIVILEGED).status, OK);
  t.is(stream(page, { cd: PAN }).f.dma(0n, PRIVILEGED).status, F_PERMISSION);
  t.is(stream(page, { cd1: 1n << 2n }).f.dma(0n).status, F_TRANSLATION, 'E0PD0');
  t.is(stream(page, { cd1: 1n << 2n }).f.dma(0n, PRIVILEGED).status, OK);
});

test('cd: A = 0 completes what faults in stage 1 as RAZ/WI, recorded by R alone', (t) => {
  const [AFFD, R, A] = [1n << 35n, 1n << 45n, 1n << 46n] as const;
  for (const [set, status, recorded] of [
    [A | R, F_TRANSLATION, 1],
    [A, F_TRANSLATION, 0],
    [R, RAZ_WI, 1],
    [0n, RAZ_WI, 0],
    [AFFD, RAZ_WI, 0],
  ] as const) {
    const f = new SmmuFixture();
    const cd = f.alloc(64);
    const words = S.cd({ root: f.alloc(4096), asid: 7 });
    words[0] = (words[0]! & ~(R | A)) | set;
    f.writeWords(cd, words);
    f.setSte(3, S.steS1(cd));
    f.enable();
    t.is(f.dma(0x1000n).status, status);
    t.is(f.events().length, recorded);
  }
});

test('stage 2 alone: beyond the address size it is a stage-1 F_ADDR_SIZE; within it, a stage-2 F_TRANSLATION', (t) => {
  const f = new SmmuFixture({ config: { oasBits: 44 } });
  const ste = S.steS2({ root: f.alloc(4096), vmid: 1, record: false });
  // S2S: what bypasses stage 1 does not stall.
  ste[2]! |= 1n << 57n;
  f.setSte(3, ste);
  f.enable();
  t.is(f.dma(1n << 44n, WRITE).status, F_ADDR_SIZE);
  t.deepEqual(f.rawEvents(), [[0x11n | (3n << 32n), 2n << 40n, 1n << 44n, 0n]]);
  t.is(f.dma((1n << 44n) - 1n).status, 0xfe, 'stalls');
  t.like(f.events()[0], { id: F_TRANSLATION, s2: true, ipa: 2 ** 44 - 4096 });
});
