import test from 'ava';
import { createMachine } from '../../runtime/machine.js';
import { ConfigError, checkConfig, ridOf } from '../../runtime/machine-config.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';

const good: MachineConfig = {
  memory: '64MiB',
  iommus: [
    { name: 'smmu0', model: 'smmuv3' },
    { name: 'smmu1', model: 'smmuv3' },
  ],
  devices: [
    { bdf: '0000:01:00.0', iommu: 'smmu0' },
    { name: 'npu', iommu: 'smmu1', streamId: 7 },
  ],
};

/** [what is wrong, the key that must be named, a part of the message] */
const wrong: [string, unknown, string, RegExp][] = [
  ['memory is no size', { ...good, memory: '64 potatoes' }, 'memory', /not a size/],
  ['memory is not whole 2 MiB', { ...good, memory: 4096 }, 'memory', /multiple of 2097152/],
  ['memory is negative', { ...good, memory: -1 }, 'memory', /./],
  [
    'a command queue below what the driver batches',
    { ...good, iommus: [{ name: 'smmu0', model: 'smmuv3', cmdqLog2: 6 }], devices: [] },
    'iommus[0].cmdqLog2',
    /./,
  ],
  [
    'page requests without ATS',
    { ...good, iommus: [{ name: 'smmu0', model: 'smmuv3', ats: false, pri: true }], devices: [] },
    'iommus[0].pri',
    /needs ats/,
  ],
  [
    'an unknown granule',
    { ...good, iommus: [{ name: 'smmu0', model: 'smmuv3', granules: ['8KiB'] }], devices: [] },
    'iommus[0].granules[0]',
    /./,
  ],
  ['no room for an iommufd', { ...good, maxFds: 0 }, 'maxFds', /./],
  ['no IOMMU', { ...good, iommus: [], devices: [] }, 'iommus', /./],
  ['an unknown key', { ...good, iommu: [] }, 'iommu', /only memory, iommus, devices, /],
  [
    'an unknown key of a device',
    { ...good, devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0', sid: 1 }] },
    'devices[0].sid',
    /only bdf, name, iommu, streamId, ats, pri, stall, pasidBits, pasidExec, pasidPriv$/,
  ],
  [
    'an unknown model',
    { ...good, iommus: [{ name: 'a', model: 'smmuv2' }] },
    'iommus[0].model',
    /'smmuv2' is none of the models smmuv3, amd, vtd, of which only 'smmuv3' is modelled/,
  ],
  [
    'a model that cannot even be printed',
    { ...good, iommus: [{ name: 'a', model: Object.create(null) }] },
    'iommus[0].model',
    /of type object, which is none of the models/,
  ],
  [
    'a model that is not there yet',
    {
      ...good,
      iommus: [
        { name: 'smmu0', model: 'smmuv3' },
        { name: 'smmu1', model: 'vtd' },
      ],
    },
    'iommus[1].model',
    /not modelled yet/,
  ],
  [
    'two IOMMUs of one name',
    {
      ...good,
      iommus: [
        { name: 'a', model: 'smmuv3' },
        { name: 'a', model: 'smmuv3' },
      ],
    },
    'iommus[1].name',
    /taken/,
  ],
  [
    'IOTLB entries that are no power of two',
    { ...good, iommus: [{ name: 'smmu0', model: 'smmuv3', iotlbEntries: 1000 }], devices: [] },
    'iommus[0].iotlbEntries',
    /power of two/,
  ],
  [
    'a device on no IOMMU',
    { ...good, devices: [{ bdf: '0000:01:00.0', iommu: 'x' }] },
    'devices[0].iommu',
    /smmu0/,
  ],
  ['a bad PCI address', { ...good, devices: [{ bdf: '01:00.0', iommu: 'smmu0' }] }, 'devices[0].bdf', /SSSS/],
  [
    'ATS behind an SMMU without',
    {
      ...good,
      iommus: [{ name: 'smmu0', model: 'smmuv3', ats: false }],
      devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0', ats: true }],
    },
    'devices[0].ats',
    /'smmu0' has no ATS/,
  ],
  [
    'ATS off PCI',
    { ...good, devices: [{ name: 'x', streamId: 1, iommu: 'smmu0', ats: true }] },
    'devices[0].ats',
    /bdf/,
  ],
  [
    'page requests without ATS at the device',
    { ...good, devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0', pri: true }] },
    'devices[0].pri',
    /needs ats/,
  ],
  [
    'page requests behind an SMMU without',
    {
      ...good,
      iommus: [{ name: 'smmu0', model: 'smmuv3', ats: true, pri: false }],
      devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0', ats: true, pri: true }],
    },
    'devices[0].pri',
    /no page requests/,
  ],
  [
    'stalls behind an SMMU without',
    {
      ...good,
      iommus: [{ name: 'smmu0', model: 'smmuv3', stalls: 'none' }],
      devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0', stall: true }],
    },
    'devices[0].stall',
    /no stalls/,
  ],
  [
    'stalls and ATS',
    { ...good, devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0', ats: true, stall: true }] },
    'devices[0].ats',
    /excludes stalls/,
  ],
  ['a device without a name', { ...good, devices: [{ iommu: 'smmu0', streamId: 1 }] }, 'devices[0]', /bdf/],
  [
    'a device without a stream',
    { ...good, devices: [{ name: 'x', iommu: 'smmu0' }] },
    'devices[0].streamId',
    /needed/,
  ],
  [
    'a stream past the SMMU’s StreamIDs',
    {
      ...good,
      iommus: [{ name: 'smmu0', model: 'smmuv3', sidBits: 8 }],
      devices: [{ name: 'x', iommu: 'smmu0', streamId: 256 }],
    },
    'devices[0].streamId',
    /8 bits/,
  ],
  [
    'two devices with one stream',
    {
      ...good,
      devices: [
        { name: 'x', iommu: 'smmu0', streamId: 5 },
        { name: 'y', iommu: 'smmu0', streamId: 5 },
      ],
    },
    'devices[1].streamId',
    /another device/,
  ],
  [
    'a device twice',
    {
      ...good,
      devices: [
        { bdf: '0000:01:00.0', iommu: 'smmu0' },
        { bdf: '0000:01:00.0', iommu: 'smmu1' },
      ],
    },
    'devices[1].bdf',
    /taken/,
  ],
  ['a bug on an IOMMU that is not there', { ...good, bugs: { iommu: 2 } }, 'bugs.iommu', /number 2/],
  ['an unknown bug', { ...good, bugs: { skipTlb: true } }, 'bugs.skipTlb', /skipTlbi/],
];

for (const [what, config, key, message] of wrong)
  test(`config: ${what} is refused by its key ${key}`, (t) => {
    const error = t.throws(() => checkConfig(config as MachineConfig), { instanceOf: ConfigError });
    t.is(error.key, key);
    t.is(error.name, 'ConfigError');
    t.true(error.message.startsWith(key));
    t.false(error.message.startsWith(`${key}: ${key}: `), 'the key once');
    t.regex(error.message, message);
  });

test('config: defaults are filled in, devices get their IOMMU and stream', (t) => {
  const config = checkConfig(good);
  t.is(config.memory, 64 * 2 ** 20);
  t.is(config.s2Sharing, 'shared');
  t.deepEqual(
    config.devices.map(({ label, iommuIndex, sid }) => [label, iommuIndex, sid]),
    [
      ['0000:01:00.0', 0, 0x100],
      ['npu', 1, 7],
    ],
  );
  const { iommu, zoo, ...bugs } = config.bugs;
  t.is(iommu, 0);
  t.deepEqual(zoo, []);
  t.false(Object.values(bugs).some((bug) => bug));
});

test('config: a zoo bug of compiled code is refused where no explorer runs the thread', (t) => {
  const error = t.throws(() => createMachine({ ...good, bugs: { zoo: ['atc-fill-unguarded'] } }), {
    instanceOf: ConfigError,
    message: /atc-fill-unguarded: needs the explore variant/,
  });
  t.is(error.key, 'bugs.zoo');
});

test('config: a Requester ID is bus << 8 | device << 3 | function', (t) => {
  t.is(ridOf('0000:00:00.0'), 0);
  t.is(ridOf('0001:01:00.0'), 0x100);
  t.is(ridOf('0000:ff:1f.7'), 0xffff);
});
