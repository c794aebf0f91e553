/**
 * vEVENTQ: the events of one type that concern one VM, as a file to read. struct iommufd_veventq.
 *
 * When `depth` events wait unread, the next one is lost: its number goes into a header without data that
 * stands at the tail, one however many are lost. An event that finds room again takes the header away, and
 * its sequence number shows how many were lost before it.
 *
 *   depth 2:   | 0 | 1 |          | 0 | 1 | LOST 2 |       | 0 | 1 | LOST 5 |       read one:  | 1 | LOST 5 |
 *                                                                                   next event: | 1 | 6 |
 *
 * @source drivers/iommu/iommufd/eventq.c, iommufd_private.h iommufd_vevent_handler,
 *   driver.c iommufd_viommu_report_event
 */
import { EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP } from '../../uapi/abi/errno.js';
import {
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VEVENTQ_TYPE_DEFAULT,
  VeventHeader,
  type VeventqAlloc,
} from '../../uapi/iommufd/veventq.js';
import { type EventFile, POLLIN, type PutBytes } from '../core/file-table.js';
import { IommufdObject } from '../core/iommufd-object.js';
import { OBJ_VEVENTQ, OBJ_VIOMMU } from '../core/objects-layout.js';
import type { UcmdOf } from '../core/ucmd.js';
import type { Viommu } from './viommu.js';

const INT_MAX = 0x7fff_ffff;
const HEADER_BYTES = 8;

interface Vevent {
  readonly sequence: number;
  readonly data: Uint8Array;
}

export class Veventq extends IommufdObject {
  readonly viommu: Viommu;
  /** IOMMU_VEVENTQ_TYPE_*. */
  readonly eventType: number;
  readonly depth: number;
  /** Normal events from `#head` on; consumed ones before it are dropped from time to time. */
  readonly #events: Vevent[] = [];
  #head = 0;
  /** Sequence number in the LOST_EVENTS header at the tail, or -1 when there is none. */
  #lost = -1;
  #sequence = 0;
  #file: EventFile | null = null;

  constructor(id: number, viommu: Viommu, type: number, depth: number) {
    super(viommu.ctx, id, OBJ_VEVENTQ);
    this.viommu = viommu;
    this.eventType = type;
    this.depth = depth;
    viommu.addUser();
    viommu.veventqs.set(type, this);
  }

  /** @returns 0 | -ENOMEM; a queue that is full loses the event without a word to the driver */
  report(data: Uint8Array): number {
    const empty = !this.readable;
    const sequence = this.#sequence;
    this.#sequence = sequence === INT_MAX ? 0 : sequence + 1;
    const full = this.#events.length - this.#head >= this.depth;
    const failed = !full && this.ctx.core.allocFails('vevent');
    if (full && this.ctx.core.bugs['veventq-overflow-loses-marker']) return 0;
    if (full || failed) this.#lost = sequence;
    else {
      this.#lost = -1;
      this.#events.push({ sequence, data: data.slice() });
    }
    if (empty) this.#file?.onReadable?.();
    return failed ? -ENOMEM : 0;
  }

  get readable(): boolean {
    return this.#head < this.#events.length || this.#lost >= 0;
  }

  /**
   * Whole records only; a record that does not fit stays for the next read.
   * @returns bytes put, 0 when nothing waits or fits | -EFAULT
   */
  readTo(maxBytes: number, put: PutBytes): number {
    let done = 0;
    while (this.#head < this.#events.length) {
      const { sequence, data } = this.#events[this.#head]!;
      if (HEADER_BYTES + data.byteLength > maxBytes - done) return done;
      if (put(done, VeventHeader.toBytes({ flags: 0, sequence })) < 0) return done === 0 ? -EFAULT : done;
      if (put(done + HEADER_BYTES, data) < 0) {
        // 7.0 counts the header of a record that stays.
        if (this.ctx.core.compat === '7.0') done += HEADER_BYTES;
        return done === 0 ? -EFAULT : done;
      }
      done += HEADER_BYTES + data.byteLength;
      this.#drop();
    }
    // Linux copies the header before it looks at the room.
    if (this.#lost < 0 || this.ctx.core.allocFails('lost_events_header')) return done;
    if (HEADER_BYTES > maxBytes - done) return done;
    const header = VeventHeader.toBytes({ flags: IOMMU_VEVENTQ_FLAG_LOST_EVENTS, sequence: this.#lost });
    if (put(done, header) < 0) return done === 0 ? -EFAULT : done;
    this.#lost = -1;
    if (this.ctx.core.bugs['veventq-lost-count-unbalanced']) this.#head++;
    return done + HEADER_BYTES;
  }

  /** As readTo(), into memory of its own. */
  read(maxBytes: number): Uint8Array {
    const parts: Uint8Array[] = [];
    const done = this.readTo(maxBytes, (_offset, bytes) => {
      parts.push(bytes);
      return 0;
    });
    return concat(parts, done);
  }

  override destroy(): void {
    this.viommu.veventqs.delete(this.eventType);
    this.viommu.dropUser();
  }

  /** The open file: a user of the object, and of the iommufd. */
  open(): EventFile {
    this.addUser();
    this.ctx.getFile();
    this.#file = {
      kind: 'event',
      read: (maxBytes) => this.read(maxBytes),
      readTo: (maxBytes, put) => this.readTo(maxBytes, put),
      poll: () => (this.readable ? POLLIN : 0),
      onReadable: null,
      release: () => {
        this.#file = null;
        this.dropUser();
        this.ctx.putFile();
      },
    };
    return this.#file;
  }

  #drop(): void {
    this.#head++;
    if (this.#head < 1024 && this.#head < this.#events.length) return;
    this.#events.splice(0, this.#head);
    this.#head = 0;
  }
}

function concat(parts: readonly Uint8Array[], bytes: number): Uint8Array {
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}

/** @source eventq.c iommufd_veventq_alloc */
export function veventqAlloc(ucmd: UcmdOf<typeof VeventqAlloc>): number {
  const { ctx, cmd } = ucmd;
  if (cmd.flags !== 0 || cmd.reserved !== 0 || cmd.type === IOMMU_VEVENTQ_TYPE_DEFAULT) return -EOPNOTSUPP;
  if (cmd.veventqDepth === 0) return -EINVAL;
  const viommu = ctx.get<Viommu>(cmd.viommuId, OBJ_VIOMMU);
  if (viommu === undefined) return -ENOENT;
  const status = allocOn(ucmd, viommu);
  ctx.put(viommu);
  return status;
}

/** Any type is taken, as Linux does: one that the driver never reports stays empty. */
function allocOn(ucmd: UcmdOf<typeof VeventqAlloc>, viommu: Viommu): number {
  const { ctx, cmd } = ucmd;
  if (viommu.veventqs.has(cmd.type)) return -EEXIST;
  const id = ctx.reserve(OBJ_VEVENTQ);
  if (id < 0) return id;
  const queue = new Veventq(id, viommu, cmd.type, cmd.veventqDepth);
  ucmd.newObject = queue;
  if (ctx.core.allocFails('event file')) return -ENOMEM;
  const file = queue.open();
  const fd = ctx.core.allocFails('event fd') ? -ENOMEM : ctx.core.current.files.install(file);
  if (fd < 0) {
    file.release();
    return fd;
  }
  cmd.outVeventqId = id;
  cmd.outVeventqFd = fd;
  const status = ucmd.respond();
  if (status < 0) ctx.core.current.files.close(fd);
  return status;
}
