/**
 * Worker entry: the thread that never parks. It starts every pIOMMU worker and every program's thread, sees
 * each of them end, and makes an unexpected end known: first in shared memory, where waiters notice it however
 * busy they are, then to the host.
 *
 *   host --run, stop--> supervisor --+--> pIOMMU workers (raw, one each)
 *        <--ready, outcome, death----+--> pools of program threads (piscina, one thread a task)
 */
import { once } from 'node:events';
import { MessageChannel, parentPort, Worker, workerData } from 'node:worker_threads';
import type { Piscina } from 'piscina';
import { PortLayout } from '../hw/iotlb/port-layout.js';
import { MachineMemory } from '../hw/memory/machine-memory.js';
import { ThreadTable, ThreadTableLayout } from '../hw/sync/thread.js';
import type { PoolData, PoolTask } from './program.js';
import { Control } from './protocol/control.js';
import { reclaimTickets } from './protocol/mailbox-server.js';
import {
  type FromUnit,
  type KillableKind,
  remoteError,
  type SupervisorData,
  type TaskOutcome,
  type ToHost,
  type ToSupervisor,
  type UnitData,
  type WiredTask,
  type WorkerDeath,
} from './protocol/messages.js';
import { wakeSleepers } from './protocol/wake.js';

/**
 * A unit allocates next to nothing once it runs: a small nursery keeps what it once used from staying resident,
 * which is what counts when there are 64. The old generation's bound is far above what any machine needs.
 */
const UNIT_LIMITS = { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 64, stackSizeMb: 1 };

const { handle, threadsKey, startedAtMs, fault } = workerData as SupervisorData;
const host = parentPort!;
const memory = MachineMemory.attach(handle.memory);
const { words } = memory;
const threads = new ThreadTable(memory, memory.region(ThreadTableLayout, threadsKey));
const control = new Control(memory);

type Who = Pick<WorkerDeath, 'name' | 'kind' | 'index'>;

/** Every worker that has not exited, and what to call it. */
const alive = new Map<Worker, Who>();
const tasks = new Map<number, WiredTask>();
const pools = new Set<Piscina>();
let stopping = false;
/** Programs are being ended because they did not end by themselves. */
let terminating = false;

const post = (message: ToHost): void => host.postMessage(message);

/** Follows a worker to its end. */
function watch(worker: Worker, who: Who): void {
  // Read now: a worker that has exited no longer knows its number.
  const node = worker.threadId;
  let error: unknown;
  alive.set(worker, who);
  worker.on('error', (cause) => {
    error = cause;
  });
  worker.on('exit', (exitCode) => {
    alive.delete(worker);
    const id = control.threadOf(node);
    const died = id !== 0 && control.isBusy(id);
    const task = tasks.get(control.taskOf(id));
    if (id !== 0) bury(id, died, task);
    // A unit leaves only when told to, and departs first; a program's thread may be ended once it is idle.
    if (!died && (who.kind !== 'piommu' || exitCode === 0)) return;
    const late = terminating && who.kind !== 'piommu';
    const exit = late ? 'ended: it did not stop in time' : `exit code ${exitCode}`;
    const reason = error === undefined ? exit : remoteError(error).message;
    post({ type: 'death', death: { ...(task === undefined ? who : whoOf(task)), exitCode, reason } });
  });
}

function whoOf({ name, kind, deviceIndex, vmIndex }: WiredTask): Who {
  return { name, kind, index: deviceIndex ?? vmIndex ?? -1 };
}

/** Settles what an ended thread left on the machine. */
function bury(id: number, died: boolean, task: WiredTask | undefined): void {
  if (!died) {
    control.depart(id);
    threads.retire(id);
    return;
  }
  threads.markDead(id);
  reclaimTickets(memory, id);
  // The device is gone and so is its DMA: no SYNC may wait for it.
  const device = task?.deviceIndex ?? -1;
  if (device >= 0 && device < handle.config.devices.length)
    words.store(memory.region(PortLayout, `port:${device}`).base + PortLayout.at.ack, 0);
  control.depart(id);
  wakeSleepers(memory, handle.config);
}

