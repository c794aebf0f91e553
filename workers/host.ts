/**
 * The host: moves a machine's pIOMMUs to threads of their own, runs programs on others, serves the core on
 * this one, and brings everything back.
 *
 *   start()  units come up in parallel, wait for the go, and take over from inline stepping
 *   run()    programs, each on its own thread; their ioctls arrive in the mailbox
 *   stop()   programs return -> mailbox closes -> units drain and leave -> inline stepping again
 *
 * The host's thread is the core's: its own ioctls stay plain calls, before, during and after.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type { Machine } from '../runtime/machine.js';
import { THREADS_KEY } from '../runtime/machine-hardware.js';
import { CoreTargets, type ExposedFd, type ExposedVfio } from './core-targets.js';
import { Control } from './protocol/control.js';
import {
  MAX_UNITS,
  PHASE_PROGRAMS_STOP,
  PHASE_RUNNING,
  PHASE_STARTING,
  PHASE_UNITS_STOP,
} from './protocol/control-layout.js';
import { MailboxServer } from './protocol/mailbox-server.js';
import type {
  KillableKind,
  ProgramTask,
  RemoteError,
  SupervisorData,
  ToHost,
  ToSupervisor,
  WiredTask,
  WorkerDeath,
  WorkerFault,
} from './protocol/messages.js';
import { wakeSleepers } from './protocol/wake.js';

export interface HostOptions {
  /** Default 15 s, and half a second for each IOMMU. */
  readonly startTimeoutMs?: number;
  /** How long stop() waits for programs, and then for units, before it ends them; default 3 s. */
  readonly stopTimeoutMs?: number;
  /** For tests: break something. */
  readonly fault?: WorkerFault;
}

/** Milliseconds from start() on. */
export interface StartupTimes {
  readonly supervisorMs: number;
  /** When each pIOMMU was ready. */
  readonly unitsMs: readonly number[];
  readonly totalMs: number;
}

export interface StopReport {
  /** Nobody died and nobody had to be ended. */
  readonly clean: boolean;
  /** Who did not leave in time. */
  readonly terminated: readonly string[];
  readonly deaths: readonly WorkerDeath[];
}

/** A program threw, could not be loaded, or lost its thread. */
export class TaskError extends Error {
  readonly task: string;
  /** Of an error that carried one. */
  readonly errno: number | undefined;
  readonly remoteStack: string;
  constructor(task: string, error: RemoteError) {
    super(`${task}: ${error.message}`);
    this.name = 'TaskError';
    this.task = task;
    this.errno = error.errno;
    this.remoteStack = error.stack;
  }
}

interface Running {
  readonly task: WiredTask;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: TaskError) => void;
}

/** How long calls are served before timers and signals get a turn. */
const TURN_MS = 2;
const IDLE_SPIN_MS = 0.02;
/** Longest time between two looks at the SMMUs' interrupts while calls come in. */
const POLL_MS = 0.05;
const IDLE_SLEEP_MS = 10;
const SCRATCH_BYTES = 16384;

export class WorkerHost {
  readonly machine: Machine;
  #startup: StartupTimes = { supervisorMs: 0, unitsMs: [], totalMs: 0 };
  readonly #options: Required<Pick<HostOptions, 'startTimeoutMs' | 'stopTimeoutMs'>>;
  readonly #control: Control;
  readonly #targets: CoreTargets;
  readonly #mailbox: MailboxServer;
  readonly #supervisor: Worker;
  readonly #supervisorExit: Promise<void>;
  readonly #running = new Map<number, Running>();
  readonly #deaths: WorkerDeath[] = [];
  readonly #deathListeners = new Set<(death: WorkerDeath) => void>();
  readonly #logListeners = new Set<(name: string, text: string) => void>();
  #nextTask = 0;
  #terminated: readonly string[] = [];
  #supervisorGone = false;
  #serving: Promise<void> | undefined;
  #served = false;
  #stopped: Promise<StopReport> | undefined;
  /** Called whenever a task ends or the supervisor is gone: what stop() waits for. */
  #progress: () => void = () => undefined;

