/**
 * A VMM on a thread of its own: ordinary ioctls travel through the mailbox, IOMMU_HWPT_INVALIDATE runs here
 * and now on the shared object table, so that guest invalidations do not bounce through the core.
 */
import type { MachineThread } from '../../runtime/machine-thread.js';
import type { VmmTransport } from '../../runtime/vmm/transport.js';
import type { MailboxClient } from './mailbox-client.js';
import {
  fileCloseTarget,
  fileReadTarget,
  fileWriteTarget,
  iommufdTarget,
  TICKET_BYTES,
  vfioCloseTarget,
  vfioTarget,
} from './mailbox-layout.js';

/** Which iommufd a VMM uses, and the user memory it may point ioctl structures at. */
export interface TransportWiring {
  /** Index of the iommufd in the machine. */
  readonly fdIndex: number;
  /** Its descriptor, as VFIO_DEVICE_BIND_IOMMUFD takes it. */
  readonly fd: number;
  readonly scratch: { readonly va: bigint; readonly bytes: number };
}

const NOTHING = new Uint8Array(0);

export function mailboxTransport(
  thread: MachineThread,
  mailbox: MailboxClient,
  wiring: TransportWiring,
): VmmTransport {
  const { fdIndex, fd, scratch } = wiring;
  const invalidator = thread.shared(fdIndex);
  return {
    ioctl: (cmd, bytes) => mailbox.call(iommufdTarget(fdIndex), cmd, bytes),
    vfio: (deviceIndex, cmd, bytes) => mailbox.call(vfioTarget(deviceIndex), cmd, bytes),
    vfioClose: (deviceIndex) => {
      mailbox.call(vfioCloseTarget(deviceIndex), 0, NOTHING);
    },
    invalidate: (bytes) => invalidator.hwptInvalidate(bytes),
    // One ticket's worth at a time: read() may always return less than was asked for. A fault queue wants whole
    // records of 40 bytes: ask for 240 at most.
    read: (file, into) => mailbox.call(fileReadTarget(file), 0, into.subarray(0, TICKET_BYTES)),
    write: (file, bytes) => mailbox.call(fileWriteTarget(file), 0, bytes),
    close: (file) => {
      mailbox.call(fileCloseTarget(file), 0, NOTHING);
    },
    iommufd: fd,
    memory: thread.memory,
    user: thread.user,
    scratch,
  };
}
