/**
 * FAULT: the queue on which user space hears of the page faults of its page tables, and answers them. struct
 * iommufd_fault.
 *
 *   deliver --read--> response, by cookie --write(cookie, code)--> the device goes on, or aborts
 *      \---------------------\--- detach, replace, destroy ---> answered INVALID
 *
 * A group is read whole or not at all, so that its one answer follows all of its faults. Reading never waits.
 *
 * @source drivers/iommu/iommufd/eventq.c
 */
import { EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, ESPIPE } from '../../uapi/abi/errno.js';
import {
  type FaultAlloc,
  HwptPageResponse,
  HwptPgfault,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMUFD_PAGE_RESP_INVALID,
  IOMMUFD_PAGE_RESP_SUCCESS,
} from '../../uapi/iommufd/fault.js';
import type { IommufdCtx } from '../core/ctx.js';
import { type OpenFile, POLLIN, POLLOUT, type PutBytes } from '../core/file-table.js';
import { IommufdObject } from '../core/iommufd-object.js';
import { OBJ_FAULT } from '../core/objects-layout.js';
import type { FaultGroup } from '../core/page-faults.js';
import type { UcmdOf } from '../core/ucmd.js';
import { PAGE_RESP_INVALID } from '../drivers/contract.js';
import type { AttachHandle } from './group.js';

const RECORD_BYTES = 40;
const RESPONSE_BYTES = 8;

export class Fault extends IommufdObject {
  /** Nobody has read these. */
  #deliver: FaultGroup[] = [];
  /** Read, and not answered: by cookie. */
  readonly #response = new Map<number, FaultGroup>();
  #file: OpenFile | null = null;

  constructor(ctx: IommufdCtx, id: number) {
    super(ctx, id, OBJ_FAULT);
  }

