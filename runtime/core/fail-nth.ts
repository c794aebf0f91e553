/**
 * Makes the nth allocation fail: what Linux's fault injection does with /proc/self/task/TID/fail-nth. Every place
 * of the core where Linux allocates asks `shouldFail` first, by name. Most then are -ENOMEM; some are what Linux's
 * iommufd_should_fail() makes of them: `get_object` -ENOENT, `pin_user_pages` -EFAULT, `pages_to_xarray`,
 * `pin_user_pages_remote` and `enforce_resv_regions` -EINVAL.
 *
 * @source lib/fault-inject.c should_fail_ex, Documentation/fault-injection
 */
export class FailNth {
  #left = 0;
  #failedAt: string | null = null;
  #asked = 0;

  /** @param nth  1 is the next one; 0 disarms */
  arm(nth: number): void {
    this.#left = nth;
    this.#failedAt = null;
    this.#asked = 0;
  }

  /** What is left to count; 0 once it has fired, or when it is not armed. */
  get left(): number {
    return this.#left;
  }

  /** The place that failed, null when none has since arm(). */
  get failedAt(): string | null {
    return this.#failedAt;
  }

  /** Places passed since arm(). */
  get asked(): number {
    return this.#asked;
  }

  /** Calls `call` without failing or counting anything in it. */
  aside<T>(call: () => T): T {
    const [left, asked] = [this.#left, this.#asked];
    this.#left = 0;
    try {
      return call();
    } finally {
      this.#left = left;
      this.#asked = asked;
    }
  }

  shouldFail(site: string): boolean {
    this.#asked++;
    if (this.#left === 0 || --this.#left > 0) return false;
    this.#failedAt = site;
    return true;
  }
}
