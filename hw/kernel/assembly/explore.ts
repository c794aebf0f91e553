/** What the explore variant of the module exports: all that the normal one does, its bugs, and the numbers of both. */
import { forgetLikelySize } from './dma';
import { externalWords } from './machine';

export * from './index';
export { OP_LOAD, OP_NOTIFY, OP_RMW, OP_STORE } from './machine';
export {
  BUG_ATC_UNGUARDED,
  BUG_DIRTY_NO_CAS,
  BUG_EPOCH_UNCHECKED,
  BUG_IOTLB_UNGUARDED,
  BUG_LINKED_FIRST,
  BUG_MICRO_SURVIVES,
  setBugs,
} from './zoo';

/** Forgets what one call leaves to the next: an instance serves many schedules, each of which must go as in a new one. */
export function beginAnew(): void {
  forgetLikelySize();
  externalWords(0, 0);
}
