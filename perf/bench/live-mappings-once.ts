/**
 * The cost of a map and unmap among few and among many live mappings, in a process of its own, because the many
 * want a heap of gigabytes: run by live-mappings.ts as `live-mappings-once.js FEW MANY ROUNDS PAIRS`. Every other
 * page is mapped; what comes and goes are the pages between, at random. Prints an array of rounds, as JSON.
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
import { Random } from '../stress/random.js';
import type { LiveCost, LiveRound } from './live-mappings.js';
import { hostTarget } from './machines.js';
import { must, timed } from './rounds.js';

const PAGE = 4096;
const FIRST_IOVA = 2 ** 32;
const SEED = 1;
const RING = 256;

/** An address space with so many mappings of one page. @returns what a map and unmap between them cost */
function space(mappings: number): (pairs: number) => LiveCost {
  const target = hostTarget(0, '512MiB');
  const userVa = target.machine.user.alloc(PAGE, { phantom: true });
  const map = IoasMap.toBytes({
    size: IoasMap.size,
    flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
    ioasId: target.ioasId,
    userVa,
    length: BigInt(PAGE),
    iova: 0n,
  });
  const unmap = IoasUnmap.toBytes({
    size: IoasUnmap.size,
    ioasId: target.ioasId,
    iova: 0n,
    length: BigInt(PAGE),
  });
  const mapIova = new DataView(map.buffer, map.byteOffset + IoasMap.offsets.iova);
  const unmapIova = new DataView(unmap.buffer, unmap.byteOffset + IoasUnmap.offsets.iova);
  const mapAt = (page: number): number => {
    const iova = FIRST_IOVA + page * PAGE;
    mapIova.setUint32(0, iova % 2 ** 32, true);
    mapIova.setUint32(4, Math.floor(iova / 2 ** 32), true);
    return target.fd.ioctl(IOMMU_IOAS_MAP, map);
  };
  const unmapAt = (page: number): number => {
    const iova = FIRST_IOVA + page * PAGE;
    unmapIova.setUint32(0, iova % 2 ** 32, true);
    unmapIova.setUint32(4, Math.floor(iova / 2 ** 32), true);
    // The length that was asked for is overwritten by what was unmapped: the same.
    return target.fd.ioctl(IOMMU_IOAS_UNMAP, unmap);
  };
  for (let i = 0; i < mappings; i++) must(mapAt(2 * i) === 0, `mapping ${i} of ${mappings}`);
  const random = new Random(SEED);
  const between = (n: number) => Uint32Array.from({ length: n }, () => 2 * random.below(mappings) + 1);
  const ring = between(RING);
  const pairsAt = (pages: Uint32Array, pairs: number): number => {
    let status = 0;
    const ms = timed(() => {
      for (let i = 0; i < pairs; i++) {
        const page = pages[i % pages.length]!;
        status |= mapAt(page) | unmapAt(page);
      }
    });
    must(status === 0, `map and unmap gave ${status}`);
    return (ms * 1e6) / pairs;
  };
  return (pairs) => ({ ringNs: pairsAt(ring, pairs), anywhereNs: pairsAt(between(pairs), pairs) });
}

const [few, many, rounds, pairs] = process.argv.slice(2).map(Number) as [number, number, number, number];
const fewCost = space(few);
const manyCost = space(many);
for (let i = 0; i < 3; i++) {
  fewCost(pairs);
  manyCost(pairs);
}
const taken: LiveRound[] = [];
for (let i = 0; i < rounds; i++) taken.push({ few: fewCost(pairs), many: manyCost(pairs) });
console.log(JSON.stringify(taken));
