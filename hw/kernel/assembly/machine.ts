import * as env from './env';

/**
 * The machine as the compiled code sees it: where RAM is, and the schedule point. State here is per instance
 * (per thread) and constant after machineInit.
 */
export let ramLinear: u32 = 0;
export let ramBase: u64 = 0;
/** Highest offset at which eight bytes of RAM begin. */
export let ramLastWord: u64 = 0;

/** @param ramBytes at least 8 */
export function machineInit(linear: u32, ramBasePa: f64, ramBytes: f64): void {
  ramLinear = linear;
  ramBase = u64(ramBasePa);
  ramLastWord = u64(ramBytes) - 8;
}

// What an access is, as hw/sync/words.ts numbers it.
export const OP_LOAD: i32 = 0;
export const OP_STORE: i32 = 1;
export const OP_RMW: i32 = 2;
export const OP_NOTIFY: i32 = 4;

/**
 * Before a shared access: where the explore variant lets another thread run. Compiles to nothing in the normal one.
 * A block of words that a protocol word guards has one point, and so has a sweep over what only the sweeping thread
 * may change otherwise; what a thread reads and it alone writes has none, for nobody's access conflicts with that.
 * @param at  offset in linear memory of what is accessed
 */
export function schedulePoint(op: i32, at: usize): void {
  if (isDefined(EXPLORE)) env.schedulePoint(op, at);
}

/**
 * The same before the owner of a page table looks at one of many entries. Hardware writes to valid ones only, so
 * the others are no point.
 */
export function schedulePointIfValid(slot: usize): void {
  if (isDefined(EXPLORE)) if ((load<u64>(slot) & 1) != 0) env.schedulePoint(OP_LOAD, slot);
}

/** Wakes every thread that sleeps on a word. The explore variant's host does it where threads sleep. */
export function notifyAll(word: usize): void {
  if (isDefined(EXPLORE)) env.schedulePoint(OP_NOTIFY, word);
  else atomic.notify(word, -1);
}

/**
 * Orders all stores before it against everything after it, through a word of the caller's. (atomic.fence of
 * this compiler release emits a module that its own validator refuses.)
 */
export function fence(word: usize): void {
  if (isDefined(EXPLORE)) schedulePoint(OP_RMW, word);
  atomic.add<u32>(word, 0);
}

/** Bytes of a word of external memory, with its address: pa, value. */
const EXTERNAL_BYTES: usize = 16;
let externalAt: usize = 0;
let externalEnd: usize = 0;

/** What the next walks find outside RAM: `count` words at `at`; see hw/smmuv3/external-walks.ts. */
export function externalWords(at: usize, count: u32): void {
  externalAt = at;
  externalEnd = at + <usize>count * EXTERNAL_BYTES;
}

/** Whether what ramWord() found is a copy: hardware cannot update it. */
export function isExternal(word: usize): bool {
  return (word >= externalAt) & (word < externalEnd);
}

function externalWord(pa: u64): usize {
  for (let at = externalAt; at < externalEnd; at += EXTERNAL_BYTES) if (load<u64>(at) == pa) return at + 8;
  return 0;
}

/**
 * Linear offset of the 64-bit word at a physical address, or 0 when it is not RAM, nor external memory that was
 * fetched: whoever asks then has an external abort. `pa` is a multiple of 8.
 */
export function ramWord(pa: u64): usize {
  const offset = pa - ramBase;
  return offset <= ramLastWord ? <usize>(ramLinear + u32(offset)) : externalWord(pa);
}
