/** Every bug of the zoo with how it is found: one table a group of code. */
import type { ZooEntry } from '../entry.js';
import { configEntries } from './config.js';
import { kernelEntries } from './kernel.js';
import { objectEntries } from './object.js';
import { queueEntries } from './queue.js';
import { syncEntries } from './sync.js';

export const ENTRIES: readonly ZooEntry[] = [
  ...syncEntries,
  ...kernelEntries,
  ...configEntries,
  ...objectEntries,
  ...queueEntries,
];
