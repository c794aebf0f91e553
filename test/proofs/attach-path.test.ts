/**
 * Whole attaches against the running model: CD and STE, their CFGIs and SYNCs, ATS and tags, with a device that reads
 * all the while. Each read goes by the old configuration, by the new one, or is refused; and from the end on by the new.
 */
import test, { type ExecutionContext } from 'ava';
import { bugSwitches } from '../../hw/bugs/bug-switches.js';
import { type Plan, probeAttach } from './attach-prober.js';
import { ABORTED, DriverWorld, type Target } from './attach-world.js';

interface Outcome {
  readonly plans: number;
  readonly reads: number;
  /** Some read was refused. */
  readonly refused: boolean;
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
  const wrong: Outcome['wrong'][number][] = [];
  for (const plan of plans) {
    const { results, reads: count } = go(plan);
    reads += count;
    refused ||= results.includes(ABORTED);
    const last = world.read();
    const known = [from.reads, to.reads, ABORTED];
    if (last !== to.reads || results.some((result) => !known.includes(result)))
      wrong.push({ plan, results, last });
  }
  return { plans: plans.length, reads, refused, wrong };
}

function holds(t: ExecutionContext, { plans, reads, wrong }: Outcome, name: string): void {
  t.deepEqual(wrong, [], name);
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

test('a PASID is attached, moved and taken away: old, new or refused', (t) => {
  const world = new DriverWorld({ pasidBits: 4 });
  world.pasid = 3;
  const attach = (target: Target): number => world.attachPasid(3, target);
  const names = ['blocked', 's1', 's1, other'];
  for (const from of names)
    for (const to of names)
      if (from !== to)
        holds(t, everyPlan(world, world.target(from), world.target(to), attach), `${from} to ${to}`);
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
