/** A schedule hook that notes what this thread stores, and its barriers, as it does them. */
import { type ScheduleHook, setScheduleHook } from '../../hw/sync/words.js';

export type Stored = { readonly offset: number; readonly value: bigint } | 'barrier';

/**
 * Runs `work` under the hook. 64-bit stores in [start, end) and barriers are noted; the stores are made as always.
 * @param see  called after each is noted, with the hook still in place
 */
export function recordStores(
  [start, end]: readonly [number, number],
  work: () => void,
  see: (stored: Stored) => void = () => undefined,
): Stored[] {
  const found: Stored[] = [];
  const note = (stored: Stored): void => {
    found.push(stored);
    see(stored);
  };
  const hook: ScheduleHook = {
    point: () => undefined,
    storing: (offset, bytes, low, high) => {
      if (bytes === 8 && offset >= start && offset < end)
        note({ offset, value: (BigInt.asUintN(32, BigInt(high)) << 32n) | BigInt.asUintN(32, BigInt(low)) });
      return false;
    },
    forward32: () => undefined,
    forward64: () => undefined,
    wait: () => null,
    notify: () => null,
    dmaWmb: () => note('barrier'),
  };
  setScheduleHook(hook);
  try {
    work();
  } finally {
    setScheduleHook(null);
  }
  return found;
}
