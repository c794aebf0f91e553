/**
 * How a program (a device's traffic, a guest) runs on a thread of the pool: the thread attaches to the machine
 * once, loads the module by its URL, and calls it with a context. What programs do is none of this folder's
 * business; that they fail, return something that cannot travel, or leave a DMA unfinished is.
 */
import { threadId as nodeThreadId } from 'node:worker_threads';
import { workerData } from 'piscina';
import type { DmaPort } from '../hw/pci/dma-port.js';
import { type MachineHandle, MachineThread } from '../runtime/machine-thread.js';
import type { VmmTransport } from '../runtime/vmm/transport.js';
import { Control } from './protocol/control.js';
import { MailboxClient } from './protocol/mailbox-client.js';
import { reclaimTickets } from './protocol/mailbox-server.js';
import { remoteError, type TaskOutcome, type WiredTask } from './protocol/messages.js';

/** What a program is given. */
export interface ProgramContext {
  readonly name: string;
  readonly thread: MachineThread;
  readonly mailbox: MailboxClient;
  /** device: its DMA engine. */
  readonly port?: DmaPort;
  /** guest: its way to the kernel. */
  readonly transport?: VmmTransport;
  readonly deviceIndex: number;
  readonly vmIndex: number;
  readonly seed: number;
  /** To be asked often: true means return soon, with what there is. */
  stopRequested(): boolean;
  /** A line for the host's log listener. */
  log(text: string): void;
}

/** A program returns something structured-cloneable, or a promise of it. */
export type Program = (context: ProgramContext, args: unknown) => unknown;

/** What a pool thread is started with. */
export interface PoolData {
  readonly handle: MachineHandle;
}

/** A task as the pool passes it on, with a port for its log lines. */
export interface PoolTask extends WiredTask {
  /** A MessagePort, said so that whoever imports the package's types needs none of Node's. */
  readonly logPort: { postMessage(text: string): void; close(): void };
}

interface Attached {
  readonly thread: MachineThread;
  readonly control: Control;
  readonly mailbox: MailboxClient;
}

let attached: Attached | undefined;

/** Once per thread: a pool serves one machine. */
function attach(): Attached {
  if (attached === undefined) {
    const thread = MachineThread.attach((workerData as PoolData).handle);
    const mailbox = new MailboxClient(thread.env, thread.memory);
    attached = { thread, control: new Control(thread.memory), mailbox };
  }
  return attached;
}

/**
 * Runs one task from start to end. A program that throws is a failed task, not a dead thread.
 * @param equip  adds what its kind of program needs
 */
export async function runProgram(
  task: PoolTask,
  equip: (thread: MachineThread, mailbox: MailboxClient) => Pick<ProgramContext, 'port' | 'transport'>,
): Promise<TaskOutcome> {
  const { logPort, name, deviceIndex = -1, vmIndex = -1, seed = 0 } = task;
  try {
    const { thread, control, mailbox } = attach();
    control.arrive(thread.threadId, nodeThreadId, task.taskId);
    const equipment = equip(thread, mailbox);
    try {
      const program = await load(task);
      const context: ProgramContext = {
        name,
        thread,
        mailbox,
        ...equipment,
        deviceIndex,
        vmIndex,
        seed,
        stopRequested: () => control.stopping,
        log: (text) => logPort.postMessage(text),
      };
      // Cloned here, where a result that cannot travel is this program's failure.
      return { ok: true, value: structuredClone(await program(context, task.args)) };
    } finally {
      // A program that threw between translate() and end() would hold up every SYNC.
      equipment.port?.end();
      // Nobody will take what it left in the mailbox.
      reclaimTickets(thread.memory, thread.threadId);
      control.idle(thread.threadId);
    }
  } catch (error) {
    return { ok: false, error: remoteError(error) };
  } finally {
    logPort.close();
  }
}

async function load(task: PoolTask): Promise<Program> {
  const { program, export: name = 'default' } = task;
  const module = (await import(program)) as Record<string, unknown>;
  const found = module[name];
  if (typeof found !== 'function') throw new TypeError(`${program} exports no function '${name}'`);
  return found as Program;
}
