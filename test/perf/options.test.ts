import test from 'ava';
import { mixText, parseMix, type StressInput, stressOptions } from '../../perf/stress/options.js';

const cix = (input: Partial<StressInput> = {}) => stressOptions({ topology: 'cix-p1', ...input }, () => 99);

test('options: the defaults', (t) => {
  const { topology, ...rest } = cix();
  t.is(topology.iommus.length, 2);
  t.deepEqual(rest, {
    topologyName: 'cix-p1',
    durationS: 9,
    devices: 4,
    guests: 2,
    seed: 99,
    mix: { nic: 3, nvme: 2, gpu: 1, guest: 4 },
    hostilePercent: 1,
    s2Sharing: 'shared',
    inject: null,
    ats: 'auto',
    kill: null,
    memoryBytes: 268_435_456,
  });
  t.is(stressOptions({ topology: 'server-4' }).devices, 8);
});

test('options: a bug of ATCs needs a device that has one', (t) => {
  for (const inject of ['skip-atc-inv', 'atc-before-tlbi'] as const) {
    t.is(cix({ inject }).inject, inject);
    t.throws(() => cix({ inject, ats: 'off' }), { message: /needs a device with an ATC/ });
  }
  t.is(cix({ inject: 'skip-tlbi', ats: 'off' }).ats, 'off');
  t.throws(() => cix({ ats: 'some' }), { message: /must be one of auto, on, off/ });
});

test('options: a seed is drawn when none is given, and differs', (t) => {
  const seeds = Array.from({ length: 4 }, () => stressOptions({ topology: 'cix-p1' }).seed);
  t.true(seeds.every((seed) => Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32));
  t.true(new Set(seeds).size > 1);
});

test('options: text from a command line is as good as numbers', (t) => {
  const asText = { duration: '2.5', devices: '6', guests: '3', seed: '0xff', hostile: '0', memory: '1GiB' };
  const asNumber = { duration: 2.5, devices: 6, guests: 3, seed: 255, hostile: 0, memory: 2 ** 30 };
  t.deepEqual(cix(asText), cix(asNumber));
  t.is(cix(asText).durationS, 2.5);
  t.is(cix(asText).seed, 255);
});

const WRONG: [option: string, value: string | number, message: RegExp][] = [
  ['duration', '0', /seconds from 0\.1/],
  ['duration', '9x', /must be a number of seconds/],
  ['duration', -1, /must be/],
  ['devices', '0', /whole number from 1 to 256/],
  ['devices', '2.5', /whole number/],
  ['devices', '', /whole number/],
  ['devices', '200', /streams for 98/],
  ['guests', '-1', /whole number/],
  ['guests', '5', /there are 4/],
  ['seed', '4294967296', /0 to 4294967295/],
  ['seed', 'abc', /0 to 4294967295/],
  ['mix', 'nic', /KIND=WEIGHT/],
  ['s2Sharing', 'none', /'shared' or 'per-psmmu'/],
  ['inject', 'skip', /skip-tlbi, early-sync, wrong-vmid, early-free/],
  ['hostile', '100.5', /percent from 0 to 100/],
  ['memory', '256MB', /size like 256MiB/],
  ['memory', '3MiB', /multiple of 2MiB/],
  ['memory', '4GiB', /3328MiB/],
  ['memory', Number.NaN, /./],
  ['topology', 'cix-p2', /'cix-p2' is neither a preset/],
  ['colour', 'red', /colour/],
];
for (const [option, value, message] of WRONG)
  test(`options: ${option} '${value}' is refused by name`, (t) => {
    const error = t.throws(() => cix({ [option]: value }), { name: 'OptionError', message });
    t.like(error, { option });
  });

test('mix: weights by kind, what is left out gets nothing', (t) => {
  t.deepEqual(parseMix('nic=1,guest=2'), { nic: 1, nvme: 0, gpu: 0, guest: 2 });
  t.deepEqual(parseMix(' gpu=0 , nvme=1000 '), { nic: 0, nvme: 1000, gpu: 0, guest: 0 });
  t.is(mixText({ nic: 1, nvme: 0, gpu: 0, guest: 2 }), 'nic=1,guest=2');
});

test('mix: what makes no sense is said', (t) => {
  t.regex(parseMix('') as string, /KIND=WEIGHT/);
  t.regex(parseMix('nic=1,') as string, /KIND=WEIGHT/);
  t.regex(parseMix('nic=-1') as string, /KIND=WEIGHT/);
  t.regex(parseMix('usb=1') as string, /'usb' is not a kind of traffic \(nic, nvme, gpu, guest\)/);
  t.regex(parseMix('nic=1,nic=2') as string, /'nic' is given twice/);
  t.regex(parseMix('nic=1001') as string, /more than 1000/);
  t.regex(parseMix('nic=0,gpu=0') as string, /no traffic/);
});

test('options: guests and the mix follow each other, or contradict each other', (t) => {
  t.like(cix({ guests: 0 }), { guests: 0, mix: { nic: 3, nvme: 2, gpu: 1, guest: 0 } });
  t.like(cix({ mix: 'nic=1' }), { guests: 0 });
  t.like(cix({ mix: 'nic=1,guest=1' }), { guests: 2 });
  t.like(cix({ devices: 1 }), { guests: 0 });
  t.like(cix({ devices: 2 }), { guests: 1 });
  t.like(
    t.throws(() => cix({ guests: 0, mix: 'guest=1' })),
    { option: 'mix' },
  );
  t.like(
    t.throws(() => cix({ guests: 1, mix: 'nic=1' })),
    { option: 'guests' },
  );
});
