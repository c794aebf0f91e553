/** A schedule hook that only looks: sleeping, waking and stores are left as they are. */
import { OP_NOTIFY, OP_WAIT, type ScheduleHook, setScheduleHook, type WordOp } from '../../hw/sync/words.js';

export const OP_NAMES = ['load', 'store', 'rmw', 'wait', 'notify'] as const;
export type OpName = (typeof OP_NAMES)[number];

/** Calls `see` before each shared access of this thread; null ends that. */
export function watchAccesses(see: ((op: OpName, offset: number) => void) | null): void {
  setScheduleHook(see === null ? null : watching(see));
}

function watching(see: (op: OpName, offset: number) => void): ScheduleHook {
  const point = (op: WordOp, offset: number): void => see(OP_NAMES[op], offset);
  return {
    point,
    storing: () => false,
    forward32: () => undefined,
    forward64: () => undefined,
    wait: (offset) => {
      point(OP_WAIT, offset);
      return null;
    },
    notify: (offset) => {
      point(OP_NOTIFY, offset);
      return null;
    },
    dmaWmb: () => undefined,
  };
}
