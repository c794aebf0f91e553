import test from 'ava';
import { PRESETS } from '../../../hw/acpi/presets.js';
import { OptionError } from '../../../perf/stress/option-error.js';
import { planStress } from '../../../perf/stress/plan.js';
import type { StressOptions } from '../../../perf/stress/types.js';

const base: StressOptions = {
  topologyName: 'server-4',
  topology: PRESETS['server-4']!,
  durationS: 1,
  devices: 12,
  guests: 2,
  seed: 1,
  mix: { nic: 3, nvme: 2, gpu: 1, guest: 4 },
  hostilePercent: 1,
  s2Sharing: 'shared',
  inject: null,
  kill: null,
  memoryBytes: 2 ** 28,
};

test('plan: every device has exactly one part', (t) => {
  for (let devices = 4; devices <= 40; devices++) {
    const plan = planStress(base, devices);
    const seen = [
      ...plan.guests.flatMap((guest) => guest.devices),
      ...plan.hosts.map(({ device }) => device),
    ];
    t.deepEqual(
      seen.toSorted((a, b) => a - b),
      Array.from({ length: devices }, (_, i) => i),
    );
    for (const guest of plan.guests) t.true(guest.devices.length > 0);
  }
});

test('plan: every kind with a weight appears before any appears twice', (t) => {
  const kinds = planStress(base, 8).hosts.map(({ kind }) => kind);
  t.deepEqual(new Set(kinds.slice(0, 3)), new Set(['nic', 'nvme', 'gpu']));
});

test('plan: windows of one address space do not overlap, and the page that must fault is in none', (t) => {
  const { hosts } = planStress({ ...base, guests: 0 }, 24);
  for (const a of hosts) {
    for (const b of hosts) {
      if (a.space !== b.space) continue;
      const end = b.window.firstPage + b.window.slots * b.window.slotPages;
      t.false(a.holePage >= b.window.firstPage && a.holePage < end);
      t.not(a.holePage, b.readOnlyPage);
      if (a === b) continue;
      const aEnd = a.window.firstPage + a.window.slots * a.window.slotPages;
      t.true(aEnd <= b.window.firstPage || end <= a.window.firstPage);
    }
  }
});

test('plan: several devices share an address space, so that one unmap concerns several SMMUs', (t) => {
  const { hosts, spaces } = planStress({ ...base, guests: 0 }, 8);
  t.is(spaces, 2);
  t.deepEqual(
    hosts.filter(({ space }) => space === 0).map(({ device }) => device),
    [0, 2, 4, 6],
  );
});

test('plan: more guests than devices is refused by the name of the option', (t) => {
  t.throws(() => planStress({ ...base, guests: 9 }, 8), { instanceOf: OptionError, message: /too few/ });
});

test('plan: a mix without weight is refused', (t) => {
  t.throws(() => planStress({ ...base, mix: { nic: 0, nvme: 0, gpu: 0, guest: 0 } }, 8), {
    instanceOf: OptionError,
    message: /weight/,
  });
  t.throws(() => planStress({ ...base, guests: 0, mix: { nic: 0, nvme: 0, gpu: 0, guest: 4 } }, 8), {
    instanceOf: OptionError,
    message: /weight/,
  });
});
