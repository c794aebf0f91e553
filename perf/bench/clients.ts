/**
 * What calls of a C program take that has a server's machine for its /dev/iommu: both on one processor, so that
 * nothing is hidden by a second one.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { buildPreload, compile, hasCompiler } from '../../runtime/serve/preload-library.js';
import { canPin, processNs } from './affinity.js';
import { NO_CC } from './baseline.js';
import type { FigureName } from './figures.js';
import { type Group, must, repetitions, type Scale } from './rounds.js';

export const CLIENT_ROWS = [
  'simple ioctls of a C client, its server on the same core',
  'a page mapped by a C client, 1 GiB at once',
  'a page mapped by a C client, 1 GiB in 4 KiB IO pages',
  'a page mapped by a C client, 64 MiB at once',
  'a page mapped by a C client, 64 MiB in 4 KiB IO pages',
] as const;

const IOCTLS = 20_000;
/** BYTES SHIFT of client.c, and how often in a round. */
const MAPS: readonly (readonly [string, number])[] = [
  [`${2 ** 30} 0`, 8],
  [`${2 ** 30} 1`, 4],
  [`${2 ** 26} 0`, 100],
  [`${2 ** 26} 1`, 10],
];
const WANTED_PER_SECOND = 50_000;
const SOURCE = fileURLToPath(new URL('../../../perf/bench/baseline/client.c', import.meta.url));
const SERVER = fileURLToPath(new URL('./clients-server.js', import.meta.url));

const IOCTL_FIGURE: FigureName = {
  name: CLIENT_ROWS[0],
  unit: '1/s',
  goal: { kind: 'at-least', value: WANTED_PER_SECOND },
};
const COPY_GOAL = { kind: 'ratio', atLeast: 1, of: 'a copy of 64 bytes' } as const;
/** Of 64 MiB, what one call takes is more than what its pages take. */
const MAP_FIGURES: readonly FigureName[] = [
  { name: CLIENT_ROWS[1], unit: 'ns', goal: COPY_GOAL },
  { name: CLIENT_ROWS[2], unit: 'ns', goal: COPY_GOAL },
  { name: CLIENT_ROWS[3], unit: 'ns' },
  { name: CLIENT_ROWS[4], unit: 'ns' },
];

/** Without a C compiler there is nothing to measure: no rows. */
export async function clients(scale: Scale): Promise<Group> {
  if (!hasCompiler()) {
    process.stderr.write(`bench: clients: ${NO_CC}\n`);
    return { cases: [], startsProcesses: true, close: () => undefined };
  }
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-clients-'));
  const program = join(folder, 'client');
  const { status, stderr } = compile(['-O2', '-o', program, SOURCE]);
  must(status === 0, `clients: ${stderr}`);
  const server = start(process.execPath, [SERVER]);
  const socket = await server.line();
  const client = start(program, [], { LD_PRELOAD: buildPreload(), IOMMUFD_SOCKET: socket });
  /** One round, and the share of its time that either of the two had their processor. */
  const ask = async (what: string) => {
    const ran = () => processNs(client.child.pid!) + processNs(server.child.pid!);
    const before = ran();
    const began = performance.now();
    client.child.stdin?.write(`${what}\n`);
    const answer = JSON.parse(await client.line()) as Record<string, number>;
    const share = (ran() - before) / ((performance.now() - began) * 1e6);
    return { answer, share: canPin() ? share : 1 };
  };
  return {
    cases: [
      {
        figures: [IOCTL_FIGURE],
        round: async () => {
          const { answer, share } = await ask(`ioctl ${repetitions(IOCTLS, scale)}`);
          return { values: [1e9 / answer.ns!], share };
        },
      },
      ...MAP_FIGURES.map((figure, i) => ({
        figures: [figure],
        round: async () => {
          const [what, usual] = MAPS[i]!;
          const { answer, share } = await ask(`map ${what} ${repetitions(usual, scale)}`);
          return { values: [answer.ns!], ratios: [answer.copy! / answer.ns!], share };
        },
      })),
    ],
    startsProcesses: true,
    close: async () => {
      await client.end();
      await server.end();
      rmSync(folder, { recursive: true });
    },
  };
}

interface Started {
  readonly child: ChildProcess;
  /** The next line it prints. */
  line(): Promise<string>;
  end(): Promise<void>;
}

/** Starts a program on the first processor. */
function start(file: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Started {
  const [command, all] = canPin() ? ['taskset', ['-c', '0', file, ...args]] : [file, args];
  const child = spawn(command, all, { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...env } });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const ended = new Promise<void>((done) => child.once('close', () => done()));
  return {
    child,
    line: async () => {
      const { value, done } = await lines.next();
      must(done !== true, `${file} ended`);
      return value as string;
    },
    end: () => {
      child.stdin?.end();
      return ended;
    },
  };
}
