/**
 * Whole attaches against the running model: CD and STE, their CFGIs and SYNCs, ATS and tags, with a device that reads
 * all the while. Each read goes by the old configuration, by the new one, or is refused; and from the end on by the new.
 */
import test, { type ExecutionContext } from 'ava';
import { type BugName, bugSwitches } from '../../hw/bugs/bug-switches.js';
import { type Plan, probeAttach } from './attach-prober.js';
import { ABORTED, DriverWorld, type Target } from './attach-world.js';

interface Outcome {
  readonly plans: number;
  readonly reads: number;
  /** Some read was refused. */
  readonly refused: boolean;
  /** Reads by a domain that would not have told the SMMU of an unmap. */
  readonly untold: number;
  /** Plans after which a read was by neither, or the attach was not in force. */
  readonly wrong: readonly {
    readonly plan: Plan;
    readonly results: readonly number[];
    readonly last: number;
  }[];
}

/** Goes from `from` to `to` under every plan: no fetch before a step, then one that sees a part of it. */
function everyPlan(world: DriverWorld, from: Target, to: Target, attach: (to: Target) => number): Outcome {
  const go = (plan: Plan | null) => {
    if (attach(from) !== 0) throw new Error('attach');
    world.fixture.smmus[0]!.poll();
    return probeAttach(world, () => attach(to), plan);
  };
  const { steps } = go(null);
  const plans: Plan[] = [
    { step: -1, visible: 0 },
    ...steps.flatMap((stores, step) =>
      Array.from({ length: 2 ** stores }, (_, visible) => ({ step, visible })),
    ),
  ];
  let reads = 0;
  let refused = false;
  let untold = 0;
  const wrong: Outcome['wrong'][number][] = [];
  for (const plan of plans) {
    const { results, reads: count, untold: alone } = go(plan);
    reads += count;
    untold += alone;
    refused ||= results.includes(ABORTED);
    const last = world.read();
    const known = [from.reads, to.reads, ABORTED];
    if (last !== to.reads || results.some((result) => !known.includes(result)))
      wrong.push({ plan, results, last });
  }
  return { plans: plans.length, reads, refused, untold, wrong };
}

function holds(t: ExecutionContext, { plans, reads, wrong, untold }: Outcome, name: string): void {
  t.deepEqual(wrong, [], name);
  t.is(untold, 0, name);
  t.true(plans > 2 && reads > 100, `${name}: ${plans} plans, ${reads} reads`);
}

for (const ats of [false, true])
  test(`each kind of domain to each other, ${ats ? 'with' : 'without'} ATS: old, new or refused`, (t) => {
    const world = new DriverWorld({ ats });
    const hitless: string[] = [];
    let plans = 0;
    let reads = 0;
    for (const from of world.targets)
      for (const to of world.targets) {
        if (from === to) continue;
        const outcome = everyPlan(world, from, to, (target) => world.attach(target));
        holds(t, outcome, `${from.name} to ${to.name}`);
        if (!outcome.refused) hitless.push(`${from.name} to ${to.name}`);
        plans += outcome.plans;
        reads += outcome.reads;
      }
    // Only these keep their VMID, and change one word.
    t.deepEqual(hitless, [
      's2 of guest to nested',
      's2 of guest to nested, other CDs',
      'nested to s2 of guest',
      'nested to nested, other CDs',
      'nested, other CDs to s2 of guest',
      'nested, other CDs to nested',
    ]);
    t.log(`${plans} attaches, ${reads} reads`);
  });

for (const pasidBits of [4, 12])
  test(`a PASID of ${pasidBits} bits is attached, moved and taken away: old, new or refused`, (t) => {
    const world = new DriverWorld({ pasidBits });
    const pasid = 2 ** pasidBits - 3;
    world.pasid = pasid;
    const attach = (target: Target): number => world.attachPasid(pasid, target);
    const names = ['blocked', 's1', 's1, other'];
    for (const from of names)
      for (const to of names)
        if (from !== to)
          holds(t, everyPlan(world, world.target(from), world.target(to), attach), `${from} to ${to}`);
  });

/** The first attach of a device, which makes tables for it. @returns results but refusals and the new domain's */
function firstAttach(to: string, bugs: readonly BugName[], pasidBits = 0): number[] {
  const world = new DriverWorld({ pasidBits, bugs: bugSwitches(bugs) });
  world.soilNextLeaf();
  const target = world.target(to);
  const attach = (): number => {
    if (pasidBits === 0) return world.attach(target);
    world.pasid = 2 ** pasidBits - 3;
    return world.attachPasid(world.pasid, target);
  };
  const { results, reads } = probeAttach(world, attach, { step: -1, visible: 0 });
  if (reads < 2048 || world.read() !== target.reads) throw new Error('the attach was not seen');
  return results.filter((result) => result !== ABORTED && result !== target.reads);
}

test('the first attach makes a leaf of the stream table, and of the CD table: new or refused', (t) => {
  for (const to of ['s1', 's2', 'nested', 's2 of guest']) t.deepEqual(firstAttach(to, []), [], to);
  t.deepEqual(firstAttach('s1', [], 12), []);
});

test('l1-before-l2-table: the device goes by what the frame last held', (t) => {
  t.true(firstAttach('s1', ['l1-before-l2-table']).length > 0);
});

test('invs-after-ste: a translation is cached of which no unmap would tell', (t) => {
  const world = new DriverWorld({ bugs: bugSwitches(['invs-after-ste']) });
  for (const to of ['s1', 's2', 'nested']) {
    const { untold, wrong } = everyPlan(world, world.target('s1, other'), world.target(to), (target) =>
      world.attach(target),
    );
    t.true(untold > 0, to);
    t.deepEqual(wrong, [], to);
  }
});

const torn = (bug: 'ste-torn' | 'cd-torn', from: string, to: string): Outcome => {
  const world = new DriverWorld({ bugs: bugSwitches([bug]) });
  return everyPlan(world, world.target(from), world.target(to), (target) => world.attach(target));
};

test('ste-torn: s1 to s2 and s2 to another s2 are seen half done', (t) => {
  t.true(torn('ste-torn', 's1', 's2').wrong.length > 0);
  t.true(torn('ste-torn', 's2', 's2, other').wrong.length > 0);
});

test('cd-torn: one stage 1 to another is seen half done', (t) => {
  t.true(torn('cd-torn', 's1', 's1, other').wrong.length > 0);
});
