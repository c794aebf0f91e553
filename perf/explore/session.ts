/**
 * A scenario with its threads: workers that are started once and run any number of campaigns. The session itself
 * only listens; which thread goes next is decided among the workers.
 */
import { Worker } from 'node:worker_threads';
import type { BugName } from '../../hw/bugs/bug-switches.js';
import { Wasm, type WasmMemory } from '../../hw/memory/webassembly.js';
import { memoryFor } from '../../runtime/machine.js';
import { currentThread, pin, unpin } from '../bench/affinity.js';
import { GHOST_WORDS, MONITOR_WORDS } from './engine/context.js';
import { ControlMemory, H, PHASE_CLOSE } from './engine/control.js';
import type {
  CampaignRequest,
  CampaignResult,
  ExploreWorkerData,
  FromWorker,
  RecordedNote,
  RecordedStep,
  ScenarioSource,
  ToDriver,
} from './engine/messages.js';
import { stateCountBuffer } from './engine/state-count.js';
import type { Scenario } from './scenario.js';

const WASM_PAGE = 65_536;
/** A step takes microseconds; setting up a machine, a second at worst. */
const STUCK_SECONDS = 5;

/** What holds for all campaigns of a session. */
export interface SessionOptions {
  /** Switched on in campaigns that do not say. Default: none. */
  readonly bugs?: readonly BugName[];
  readonly seed?: number;
  /** Processor that all its threads share: handing over is then several times faster. Default: not pinned. */
  readonly cpu?: number;
  /** Counts different states: for scenarios without a machine, which each step then costs twice. */
  readonly countStates?: boolean;
  readonly onProgress?: (schedules: number, steps: number) => void;
  /** Once a campaign: for so many seconds nobody made an access. Code that loops without one is never interrupted. */
  readonly onStuck?: (seconds: number) => void;
}

/** The steps of a recorded schedule in order, and what its threads noted. */
export interface Recording {
  readonly steps: readonly RecordedStep[];
  readonly notes: readonly RecordedNote[];
}

/** Workers that run one scenario, for one campaign after another; explore() is a session with one. Close it. */
export class ExploreSession {
  readonly scenario: Scenario;
  /** As the last schedule left it. */
  readonly memory: WasmMemory;
  readonly #control: ControlMemory;
  readonly #workers: readonly Worker[];
  readonly #onProgress: SessionOptions['onProgress'];
  readonly #onStuck: SessionOptions['onStuck'];
  readonly #bugs: readonly BugName[];
  #recording: { steps: RecordedStep[]; notes: RecordedNote[] } = { steps: [], notes: [] };
  #settle: { resolve(result: CampaignResult): void; reject(error: Error): void } | null = null;
  #broken: Error | null = null;
  #lookout: NodeJS.Timeout | undefined;
  /** Looks that found no step and no schedule more than the one before. */
  #quiet = 0;

  private constructor(
    scenario: Scenario,
    control: ControlMemory,
    memory: WasmMemory,
    workers: Worker[],
    options: SessionOptions,
  ) {
    this.scenario = scenario;
    this.#control = control;
    this.memory = memory;
    this.#workers = workers;
    this.#onProgress = options.onProgress;
    this.#onStuck = options.onStuck;
    this.#bugs = options.bugs ?? [];
  }

  /** Starts the workers. @throws what the module or its scenario is wrong with */
  static async start(source: ScenarioSource, options: SessionOptions = {}): Promise<ExploreSession> {
    const module = (await import(source.url)) as Record<string, unknown>;
    const scenario = module[source.export] as Scenario | undefined;
    if (scenario === undefined) throw new TypeError(`${source.url} exports no scenario '${source.export}'`);
    const control = new ControlMemory();
    control.i32[H.threads] = scenario.threads.length;
    const memory = memoryOf(scenario);
    const shared = {
      control: control.buffer,
      memory,
      ghost: new SharedArrayBuffer((GHOST_WORDS + MONITOR_WORDS) * 4),
      source,
      seed: options.seed ?? 1,
      states: options.countStates === true ? stateCountBuffer() : null,
    };
    // A new thread inherits the processor of the one that starts it.
    const pinned = options.cpu !== undefined && pin(currentThread(), options.cpu);
    const workers = scenario.threads.map(({ name }, index) => {
      const workerData: ExploreWorkerData = { ...shared, index };
      return new Worker(new URL('./engine/worker.js', import.meta.url), {
        workerData,
        name: `explore ${name}`,
      });
    });
    if (pinned) unpin(currentThread());
    const session = new ExploreSession(scenario, control, memory, workers, options);
    try {
      await session.#ready();
    } catch (error) {
      await session.close();
      throw error;
    }
    return session;
  }