  private constructor(machine: Machine, options: HostOptions) {
    const units = machine.config.iommus.length;
    const { startTimeoutMs = 15_000 + 500 * units, stopTimeoutMs = 3_000, fault } = options;
    if (units > MAX_UNITS)
      throw new RangeError(`workers: ${units} IOMMUs, at most ${MAX_UNITS} have threads`);
    this.machine = machine;
    this.#options = { startTimeoutMs, stopTimeoutMs };
    this.#control = Control.create(machine.memory, machine.env.threadId);
    this.#targets = new CoreTargets(machine.core.own.files, (device) =>
      machine.openVfio(machine.config.devices[device]!.label),
    );
    this.#mailbox = new MailboxServer(machine.memory, this.#targets);
    const startedAtMs = performance.timeOrigin + performance.now();
    const workerData: SupervisorData = {
      handle: machine.handle(),
      threadsKey: THREADS_KEY,
      startedAtMs,
      fault,
    };
    this.#supervisor = new Worker(new URL('./supervisor.js', import.meta.url), { workerData });
    this.#supervisorExit = new Promise((resolve) => this.#supervisor.once('exit', () => resolve()));
  }

  /**
   * Moves every pIOMMU to a thread of its own.
   * @throws Error the machine has workers already; or naming the worker that could not come up, and why: the
   *         machine is then inline as before
   */
  static async start(machine: Machine, options: HostOptions = {}): Promise<WorkerHost> {
    const began = performance.now();
    if (!machine.inline) throw new Error('workers: this machine has workers already');
    const host = new WorkerHost(machine, options);
    try {
      const supervisorMs = await host.#ready();
      // Never two threads on one model: this one lets go before any unit is told to begin.
      machine.hostInline(false);
      host.#control.setPhase(PHASE_RUNNING);
      host.#supervisor.on('message', (message: ToHost) => host.#hear(message));
      host.#startup = {
        supervisorMs,
        unitsMs: machine.config.iommus.map((_, unit) => host.#control.unitStartUs(unit) / 1000),
        totalMs: performance.now() - began,
      };
      return host;
    } catch (error) {
      host.#control.setPhase(PHASE_UNITS_STOP);
      await host.#supervisor.terminate();
      for (const id of host.#control.busyThreads()) host.#leave(id);
      throw error;
    }
  }

  get startup(): StartupTimes {
    return this.#startup;
  }

  /** Makes an iommufd, or a bound VFIO device, reachable through the mailbox. */
  expose(target: ExposedFd | ExposedVfio): void {
    this.#targets.add(target);
  }

  /**
   * Starts programs, each on a thread of its own, and serves the core meanwhile.
   * @returns a promise for each task: what its program returned, or a TaskError
   * @throws TypeError or RangeError a task cannot be started as it is described; none of them then is
   */
  run(tasks: readonly ProgramTask[]): Promise<unknown>[] {
    for (const task of tasks) this.#check(task);
    const wired = tasks.map((task) => this.#wire(task));
    const promises = wired.map((task) => {
      const promise = new Promise<unknown>((resolve, reject) => {
        this.#running.set(task.taskId, { task, resolve, reject });
      });
      // Whoever holds the promise hears of the failure; one that nobody awaits must not end the process.
      promise.catch(() => undefined);
      return promise;
    });
    if (this.#supervisorGone || this.#stopped !== undefined) this.#failAll('the workers have been stopped');
    else if (wired.length > 0) this.#send(wired);
    this.serveCore().catch((error) => this.#coreDied(error));
    return promises;
  }

  onDeath(listener: (death: WorkerDeath) => void): void {
    this.#deathListeners.add(listener);
  }

  onLog(listener: (name: string, text: string) => void): void {
    this.#logListeners.add(listener);
  }

  /**
   * Answers the mailbox and the driver interrupts on this thread until stop(), with turns of the event loop
   * in between. Started by run(); to be called a second time only to wait for its end.
   * @throws what a call threw: a bug in the core
   */
  serveCore(): Promise<void> {
    this.#serving ??= this.#serveLoop();
    return this.#serving;
  }

  /** Asks every program to return. Does not wait; callable from a signal handler. */
  requestStop(): void {
    if (this.#control.phase < PHASE_PROGRAMS_STOP) this.#control.setPhase(PHASE_PROGRAMS_STOP);
    wakeSleepers(this.machine.memory, this.machine.config);
  }

  /**
   * Ends one thread without warning, wherever it is: what an experiment on survival does.
   * @param pick  which of those of the kind that work, modulo their number; nothing happens when there is none
   */
  kill(kind: KillableKind, pick = 0): void {
    if (kind === 'supervisor') void this.#supervisor.terminate();
    else this.#tell({ type: 'kill', kind, pick });
  }

  /** Ends programs, then units, and gives the models back to this thread. Never hangs, never rejects. */
  stop(): Promise<StopReport> {
    this.#stopped ??= this.#stopAll();
    return this.#stopped;
  }

  async #stopAll(): Promise<StopReport> {
    const { stopTimeoutMs } = this.#options;
    this.requestStop();
    // Programs may be waiting for a call: the core goes on serving until the last has returned.
    this.serveCore().catch((error) => this.#coreDied(error));
    if (!(await this.#tasksEnd(stopTimeoutMs))) {
      this.#tell({ type: 'terminate-programs' });
      await this.#tasksEnd(stopTimeoutMs);
    }
    this.#served = true;
    this.#mailbox.close();
    this.#control.ringCore();
    await Promise.allSettled([this.#serving]);
    this.#control.setPhase(PHASE_UNITS_STOP);
    wakeSleepers(this.machine.memory, this.machine.config);
    this.#tell({ type: 'stop', withinMs: stopTimeoutMs });
    if (!(await within(this.#supervisorExit, 2 * stopTimeoutMs))) {
      this.#terminated = [...this.#terminated, 'supervisor'];
      await this.#supervisor.terminate();
    }
    for (const id of this.#control.busyThreads()) this.#markDead(id);
    this.#failAll('its thread did not stop in time');
    this.machine.hostInline(true);
    const clean = this.#deaths.length === 0 && this.#terminated.length === 0;
    return { clean, terminated: this.#terminated, deaths: this.#deaths };
  }

  /** @returns milliseconds until the supervisor ran */
  #ready(): Promise<number> {
    const supervisor = this.#supervisor;
    const { startTimeoutMs } = this.#options;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => fail(new Error(`workers: not ready after ${startTimeoutMs} ms`)),
        startTimeoutMs,
      );
      const fail = (error: Error) => {
        clearTimeout(timer);
        reject(error);
      };
      const hear = (message: ToHost) => {
        if (message.type !== 'ready') return;
        clearTimeout(timer);
        supervisor.off('message', hear);
        resolve(message.supervisorMs);
      };
      supervisor.on('message', hear);
      let cause = '';
      supervisor.on('error', (error: Error) => {
        cause = error.message;
        fail(new Error(`workers: ${cause}`));
      });
      supervisor.on('exit', (code) => {
        fail(new Error(`workers: the supervisor ended with exit code ${code} before it was ready`));
        this.#supervisorEnded(code, cause);
      });
    });
  }

  #hear(message: ToHost): void {
    switch (message.type) {
      case 'outcome': {
        const running = this.#running.get(message.taskId);
        if (running === undefined) return;
        this.#settle(running);
        if (message.outcome.ok) running.resolve(message.outcome.value);
        else running.reject(new TaskError(running.task.name, message.outcome.error));
        return;
      }
      case 'log':
        for (const listener of this.#logListeners) listener(message.name, message.text);
        return;
      case 'death':
        this.#report(message.death);
        return;
      case 'stopped':
        this.#terminated = message.terminated;
        return;
      case 'ready':
        return;
    }
  }

  async #serveLoop(): Promise<void> {
    const { machine } = this;
    while (!this.#served) {
      const began = performance.now();
      let now = began;
      let lastWork = began;
      let pollAt = began;
      do {
        // One at a time: a call may wait seconds for an SMMU that does not answer, and timers must run between.
        const answered = this.#mailbox.serve(1);
        // Polling looks at every SMMU: not after each call, or calls would cost more the more of them there are.
        const look = answered === 0 || now >= pollAt;
        const polled = look && machine.poll();
        if (look) pollAt = now + POLL_MS;
        now = performance.now();
        if (answered > 0 || polled) lastWork = now;
      } while (now - began < TURN_MS && now - lastWork < IDLE_SPIN_MS);
      if (now - lastWork < IDLE_SPIN_MS) await nextTurn();
      else await this.#control.coreSleep(() => this.#mailbox.hasWork() || this.#served, IDLE_SLEEP_MS);
    }
  }

  /** Before anything is allocated or sent: what is wrong here would be a failure on another thread. */
  #check({ kind, name, deviceIndex, fdIndex }: ProgramTask): void {
    if (kind === 'guest') {
      if (fdIndex !== undefined && this.#targets.fdNumber(fdIndex) < 0)
        throw new RangeError(`${name}: iommufd ${fdIndex} is not exposed`);
      return;
    }
    if (kind !== 'device') throw new TypeError(`${name}: there is no kind of task '${String(kind)}'`);
    if (!Number.isInteger(deviceIndex)) throw new TypeError(`${name}: a device task needs a deviceIndex`);
    const { length } = this.machine.config.devices;
    if (!(deviceIndex! >= 0 && deviceIndex! < length))
      throw new RangeError(`${name}: there is no device ${deviceIndex}, the machine has ${length}`);
  }

  #wire(task: ProgramTask): WiredTask {
    const taskId = this.#nextTask++;
    const { fdIndex, scratchBytes = SCRATCH_BYTES } = task;
    if (task.kind !== 'guest' || fdIndex === undefined) return { ...task, taskId };
    const fd = this.#targets.fdNumber(fdIndex);
    const va = this.machine.user.alloc(scratchBytes, { contiguous: true });
    return { ...task, taskId, wiring: { fdIndex, fd, scratch: { va, bytes: scratchBytes } } };
  }

  /** @throws DataCloneError when arguments cannot travel; none of the tasks then runs */
  #send(tasks: readonly WiredTask[]): void {
    try {
      this.#tell({ type: 'run', tasks });
    } catch (error) {
      for (const { taskId } of tasks) {
        const running = this.#running.get(taskId);
        if (running !== undefined) this.#settle(running);
      }
      throw error;
    }
  }

  #settle(running: Running): void {
    const { taskId, wiring } = running.task;
    this.#running.delete(taskId);
    if (wiring !== undefined) this.machine.user.free(wiring.scratch.va, wiring.scratch.bytes);
    this.#progress();
  }

  #failAll(message: string): void {
    for (const running of [...this.#running.values()]) {
      this.#settle(running);
      running.reject(new TaskError(running.task.name, { name: 'Error', message, stack: '' }));
    }
  }

  /** Waits until no task runs. @returns whether that was so in time */
  async #tasksEnd(timeoutMs: number): Promise<boolean> {
    if (this.#running.size === 0) return true;
    const ended = new Promise<void>((resolve) => {
      this.#progress = () => {
        if (this.#running.size === 0) resolve();
      };
    });
    return within(ended, timeoutMs);
  }

  #supervisorEnded(exitCode: number, cause: string): void {
    this.#supervisorGone = true;
    if (this.#control.phase === PHASE_STARTING || this.#stoppedInOrder()) return;
    // Its workers end with it, and nobody else is left to say so.
    for (const id of this.#control.busyThreads()) this.#markDead(id);
    wakeSleepers(this.machine.memory, this.machine.config);
    const reason = cause === '' ? `exit code ${exitCode}` : cause;
    this.#report({ name: 'supervisor', kind: 'supervisor', index: -1, exitCode, reason });
    this.#failAll('the supervisor died, and its thread with it');
  }

  #stoppedInOrder(): boolean {
    return this.#control.phase === PHASE_UNITS_STOP;
  }

  #markDead(id: number): void {
    this.machine.env.threads.markDead(id);
    this.#control.depart(id);
  }

  /** A thread that never got to work holds nothing. */
  #leave(id: number): void {
    this.machine.env.threads.retire(id);
    this.#control.depart(id);
  }

  #coreDied(error: unknown): void {
    if (this.#deaths.some(({ kind }) => kind === 'core')) return;
    this.#mailbox.close();
    const reason = error instanceof Error ? error.message : String(error);
    this.#report({ name: 'core', kind: 'core', index: -1, exitCode: 0, reason });
  }

  #report(death: WorkerDeath): void {
    this.#deaths.push(death);
    for (const listener of this.#deathListeners) listener(death);
  }

  #tell(message: ToSupervisor): void {
    if (!this.#supervisorGone) this.#supervisor.postMessage(message);
  }
}

/** @returns whether the promise settled within the time */
async function within(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  const inTime = await Promise.race([promise.then(() => true), late]);
  clearTimeout(timer);
  return inTime;
}
