/**
 * A device that translates batch after batch, most of them in a few pages and some anywhere in its range, so
 * that all caches have their part. Addresses are used by nobody: what is measured is translation.
 */
import { NO_SSID } from '../../../hw/iotlb/port-layout.js';
import { rest } from '../../../hw/sync/wait.js';
import type { ProgramContext } from '../../../workers/program.js';
import { Pace } from '../../stress/programs/pace.js';
import { Random } from '../../stress/random.js';
import { ScaleGuest, ScaleLayout } from '../scale-layout.js';

export interface TrafficArgs {
  /** Mapped for reading, all the time. */
  readonly firstPage: number;
  readonly pages: number;
  readonly batch: number;
  /** The guest whose streams have to translate first; -1 for none. */
  readonly guest: number;
  /** Share of the time to work, 0..1. */
  readonly duty: number;
}

/** Pages of a device's next transactions, gone through again and again. */
const PLANNED = 8192;
const FEW_PAGES = 256;
const ANYWHERE_PERCENT = 10;
const POLL_MS = 2;

export function traffic(context: ProgramContext, args: TrafficArgs): void {
  const { firstPage, pages, batch, guest, duty } = args;
  const { env, memory } = context.thread;
  const port = context.port!;
  const random = new Random(context.seed);
  const plan = Uint32Array.from(
    { length: PLANNED },
    () => firstPage + random.below(random.chance(ANYWHERE_PERCENT) ? pages : Math.min(FEW_PAGES, pages)),
  );
  if (guest >= 0) {
    const { base } = memory.region(ScaleLayout, 'scale');
    const ready = base + ScaleLayout.at.guests + guest * ScaleGuest.size + ScaleGuest.at.ready;
    while (memory.words.load(ready) === 0) {
      if (context.stopRequested()) return;
      rest(env, POLL_MS);
    }
  }
  const pace = new Pace(env, random, duty);
  for (let at = 0; !context.stopRequested(); ) {
    for (let slot = 0; slot < batch; slot++) {
      const page = plan[at++ % PLANNED]!;
      port.prepare(slot, page << 12, page >>> 20, 0, port.streamId, NO_SSID);
    }
    port.translate(batch);
    const status = port.status(batch - 1);
    port.end();
    if (status !== 0) throw new Error(`a translation was answered with ${status}`);
    pace.breathe();
  }
}
