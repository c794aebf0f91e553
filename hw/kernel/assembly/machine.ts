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

/** Between two shared accesses: where the explore variant will let another thread run. Compiles to nothing. */
export function schedulePoint(): void {}

/**
 * Orders all stores before it against everything after it, through a word of the caller's. (atomic.fence of
 * this compiler release emits a module that its own validator refuses.)
 */
export function fence(word: usize): void {
  atomic.add<u32>(word, 0);
}

/**
 * Linear offset of the 64-bit word at a physical address, or 0 when it is not RAM: whoever asks then has an
 * external abort. `pa` is a multiple of 8.
 */
export function ramWord(pa: u64): usize {
  const offset = pa - ramBase;
  return offset <= ramLastWord ? <usize>(ramLinear + u32(offset)) : 0;
}
