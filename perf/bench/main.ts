/**
 * `npm run bench`: every figure of perf/README.md, in about a minute. `--json` prints one object and nothing
 * else on stdout; what is under way goes to stderr.
 */
import { availableParallelism, loadavg } from 'node:os';
import { digits, type Figure } from './figures.js';
import { invalidations } from './invalidations.js';
import { largeMappings, smallMappings } from './mappings.js';
import { FULL, type Group, runRounds, type Scale } from './rounds.js';
import { startUp } from './start-up.js';
import { hits, misses } from './translations.js';

const FEW_ROUNDS = 11;

const SECTIONS: readonly { name: string; set(scale: Scale): Group | Promise<Group>; scale: Scale }[] = [
  { name: 'hits', set: hits, scale: FULL },
  { name: 'misses', set: misses, scale: FULL },
  { name: 'small mappings', set: smallMappings, scale: FULL },
  { name: 'large mappings', set: largeMappings, scale: { ...FULL, rounds: FEW_ROUNDS } },
  { name: 'invalidations', set: invalidations, scale: FULL },
  { name: 'start-up', set: startUp, scale: { ...FULL, rounds: FEW_ROUNDS, warmUp: 1 } },
];

const USAGE = 'usage: npm run bench [-- --json]';

async function main(args: readonly string[]): Promise<number> {
  const unknown = args.find((arg) => arg !== '--json');
  if (unknown !== undefined) {
    console.error(`bench: unknown argument '${unknown}'\n${USAGE}`);
    return 2;
  }
  const rows: Figure[] = [];
  const load = loadavg()[0]!;
  for (const { name, set, scale } of SECTIONS) {
    console.error(`${name} ...`);
    const group = await set(scale);
    rows.push(...runRounds(group.cases, scale));
    await group.close();
  }
  const node = process.version;
  const cores = availableParallelism();
  if (args.includes('--json')) console.log(JSON.stringify({ rows, node, cores, load }));
  else {
    console.log(table(rows));
    console.log(`\nNode ${node}, ${cores} cores, load ${load.toFixed(2)} before the start`);
  }
  return 0;
}

function table(rows: readonly Figure[]): string {
  const width = Math.max(...rows.map(({ name }) => name.length));
  return rows
    .map(({ name, median, spread: [low, high], unit, n, dropped }) => {
      const range = `(${digits(low)} .. ${digits(high)})`;
      return `${name.padEnd(width)}  ${digits(median).padStart(9)} ${unit.padEnd(3)}  ${range.padEnd(22)}  n=${n}${dropped > 0 ? ` (${dropped} dropped)` : ''}`;
    })
    .join('\n');
}

process.exitCode = await main(process.argv.slice(2));
