/** What an embedder passes as bytes. Anything else would be taken for nothing, or for its low bytes. */

/** @throws TypeError unless it is a Uint8Array, as a Buffer is */
export function requireBytes(value: unknown, name: string): void {
  if (!(value instanceof Uint8Array)) throw new TypeError(`${name} must be a Uint8Array (a Buffer is one)`);
}

/** @throws TypeError unless it is a bigint */
export function requireAddress(value: unknown, name: string): void {
  if (typeof value !== 'bigint') throw new TypeError(`${name} must be a bigint, as in 4096n`);
}
