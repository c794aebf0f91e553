/**
 * Worker entry: one explored thread. It loads the scenario, then sits in a loop without ever returning to Node's:
 * set up, run, wait for the next schedule. Thread 0 is also the campaign's driver, and hears from the session.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { setLockOrderCheck } from '../../../hw/sync/lock-rank.js';
import { setScheduleHook } from '../../../hw/sync/words.js';
import type { Scenario, ThreadBody } from '../scenario.js';
import { REST_AT, STATE_RANGES, WorkerContext } from './context.js';
import { ControlMemory, H, PHASE_CLOSE, PHASE_PREPARE } from './control.js';
import { runCampaign, SetupError } from './driver.js';
import type { ExploreWorkerData, FromWorker, ToDriver } from './messages.js';
import { Recorder } from './recorder.js';
import { siteOfCaller } from './sites.js';
import { StateCount } from './state-count.js';
import { ScheduleOver, ThreadScheduler } from './thread-scheduler.js';

const { control: buffer, memory, ghost, index, source, seed, states } = workerData as ExploreWorkerData;
const post = (message: FromWorker): void => parentPort?.postMessage(message);
const control = new ControlMemory(buffer);

/** One explored thread, and what it does in each phase. */
export class ExploredThread {
  readonly scheduler: ThreadScheduler;
  readonly recorder: Recorder;
  readonly #context: WorkerContext;
  readonly #scenario: Scenario;
  /** Of eight bytes: filling shared memory byte by byte takes eight times as long. */
  readonly #words = new Float64Array(memory.buffer);
  #body: ThreadBody | null = null;

  constructor(scenario: Scenario) {
    const names = scenario.threads.map(({ name }) => name);
    this.#scenario = scenario;
    this.scheduler = new ThreadScheduler(control, memory.buffer as SharedArrayBuffer, index, names);
    if (scenario.memory === undefined || 'bytes' in scenario.memory) this.scheduler.restOffset = REST_AT;
    if (states !== null)
      this.scheduler.states = new StateCount(
        states,
        control,
        memory.buffer as SharedArrayBuffer,
        STATE_RANGES,
      );
    this.recorder = new Recorder(control, memory.buffer as SharedArrayBuffer, index);
    this.#context = new WorkerContext({
      control,
      scheduler: this.scheduler,
      memory,
      ghost: new Int32Array(ghost),
      index,
      names,
      checks: scenario.checks,
      seed,
      note: (text) => this.recorder.note(text),
    });
    setScheduleHook(this.scheduler);
    setLockOrderCheck(true);
  }

  /** Makes the memory what it was when the scenario was first set up: zero. Thread 0. */
  clear(): void {
    const words = this.#words;
    for (const [first, end] of this.#context.used ?? [[0, words.length * 8]])
      words.fill(0, Math.floor(first / 8), Math.ceil(end / 8));
  }

  prepare(): void {
    this.scheduler.active = false;
    this.scheduler.guard = null;
    setLockOrderCheck(true);
    this.#context.reset();
    this.recorder.reset(this.scheduler);
    this.scheduler.siteOf = control.i32[H.sites] === 0 ? null : siteOfCaller;
    try {
      const body = this.#scenario.threads[index]!.program(this.#context);
      this.#body = typeof body === 'function' ? { run: body } : body;
      if (typeof (this.#body as ThreadBody | undefined)?.run !== 'function')
        throw new TypeError('program() has to return what is to run: a function, or an object with run()');
    } catch (error) {
      this.#body = null;
      this.#broken('setup', error);
    }
  }

  /** @param begins  thread 0 makes the first decision */
  run(begins: boolean): void {
    try {
      this.scheduler.active = true;
      if (begins) this.scheduler.begin();
      else this.scheduler.resume();
      const left: unknown = this.#body?.run();
      if (!(left instanceof Promise)) return;
      // It will be rejected when nobody listens any more, and would take the worker with it.
      left.catch(() => undefined);
      throw new TypeError('what runs must not be async: nothing behind an await would be explored');
    } catch (error) {
      // What a thread throws when it is ended is the end's doing, whatever its code makes of it.
      if (!this.scheduler.over) this.#broken(invariantOf(error), error);
    }
  }

  check(): void {
    try {
      this.#body?.check?.();
    } catch (error) {
      if (!(error instanceof ScheduleOver)) this.#broken('exception', error);
    }
  }

  #broken(invariant: string, error: unknown): void {
    // What called the scenario is of no use to who wrote it.
    const text = stackOf(error).replace(/\n +at .*(?:\/perf\/explore\/engine\/|\(?node:).*/g, '');
    this.scheduler.fail(invariant, text);
  }
}

const stackOf = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error);

/** lock-rank.ts throws like any bug(); its message is its own. */
function invariantOf(error: unknown): string {
  return error instanceof Error && /lock order: thread/.test(error.message) ? 'R25' : 'exception';
}

async function load(): Promise<Scenario> {
  const module = (await import(source.url)) as Record<string, unknown>;
  const found = module[source.export];
  if (typeof found !== 'object' || found === null)
    throw new TypeError(`${source.url} exports no scenario '${source.export}'`);
  return found as Scenario;
}

try {
  const scenario = await load();
  const thread = new ExploredThread(scenario);
  if (index === 0)
    parentPort?.on('message', (message: ToDriver) => {
      try {
        const result = runCampaign(control, new Int32Array(ghost), scenario, thread, message.request, post);
        post({ type: 'result', result });
      } catch (error) {
        post({ type: 'broken', message: error instanceof SetupError ? error.message : stackOf(error) });
      }
    });
  post({ type: 'ready' });
  while (index !== 0) {
    control.take(index);
    const phase = control.i32[H.phase];
    if (phase === PHASE_CLOSE) break;
    if (phase === PHASE_PREPARE) {
      thread.prepare();
      control.give(index + 1 < control.i32[H.threads]! ? index + 1 : 0);
      continue;
    }
    thread.run(false);
    thread.recorder.post(post);
    thread.scheduler.finish();
  }
} catch (error) {
  post({ type: 'broken', message: stackOf(error) });
}
