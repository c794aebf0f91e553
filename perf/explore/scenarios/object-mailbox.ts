/**
 * A thread asks the core through the mailbox, at first without patience. A call that is answered is answered with its
 * own result, and when the thread is through every ticket is free.
 *
 *   client   post . give up . post ---> take
 *   core         serve ... serve ...
 */
import { Control } from '../../../workers/protocol/control.js';
import { MailboxClient } from '../../../workers/protocol/mailbox-client.js';
import { iommufdTarget } from '../../../workers/protocol/mailbox-layout.js';
import { machineScenario } from '../machine-scenario.js';
import { answerAll, checkAnswer } from './object-answers.js';
import { CoreServer } from './object-core.js';
import { SMALL } from './object-guest.js';

export const mailbox = machineScenario({
  name: 'mailbox',
  about:
    'a thread asks the core and gives up, and asks again: answers are whole and their own, no ticket is left',
  checks: ['R21', 'R15'],
  machine: SMALL,
  core: answerAll,
  threads: {
    client(ctx, thread) {
      const client = new MailboxClient(thread.env, thread.memory);
      const control = new Control(thread.memory);
      return () => {
        const given = new Uint8Array(1);
        const ticket = client.post(iommufdTarget(0), 1, given);
        if (client.wait(ticket, 0) === 0) checkAnswer(ctx, 1, client.take(ticket, given), given);
        const bytes = new Uint8Array(1);
        checkAnswer(ctx, 2, client.call(iommufdTarget(0), 2, bytes), bytes);
        CoreServer.through(ctx, control);
      };
    },
  },
});
