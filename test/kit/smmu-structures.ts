/**
 * Stream table entries, context descriptors, commands and leaves as raw words, bit numbers restated from
 * [IHI0070] 4 and 5.2, 5.4 and [DDI0487] D8.3. Fields that a test wants broken are overridden by OR-ing.
 */

const field = (value: number | bigint, low: number): bigint => BigInt(value) << BigInt(low);

export const STE_ABORT: readonly bigint[] = [1n, 0n, 0n, 0n];
/** Config 0b100; SHCFG incoming. */
export const STE_BYPASS: readonly bigint[] = [1n | (0b100n << 1n), 1n << 44n, 0n, 0n];

export const steS1 = (cd: number, vmid = 0): bigint[] => [
  1n | (0b101n << 1n) | BigInt(cd),
  0n,
  field(vmid, 0),
  0n,
];

export interface Stage2 {
  readonly root: number;
  readonly vmid: number;
  /** Default 39 input bits from level 1. */
  readonly t0sz?: number;
  readonly sl0?: number;
  /** 0b101: 48 bits. */
  readonly ps?: number;
  /** S2R. */
  readonly record?: boolean;
}

const stage2Words = (s2: Stage2): [bigint, bigint] => [
  field(s2.vmid, 0) |
    field(s2.t0sz ?? 25, 32) |
    field(s2.sl0 ?? 1, 38) |
    field(s2.ps ?? 5, 48) |
    (1n << 51n) | // S2AA64
    (1n << 54n) | // S2PTW
    field((s2.record ?? true) ? 1 : 0, 58),
  BigInt(s2.root),
];

export const steS2 = (s2: Stage2): bigint[] => [1n | (0b110n << 1n), 0n, ...stage2Words(s2)];

export const steNested = (cdIpa: number, s2: Stage2): bigint[] => [
  1n | (0b111n << 1n) | BigInt(cdIpa),
  0n,
  ...stage2Words(s2),
];

export interface Stage1 {
  readonly root: number;
  readonly asid: number;
  /** Default 39 input bits from level 1. */
  readonly t0sz?: number;
  readonly ips?: number;
  readonly record?: boolean;
}

/** V, AA64, A, EPD1; R by default. */
export const cd = (s1: Stage1): bigint[] => [
  field(s1.t0sz ?? 25, 0) |
    (1n << 30n) |
    (1n << 31n) |
    field(s1.ips ?? 5, 32) |
    (1n << 41n) |
    field((s1.record ?? true) ? 1 : 0, 45) |
    (1n << 46n) |
    field(s1.asid, 48),
  BigInt(s1.root),
  0n,
  0n,
  0n,
  0n,
  0n,
  0n,
];

/** Stage 2, MemAttr: what is not this is Device memory, where S2PTW allows no table. */
const S2_NORMAL = 0xfn << 2n;
/** Leaves: stage 1 AP[1] unprivileged, nG, AF; stage 2 S2AP read and write, AF. */
export const S1_PAGE = 0x3n | (1n << 6n) | (1n << 10n) | (1n << 11n);
export const S1_PAGE_GLOBAL = S1_PAGE & ~(1n << 11n);
export const S1_PAGE_RO = S1_PAGE | (1n << 7n);
export const S1_BLOCK = S1_PAGE & ~2n;
export const S2_PAGE = 0x3n | S2_NORMAL | (3n << 6n) | (1n << 10n);
export const S2_PAGE_RO = 0x3n | S2_NORMAL | (1n << 6n) | (1n << 10n);
export const S2_BLOCK = S2_PAGE & ~2n;

export type Command = readonly [bigint, bigint];

export const cfgiSte = (sid: number): Command => [0x03n | field(sid, 32), 1n];
export const cfgiRange = (sid: number, range: number): Command => [0x04n | field(sid, 32), BigInt(range)];
export const CFGI_ALL: Command = cfgiRange(0, 31);
export const cfgiCd = (sid: number, ssid = 0): Command => [0x05n | field(ssid, 12) | field(sid, 32), 1n];
export const cfgiCdAll = (sid: number): Command => [0x06n | field(sid, 32), 0n];
export const tlbi = (op: number, vmid = 0, asid = 0): Command => [
  BigInt(op) | field(vmid, 32) | field(asid, 48),
  0n,
];
export const tlbiVa = (op: number, vmid: number, asid: number, va: bigint): Command => [
  BigInt(op) | field(vmid, 32) | field(asid, 48),
  (va & ~0xfffn) | 1n,
];
/** (num + 1) << scale granules; tg 1 is 4 KiB. */
export const tlbiRange = (
  op: number,
  vmid: number,
  asid: number,
  va: bigint,
  num: number,
  scale: number,
  tg = 1,
  ttl = 0,
): Command => [
  BigInt(op) | field(num, 12) | field(scale, 20) | field(vmid, 32) | field(asid, 48),
  (va & ~0xfffn) | field(ttl, 8) | field(tg, 10) | 1n,
];
export const sync = (cs = 0, address = 0, data = 0): Command => [
  0x46n | field(cs, 12) | field(data, 32),
  BigInt(address),
];
/** Ac in bit 12, Ab in bit 13. */
export const resume = (sid: number, stag: number, action: 'retry' | 'abort' | 'raz-wi'): Command => [
  0x44n | field(action === 'retry' ? 1 : action === 'abort' ? 2 : 0, 12) | field(sid, 32),
  BigInt(stag),
];
export const stallTerm = (sid: number): Command => [0x45n | field(sid, 32), 0n];
/** size: log2 of 4 KiB pages. */
export const atcInv = (sid: number, va: bigint, size: number, ssid = -1, global = false): Command => [
  0x40n | field(sid, 32) | (ssid < 0 ? 0n : (1n << 11n) | field(ssid, 12)) | (global ? 1n << 9n : 0n),
  (va & ~0xfffn) | BigInt(size),
];
export const priResp = (sid: number, group: number, response: number, ssid = -1): Command => [
  0x41n | field(sid, 32) | (ssid < 0 ? 0n : (1n << 11n) | field(ssid, 12)),
  BigInt(group) | field(response, 12),
];
