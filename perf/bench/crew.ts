/**
 * Threads that do the same thing at the same time: each attaches to the machine, makes its work, and then, told
 * a moment to begin at, repeats it for a while. How many are asked changes from round to round; who is not asked
 * sleeps.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { MachineHandle } from '../../runtime/machine-thread.js';
import { pin } from './affinity.js';
import type { CrewData, CrewOrder, CrewReport } from './crew-worker.js';

const START_IN_MS = 2;

export class Crew {
  readonly #workers: readonly Worker[];

  private constructor(workers: readonly Worker[]) {
    this.#workers = workers;
  }

  /** @param members  devices, by index; each thread is pinned to a processor of its own as far as there are */
  static async start(handle: MachineHandle, members: readonly number[], pages: number): Promise<Crew> {
    const workers: Worker[] = [];
    for (const device of members) {
      const workerData: CrewData = { handle, device, pages };
      const worker = new Worker(new URL('./crew-worker.js', import.meta.url), { workerData });
      workers.push(worker);
      const [thread] = (await once(worker, 'message')) as [number];
      pin(thread, workers.length - 1);
    }
    return new Crew(workers);
  }

  /** The first `count` of them work for `ms`. */
  async work(count: number, ms: number): Promise<CrewReport[]> {
    const order: CrewOrder = { startMs: performance.timeOrigin + performance.now() + START_IN_MS, ms };
    return Promise.all(
      this.#workers.slice(0, count).map(async (worker) => {
        const answer = once(worker, 'message');
        worker.postMessage(order);
        return ((await answer) as [CrewReport])[0];
      }),
    );
  }

  async stop(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}