  /** Runs one campaign; one at a time. @throws Error the scenario cannot be set up, or a worker died */
  run(request: CampaignRequest): Promise<CampaignResult> {
    if (this.#settle !== null) throw new Error('explore: a campaign is under way');
    if (this.#broken !== null) return Promise.reject(this.#broken);
    this.#recording = { steps: [], notes: [] };
    this.#control.cancel(false);
    return new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
      const message: ToDriver = { type: 'campaign', request: { bugs: this.#bugs, ...request } };
      this.#workers[0]!.postMessage(message);
      this.#watch();
    });
  }

  /** Ends the campaign under way after the schedule under way; run() then resolves with what there is. */
  cancel(): void {
    this.#control.cancel(true);
  }

  /** Of the last schedule of a campaign with `record`. */
  recording(): Recording {
    const { steps, notes } = this.#recording;
    return {
      steps: [...steps].sort((a, b) => a.step - b.step),
      notes: [...notes].sort((a, b) => a.step - b.step),
    };
  }

  /** What the first thread told the others, as JSON gives it back; undefined when nothing. */
  published(): unknown {
    const text = this.#control.published;
    return text === '' ? undefined : JSON.parse(text);
  }

  async close(): Promise<void> {
    clearInterval(this.#lookout);
    this.#control.i32[H.phase] = PHASE_CLOSE;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  async #ready(): Promise<void> {
    const ready = this.#workers.map(
      (worker) =>
        new Promise<void>((resolve, reject) => {
          worker.on('message', (message: FromWorker) => {
            if (message.type === 'ready') resolve();
            else if (message.type === 'broken') {
              const error = new Error(message.message);
              reject(error);
              this.#fail(error);
            } else this.#hear(message);
          });
          worker.on('error', (error) => {
            reject(error);
            this.#fail(error as Error);
          });
        }),
    );
    await Promise.all(ready);
  }

  #hear(message: FromWorker): void {
    if (message.type === 'progress') {
      this.#quiet = 0;
      this.#onProgress?.(message.schedules, message.steps);
    } else if (message.type === 'record') {
      this.#recording.steps.push(...message.steps);
      this.#recording.notes.push(...message.notes);
    } else if (message.type === 'result') {
      const settle = this.#settle;
      this.#settle = null;
      clearInterval(this.#lookout);
      // The records of the other workers are on their way through other ports.
      setImmediate(() => settle?.resolve(message.result));
    }
  }

  #watch(): void {
    if (this.#onStuck === undefined) return;
    let before = -1;
    this.#quiet = 0;
    this.#lookout = setInterval(() => {
      const steps = this.#control.i32[H.steps]!;
      this.#quiet = steps === before ? this.#quiet + 1 : 0;
      before = steps;
      if (this.#quiet < STUCK_SECONDS) return;
      clearInterval(this.#lookout);
      this.#onStuck?.(STUCK_SECONDS);
    }, 1000).unref();
  }

  #fail(error: Error): void {
    this.#broken = error;
    clearInterval(this.#lookout);
    const settle = this.#settle;
    this.#settle = null;
    settle?.reject(error);
  }
}

function memoryOf({ memory }: Scenario): WasmMemory {
  if (memory !== undefined && 'machine' in memory) return memoryFor(memory.machine);
  const pages = Math.ceil((memory?.bytes ?? WASM_PAGE) / WASM_PAGE);
  return new Wasm.Memory({ initial: pages, maximum: pages, shared: true });
}
