/** Sizes as people write them: a number or bigint of bytes, or '4KiB', '16MiB', '1GiB', '2TiB', '512'. */

export type ByteSize = number | bigint | string;

const UNITS: Readonly<Record<string, bigint>> = {
  '': 1n,
  B: 1n,
  KiB: 1n << 10n,
  MiB: 1n << 20n,
  GiB: 1n << 30n,
  TiB: 1n << 40n,
};

/**
 * @param name  what the size is of, for the message
 * @returns bytes, 0 to 2^64 - 1
 * @throws RangeError when it is not a whole number of bytes in that range
 */
export function byteSize(value: ByteSize, name: string): bigint {
  let bytes: bigint | undefined;
  if (typeof value === 'bigint') bytes = value;
  else if (typeof value === 'number') bytes = Number.isSafeInteger(value) ? BigInt(value) : undefined;
  else {
    const match = /^\s*(\d+)\s*([A-Za-z]*)\s*$/.exec(value);
    const unit = match === null ? undefined : UNITS[match[2]!];
    if (match !== null && unit !== undefined) bytes = BigInt(match[1]!) * unit;
  }
  if (bytes === undefined || bytes < 0n || bytes >= 1n << 64n)
    throw new RangeError(
      `${name}: ${JSON.stringify(String(value))} is not a size in bytes ('16MiB', 4096, 4096n)`,
    );
  return bytes;
}
