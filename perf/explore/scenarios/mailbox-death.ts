/**
 * Two threads ask the core through the mailbox, and one of them dies, at any access of it. What it had asked is carried
 * out or not; the other's calls are answered with their own results, and no ticket stays with the dead.
 *
 *   victim   post . post .. X
 *   client        call . kills . call . call
 *   core     serve ... serve ...
 */
import { Control } from '../../../workers/protocol/control.js';
import { MailboxClient } from '../../../workers/protocol/mailbox-client.js';
import { iommufdTarget } from '../../../workers/protocol/mailbox-layout.js';
import { reclaimTickets } from '../../../workers/protocol/mailbox-server.js';
import { machineScenario } from '../machine-scenario.js';
import { Death, doom, isDoomed, MortalWords } from './mortal.js';
import { answerAll, checkAnswer } from './object-answers.js';
import { CoreServer } from './object-core.js';
import { SMALL } from './object-guest.js';

const CALLS = 3;

export const mailboxDeath = machineScenario<number>({
  name: 'mailbox-death',
  about: 'of two threads that ask the core one dies: the other is answered, and no ticket is left',
  checks: ['R21', 'R15'],
  machine: SMALL,
  // The victim may be asleep when it dies, and nobody wakes it.
  timeouts: true,
  core(ctx, machine, share) {
    const body = answerAll(ctx, machine);
    const pfn = machine.frames.alloc();
    machine.frames.zero(pfn, 1);
    share(machine.memory.linearOf(pfn * 4096, 4));
    return body;
  },
  threads: {
    victim(ctx, thread) {
      const words = new MortalWords(ctx.memory.buffer as SharedArrayBuffer, () => isDoomed(ctx));
      const client = new MailboxClient({ ...thread.env, words, parkSliceMs: 20 }, thread.memory);
      return () => {
        try {
          for (let i = 0; i < CALLS; i++) {
            const bytes = new Uint8Array(1);
            const ticket = client.post(iommufdTarget(0), 1 + i, bytes);
            if (i > 0) {
              client.wait(ticket);
              client.take(ticket, bytes);
            }
          }
        } catch (error) {
          if (!(error instanceof Death)) throw error;
        }
        // As a supervisor does; of a thread that has come to its end as well.
        thread.env.threads.markDead(thread.threadId);
        reclaimTickets(thread.memory, thread.threadId);
      };
    },
    client(ctx, thread, step) {
      const client = new MailboxClient(thread.env, thread.memory);
      const control = new Control(thread.memory);
      const ask = (cmd: number): void => {
        const bytes = new Uint8Array(1);
        checkAnswer(ctx, cmd, client.call(iommufdTarget(0), cmd, bytes), bytes);
      };
      return () => {
        ask(4);
        doom(ctx, thread.memory.words, step);
        ask(5);
        ask(6);
        CoreServer.through(ctx, control);
      };
    },
  },
});
