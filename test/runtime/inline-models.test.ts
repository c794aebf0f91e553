import test from 'ava';
import { InlineModels } from '../../runtime/inline-models.js';

/** A model with so many steps of work, and how often it was stepped. */
const model = (work: number) => {
  const self = {
    work,
    steps: 0,
    step: () => {
      self.steps++;
      return self.work-- > 0;
    },
  };
  return self;
};

test('inline models: the one that has work is stepped, the others hardly', (t) => {
  const models = Array.from({ length: 64 }, (_, i) => model(i === 40 ? 1000 : 0));
  const inline = new InlineModels(models);
  for (let i = 0; i < 1000; i++) t.true(inline.step());
  t.is(models[40]!.steps, 1000);
  t.true(models[0]!.steps < 100, `${models[0]!.steps} steps of an idle model`);
});

test('inline models: one that is always busy does not starve another', (t) => {
  const [busy, other] = [model(Number.POSITIVE_INFINITY), model(3)];
  const inline = new InlineModels([busy, other]);
  for (let i = 0; i < 64; i++) inline.step();
  t.true(other.work <= 0);
});

test('inline models: false means that all were asked', (t) => {
  const models = [model(1), model(0), model(1)];
  const inline = new InlineModels(models);
  while (inline.step());
  t.deepEqual(
    models.map(({ work }) => work < 0),
    [true, true, true],
  );
  models[1]!.work = 1;
  t.true(inline.step());
  t.false(new InlineModels([]).step());
});
