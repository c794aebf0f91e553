/**
 * A VCMDQ's registers in its VINTF's page 0, in the hands of whoever the page was mapped to: a guest's driver, with
 * plain loads and stores and no trap. [T241-CMDQV].
 *
 * Silicon sees a store; a model on another thread has to look. One that is told looks at once (`told`); otherwise it
 * looks about every millisecond while any VCMDQ is enabled.
 */
import type { Words } from '../sync/words.js';
import { slotOf } from './cmdqv-layout.js';
import {
  VCMDQ_CONFIG,
  VCMDQ_CONS,
  VCMDQ_GERROR,
  VCMDQ_GERRORN,
  VCMDQ_PROD,
  VCMDQ_STATUS,
} from './registers.js';

export class VcmdqPage {
  readonly #words: Words;
  readonly #slot: number;
  readonly #told: () => void;

  /**
   * @param page    linear offset of the VINTF's page 0
   * @param lvcmdq  logical number of the queue
   * @param told    called after every store
   */
  constructor(words: Words, page: number, lvcmdq: number, told: () => void = () => undefined) {
    this.#words = words;
    this.#slot = slotOf(page, lvcmdq);
    this.#told = told;
  }

  /** The word to wait on for progress. */
  get consWord(): number {
    return this.#slot + VCMDQ_CONS.offset;
  }

  get cons(): number {
    return this.#load(VCMDQ_CONS.offset);
  }

  set cons(value: number) {
    this.#store(VCMDQ_CONS.offset, value);
  }

  get prod(): number {
    return this.#load(VCMDQ_PROD.offset);
  }

  set prod(value: number) {
    this.#store(VCMDQ_PROD.offset, value);
  }

  set enable(value: boolean) {
    this.#store(VCMDQ_CONFIG.offset, VCMDQ_CONFIG.EN.put(0, value ? 1 : 0));
  }

  get enabled(): boolean {
    return VCMDQ_STATUS.ENABLED.get(this.#load(VCMDQ_STATUS.offset)) === 1;
  }

  get gerror(): number {
    return this.#load(VCMDQ_GERROR.offset);
  }

  get gerrorn(): number {
    return this.#load(VCMDQ_GERRORN.offset);
  }

  set gerrorn(value: number) {
    this.#store(VCMDQ_GERRORN.offset, value);
  }

  #load(offset: number): number {
    return this.#words.load(this.#slot + offset) >>> 0;
  }

  #store(offset: number, value: number): void {
    this.#words.store(this.#slot + offset, value);
    this.#told();
  }
}
