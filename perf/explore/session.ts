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
import { ControlMemory, D, H, PHASE_CLOSE } from './engine/control.js';
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
import { defineScenario, isScenario, type Scenario } from './scenario.js';

const WASM_PAGE = 65_536;
/** Without a step for so long: told. A step takes microseconds; setting up a machine, a second at worst. */
const STUCK_SECONDS = 5;
const STALL_MS = 30_000;
const LOOK_MS = 250;

/** What holds for all campaigns of a session. */
export interface SessionOptions {
  /** Switched on in campaigns that do not say. Default: none. */
  readonly bugs?: readonly BugName[];
  readonly seed?: number;
  /** Processor that all its threads share: handing over is then several times faster. Default: not pinned. */
  readonly cpu?: number;
  /** Counts different states: for scenarios without a machine, which each step then costs twice. */
  readonly countStates?: boolean;
  /** So long without a step, and a campaign is given up: some thread never comes to its next access. Default 30000. */
  readonly stallMs?: number;
  readonly onProgress?: (schedules: number, steps: number) => void;
  /** Once a campaign: for so many seconds nobody made an access. Code that loops without one is not interrupted. */
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
  readonly #stallMs: number;
  #looking: NodeJS.Timeout | undefined;
  /** When something last happened, and what told it. */
  #seen = { atMs: 0, told: '', stuck: false };
  #closing = false;
  #recording: { steps: RecordedStep[]; notes: RecordedNote[] } = { steps: [], notes: [] };
  #settle: { resolve(result: CampaignResult): void; reject(error: Error): void } | null = null;
  #broken: Error | null = null;

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
    this.#stallMs = options.stallMs ?? STALL_MS;
  }

  /** Starts the workers. @throws what the module or its scenario is wrong with */
  static async start(source: ScenarioSource, options: SessionOptions = {}): Promise<ExploreSession> {
    const module = (await import(source.url)) as Record<string, unknown>;
    const scenario = module[source.export];
    if (!isScenario(scenario)) throw new TypeError(`${source.url} exports no scenario '${source.export}'`);
    defineScenario(scenario);
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

  /** Runs one campaign; one at a time. @throws Error the scenario cannot be set up, or a worker died or hangs */
  run(request: CampaignRequest): Promise<CampaignResult> {
    if (this.#settle !== null) throw new Error('explore: a campaign is under way');
    if (this.#broken !== null) return Promise.reject(this.#broken);
    this.#recording = { steps: [], notes: [] };
    this.#control.cancel(false);
    this.#seen = { atMs: performance.now(), told: '', stuck: false };
    this.#looking = setInterval(() => this.#look(), LOOK_MS);
    return new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
      const message: ToDriver = { type: 'campaign', request: { bugs: this.#bugs, ...request } };
      this.#workers[0]!.postMessage(message);
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
    this.#closing = true;
    clearInterval(this.#looking);
    this.#control.i32[H.phase] = PHASE_CLOSE;
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  async #ready(): Promise<void> {
    const ready = this.#workers.map(
      (worker, index) =>
        new Promise<void>((resolve, reject) => {
          worker.on('message', (message: FromWorker) => {
            if (message.type === 'ready') resolve();
            else if (message.type === 'broken') {
              const error = new Error(message.message);
              reject(error);
              this.#fail(error);
            } else this.#hear(message);
          });
          worker.on('exit', (code) => {
            if (this.#closing) return;
            const { name } = this.scenario.threads[index]!;
            const error = new Error(
              `${this.scenario.name}: the worker of thread '${name}' exited with ${code}`,
            );
            reject(error);
            this.#fail(error);
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
      this.#seen.atMs = performance.now();
      this.#onProgress?.(message.schedules, message.steps);
    } else if (message.type === 'record') {
      this.#recording.steps.push(...message.steps);
      this.#recording.notes.push(...message.notes);
    } else if (message.type === 'result') {
      const settle = this.#settle;
      this.#settle = null;
      clearInterval(this.#looking);
      // The records of the other workers are on their way through other ports.
      setImmediate(() => settle?.resolve(message.result));
    }
  }

  /** The first error is why: what comes after it comes of it. */
  #fail(error: Error): void {
    this.#broken ??= error;
    clearInterval(this.#looking);
    const settle = this.#settle;
    this.#settle = null;
    settle?.reject(this.#broken);
  }

  /** Nobody can interrupt a thread that loops without a shared access, or waits for what the explorer does not see. */
  #look(): void {
    const control = this.#control;
    const [steps, decisions, checks] = [H.steps, H.decisions, H.checksRun].map((word) => control.i32[word]!);
    const told = `${steps} ${decisions} ${checks}`;
    const nowMs = performance.now();
    if (told !== this.#seen.told) Object.assign(this.#seen, { atMs: nowMs, told });
    const quietMs = nowMs - this.#seen.atMs;
    if (quietMs >= 1000 * STUCK_SECONDS && !this.#seen.stuck) {
      this.#seen.stuck = true;
      this.#onStuck?.(STUCK_SECONDS);
    }
    if (quietMs < this.#stallMs) return;
    const chosen = decisions === 0 ? 0 : control.i32[control.decision(decisions! - 1) + D.choice]! & 255;
    const { name } = this.scenario.threads[chosen]!;
    const when = `after ${steps} steps of a schedule, '${name}' chosen last`;
    this.#fail(
      new Error(
        `${this.scenario.name}: no step for ${this.#stallMs / 1000} s, ${when}: a thread that does not end`,
      ),
    );
  }
}

function memoryOf({ memory }: Scenario): WasmMemory {
  if (memory !== undefined && 'machine' in memory) return memoryFor(memory.machine);
  const pages = Math.ceil((memory?.bytes ?? WASM_PAGE) / WASM_PAGE);
  return new Wasm.Memory({ initial: pages, maximum: pages, shared: true });
}
