import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { runChaos } from '../../../perf/chaos/run.js';

const SEED = Number(process.env.SEED ?? Date.now() % 2 ** 32) >>> 0;
const STRESS = [process.execPath, join(import.meta.dirname, '../../../scripts/iommufd.js'), 'stress'];
const KINDS = ['piommu', 'device', 'guest', 'supervisor'] as const;

test.serial(
  `chaos: a thread of each kind, ended at a random moment, is survived (seed ${SEED})`,
  async (t) => {
    const told: number[] = [];
    const runs = await runChaos(
      { count: 4, seed: SEED, kinds: KINDS, command: STRESS },
      (_, done) => void told.push(done),
      new AbortController().signal,
    );
    t.deepEqual(
      runs.map(({ kind, problem }) => [kind, problem]),
      KINDS.map((kind) => [kind, null]),
    );
    t.deepEqual(told, [1, 2, 3, 4]);
  },
);

test.serial('chaos: an exit code of 0, a missing report and the wrong dead are told', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-chaos-test-'));
  const fake = async (script: string): Promise<string | null> => {
    const file = join(folder, 'fake.mjs');
    writeFileSync(file, script);
    chmodSync(file, 0o755);
    const runs = await runChaos(
      { count: 1, seed: 1, kinds: ['device'], command: [process.execPath, file] },
      () => undefined,
      new AbortController().signal,
    );
    return runs[0]!.problem;
  };
  const report = (deaths: unknown, violations = 0): string =>
    `import { writeFileSync } from 'node:fs';
     writeFileSync(process.argv.at(-1), ${JSON.stringify(
       JSON.stringify({
         runs: [
           {
             final: { checks: 1, violations },
             deaths,
             violations: violations > 0 ? [{ rule: 'R1', summary: 'too late', details: ['by far'] }] : [],
           },
         ],
       }),
     )});
     process.exitCode = 1;`;
  try {
    t.regex((await fake('console.log("fine")')) ?? '', /^exit code 0: fine/);
    t.regex((await fake('process.exitCode = 1')) ?? '', /^no report/);
    t.regex((await fake(report([]))) ?? '', /no device is reported dead, only nobody/);
    t.regex((await fake(report([{ worker: 'guest 0', reason: '' }]))) ?? '', /only guest 0/);
    t.regex(
      (await fake(report([{ worker: 'nic x', reason: '' }], 2))) ?? '',
      /^2 violations: R1; too late; by far$/,
    );
    t.is(await fake(report([{ worker: 'nic x', reason: '' }])), null);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
