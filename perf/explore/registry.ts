/**
 * The scenarios there are: every export of a module in `scenarios/` that is one. To add a scenario, put a file there;
 * its name must be its own.
 */
import { readdirSync } from 'node:fs';
import type { ScenarioSource } from './engine/messages.js';
import { isScenario, type Scenario } from './scenario.js';

/** A scenario, and where workers load it from. */
export interface FoundScenario {
  readonly scenario: Scenario;
  readonly source: ScenarioSource;
}

const FOLDER = new URL('./scenarios/', import.meta.url);

/** By name, in alphabetical order. @throws Error two of one name */
export async function loadScenarios(): Promise<Map<string, FoundScenario>> {
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.js'));
  const all = await Promise.all(files.map((file) => scenariosOf(new URL(file, FOLDER).href)));
  const found = new Map<string, FoundScenario>();
  for (const one of all.flat().sort((a, b) => (a.scenario.name < b.scenario.name ? -1 : 1))) {
    if (found.has(one.scenario.name)) throw new Error(`two scenarios are called '${one.scenario.name}'`);
    found.set(one.scenario.name, one);
  }
  return found;
}

/** Every scenario that a module exports. @throws what importing it throws */
export async function scenariosOf(url: string): Promise<FoundScenario[]> {
  const exports = Object.entries((await import(url)) as Record<string, unknown>);
  return exports.flatMap(([name, value]) =>
    isScenario(value) ? [{ scenario: value, source: { url, export: name } }] : [],
  );
}
