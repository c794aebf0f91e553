import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import test from 'ava';
import { type MachineDescription, streamIdFor } from '../../hw/acpi/description.js';
import { writeIort } from '../../hw/acpi/iort-writer.js';
import { loadTopology, PRESET_NAMES, parseTopology } from '../../perf/stress/presets.js';
import { machineConfigOf } from '../../perf/stress/topology.js';
import { checkConfig } from '../../runtime/machine-config.js';

const CHOICES = { memoryBytes: 256 * 2 ** 20, s2Sharing: 'shared', trace: false } as const;
const place = (description: MachineDescription, devices: number) =>
  machineConfigOf(description, { ...CHOICES, devices }).devices;
const text = (value: unknown) =>
  new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value));

/** A small hand-written machine; every test changes what it is about. */
function handmade(): MachineDescription {
  return {
    iommus: [
      {
        name: 'a',
        model: 'smmuv3',
        base: 0x1000_0000,
        coherent: true,
        interrupts: { event: 1, pri: 2, gerror: 3, sync: 4 },
      },
    ],
    masters: [
      {
        kind: 'pci-root-complex',
        segment: 3,
        ats: false,
        memoryAddressSize: 48,
        idMappings: [{ inputBase: 0x100, count: 2, outputBase: 0x40, iommu: 'a' }],
      },
    ],
    reserved: [],
    unsupported: [],
    notes: [],
  };
}

test('topology: PCI devices have an ATC where the root complex has ATS, or all, or none', (t) => {
  const ats = (name: string, choice?: 'auto' | 'on' | 'off') =>
    machineConfigOf(loadTopology(name), { ...CHOICES, devices: 4, ats: choice }).devices.map(
      ({ bdf, ats, pri }) => {
        t.is(ats, pri);
        return bdf === undefined ? '-' : ats ? 'ATC' : 'none';
      },
    );
  t.deepEqual(ats('server-4'), ['none', 'ATC', 'none', 'ATC']);
  t.deepEqual(ats('server-4', 'auto'), ['none', 'ATC', 'none', 'ATC']);
  t.deepEqual(ats('server-4', 'on'), ['ATC', 'ATC', 'ATC', 'ATC']);
  t.deepEqual(ats('server-4', 'off'), ['none', 'none', 'none', 'none']);
  // A named component has none, whatever is asked for.
  t.deepEqual(ats('cix-p1', 'on'), ['ATC', '-', 'ATC', '-']);
  t.false(place(handmade(), 1)[0]!.ats);
});

for (const name of PRESET_NAMES) {
  test(`topology: ${name} places up to 64 devices, in turn over its SMMUs, each on a stream of its own`, (t) => {
    const description = loadTopology(name);
    const smmus = description.iommus.map((iommu) => iommu.name);
    for (const count of [1, 4, 12, 64]) {
      const devices = place(description, count);
      t.is(devices.length, count);
      t.deepEqual(
        devices.slice(0, smmus.length).map(({ iommu }) => iommu),
        smmus.slice(0, count),
      );
      t.is(new Set(devices.map(({ iommu, streamId }) => `${iommu} ${streamId}`)).size, count);
      for (const { bdf, name, iommu, streamId } of devices) {
        const [, segment, bus, slot, fn] = /^(\w{4}):(\w\w):(\w\w)\.(\d)$/.exec(bdf ?? '') ?? [];
        const [path, inputId] = name?.split('#') ?? [];
        const query =
          path === undefined
            ? {
                segment: Number.parseInt(segment!, 16),
                rid: Number.parseInt(bus!, 16) * 256 + Number.parseInt(slot!, 16) * 8 + Number(fn),
              }
            : { path, inputId: Number(inputId) };
        t.deepEqual(streamIdFor(description, query), { iommu, streamId: streamId! });
      }
    }
  });

  test(`topology: the machine of ${name} is one that can be built`, (t) => {
    const config = machineConfigOf(loadTopology(name), { ...CHOICES, devices: 12, bugs: { skipTlbi: true } });
    const checked = checkConfig(config);
    t.is(checked.devices.length, 12);
    t.is(checked.memory, 256 * 2 ** 20);
    t.true(checked.bugs.skipTlbi);
  });
}

