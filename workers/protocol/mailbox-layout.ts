/**
 * The mailbox (key `mailbox`): ioctls that other threads ask the core to perform. A ticket is one call in
 * flight; a client may have as many as there are tickets, and goes on with other work meanwhile.
 *
 *            client: CAS          client: fill, store     core: CAS            core: copy out, CAS
 *   FREE ---------------> CLAIMED ----------> POSTED ----------> SERVING -----------------> DONE
 *    ^                                          | timed out         | timed out               |
 *    |<-----------------------------------------+                   +--> ABANDONED --core-->  |
 *    |<---------------------------------------------------------------------------- client: take
 *
 * The state word carries the owner's thread id, so that a dead thread's tickets are found and freed whatever
 * it was doing. `pending` has one bit a ticket, and is a hint only: the state word decides. There is no ring,
 * because a producer that dies between taking a ring slot and publishing it would block everybody behind it.
 */
import { array, i32, layout, line, raw, u32 } from '../../hw/memory/layout.js';

export const TICKETS = 1024;
/** Largest ioctl structure that travels. */
export const TICKET_BYTES = 256;

export const TICKET_FREE = 0;
export const TICKET_CLAIMED = 1;
export const TICKET_POSTED = 2;
export const TICKET_SERVING = 3;
export const TICKET_DONE = 4;
export const TICKET_ABANDONED = 5;

/** state = kind | owner << 8 */
export const ticketState = (kind: number, owner: number): number => kind | (owner << 8);
export const kindOf = (state: number): number => state & 0xff;
export const ownerOf = (state: number): number => state >>> 8;

/** target = kind << 16 | index: what is asked, and of whom. */
export const TARGET_IOMMUFD = 1;
export const TARGET_VFIO = 2;
export const TARGET_VFIO_CLOSE = 3;
export const TARGET_FILE_READ = 4;
export const TARGET_FILE_CLOSE = 5;
export const TARGET_FILE_WRITE = 6;
/** ioctl of an iommufd, by its index in the machine. */
export const iommufdTarget = (fdIndex: number): number => (TARGET_IOMMUFD << 16) | fdIndex;
/** ioctl, and close, of a VFIO device, by its index in the machine. */
export const vfioTarget = (deviceIndex: number): number => (TARGET_VFIO << 16) | deviceIndex;
export const vfioCloseTarget = (deviceIndex: number): number => (TARGET_VFIO_CLOSE << 16) | deviceIndex;
/** read, write and close of a file that an ioctl gave out, by its descriptor. */
export const fileReadTarget = (fd: number): number => (TARGET_FILE_READ << 16) | fd;
export const fileWriteTarget = (fd: number): number => (TARGET_FILE_WRITE << 16) | fd;
export const fileCloseTarget = (fd: number): number => (TARGET_FILE_CLOSE << 16) | fd;

/** Writers: the owner until POSTED, the core until DONE. */
export const Ticket = layout('ticket', 1, {
  /** ticketState(). Futex of a client that waits for this one. */
  state: i32(),
  /** How many park on the state word. Writer: the owner. */
  waiting: i32(),
  /** Place in the order of all posts, modulo 2^32: a client's own are served in this order. */
  order: u32(),
  /** Bumped by every claim, so that a ticket number used twice is noticed. */
  generation: u32(),
  target: u32(),
  cmd: u32(),
  /** In: bytes of the structure. */
  length: u32(),
  /** Out: 0, positive, or -errno. */
  result: i32(),
  bytes: raw(TICKET_BYTES),
});

export const MailboxLayout = layout('mailbox', 1, {
  /** Posts ever made. Atomic add by clients. */
  posts: line(u32()),
  /** 1 once the core will serve no more. Writer: the core. */
  closed: line(i32()),
  /** Bit t: ticket t was posted since the core last looked. */
  pending: line(array(u32(), TICKETS / 32)),
  tickets: raw(Ticket.size * TICKETS),
});

export const MAILBOX_KEY = 'mailbox';
