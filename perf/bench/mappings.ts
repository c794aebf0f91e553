/**
 * IOMMU_IOAS_MAP and IOMMU_IOAS_UNMAP as raw ioctls, with one device attached: page by page, as a network
 * driver would, and a gibibyte in one call. An unmap includes the invalidation and its SYNC.
 */
import {
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  IoasMap,
  IoasUnmap,
} from '../../uapi/iommufd/ioas.js';
import { startWorkers } from '../../workers/index.js';
import type { FigureName } from './figures.js';
import { type HostTarget, hostTarget, leafLg2 } from './machines.js';
import { type Case, type Group, must, repetitions, type Scale, timed } from './rounds.js';

const PAGE = 4096;
const GIB = 2 ** 30;
const PAIRS = 8000;
/** What the IOVA is off the frames' own alignment by decides the largest page that fits. */
const LEAVES = [
  { lg2: 12, leaf: '4 KiB', off: PAGE, mapMs: 8 },
  { lg2: 21, leaf: '2 MiB', off: 2 ** 21, mapMs: 0.5 },
] as const;

export const SMALL_MAPPING_ROWS = [
  'IOAS_MAP + IOAS_UNMAP of 4 KiB, SMMU on a worker',
  'IOAS_MAP + IOAS_UNMAP of 4 KiB, SMMU inline',
] as const;
export const LARGE_MAPPING_ROWS = LEAVES.flatMap(({ leaf }) => [
  `IOAS_MAP of 1 GiB in ${leaf} pages`,
  `IOAS_UNMAP of 1 GiB in ${leaf} pages, SMMU on a worker`,
]);

export interface Calls {
  map(): number;
  unmap(): number;
}

/** The two calls on one range, their structs written once. */
export function calls(
  { fd, ioasId }: Pick<HostTarget, 'fd' | 'ioasId'>,
  userVa: bigint,
  bytes: number,
  iova: bigint,
): Calls {
  const map = IoasMap.toBytes({
    size: IoasMap.size,
    flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
    ioasId,
    userVa,
    length: BigInt(bytes),
    iova,
  });
  const unmap = IoasUnmap.toBytes({ size: IoasUnmap.size, ioasId, iova, length: BigInt(bytes) });
  return { map: () => fd.ioctl(IOMMU_IOAS_MAP, map), unmap: () => fd.ioctl(IOMMU_IOAS_UNMAP, unmap) };
}

function pairs(target: HostTarget, figure: FigureName, n: number, busyThreads: number): Case {
  const { map, unmap } = calls(target, target.machine.user.alloc(PAGE), PAGE, 0x1000_0000n);
  return {
    busyThreads,
    figures: [figure],
    round: () => {
      let status = 0;
      const ms = timed(() => {
        for (let i = 0; i < n; i++) status |= map() | unmap();
      });
      must(status === 0, `map and unmap gave ${status}`);
      return { values: [(n / ms) * 1e3] };
    },
  };
}

function gibibyte(target: HostTarget): Case[] {
  // No frames behind it: what is measured is the bookkeeping and the tables.
  const userVa = target.machine.user.alloc(GIB, { phantom: true });
  return LEAVES.map(({ lg2, leaf, off, mapMs: goal }, i): Case => {
    const iova = 0x10_0000_0000n + BigInt(off);
    const { map, unmap } = calls(target, userVa, GIB, iova);
    return {
      figures: [
        { name: LARGE_MAPPING_ROWS[2 * i]!, unit: 'ms', goal: { kind: 'at-most', value: goal } },
        { name: LARGE_MAPPING_ROWS[2 * i + 1]!, unit: 'ms' },
      ],
      round: () => {
        let status = 0;
        const mapMs = timed(() => {
          status |= map();
        });
        const found = leafLg2(target, Number(iova >> 12n));
        must(found === lg2, `leaves of 2^${found} bytes, not ${leaf}`);
        const unmapMs = timed(() => {
          status |= unmap();
        });
        must(status === 0, `1 GiB gave ${status}`);
        return { values: [mapMs, unmapMs] };
      },
    };
  });
}

/** Two machines, one with its SMMU on a worker. */
async function twoWays(cases: (hosted: HostTarget, inline: HostTarget) => Case[]): Promise<Group> {
  const [hosted, inline] = [hostTarget(0), hostTarget(0)];
  const host = await startWorkers(hosted.machine);
  return {
    cases: cases(hosted, inline),
    close: async () => {
      await host.stop();
      hosted.machine.close();
      inline.machine.close();
    },
  };
}

export const smallMappings = (scale: Scale): Promise<Group> => {
  const n = repetitions(PAIRS, scale);
  return twoWays((hosted, inline) => [
    pairs(
      hosted,
      { name: SMALL_MAPPING_ROWS[0], unit: '1/s', goal: { kind: 'at-least', value: 400_000 } },
      n,
      2,
    ),
    pairs(inline, { name: SMALL_MAPPING_ROWS[1], unit: '1/s' }, n, 1),
  ]);
};

export const largeMappings = (): Promise<Group> => twoWays((hosted) => gibibyte(hosted));