test('topology: cix-p1 has PCI functions behind its first SMMU and platform devices behind the second', (t) => {
  t.deepEqual(
    place(loadTopology('cix-p1'), 4).map(({ bdf, name, iommu, streamId }) => [bdf ?? name, iommu, streamId]),
    [
      ['0000:01:00.0', 'smmu0', 0x100],
      ['\\_SB_.DPU0#0', 'smmu1', 0],
      ['0000:02:00.0', 'smmu0', 0x200],
      ['\\_SB_.AEU0#0', 'smmu1', 2],
    ],
  );
});

test('topology: the full SMMU is passed over, and too many devices are refused', (t) => {
  const description = loadTopology('cix-p1');
  // 64 is what one SMMU of ours takes; the second one's masters have 34 streams.
  t.is(place(description, 98).filter(({ iommu }) => iommu === 'smmu1').length, 34);
  t.throws(() => place(description, 99), {
    name: 'OptionError',
    message: /99 are asked for.* streams for 98/,
  });
  t.like(
    t.throws(() => place(description, 99)),
    { option: 'devices' },
  );
});

test('topology: IDs that share a stream make one device', (t) => {
  const description = handmade();
  description.masters = [
    {
      kind: 'named-component',
      path: '\\_SB_.DMA0',
      memoryAddressSize: 40,
      idMappings: [
        { inputBase: 5, count: 0x1_0000_0000 - 5, outputBase: 9, iommu: 'a', single: true },
        { inputBase: 0, count: 2, outputBase: 9, iommu: 'a' },
      ],
    },
  ];
  t.deepEqual(
    place(description, 2).map(({ name, streamId }) => [name, streamId]),
    [
      ['\\_SB_.DMA0#5', 9],
      ['\\_SB_.DMA0#1', 10],
    ],
  );
  t.throws(() => place(description, 3), { message: /streams for 2/ });
});

test('topology: a narrow root complex gives only the functions it maps', (t) => {
  t.deepEqual(
    place(handmade(), 2).map(({ bdf, streamId }) => [bdf, streamId]),
    [
      ['0003:01:00.0', 0x40],
      ['0003:01:00.1', 0x41],
    ],
  );
});

test('topology: a machine without an SMMUv3 is refused, and what it has instead is named', (t) => {
  const bytes = writeIort([
    { type: 'smmu', label: 'old', base: 0x1500_0000, model: 3, contextInterrupts: [1] },
    {
      type: 'root-complex',
      segment: 0,
      mappings: [{ inputBase: 0, count: 0x100, outputBase: 0, to: 'old' }],
    },
  ]);
  const error = t.throws(() => place(parseTopology(bytes, 'old.bin'), 1), {
    message: /SMMUv2.* not modelled/,
  });
  t.like(error, { option: 'topology' });
  const description = handmade();
  description.masters = [];
  t.throws(() => place(description, 1), { message: /no master has a stream mapping/ });
});

test('topology: real tables place devices behind their SMMUv3s', (t) => {
  const file = (name: string) => resolve(process.cwd(), '../shared/acpi', name);
  if (!existsSync(file('iort-cix-p1-2-smmuv3.bin'))) {
    t.log('no real tables beside the repository');
    t.pass();
    return;
  }
  t.deepEqual(place(loadTopology(file('iort-cix-p1-2-smmuv3.bin')), 12), place(loadTopology('cix-p1'), 12));
  const x13s = loadTopology(file('iort-thinkpad-x13s.bin'));
  t.is(place(x13s, 4).length, 4);
  t.true(x13s.unsupported.some(({ name }) => name === 'SMMUv2'));
});

