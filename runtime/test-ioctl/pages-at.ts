/** What lies behind user addresses of the calling process, as Linux's tests compare it: by frame. */
import { EFAULT } from '../../uapi/abi/errno.js';
import { pageOf } from '../iova/area.js';
import type { TestCall } from './test-call.js';

/** The frames behind ascending addresses, asked for run by run. */
export class PagesAt {
  readonly #call: TestCall;
  readonly #run = { pfn: 0, pages: 0 };
  #firstPage = 0;

  constructor(call: TestCall) {
    this.#call = call;
  }

  /** get_user_pages_fast() of one page, to be read. @returns its frame | -EFAULT */
  pfnAt(va: bigint): number {
    const page = pageOf(va);
    const run = this.#run;
    if (page < this.#firstPage || page >= this.#firstPage + run.pages) {
      const status = this.#call.core.current.mm.runAt(page, run, false);
      if (status < 0) {
        run.pages = 0;
        return -EFAULT;
      }
      this.#firstPage = page;
    }
    return run.pfn + (page - this.#firstPage);
  }
}
