import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { ViolationStory } from '../../perf/stress/types.js';
import { createMachine } from '../../runtime/machine.js';
import { ConfigError } from '../../runtime/machine-config.js';
import { main } from '../../scripts/cli.js';
import { renderTopology } from '../../scripts/commands/topology.js';
import type { RunStress } from '../../scripts/surroundings.js';
import { resultOf, STORY, sampleAt } from '../perf/stress-sample.js';

const PROGRAMS = ['guest 0', 'nested 0000:01:00.0', 'nested \\_SB_.DPU0#0', 'nic 0000:02:00.0'];

/** A run that is over at once: two samples, and what `change` makes of its result. */
const fakeRun =
  (found: Partial<ViolationStory>[] = []): RunStress =>
  async (options, listener) => {
    listener.started({ machineMs: 20, workersMs: 60, iommus: ['smmu0', 'smmu1'], devices: PROGRAMS });
    listener.sample(sampleAt(2));
    for (const change of found) listener.violation({ ...STORY, ...change });
    listener.sample({ ...sampleAt(4), violations: found.length });
    return resultOf(
      options,
      found.map((change) => ({ ...STORY, ...change })),
    );
  };

async function iommufd(
  args: string[],
  runStress: RunStress | null = null,
  signal = new AbortController().signal,
) {
  let stdout = '';
  let stderr = '';
  let loaded = 0;
  const code = await main(args, {
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
    signal,
    async loadStress() {
      loaded++;
      if (runStress === null) throw new Error('no run was expected');
      return runStress;
    },
  });
  return { code, stdout, stderr, loaded, last: stdout.trimEnd().split('\n').at(-1) };
}

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'iommufd-cli-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

const WRONG: [args: string[], stderr: RegExp][] = [
  [['stress', '--devices', '0'], /iommufd stress: --devices: must be a whole number from 1 to 256/],
  [['stress', '--s2-sharing', 'all'], /--s2-sharing: must be 'shared' or 'per-psmmu'/],
  [
    ['stress', '--kill', 'core:5'],
    /--kill: must be KIND or KIND:MILLISECONDS, KIND one of piommu, device, guest, supervisor/,
  ],
  [
    ['stress', '--inject', 'nothing'],
    /--inject: must be one of skip-tlbi, early-sync, wrong-vmid, early-free, skip-atc-inv, atc-before-tlbi/,
  ],
  [['stress', '--mix', 'usb=1'], /--mix: 'usb' is not a kind of traffic/],
  [
    ['stress', '--topology', 'cix-p1', '--topology', '/nonexistent'],
    /--topology: '\/nonexistent': no such file\n/,
  ],
  [['stress', '--report', '/nonexistent/report.json'], /--report: there is no directory '\/nonexistent'/],
  [['stress', '--report', ''], /--report/],
  [['stress', '--html', '/nonexistent/report.html'], /--html: there is no directory '\/nonexistent'/],
  [['stress', '--trace', '/nonexistent/t.json'], /--trace: there is no directory '\/nonexistent'/],
  [['stress', '--trace', ''], /--trace/],
  [['stress', '--no-report', '--html', '/'], /--html: '\/' is a directory/],
  [['stress', '--colour'], /unknown option '--colour'/],
  [['stress', '--duration'], /option '--duration <s>' argument missing/],
  [['stress', 'cix-p1'], /too many arguments/],
  [['topology'], /missing required argument 'file\|preset'/],
  [['topology', '/nonexistent'], /iommufd topology: '\/nonexistent': no such file\n/],
  [['topology', '/nonexistent/IORT'], /no such file; only Arm machines with ACPI have an IORT/],
  [['topology', 'cix-p2'], /'cix-p2' is neither a preset/],
  [
    ['stress', '--report', '/proc/report.json'],
    /--report: ('\/proc\/report.json' cannot be written: E|there is no directory)/,
  ],
  [['explore', 'mutex-9'], /iommufd explore: there is no scenario 'mutex-9' \(iommufd explore --list\)/],
  [['explore', '--strategy', 'luck'], /--strategy: 'luck' is none of .*random/],
  [['explore', '--strategy', 'replay'], /--strategy: 'replay' is none of/],
  [['explore', '--shard', '2/2'], /--shard: '2\/2' is not i\/n with i from 0 to n - 1/],
  [['explore', '--bug', 'heisenbug'], /--bug: there is no bug 'heisenbug'/],
  [['explore', '--duration', '0'], /--duration: '0' is no number of seconds/],
  [['explore', '--schedules', '1.5'], /--schedules: '1.5' is not a whole number/],
  [
    ['explore', '--scenario-file', '/nonexistent.mjs'],
    /--scenario-file: '\/nonexistent.mjs' cannot be loaded/,
  ],
  [['explore', '--replay', '/nonexistent'], /--replay: '\/nonexistent' is not there/],
  [['explore', '--replay', '/nonexistent', '--seed', '1'], /--seed: not with --replay/],
  [['explore', '--merge', '/nonexistent'], /--merge: '\/nonexistent' cannot be read/],
  [['explore', '--shard', '0/2', '--merge', 'x'], /--shard: not with --merge/],
  [['explore', 'mutex-2', '--trace', '/nonexistent/t'], /--trace: there is no directory '\/nonexistent'/],
  [['serve', 'socket'], /too many arguments/],
  [['serve', '--config', '/nonexistent'], /iommufd serve: --config: '\/nonexistent': ENOENT/],
  [['serve', '--topology', 'cix-p2'], /'cix-p2' is neither a preset/],
  [['serve', '--devices', '3'], /--devices: only with --topology/],
  [['run', '--topology', 'cix-p1', '--devices', '0', 'true'], /--devices: '0' is not a whole number/],
  [['run', '--json', 'true'], /--json: only with --trace/],
  [['run', '--socket', '/nonexistent/socket', 'true'], /--socket: '\/nonexistent' is no folder/],
  [['run'], /missing required argument 'program'\n\(iommufd run --help\)/],
  [['decode'], /missing required argument 'file\|-'/],
  [['decode', '/no/such/file'], /iommufd decode: ENOENT/],
  [['decode', '-', '--binary'], /--binary: only with --encode/],
  [['stres'], /unknown command 'stres'/],
  [[], /Usage: iommufd/],
];
for (const [args, message] of WRONG)
  test(`cli: '${args.join(' ')}' is wrong usage, told before anything is loaded`, async (t) => {
    const { code, stdout, stderr, loaded } = await iommufd(args);
    t.is(code, 2);
    t.regex(stderr, message);
    t.is(stdout, '');
    t.is(loaded, 0);
  });

