/**
 * Registers the tests of one of Linux's fixtures. The compiler demands a function for every test and data for every
 * variant that cases.ts lists, so a case cannot be forgotten; titles are Linux's own (fixture.variant.test).
 */
import test, { type ExecutionContext } from 'ava';
import { FAIL_NTH, type FixtureCases, IOMMUFD } from './cases.js';

const ALL = { ...IOMMUFD, ...FAIL_NTH } as const;

export type FixtureName = keyof typeof ALL;
type Tests<F extends FixtureName> = (typeof ALL)[F]['tests'][number];
type Variants<F extends FixtureName> = (typeof ALL)[F]['variants'][number];

/** @typeParam S  what setup makes @typeParam V  what tells a variant from another */
export interface FixtureSpec<F extends FixtureName, S, V> {
  readonly variants: Readonly<Record<Variants<F>, V>>;
  setup(t: ExecutionContext, variant: V): S;
  teardown(t: ExecutionContext, self: S): void;
  readonly tests: Readonly<
    Record<Tests<F>, (t: ExecutionContext, self: S, variant: V) => void | Promise<void>>
  >;
}

/** FIXTURE, FIXTURE_VARIANT_ADD and TEST_F of one name. */
export function fixture<F extends FixtureName, S, V>(name: F, spec: FixtureSpec<F, S, V>): void {
  const { variants, tests, skipped }: FixtureCases = ALL[name];
  const bodies = spec.tests as Readonly<
    Record<string, (t: ExecutionContext, self: S, variant: V) => void | Promise<void>>
  >;
  const data = spec.variants as Readonly<Record<string, V>>;
  for (const variant of variants.length === 0 ? [''] : variants)
    for (const title of tests) {
      const full = variant === '' ? `${name}.${title}` : `${name}.${variant}.${title}`;
      if (skipped?.[variant]?.includes(title)) {
        test.skip(full, () => undefined);
        continue;
      }
      test.serial(full, async (t) => {
        const self = spec.setup(t, data[variant]!);
        await bodies[title]!(t, self, data[variant]!);
        // Linux's teardown checks that nothing is left, so it does not run after a failure.
        if (t.passed) spec.teardown(t, self);
      });
    }
}
