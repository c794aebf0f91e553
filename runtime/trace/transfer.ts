/**
 * read() and write() on the files that carry records: a fault queue, the events of a vIOMMU. A trace shows them
 * beside the ioctls:
 *
 *     read(5<anon_inode:[iommufd-pgfault]>, [{flags=IOMMU_PGFAULT_FLAGS_LAST_PAGE, dev_id=1, ...}], 4096) = 40
 *
 * What a file carries is known by its name, which is the kernel's.
 */
import { ViommuEventSelftest } from '../../uapi/drivers/selftest.js';
import { VeventArmSmmuv3 } from '../../uapi/drivers/smmuv3.js';
import { VeventTegra241Cmdqv } from '../../uapi/drivers/tegra241.js';
import { HwptPageResponse, HwptPgfault } from '../../uapi/iommufd/fault.js';
import { IOMMU_VEVENTQ_FLAG_LOST_EVENTS, VeventHeader } from '../../uapi/iommufd/veventq.js';
import { traceErrnoName } from './errno-names.js';
import { comment, dataTree, text } from './format.js';
import type { AnyStruct } from './ioctls.js';
import { hexAtom, structToTree, type Tree } from './tree.js';

/** Names of the files, as in /proc/PID/fd and strace -y. */
export const FAULT_FILE = 'anon_inode:[iommufd-pgfault]';
export const VEVENT_FILE = 'anon_inode:[iommufd-viommu-event]';

export interface Transfer {
  readonly op: 'read' | 'write';
  readonly pid?: number;
  readonly time?: string;
  readonly fd?: number;
  readonly path?: string;
  /** What went through, as far as it is known. */
  readonly bytes: Uint8Array;
  /** The third argument. */
  readonly asked: number;
  /** >= 0 | -errno; null: it did not return. */
  readonly result: number | null;
}

interface TransferTree extends Omit<Transfer, 'op' | 'bytes'> {
  readonly read?: Tree;
  readonly write?: Tree;
  readonly error?: string;
  readonly about?: string;
}

/** @returns one line, without its end */
export function formatTransfer(transfer: Transfer): string {
  const { op, pid, time, fd, path, asked, result } = transfer;
  const head = `${pid === undefined ? '' : `[pid ${pid}] `}${time === undefined ? '' : `${time} `}`;
  const file = path === undefined ? String(fd ?? '?') : `${fd ?? '?'}<${path}>`;
  const end = result === null ? '?' : result < 0 ? `-1 ${traceErrnoName(-result)}` : String(result);
  return `${head}${op}(${file}, ${text(recordsOf(transfer))}${comment(missing(transfer))}, ${asked}) = ${end}`;
}

/** @returns one JSON object on one line */
export function formatTransferJson(transfer: Transfer): string {
  const { op, bytes: _, result, ...rest } = transfer;
  const about = missing(transfer);
  const tree: TransferTree = {
    ...rest,
    [op]: recordsOf(transfer),
    result: result === null ? null : result < 0 ? -1 : result,
    ...(result !== null && result < 0 ? { error: traceErrnoName(-result) } : {}),
    ...(about === undefined ? {} : { about }),
  };
  return JSON.stringify(tree);
}

function missing({ op, bytes, asked, result }: Transfer): string | undefined {
  const whole = op === 'write' ? asked : Math.max(0, result ?? 0);
  return bytes.byteLength >= whole
    ? undefined
    : `${whole - bytes.byteLength} of ${whole} bytes are not in the trace`;
}

function recordsOf({ op, path, bytes }: Transfer): Tree {
  if (path === VEVENT_FILE) return vevents(bytes);
  if (path !== FAULT_FILE) return hexAtom(bytes);
  const struct = (op === 'read' ? HwptPgfault : HwptPageResponse) as unknown as AnyStruct;
  return dataTree({ struct, stride: struct.size }, bytes);
}

/** The type of a queue is not in its name: its records are as long as one type's. */
function vevents(bytes: Uint8Array): Tree {
  for (const struct of [
    VeventArmSmmuv3,
    VeventTegra241Cmdqv,
    ViommuEventSelftest,
  ] as unknown as AnyStruct[]) {
    const list = veventsOf(struct, bytes);
    if (list !== null) return list;
  }
  return hexAtom(bytes);
}

function veventsOf(struct: AnyStruct, bytes: Uint8Array): Tree | null {
  const list: Tree[] = [];
  let at = 0;
  while (at < bytes.byteLength) {
    if (at + VeventHeader.size > bytes.byteLength) return null;
    const header = bytes.subarray(at, at + VeventHeader.size);
    list.push(structToTree(VeventHeader as unknown as AnyStruct, header));
    at += VeventHeader.size;
    if ((VeventHeader.decode(header).flags & IOMMU_VEVENTQ_FLAG_LOST_EVENTS) !== 0) continue;
    if (at + struct.size > bytes.byteLength) return null;
    list.push(dataTree({ struct, stride: 0 }, bytes.subarray(at, at + struct.size)));
    at += struct.size;
  }
  return list;
}
