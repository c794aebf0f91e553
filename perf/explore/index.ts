/**
 * Public entry point `iommufd/explore`: code of one's own under every interleaving that a strategy thinks of. It must
 * make its shared accesses through Words or what is built on them (`iommufd/sync`); nothing else is a schedule point.
 */
export { BUG_NAMES, BUGS, type BugName } from '../../hw/bugs/bug-switches.js';
export type { CampaignRequest, CampaignResult, Failure, ScenarioSource } from './engine/messages.js';
export { type MachineScenario, machineScenario } from './machine-scenario.js';
export { mergeReports } from './merge.js';
export { type FoundScenario, loadScenarios, scenariosOf } from './registry.js';
export type { ExploreReport } from './report.js';
export {
  type Exploration,
  type ExploreOptions,
  explore,
  type Replayed,
  type ReplayOptions,
  replay,
  type SessionChoice,
  type ToldFailure,
} from './run.js';
export {
  defineScenario,
  type Scenario,
  type ScenarioThread,
  type ThreadBody,
  type ThreadContext,
} from './scenario.js';
export { ExploreSession, type Recording, type SessionOptions } from './session.js';
export { type ScheduleSize, type Shrunk, shrink, sizeOf } from './shrink.js';
export type { Story, StoryAccess, StoryRow } from './story/story.js';
export { renderStory, type TableOptions } from './story/story-table.js';
export { STRATEGY_NAMES, type StrategyName } from './strategies/index.js';
