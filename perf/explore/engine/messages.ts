/** What the session and its workers say to each other, before and after campaigns; during one they use memory. */
import type { BugName } from '../../../hw/bugs/bug-switches.js';
import type { WasmMemory } from '../../../hw/memory/webassembly.js';
import type { StrategyName } from '../strategies/index.js';
import type { StrategyOptions } from '../strategies/strategy.js';
import type { ViolationRecord } from './thread-scheduler.js';

/** Where a scenario is: an export of a module. */
export interface ScenarioSource {
  readonly url: string;
  readonly export: string;
}

export interface ExploreWorkerData {
  readonly control: SharedArrayBuffer;
  readonly memory: WasmMemory;
  readonly ghost: SharedArrayBuffer;
  readonly index: number;
  readonly source: ScenarioSource;
  readonly seed: number;
  /** Where states are counted, if they are. */
  readonly states: SharedArrayBuffer | null;
}

/** Schedules to run. */
export interface CampaignRequest {
  readonly strategy: StrategyName;
  readonly options: StrategyOptions;
  /** Switched on, by name. Default: none. */
  readonly bugs?: readonly BugName[];
  /** Ends after so many schedules, or milliseconds; at the first violation in any case. */
  readonly schedules: number;
  readonly timeMs: number;
  /** Keep every step of the last schedule, for its story. */
  readonly record?: boolean;
}

/** What they came to. */
export interface CampaignResult {
  readonly schedules: number;
  readonly steps: number;
  readonly seconds: number;
  /** Different ones, where they are counted; overflown: there are more. */
  readonly states?: { readonly count: number; readonly overflown: boolean };
  /** Evaluations of each of the scenario's checks. */
  readonly checks: Readonly<Record<string, number>>;
  /** The strategy has nothing left. */
  readonly exhausted: boolean;
  /** The last schedule did not go as planned: the code is not what it was recorded from, or not deterministic. */
  readonly diverged: boolean;
  /** Of the set of schedules: see strategies/digest.ts. */
  readonly digest: string;
  readonly summary: string;
  readonly failure: Failure | null;
}

/** A schedule that ended badly. */
export interface Failure extends ViolationRecord {
  /** Which schedule of the campaign, from 1. */
  readonly schedule: number;
  readonly choices: readonly number[];
  readonly preemptions: number;
  readonly steps: number;
}

/** One access of a recorded schedule, as its thread saw it. */
export interface RecordedStep {
  /** From 1, over all threads. */
  readonly step: number;
  readonly thread: number;
  readonly op: number;
  readonly offset: number;
  /** Function and place, innermost first. */
  readonly stack: readonly string[];
  /** The 32-bit word there, before; and after, of what changes it. int32. */
  readonly before: number;
  readonly after?: number;
  /** A store that is in the thread's store buffer only. */
  readonly kept?: boolean;
  /** Of a wait: whether the thread slept. */
  readonly slept?: boolean;
  /** Of a notify: how many were woken. */
  readonly woken?: number;
}

export interface RecordedNote {
  /** That of the access before it, by anyone. */
  readonly step: number;
  readonly thread: number;
  readonly text: string;
}

export type ToDriver = { readonly type: 'campaign'; readonly request: CampaignRequest };

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'broken'; readonly message: string }
  | { readonly type: 'progress'; readonly schedules: number; readonly steps: number }
  | { readonly type: 'result'; readonly result: CampaignResult }
  | {
      readonly type: 'record';
      readonly steps: readonly RecordedStep[];
      readonly notes: readonly RecordedNote[];
    };
