/** Thread 0's other half: plans one schedule after the other, sets each up, starts it, and keeps the count. */
import type { Scenario } from '../scenario.js';
import { ScheduleDigest } from '../strategies/digest.js';
import { createStrategy } from '../strategies/index.js';
import { Plan, Run } from '../strategies/strategy.js';
import { setBugs } from './context.js';
import {
  type ControlMemory,
  END_DONE,
  END_NOT_YET,
  END_VIOLATION,
  H,
  MAX_CHECKS,
  MAX_STEPS,
  OP_START,
  PHASE_PREPARE,
  PHASE_RUN,
  STATUS_RUNNABLE,
  T,
} from './control.js';
import type { CampaignRequest, CampaignResult, Failure, FromWorker } from './messages.js';
import type { ViolationRecord } from './thread-scheduler.js';
import type { ExploredThread } from './worker.js';

const DEFAULT_STEPS = 20_000;
const PROGRESS_MS = 250;
const START_NS = 1e9;
const ALL_MEMORY = 0xffff_ffff;

/** A program threw before anything could run: the scenario's mistake, told without the explorer's stack. */
export class SetupError extends Error {}

/** Runs schedules until one fails, the strategy is through, or the budget is used up. */
export function runCampaign(
  control: ControlMemory,
  ghost: Int32Array,
  scenario: Scenario,
  thread: ExploredThread,
  request: CampaignRequest,
  post: (message: FromWorker) => void,
): CampaignResult {
  const { i32 } = control;
  const strategy = createStrategy(request.strategy, request.options);
  const plan = new Plan(control);
  const run = new Run(control);
  for (let i = 0; i < MAX_CHECKS; i++) i32[control.checkCount(i)] = 0;
  i32[H.checksRun] = 0;
  setBugs(control, request.bugs ?? []);
  i32[H.sites] = strategy.wantsSites === true ? 1 : 0;
  i32[H.record] = request.record === true ? 1 : 0;
  const { states } = thread.scheduler;
  states?.clear();
  let schedules = 0;
  let steps = 0;
  let exhausted = false;
  let diverged = false;
  const digest = new ScheduleDigest();
  let failure: Failure | null = null;
  const startedMs = performance.now();
  let toldMs = startedMs;
  const wanted = (): boolean => Atomics.load(i32, H.cancel) === 0;
  while (failure === null && !diverged && schedules < request.schedules && wanted()) {
    const nowMs = performance.now();
    if (nowMs - startedMs >= request.timeMs) break;
    if (nowMs - toldMs >= PROGRESS_MS) {
      toldMs = nowMs;
      post({ type: 'progress', schedules, steps });
    }
    exhausted = !strategy.next(plan);
    if (exhausted) break;
    thread.clear();
    ghost.fill(0);
    reset(control, scenario);
    states?.begin();
    schedule();
    // A plan that was not used up is one that did not fit either.
    diverged = run.diverged || (i32[H.planStrict] !== 0 && run.length < i32[H.planLength]!);
    const ownRun = strategy.scouts !== true;
    if (ownRun || i32[H.end] === END_VIOLATION) {
      schedules++;
      steps += run.steps;
      digest.add(run);
    }
    if (i32[H.end] === END_VIOLATION) {
      const record = JSON.parse(control.text) as ViolationRecord;
      if (record.invariant === 'setup')
        throw new SetupError(`scenario ${scenario.name} cannot be set up: ${record.detail}`);
      failure = {
        ...record,
        schedule: schedules,
        choices: [...run.choices()],
        preemptions: run.preemptions,
        steps: run.steps,
      };
    }
    strategy.learn?.(run, failure !== null);
    if (strategy.diverged === true) diverged = true;
  }
  return {
    schedules,
    steps,
    seconds: (performance.now() - startedMs) / 1000,
    ...(states !== null && { states: { count: states.count, overflown: states.overflown } }),
    checks: Object.fromEntries(scenario.checks.map((name, i) => [name, i32[control.checkCount(i)]!])),
    exhausted,
    diverged,
    digest: digest.text,
    summary: strategy.summary(),
    failure,
  };

  function schedule(): void {
    i32[H.phase] = PHASE_PREPARE;
    thread.prepare();
    if (scenario.threads.length > 1) {
      control.give(1);
      control.take(0);
    }
    i32[H.phase] = PHASE_RUN;
    // Setup is nobody's step, and whatever its checks found is not the schedule's.
    thread.run(i32[H.end] === END_NOT_YET);
    if (!thread.scheduler.finish()) control.take(0);
    if (i32[H.end] === END_DONE) thread.check();
    thread.recorder.post(post);
  }
}

function reset(control: ControlMemory, scenario: Scenario): void {
  const { i32, times } = control;
  const { threads, stepLimit = DEFAULT_STEPS, timeouts = false, storeBuffer = [] } = scenario;
  for (const word of [H.decisions, H.steps, H.end, H.writes, H.parks, H.diverged, H.textLength, H.settling])
    i32[word] = 0;
  i32[H.culprit] = -1;
  i32[H.stepLimit] = Math.min(stepLimit, MAX_STEPS - 1);
  i32[H.timeouts] = timeouts ? 1 : 0;
  i32[H.threads] = threads.length;
  i32[H.buffering] = 0;
  i32[H.bufferFirst] = 0;
  i32[H.bufferLast] = ALL_MEMORY | 0;
  times.fill(START_NS);
  threads.forEach(({ name, daemon }, index) => {
    const at = control.thread(index);
    for (const word of [
      T.buffered,
      T.waitOffset,
      T.waitValue,
      T.woken,
      T.writesSeen,
      T.pendingOffset,
      T.site,
    ])
      i32[at + word] = 0;
    i32[at + T.status] = STATUS_RUNNABLE;
    i32[at + T.pendingOp] = OP_START;
    i32[at + T.daemon] = daemon === true ? 1 : 0;
    if (storeBuffer.includes(name)) i32[H.buffering]! |= 1 << index;
  });
}
