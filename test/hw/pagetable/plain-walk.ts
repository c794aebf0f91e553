/**
 * A walk of AArch64 tables of any granule in plain JavaScript, one rule a line ([DDI0487] D8.2, D8.3): what the
 * editor's tables are compared with. It shares nothing with the compiled walker or the editor.
 */
export interface PlainTable {
  readonly stage: 1 | 2;
  readonly granuleLg2: 12 | 14 | 16;
  readonly inputBits: number;
  readonly outputBits: number;
  readonly startLevel: number;
  readonly root: bigint;
}

export interface PlainLeaf {
  /** Physical address of the input address. */
  readonly pa: bigint;
  readonly level: number;
  readonly sizeLg2: number;
  /** Where the descriptor is, and what it is. */
  readonly slot: bigint;
  readonly descriptor: bigint;
  readonly contiguous: boolean;
  readonly readable: boolean;
  /** By hardware that manages dirty state: DBM counts. */
  readonly writable: boolean;
  readonly tracked: boolean;
  readonly dirty: boolean;
  readonly accessed: boolean;
}

const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;

/** @returns the leaf that translates an address, or null */
export function plainWalk(
  table: PlainTable,
  address: bigint,
  read: (pa: bigint) => bigint | undefined,
): PlainLeaf | null {
  const { stage, granuleLg2, inputBits, outputBits, startLevel } = table;
  const perLevel = granuleLg2 - 3;
  if (address >> BigInt(inputBits) !== 0n) return null;
  let base = table.root;
  for (let level = startLevel; level <= 3; level++) {
    const low = granuleLg2 + perLevel * (3 - level);
    const high = level === startLevel ? inputBits : low + perLevel;
    const index = (address >> BigInt(low)) & ((1n << BigInt(high - low)) - 1n);
    const slot = base + index * 8n;
    const descriptor = read(slot);
    if (descriptor === undefined) throw new Error(`walk out of RAM at ${slot}`);
    if (!bit(descriptor, 0)) return null;
    let output = ((descriptor >> BigInt(granuleLg2)) << BigInt(granuleLg2)) & ((1n << 48n) - 1n);
    if (granuleLg2 === 16) output |= ((descriptor >> 12n) & 15n) << 48n;
    else if (((descriptor >> 12n) & ((1n << BigInt(granuleLg2 - 12)) - 1n)) !== 0n)
      throw new Error(`RES0 bits of ${descriptor.toString(16)} are set`);
    if (output >> BigInt(outputBits) !== 0n) throw new Error(`output ${output.toString(16)} is too large`);
    if (level < 3 && bit(descriptor, 1)) {
      base = output;
      continue;
    }
    if (level === 3 && !bit(descriptor, 1)) throw new Error('reserved descriptor at level 3');
    const blocks = granuleLg2 === 12 ? [1, 2] : granuleLg2 === 16 && outputBits === 52 ? [1, 2] : [2];
    if (level < 3 && !blocks.includes(level)) throw new Error(`block at level ${level}`);
    const within = address & ((1n << BigInt(low)) - 1n);
    if ((output & ((1n << BigInt(low)) - 1n)) !== 0n) throw new Error('block not aligned');
    const tracked = bit(descriptor, 51);
    const unprivileged = bit(descriptor, 6);
    return {
      pa: output | within,
      level,
      sizeLg2: low,
      slot,
      descriptor,
      contiguous: bit(descriptor, 52),
      readable: unprivileged,
      writable: tracked || (stage === 1 ? unprivileged && !bit(descriptor, 7) : bit(descriptor, 7)),
      tracked,
      dirty: tracked && bit(descriptor, 7) === (stage === 2),
      accessed: bit(descriptor, 10),
    };
  }
  return null;
}
