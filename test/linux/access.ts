/** What several fixtures do with an access, and a process besides the program's own. */
import { OwnTask } from '../../runtime/core/task.js';
import type { Machine } from '../../runtime/machine.js';
import { IOMMU_TEST_OP_ACCESS_RW, MOCK_ACCESS_RW_WRITE } from '../../uapi/iommufd/test.js';
import { Random } from '../kit/random.js';
import { BUFFER_SIZE, PAGE_SIZE, type Program } from './program.js';

const random = new Random(1);
const TMP_BYTES = 64;

/**
 * Reads and writes of 1 to 63 bytes at each of 100 places around a page boundary, both ways compared with the buffer
 * behind `iova`; then all of it at once.
 */
export function checkAccessRw(p: Program, access: number, iova: bigint, flags: number): void {
  const { t, machine } = p;
  const { user } = machine;
  const tmpVa = p.alloc(BUFFER_SIZE);
  const buffer = randomBytes(BUFFER_SIZE);
  p.write(p.buffer, buffer);
  const tmp = new Uint8Array(TMP_BYTES);
  const behind = new Uint8Array(TMP_BYTES);
  let wrong = 0;
  for (let at = PAGE_SIZE - 50; at < PAGE_SIZE + 50; at++)
    for (let length = 1; length < TMP_BYTES; length++) {
      const where = iova + BigInt(at);
      if (p.accessRw(access, where, length, tmpVa, flags) !== 0) wrong++;
      user.copyIn(tmpVa, tmp);
      user.copyIn(p.buffer + BigInt(at), behind);
      if (!same(tmp, behind, length)) wrong++;
      user.copyOut(tmpVa, randomBytes(TMP_BYTES));
      user.copyIn(tmpVa, tmp);
      if (p.accessRw(access, where, length, tmpVa, flags | MOCK_ACCESS_RW_WRITE) !== 0) wrong++;
      user.copyIn(p.buffer + BigInt(at), behind);
      if (!same(tmp, behind, length)) wrong++;
    }
  t.is(wrong, 0, `op ${IOMMU_TEST_OP_ACCESS_RW}`);
  t.is(p.accessRw(access, iova, BUFFER_SIZE, tmpVa, flags), 0);
  t.deepEqual(p.read(tmpVa, BUFFER_SIZE), p.read(p.buffer, BUFFER_SIZE));
  p.unmapUser(tmpVa, BUFFER_SIZE);
}

const randomBytes = (bytes: number) => Uint8Array.from({ length: bytes }, () => random.below(256));

function same(a: Uint8Array, b: Uint8Array, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** A forked process that shares the program's memory until it exits. */
export function otherProcess(machine: Machine): OwnTask & { exit(): void } {
  const { user, core } = machine;
  let alive = true;
  const mm = {
    account: { pinnedVm: 0, lockedVm: 0 },
    get alive() {
      return alive;
    },
    copyIn: (va: bigint, into: Uint8Array) => (alive ? user.copyIn(va, into) : -14),
    copyOut: (va: bigint, from: Uint8Array) => (alive ? user.copyOut(va, from) : -14),
    runAt: (vaPage: number, out: { pfn: number; pages: number }) => (alive ? user.runAt(vaPage, out) : -14),
    pinsOf: (pfn: number) => user.pinsOf(pfn),
    pin: (pfn: number, pages: number) => user.pin(pfn, pages),
    unpin: (pfn: number, pages: number) => user.unpin(pfn, pages),
  };
  return Object.assign(new OwnTask(mm, core.own.files), {
    exit: () => {
      alive = false;
    },
  });
}
