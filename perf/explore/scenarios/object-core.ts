/** The core of a scenario in which threads ask it for ioctls: it serves its mailbox, and sleeps when there is nothing. */
import type { Machine } from '../../../runtime/machine.js';
import { Control } from '../../../workers/protocol/control.js';
import { ControlLayout } from '../../../workers/protocol/control-layout.js';
import { MailboxServer } from '../../../workers/protocol/mailbox-server.js';
import type { ThreadContext } from '../scenario.js';

/** Ghost word: how many threads will ask no more. */
const THROUGH = 0;
const AT_ONCE = 8;
const no = (): number => -1;

export class CoreServer {
  readonly #ctx: ThreadContext;
  readonly #machine: Machine;
  readonly #server: MailboxServer;
  readonly #doorbell: number;
  readonly #parked: number;

  /** @param ioctl  what a call of an iommufd comes to; nothing else is served */
  constructor(ctx: ThreadContext, machine: Machine, ioctl: (cmd: number, bytes: Uint8Array) => number) {
    const { memory, env } = machine;
    this.#ctx = ctx;
    this.#machine = machine;
    Control.create(memory, env.threadId);
    const targets = {
      iommufd: (_fdIndex: number, cmd: number, bytes: Uint8Array) => ioctl(cmd, bytes),
      vfio: no,
      vfioClose: no,
      fileRead: no,
      fileWrite: no,
      fileClose: no,
    };
    this.#server = new MailboxServer(memory, targets, env.bugs);
    const { base } = memory.region(ControlLayout, 'control');
    this.#doorbell = base + ControlLayout.at.coreDoorbell;
    this.#parked = base + ControlLayout.at.coreParked;
  }

  /** A thread asks no more. */
  static through(ctx: ThreadContext, control: Control): void {
    ctx.ghost[THROUGH]!++;
    control.ringCore();
  }

  /** What has been asked. @returns how many calls were served */
  serve(): number {
    return this.#server.serve(AT_ONCE);
  }

  /** Until as many threads are through. */
  serveAll(clients = 1): void {
    const { words } = this.#machine.env;
    for (;;) {
      const rings = words.load(this.#doorbell);
      if (this.serve() > 0) continue;
      if (this.#ctx.ghost[THROUGH] === clients) return;
      words.store(this.#parked, 1);
      words.wait(this.#doorbell, rings, Number.POSITIVE_INFINITY);
      words.store(this.#parked, 0);
    }
  }
}