test('topology: a file may be an IORT or JSON, and JSON is what the description was', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-topology-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const json = join(folder, 'machine.json');
  writeFileSync(json, `\n ${JSON.stringify(loadTopology('cix-p1'))}`);
  t.deepEqual(loadTopology(json), loadTopology('cix-p1'));
  const iort = join(folder, 'IORT');
  writeFileSync(iort, writeIort([{ type: 'smmuv3', base: 0x1000 }]));
  t.is(loadTopology(iort).iommus.length, 1);
  t.throws(() => loadTopology(folder), { message: /is not a file/ });
  t.throws(() => loadTopology(join(folder, 'nothing')), { message: /nothing': no such file$/ });
  t.throws(() => loadTopology(join(folder, 'none/IORT')), { message: /no such file; only Arm machines/ });
  t.throws(() => loadTopology('constructor'), {
    message: /neither a preset \(cix-p1, server-4\) nor/,
  });
});

test('topology: a damaged IORT is refused with the file and the offset', (t) => {
  const bytes = writeIort([{ type: 'smmuv3', base: 0x1000 }]).subarray(0, 60);
  const error = t.throws(() => parseTopology(bytes, 'short.bin'), {
    message: /^short\.bin: IORT: .*at 0x[0-9a-f]+$/,
  });
  t.like(error, { option: 'topology' });
});

test('topology: what is no IORT and no JSON is refused by what it is', (t) => {
  t.throws(() => parseTopology(text('DMAR....'), 'f'), { message: /^f: a DMAR table .* not modelled yet/ });
  t.throws(() => parseTopology(text(''), 'f'), { message: /neither an IORT/ });
  t.throws(() => parseTopology(text('[1]'), 'f'), { message: /nor a JSON object/ });
  t.throws(() => parseTopology(text('{"iommus": [,]}'), 'f'), {
    message: /^f: not JSON: .*,/,
  });
});

const MISTAKES: [name: string, key: RegExp, change: (d: MachineDescription) => unknown][] = [
  ['an unknown key', /^f: masters\[0\]\.colour: /, (d) => Object.assign(d.masters[0]!, { colour: 'red' })],
  ['an unknown model', /iommus\[0\]\.model: /, (d) => Object.assign(d.iommus[0]!, { model: 'smmuv2' })],
  ['no SMMU list', /^f: iommus: /, (d) => Object.assign(d, { iommus: 7 })],
  [
    'a mapping of nothing',
    /masters\[0\]\.idMappings\[0\]\.count: /,
    (d) => Object.assign(d.masters[0]!.idMappings[0]!, { count: 0 }),
  ],
  [
    'an SMMU that is not there',
    /idMappings\[0\]\.iommu: there is no IOMMU 'z' \(a\)/,
    (d) => Object.assign(d.masters[0]!.idMappings[0]!, { iommu: 'z' }),
  ],
  [
    'a RID of 17 bits',
    /idMappings\[0\]\.count: inputs reach 65536, past 65535/,
    (d) => Object.assign(d.masters[0]!.idMappings[0]!, { inputBase: 0xffff }),
  ],
  [
    'a stream of 33 bits',
    /stream IDs reach past 32 bits/,
    (d) => Object.assign(d.masters[0]!.idMappings[0]!, { outputBase: 0xffff_ffff }),
  ],
  ['two SMMUs of one name', /iommus\[1\]\.name: 'a' is taken/, (d) => d.iommus.push(d.iommus[0]!)],
  [
    'inputs mapped twice',
    /masters\[1\]\.idMappings\[0\]: shares inputs with masters\[0\]\.idMappings\[0\]/,
    (d) => d.masters.push(structuredClone(d.masters[0]!)),
  ],
  [
    'a reserved region of nobody',
    /reserved\[0\]\.iommu: there is no IOMMU 'b'/,
    (d) =>
      d.reserved.push({
        iommu: 'b',
        streamIds: [],
        start: 0,
        length: 1,
        flags: { remapPermitted: false, privileged: false, attributes: 0 },
      }),
  ],
];
for (const [name, key, change] of MISTAKES)
  test(`topology: a description with ${name} is refused by its key`, (t) => {
    t.notThrows(() => parseTopology(text(handmade()), 'f'));
    const description = handmade();
    change(description);
    const error = t.throws(() => parseTopology(text(description), 'f'), { message: key });
    t.like(error, { option: 'topology', name: 'OptionError' });
  });
