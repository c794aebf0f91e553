/** What an SMMU reported that no guest is to hear of, and how an operator reads it. */
import type { EventRecord } from '../../../hw/smmuv3/event.js';
import { GERROR } from '../../../hw/smmuv3/registers.js';
import type { PageRequest } from './priq.js';

export type HostEvent =
  /** `stalled`: the transaction was waiting, and was told to abort. */
  | { readonly kind: 'event'; readonly name: string; readonly record: EventRecord; readonly stalled: boolean }
  | { readonly kind: 'overflow'; readonly queue: 'evtq' | 'priq' }
  /** Nobody handles page requests: the group was denied when this was its last. */
  | { readonly kind: 'page-request'; readonly request: PageRequest }
  | {
      readonly kind: 'gerror';
      /** Bits of GERROR. */
      readonly bits: number;
      /** An illegal command was replaced. */
      readonly commandSkipped: boolean;
      /** SYNCs that gave up on an ATC invalidation. */
      readonly atcTimeouts: number;
    }
  /** The SMMU did not confirm an invalidation in time. */
  | { readonly kind: 'timeout'; readonly doing: string };

const GERROR_TEXTS: readonly (readonly [keyof typeof GERROR & `${string}ERR`, string])[] = [
  ['SFM_ERR', 'the SMMU has entered Service Failure Mode and was disabled'],
  ['MSI_GERROR_ABT_ERR', 'the MSI of a global error was aborted'],
  ['MSI_PRIQ_ABT_ERR', 'an MSI of the PRI queue was aborted'],
  ['MSI_EVENTQ_ABT_ERR', 'an MSI of the event queue was aborted'],
  ['MSI_CMDQ_ABT_ERR', 'an MSI of the command queue was aborted'],
  ['PRIQ_ABT_ERR', 'a write to the PRI queue was aborted: page requests may have been lost'],
  ['EVENTQ_ABT_ERR', 'a write to the event queue was aborted: events may have been lost'],
];

/** One line for each thing that a global error says. */
export function gerrorTexts(event: Extract<HostEvent, { kind: 'gerror' }>): string[] {
  const texts = GERROR_TEXTS.filter(([field]) => GERROR[field].get(event.bits) !== 0).map(([, text]) => text);
  if (event.commandSkipped) texts.push('an illegal command was skipped');
  if (event.atcTimeouts > 0) texts.push('a device did not complete an ATC invalidation in time');
  if (texts.length === 0) texts.push(`global error 0x${event.bits.toString(16)}`);
  return texts;
}
