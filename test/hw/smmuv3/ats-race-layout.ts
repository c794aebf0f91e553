/** What the two threads of the ATS race test share. */
import { layout, line, u32 } from '../../../hw/memory/layout.js';

export const RaceLayout = layout('ats-race', 1, {
  /** Translations older than this were invalidated, and the SYNC of their ATC_INV completed. Writer: the test. */
  version: line(u32()),
  stop: line(u32()),
  /** Writer: the device. */
  batches: line(u32()),
  hits: u32(),
  stale: u32(),
  finished: u32(),
});
export const RACE_IOVA = 0x1000;
export const RACE_PA = 0x8080_0000;
export const RACE_VERSIONS = 256;