  /** iommufd_fault_iopf_handler */
  deliver(group: FaultGroup): void {
    this.#deliver.push(group);
    if (this.#deliver.length === 1) this.#file?.onReadable?.();
  }

  /** A group that has been answered without it. */
  forget(group: FaultGroup): void {
    this.#deliver = this.#deliver.filter((other) => other !== group);
    if (this.#response.get(group.cookie) === group) this.#response.delete(group.cookie);
  }

  /** Faults that came through an attachment that is gone: iommufd_auto_response_faults. */
  answerAll(handle: AttachHandle): void {
    this.#end((group) => group.handle === handle);
  }

  /** Groups that nobody has answered: unread, then read. */
  pending(): FaultGroup[] {
    return [...this.#deliver, ...this.#response.values()];
  }

  get readable(): boolean {
    return this.#deliver.length > 0;
  }

  /**
   * @param count  bytes of the caller's buffer
   * @returns bytes put, 0 when nothing waits | -ESPIPE `count` is not whole records | -EINVAL the first group does not
   *   fit (7.0: 0) | -EFAULT | -ENOMEM
   */
  readTo(count: number, put: PutBytes): number {
    if (count % RECORD_BYTES !== 0) return -ESPIPE;
    const asLinux70 = this.ctx.core.compat === '7.0';
    let done = 0;
    for (let failedAt = -1; this.#deliver.length > 0; ) {
      const group = this.#deliver[0]!;
      const bytes = group.faults.length * RECORD_BYTES;
      if (bytes > count - done) return done === 0 && count > 0 && !asLinux70 ? -EINVAL : done;
      if (this.ctx.core.allocFails('fault_response')) return done === 0 ? -ENOMEM : done;
      this.#deliver.shift();
      group.cookie = this.#freeCookie();
      this.#response.set(group.cookie, group);
      const copied = this.#putGroup(group, done, put);
      if (copied === bytes) {
        done += bytes;
        continue;
      }
      this.#response.delete(group.cookie);
      this.#deliver.unshift(group);
      if (!asLinux70) return done === 0 ? -EFAULT : done;
      // 7.0 tries again after the records that it could copy, for ever where it can copy none.
      done += copied;
      if (copied === 0 && failedAt === done) return done === 0 ? -EFAULT : done;
      failedAt = done;
    }
    return done;
  }

  /** @returns whole groups | -errno as readTo() */
  read(count: number): Uint8Array | number {
    const bytes = new Uint8Array(Math.max(count, 0));
    const done = this.readTo(count, (offset, record) => {
      bytes.set(record, offset);
      return 0;
    });
    return done < 0 ? done : bytes.subarray(0, done);
  }

  /**
   * Takes answers until one is wrong.
   * @returns bytes taken | -ESPIPE not whole answers | -EINVAL no such code or cookie
   */
  write(bytes: Uint8Array): number {
    if (bytes.byteLength % RESPONSE_BYTES !== 0) return -ESPIPE;
    let done = 0;
    for (; done < bytes.byteLength; done += RESPONSE_BYTES) {
      const { cookie, code } = HwptPageResponse.decode(bytes, done);
      const group = this.#response.get(cookie);
      if (code !== IOMMUFD_PAGE_RESP_SUCCESS && code !== IOMMUFD_PAGE_RESP_INVALID) break;
      if (group === undefined) break;
      this.#response.delete(cookie);
      // The two codes are PAGE_RESP_* too.
      group.respond(code);
    }
    return done === 0 && bytes.byteLength > 0 ? -EINVAL : done;
  }

  override destroy(): void {
    this.#end(() => true);
  }

  /** The open file: a user of the object, and of the iommufd. */
  open(): OpenFile {
    this.addUser();
    this.ctx.getFile();
    const file: OpenFile = {
      kind: 'fault',
      read: (maxBytes) => this.read(maxBytes),
      readTo: (maxBytes, put) => this.readTo(maxBytes, put),
      write: (bytes) => this.write(bytes),
      poll: () => POLLOUT | (this.readable ? POLLIN : 0),
      onReadable: null,
      release: () => {
        this.#file = null;
        this.dropUser();
        this.ctx.putFile();
      },
    };
    this.#file = file;
    return file;
  }

  #end(which: (group: FaultGroup) => boolean): void {
    const { bugs } = this.ctx.core;
    const unread = this.#deliver.filter(which);
    this.#deliver = this.#deliver.filter((group) => !which(group));
    for (const group of bugs['fault-never-answered'] ? [] : unread) group.respond(PAGE_RESP_INVALID);
    for (const [cookie, group] of [...this.#response]) {
      if (!which(group)) continue;
      if (bugs['fault-answered-twice']) {
        group.faults.at(-1)!.respond(PAGE_RESP_INVALID);
        continue;
      }
      this.#response.delete(cookie);
      group.respond(PAGE_RESP_INVALID);
    }
  }

  /** @returns bytes put: less than all when the caller's memory ends */
  #putGroup(group: FaultGroup, at: number, put: PutBytes): number {
    const devId = group.handle.device.id;
    for (const [i, { pasid, grpid, perm, addr, last }] of group.faults.entries()) {
      const flags =
        (pasid >= 0 ? IOMMU_PGFAULT_FLAGS_PASID_VALID : 0) | (last ? IOMMU_PGFAULT_FLAGS_LAST_PAGE : 0);
      const { cookie } = group;
      const record = { flags, devId, pasid: Math.max(pasid, 0), grpid, perm, addr, length: 0, cookie };
      if (put(at + i * RECORD_BYTES, HwptPgfault.toBytes(record)) < 0) return i * RECORD_BYTES;
    }
    return group.faults.length * RECORD_BYTES;
  }

  /** The lowest that is free, from 1 (XA_FLAGS_ALLOC1). */
  #freeCookie(): number {
    let cookie = 1;
    while (this.#response.has(cookie)) cookie++;
    return cookie;
  }
}

/** @source eventq.c iommufd_fault_alloc */
export function faultAlloc(ucmd: UcmdOf<typeof FaultAlloc>): number {
  const { ctx, cmd } = ucmd;
  const { core } = ctx;
  if (cmd.flags !== 0) return -EOPNOTSUPP;
  const id = ctx.reserve(OBJ_FAULT);
  if (id < 0) return id;
  const fault = new Fault(ctx, id);
  ucmd.newObject = fault;
  if (core.allocFails('fault_file')) return -ENOMEM;
  const file = fault.open();
  const fd = core.allocFails('fault_fd') ? -ENOMEM : core.current.files.install(file);
  if (fd < 0) {
    file.release();
    return fd;
  }
  cmd.outFaultId = fault.id;
  cmd.outFaultFd = fd;
  const status = ucmd.respond();
  if (status < 0) core.current.files.close(fd);
  return status;
}
