/**
 * A thread asks the core through the mailbox, at first without patience. A call that is answered is answered with its
 * own result, and when the thread is through every ticket is free.
 *
 *   client   post . give up . post ---> take
 *   core         serve ... serve ...
 */
import { Control } from '../../../workers/protocol/control.js';
import { MailboxClient } from '../../../workers/protocol/mailbox-client.js';
import {
  iommufdTarget,
  MAILBOX_KEY,
  MailboxLayout,
  TICKET_FREE,
  TICKETS,
  Ticket,
} from '../../../workers/protocol/mailbox-layout.js';
import { machineScenario } from '../machine-scenario.js';
import type { ThreadContext } from '../scenario.js';
import { CoreServer } from './object-core.js';
import { SMALL } from './object-guest.js';

/** What the core answers: the call's number, and in its bytes as well. */
const answerOf = (cmd: number): number => cmd * 11;
export const mailbox = machineScenario({
  name: 'mailbox',
  about:
    'a thread asks the core and gives up, and asks again: answers are whole and their own, no ticket is left',
  checks: ['R21', 'R15'],
  machine: SMALL,
  core(ctx, machine) {
    const server = new CoreServer(ctx, machine, (cmd, bytes) => {
      bytes[0] = answerOf(cmd);
      return answerOf(cmd);
    });
    const { memory } = machine;
    const tickets =
      memory.region(MailboxLayout, MAILBOX_KEY).base + MailboxLayout.at.tickets + Ticket.at.state;
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
  },
  threads: {
    client(ctx, thread) {
      const client = new MailboxClient(thread.env, thread.memory);
      const control = new Control(thread.memory);
      return () => {
        const given = new Uint8Array(1);
        const ticket = client.post(iommufdTarget(0), 1, given);
        if (client.wait(ticket, 0) === 0) answered(ctx, 1, client.take(ticket, given), given);
        const bytes = new Uint8Array(1);
        answered(ctx, 2, client.call(iommufdTarget(0), 2, bytes), bytes);
        CoreServer.through(ctx, control);
      };
    },
  },
});

function answered(ctx: ThreadContext, cmd: number, result: number, bytes: Uint8Array): void {
  ctx.check(
    'R21',
    result === answerOf(cmd) && bytes[0] === answerOf(cmd),
    () => `call ${cmd} is answered ${result} and ${bytes[0]}, not ${answerOf(cmd)}`,
  );
}
