/** Every bug of the zoo with how it is found: one table a group of code. */
import type { ZooEntry } from '../entry.js';
import { objectEntries } from './object.js';
import { syncEntries } from './sync.js';

export const ENTRIES: readonly ZooEntry[] = [...syncEntries, ...objectEntries];