for (const command of ['stress', 'explore', 'fuzz', 'chaos', 'soak', 'bench', 'scale'])
  test(`cli: the help of ${command} has exit codes, Ctrl-C, and defaults as one would type them`, async (t) => {
    const { stdout } = await iommufd([command, '--help']);
    t.regex(stdout, /Exit codes: 0 /);
    t.regex(stdout, /Ctrl-C/);
    t.notRegex(stdout, /default:\s+"/);
  });

for (const command of [[], ['stress'], ['topology']])
  test(`cli: '${[...command, '--help'].join(' ')}' is an answer, not an error`, async (t) => {
    const { code, stdout, stderr } = await iommufd([...command, '--help']);
    t.is(code, 0);
    t.regex(stdout, /^Usage: iommufd/);
    t.is(stderr, '');
  });

test('inspect: a kept machine in words and as JSON; what is no image is told by its field', async (t) => {
  const dir = folder(t);
  const file = join(dir, 'state.img');
  const machine = createMachine({
    memory: '32MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [{ bdf: '0000:01:00.0', iommu: 'smmu0' }],
  });
  machine.dmaPort('0000:01:00.0').write(0x5000n, new Uint8Array(4));
  machine.saveToFile(file);
  const text = await iommufd(['inspect', file]);
  t.is(text.code, 0);
  t.regex(text.stdout, /smmu0 .*translates.*0 pending.*1 unread/);
  t.regex(text.stdout, /smmu0: C_BAD_STREAMID stream 0x100/);
  t.regex(text.stdout, /0000:01:00.0: stream 0x100 of smmu0/);
  const json = await iommufd(['inspect', file, '--json']);
  t.like(JSON.parse(json.stdout), { memoryBytes: 2 ** 25, iommus: [{ enabled: true, gerror: 0 }] });
  writeFileSync(file, 'no image');
  const wrong = await iommufd(['inspect', file]);
  t.is(wrong.code, 2);
  t.regex(wrong.stderr, /iommufd inspect: image: magic: /);
  t.is((await iommufd(['inspect', join(dir, 'none')])).code, 2);
});

test('cli: the help of stress names every option of the main job', async (t) => {
  const { stdout } = await iommufd(['stress', '--help']);
  const options =
    'topology duration devices guests seed mix s2-sharing inject kill hostile memory report no-report html no-html ' +
    'trace json help';
  for (const option of options.split(' ')) t.true(stdout.includes(`--${option}`), option);
});

test('stress: without a topology both presets run, one report holds both, the tally comes last', async (t) => {
  const report = join(folder(t), 'report.json');
  const { code, stdout, stderr, last } = await iommufd(['stress', '--report', report], fakeRun());
  t.is(code, 0);
  t.is(stderr, '');
  t.is(last, '8000 checks, 0 violations');
  t.true(stdout.includes('  up in 80 ms: 1 guest, 2 nested devices, 1 NIC\n'), stdout);
  t.false(stdout.includes('\u001b'), 'no colours where there is no terminal');
  t.regex(stdout, /^cix-p1: 2 SMMUs, 4 devices, 2 guests, 9 s, .*seed \d+\n/);
  t.regex(stdout, /\nserver-4: 4 SMMUs, 8 devices/);
  const seeds = [...stdout.matchAll(/seed (\d+)$/gm)].map(([, seed]) => seed);
  t.is(new Set(seeds).size, 1, `one seed repeats it all: ${seeds.join(' ')}`);
  const { runs } = JSON.parse(readFileSync(report, 'utf8'));
  t.deepEqual(
    runs.map(({ options }: { options: { topologyName: string } }) => options.topologyName),
    ['cix-p1', 'server-4'],
  );
});

test('stress: the options given are the options run', async (t) => {
  const args =
    'stress --topology server-4 --duration 3 --devices 6 --guests 1 --seed 5 --mix nic=1,guest=2 ' +
    '--s2-sharing per-psmmu --inject early-sync --ats on --kill guest:70 --hostile 2.5 --memory 512MiB --no-report';
  t.plan(5);
  const run: RunStress = (options, ...rest) => {
    const { topology, ...plain } = options;
    t.deepEqual(plain, {
      topologyName: 'server-4',
      durationS: 3,
      devices: 6,
      guests: 1,
      seed: 5,
      mix: { nic: 1, nvme: 0, gpu: 0, guest: 2 },
      hostilePercent: 2.5,
      s2Sharing: 'per-psmmu',
      inject: 'early-sync',
      ats: 'on',
      kill: { kind: 'guest', afterMs: 70 },
      memoryBytes: 536_870_912,
    });
    return fakeRun()(options, ...rest);
  };
  // The bug that was asked for was not seen: that is no clean run.
  const { code, stdout } = await iommufd(args.split(' '), run);
  t.is(code, 1);
  t.regex(stdout, /server-4: 4 SMMUs, 6 devices, 1 guest, /);
  t.regex(stdout, /the run ends soon after its first violations/);
  t.regex(stdout, /injected bug was NOT caught/);
});

test('stress: a violation is told, makes the exit code 1, and is in the tally', async (t) => {
  const { code, stdout, last } = await iommufd(
    ['stress', '--topology', 'cix-p1', '--no-report'],
    fakeRun([{}, { iova: '0x20000000' }]),
  );
  t.is(code, 1);
  t.is(last, '4000 checks, 2 violations');
  t.regex(stdout, /VIOLATION R1: 0000:01:00\.0: a DMA used a translation/);
  t.regex(stdout, /IOVA +0x20000000/);
});

test('stress: the worst of all topologies decides', async (t) => {
  const run: RunStress = (options, ...rest) =>
    fakeRun(options.topologyName === 'cix-p1' ? [{}] : [])(options, ...rest);
  const { code, last } = await iommufd(['stress', '--no-report'], run);
  t.is(code, 1);
  t.is(last, '8000 checks, 1 violations');
});

test('stress: a dead worker makes the exit code 1', async (t) => {
  const run: RunStress = async (options, listener) => {
    listener.death({ worker: 'piommu smmu0', reason: 'exit code 7' });
    return { ...resultOf(options), deaths: [{ worker: 'piommu smmu0', reason: 'exit code 7' }] };
  };
  const { code, stdout, last } = await iommufd(['stress', '--topology', 'cix-p1', '--no-report'], run);
  t.is(code, 1);
  t.regex(stdout, /worker piommu smmu0 died: exit code 7/);
  t.is(last, '4000 checks, 0 violations');
});

test('stress: a run that throws is a death, and what came before it is still written', async (t) => {
  const report = join(folder(t), 'report.json');
  const run: RunStress = async (options, listener, signal) => {
    if (options.topologyName === 'cix-p1') return fakeRun()(options, listener, signal);
    listener.sample(sampleAt(1));
    throw new Error('the floor gave way');
  };
  const { code, stdout, last } = await iommufd(['stress', '--report', report], run);
  t.is(code, 1);
  t.regex(stdout, /worker main died: Error: the floor gave way/);
  t.is(last, '5000 checks, 0 violations');
  t.is(JSON.parse(readFileSync(report, 'utf8')).runs.length, 1);
});

test('stress: a machine that refuses its configuration is wrong usage', async (t) => {
  const run: RunStress = async () => {
    throw new ConfigError('memory', 'must be more');
  };
  const { code, stderr } = await iommufd(['stress', '--topology', 'cix-p1', '--no-report'], run);
  t.is(code, 2);
  t.regex(stderr, /memory: must be more/);
});

test('stress: --json writes one JSON object a line and nothing else, the result last', async (t) => {
  const report = join(folder(t), 'report.json');
  const { code, stdout, stderr } = await iommufd(['stress', '--json', '--report', report], fakeRun([{}]));
  t.is(code, 1);
  t.is(stderr, '');
  t.true(stdout.endsWith('\n'));
  const lines = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  const one = ['started', 'sample', 'violation', 'sample'];
  t.deepEqual(
    lines.map(({ type }) => type),
    [...one, ...one, 'result'],
  );
  t.deepEqual(
    lines.map(({ topology }) => topology),
    [...one.map(() => 'cix-p1'), ...one.map(() => 'server-4'), undefined],
  );
  t.true(Number.isInteger(lines[0].options.seed));
  t.like(lines.at(-1), { checks: 8000, violations: 2, deaths: 0, interrupted: false, report });
  t.is(lines.at(-1).runs[0].violations[0].rule, 'R1');
});

test('stress: Ctrl-C reaches the run, skips what has not begun, and still ends with results', async (t) => {
  const report = join(folder(t), 'report.json');
  const abort = new AbortController();
  const run: RunStress = async (options, _, signal) => {
    abort.abort();
    return { ...resultOf(options), interrupted: signal.aborted };
  };
  const { code, stdout, last } = await iommufd(['stress', '--report', report], run, abort.signal);
  t.is(code, 0);
  t.regex(stdout, /interrupted; topologies without a result: 1/);
  t.is(last, '4000 checks, 0 violations');
  t.true(JSON.parse(readFileSync(report, 'utf8')).runs[0].interrupted);
});

test('stress: --keep writes the first machine that went wrong, and says where', async (t) => {
  const file = join(folder(t), 'bad.img');
  let kept = 0;
  const run: RunStress = async (options, listener, signal) => {
    listener.keep?.(Uint8Array.of(++kept));
    return fakeRun([{}])(options, listener, signal);
  };
  const { code, stdout } = await iommufd(['stress', '--no-report', '--keep', file], run);
  t.is(code, 1);
  t.true(stdout.includes(`\nmachine: ${file} (iommufd inspect)\n`));
  t.deepEqual([...readFileSync(file)], [1]);
  const json = await iommufd(['stress', '--no-report', '--json'], fakeRun());
  t.is((JSON.parse(json.last!) as { kept: unknown }).kept, null);
});

test('stress: the page is written beside the report, where --html says, or not at all', async (t) => {
  const place = folder(t);
  const report = join(place, 'found.json');
  const { code, stdout } = await iommufd(['stress', '--report', report], fakeRun());
  t.is(code, 0);
  const page = join(place, 'found.html');
  t.true(stdout.includes(`\npage: ${page}\n`));
  t.regex(readFileSync(page, 'utf8'), /^<!doctype html>[\s\S]*cix-p1[\s\S]*server-4[\s\S]*<\/html>\n$/);
  rmSync(page);
  await iommufd(['stress', '--report', report, '--no-html'], fakeRun());
  t.false(existsSync(page));
  const other = join(place, 'other.html');
  await iommufd(['stress', '--no-report', '--html', other], fakeRun());
  t.true(existsSync(other));
});

test('stress: each topology has a trace file of its own; one that cannot be written fails the command', async (t) => {
  const place = folder(t);
  const traces: (string | undefined)[] = [];
  const run =
    (problem: string | null): RunStress =>
    async (options, listener, signal) => {
      traces.push(options.trace);
      const trace = { file: options.trace!, bytes: 9, events: 1234, flows: 1, windowMs: 2500, problem };
      return { ...(await fakeRun()(options, listener, signal)), trace };
    };
  const args = ['stress', '--no-report', '--trace', join(place, 't.json')];
  const good = await iommufd(args, run(null));
  t.is(good.code, 0);
  t.true(
    good.stdout.includes(`trace: ${join(place, 't-1.json')} (last 2.50 s, 1234 events, for ui.perfetto.dev)`),
  );
  await iommufd([...args, '--topology', 'cix-p1'], run(null));
  t.deepEqual(
    traces,
    ['t-1.json', 't-2.json', 't.json'].map((name) => join(place, name)),
  );
  const bad = await iommufd([...args, '--topology', 'cix-p1'], run('ENOSPC'));
  t.is(bad.code, 1);
  t.regex(bad.stderr, /--trace: '.*t\.json' not written: ENOSPC/);
  t.notRegex(bad.stdout, /trace: /);
});

test('stress: --no-report writes none', async (t) => {
  const before = existsSync('report.json') ? readFileSync('report.json', 'utf8') : null;
  const { code, stdout } = await iommufd(['stress', '--topology', 'cix-p1', '--no-report'], fakeRun());
  t.is(code, 0);
  t.notRegex(stdout, /report:/);
  t.is(existsSync('report.json') ? readFileSync('report.json', 'utf8') : null, before);
});

test('topology: prints SMMUs, masters and mappings', async (t) => {
  const { code, stdout } = await iommufd(['topology', 'cix-p1']);
  t.is(code, 0);
  t.regex(stdout, /2 SMMUs, 15 masters/);
  t.regex(stdout, /smmu1 .*0xb1b0000 .*coherent .*event 141, pri 150, gerror 146, sync 142/);
  t.regex(stdout, /PCI segment 0 \(ATS\) .*0x0\.\.0xffff .*smmu0 .*0x0\.\.0xffff/);
  t.regex(stdout, /\\_SB_\.NPU0 .*smmu1 .*0x1e /);
  t.regex(stdout, /reserved: 0x84800000 to 0x84ffffff/);
});

test('topology: --json is a description that is read back as it was', async (t) => {
  const { stdout } = await iommufd(['topology', 'server-4', '--json']);
  const { iommus } = JSON.parse(stdout);
  t.deepEqual(
    iommus.map(({ name }: { name: string }) => name),
    ['smmu0', 'smmu1', 'smmu2', 'smmu3'],
  );
});

test('topology: a master behind something that is not modelled says behind what', (t) => {
  const base = { kind: 'named-component' as const, memoryAddressSize: 64, idMappings: [] };
  const text = renderTopology({
    iommus: [],
    masters: [
      { ...base, path: '\\_SB.GPU0' },
      { ...base, path: '\\_SB.UFS0' },
      { kind: 'pci-root-complex', segment: 3, ats: false, memoryAddressSize: 64, idMappings: [] },
    ],
    reserved: [],
    unsupported: [
      { name: 'SMMUv2', reason: 'only SMMUv3 is modelled', masters: ['\\_SB.GPU0', 'segment 3'] },
      { name: 'SMMUv2', reason: 'only SMMUv3 is modelled', masters: ['\\_SB.GPU0'] },
    ],
    notes: [],
  });
  t.regex(text, /^0 SMMUs, 3 masters\n/);
  t.regex(text, /GPU0 .* behind SMMUv2, unsupported /);
  t.regex(text, /UFS0 .* not translated /);
  t.regex(text, /PCI segment 3 .* behind SMMUv2, unsupported /);
});

test('topology: on a terminal, long lines are folded', async (t) => {
  const description = JSON.parse((await iommufd(['topology', 'cix-p1', '--json'])).stdout);
  const folded = renderTopology(description, 80);
  const wide = folded.split('\n').filter((line) => line.length > 80 && !/^[┌├│└]/.test(line));
  t.deepEqual(wide, []);
  t.is(folded.replaceAll('\n    ', ' '), renderTopology(description));
});