/** Resolves when the unit has attached; rejects when it cannot. */
function startUnit(unit: number): Promise<void> {
  const data: UnitData = {
    handle,
    unit,
    startedAtMs,
    crashAfterSteps: fault?.unit === unit ? fault.crashAfterSteps : undefined,
  };
  const worker = new Worker(new URL('./piommu.js', import.meta.url), {
    workerData: data,
    resourceLimits: UNIT_LIMITS,
  });
  const name = `pIOMMU ${handle.config.iommus[unit]?.name ?? unit}`;
  watch(worker, { name, kind: 'piommu', index: unit });
  return new Promise((resolve, reject) => {
    worker.on('message', (message: FromUnit) => {
      if (message.type === 'ready') resolve();
      else post({ type: 'log', name, text: message.text });
    });
    worker.once('error', (error) => reject(new Error(`${name}: ${remoteError(error).message}`)));
    worker.once('exit', (code) => reject(new Error(`${name}: exit code ${code} before it was ready`)));
  });
}

/** One pool a run, with a thread for each task: programs run long, and none may wait for another's end. */
async function runTasks(batch: readonly WiredTask[]): Promise<void> {
  // Loaded when first needed: pIOMMUs start the sooner.
  const { Piscina } = await import('piscina');
  const data: PoolData = { handle };
  const pool = new Piscina({
    minThreads: 0,
    maxThreads: batch.length,
    idleTimeout: Number.POSITIVE_INFINITY,
    // A thread between tasks must hear messages, not sit in Atomics.wait.
    atomics: 'disabled',
    recordTiming: false,
    workerData: data,
  });
  pools.add(pool);
  pool.on('error', (error) => post({ type: 'log', name: 'supervisor', text: remoteError(error).message }));
  const running = batch.map(async (task) => {
    tasks.set(task.taskId, task);
    const outcome = runTask(pool, task);
    // Which thread serves which task is the pool's affair: the control page tells, when it matters.
    for (const worker of pool.threads)
      if (!alive.has(worker)) watch(worker, { name: 'program thread', kind: task.kind, index: -1 });
    post({ type: 'outcome', taskId: task.taskId, outcome: await outcome });
  });
  await Promise.all(running);
  await pool.destroy();
  pools.delete(pool);
}

async function runTask(pool: Piscina, task: WiredTask): Promise<TaskOutcome> {
  const { port1, port2 } = new MessageChannel();
  port1.on('message', (text) => post({ type: 'log', name: task.name, text: String(text) }));
  // It closes when the program's end is closed or its thread gone, after the last line.
  port1.unref();
  const message: PoolTask = { ...task, logPort: port2 };
  const filename = new URL(`./${task.kind}.js`, import.meta.url).href;
  try {
    return (await pool.run(message, { filename, name: 'run', transferList: [port2] })) as TaskOutcome;
  } catch (error) {
    return { ok: false, error: remoteError(error) };
  }
}

function terminatePrograms(): void {
  terminating = true;
  for (const pool of pools) void pool.destroy();
}

const KILL_AGAIN_MS = 5;

/** Ends a thread at whatever point it is: in a loop, in a lock, asleep. Its end is then seen like any other. */
function kill(kind: KillableKind, pick: number): void {
  const found = [...alive].filter(([worker, who]) => {
    const id = control.threadOf(worker.threadId);
    if (!control.isBusy(id)) return false;
    return (tasks.get(control.taskOf(id))?.kind ?? who.kind) === kind;
  });
  if (found.length > 0) void found[pick % found.length]![0].terminate();
  // One that was asked for and has not begun yet.
  else if ([...tasks.values()].some((task) => task.kind === kind) && !stopping && !terminating)
    setTimeout(kill, KILL_AGAIN_MS, kind, pick);
}

/** The units were told to leave; whoever has not within the time is ended. */
async function stop(withinMs: number): Promise<void> {
  if (stopping) return;
  stopping = true;
  const terminated: string[] = [];
  for (const pool of pools) await pool.destroy();
  const gone = Promise.all([...alive.keys()].map((worker) => once(worker, 'exit')));
  const deadline = setTimeout(() => {
    for (const [worker, { name }] of alive) {
      terminated.push(name);
      void worker.terminate();
    }
  }, withinMs);
  await gone;
  clearTimeout(deadline);
  post({ type: 'stopped', terminated });
  host.close();
}

host.on('message', (message: ToSupervisor) => {
  if (fault?.supervisor === true && message.type === 'run') process.exit(3);
  if (message.type === 'run') void runTasks(message.tasks);
  else if (message.type === 'terminate-programs') terminatePrograms();
  else if (message.type === 'kill') kill(message.kind, message.pick);
  else void stop(message.withinMs);
});

const supervisorMs = performance.timeOrigin + performance.now() - startedAtMs;
await Promise.all(handle.config.iommus.map((_, unit) => startUnit(unit)));
post({ type: 'ready', supervisorMs });
