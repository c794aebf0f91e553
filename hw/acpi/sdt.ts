/**
 * The ACPI system description table header and its checksum. [ACPI] 5.2.6.
 *
 * Every ACPI table but the FACS opens with the same 36 bytes, and the bytes of the whole table add up to 0
 * modulo 256. Not modelled: the RSDP and the XSDT that lead to a table; a table is handed to us as bytes.
 */

/** Bytes of the header; the table's own fields begin here. */
export const SDT_HEADER_BYTES = 36;

const LENGTH_AT = 4;
const REVISION_AT = 8;
const CHECKSUM_AT = 9;
const OEM_ID_AT = 10;
const OEM_TABLE_ID_AT = 16;
const OEM_REVISION_AT = 24;
const CREATOR_ID_AT = 28;
const CREATOR_REVISION_AT = 32;

export interface SdtHeader {
  /** Four ASCII characters. */
  signature: string;
  /** Bytes of the whole table, header included; never more than were given. */
  length: number;
  revision: number;
  oemId: string;
  oemTableId: string;
}

/** What is wrong with a header, and where. `offset` counts bytes from the table's start. */
export interface SdtFault {
  offset: number;
  problem: string;
}

function ascii(bytes: Uint8Array, at: number, lenBytes: number): string {
  return String.fromCharCode(...bytes.subarray(at, at + lenBytes));
}

/** The sum of `bytes` modulo 256: 0 over a whole, undamaged table. */
export function sdtSum(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) sum = (sum + byte) & 0xff;
  return sum;
}

/**
 * Check a table's header: enough bytes, the expected signature, a length the bytes can hold, a sum of 0.
 * Bytes past the length are let be: dumps are often padded to a page.
 * @returns the header, or the first fault found
 */
export function parseSdtHeader(bytes: Uint8Array, signature: string): SdtHeader | SdtFault {
  if (bytes.length < SDT_HEADER_BYTES) {
    return { offset: bytes.length, problem: `truncated: ${bytes.length} bytes cannot hold a table header` };
  }
  const found = ascii(bytes, 0, 4);
  if (found !== signature) {
    return { offset: 0, problem: `signature ${JSON.stringify(found)} is not ${JSON.stringify(signature)}` };
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(LENGTH_AT, true);
  if (length < SDT_HEADER_BYTES) {
    return { offset: LENGTH_AT, problem: `table length ${length} is shorter than the table header` };
  }
  if (length > bytes.length) {
    return {
      offset: LENGTH_AT,
      problem: `truncated: table length ${length}, but only ${bytes.length} bytes given`,
    };
  }
  const sum = sdtSum(bytes.subarray(0, length));
  if (sum !== 0) return { offset: CHECKSUM_AT, problem: `wrong checksum: the bytes sum to ${sum}, not 0` };
  return {
    signature: found,
    length,
    revision: bytes[REVISION_AT]!,
    oemId: ascii(bytes, OEM_ID_AT, 6),
    oemTableId: ascii(bytes, OEM_TABLE_ID_AT, 8),
  };
}

/** Write a header over the first 36 bytes of `bytes`, all of which are the table, and seal it. */
export function writeSdtHeader(
  bytes: Uint8Array,
  header: Pick<SdtHeader, 'signature' | 'revision' | 'oemId' | 'oemTableId'>,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (at: number, lenBytes: number, value: string): void => {
    for (let i = 0; i < lenBytes; i++) bytes[at + i] = i < value.length ? value.charCodeAt(i) & 0x7f : 0x20;
  };
  text(0, 4, header.signature);
  view.setUint32(LENGTH_AT, bytes.length, true);
  bytes[REVISION_AT] = header.revision;
  text(OEM_ID_AT, 6, header.oemId);
  text(OEM_TABLE_ID_AT, 8, header.oemTableId);
  view.setUint32(OEM_REVISION_AT, 1, true);
  text(CREATOR_ID_AT, 4, 'IOFD');
  view.setUint32(CREATOR_REVISION_AT, 1, true);
  sealSdt(bytes);
}

/** Put the checksum right after an edit. */
export function sealSdt(bytes: Uint8Array): void {
  bytes[CHECKSUM_AT] = 0;
  bytes[CHECKSUM_AT] = (0x100 - sdtSum(bytes)) & 0xff;
}
