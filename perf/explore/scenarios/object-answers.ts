/** A core that answers each call through the mailbox with the call's own number, and whether a caller got its answer. */
import type { Machine } from '../../../runtime/machine.js';
import {
  MAILBOX_KEY,
  MailboxLayout,
  TICKET_FREE,
  TICKETS,
  Ticket,
} from '../../../workers/protocol/mailbox-layout.js';
import type { ThreadBody, ThreadContext } from '../scenario.js';
import { CoreServer } from './object-core.js';

/** As result, and in the first byte. */
const answerOf = (cmd: number): number => cmd * 11;

/** The core: serves until everybody is through; at the end no ticket may be in use (R15). */
export function answerAll(ctx: ThreadContext, machine: Machine): ThreadBody {
  const server = new CoreServer(ctx, machine, (cmd, bytes) => {
    bytes[0] = answerOf(cmd);
    return answerOf(cmd);
  });
  const { memory } = machine;
  const tickets = memory.region(MailboxLayout, MAILBOX_KEY).base + MailboxLayout.at.tickets + Ticket.at.state;
  return {
    run: () => server.serveAll(),
    check() {
      const states = Array.from(
        { length: TICKETS },
        (_, i) => memory.u32[(tickets + i * Ticket.size) >>> 2]!,
      );
      const left = states.findIndex((state) => state !== TICKET_FREE);
      ctx.check('R15', left < 0, () => `nobody uses ticket ${left}, its state is ${states[left]}`);
    },
  };
}

/** R21: an answer is whole, and this call's. */
export function checkAnswer(ctx: ThreadContext, cmd: number, result: number, bytes: Uint8Array): void {
  ctx.check(
    'R21',
    result === answerOf(cmd) && bytes[0] === answerOf(cmd),
    () => `call ${cmd} is answered ${result} and ${bytes[0]}, not ${answerOf(cmd)}`,
  );
}
