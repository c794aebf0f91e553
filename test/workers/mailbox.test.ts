import { once } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { Control } from '../../workers/protocol/control.js';
import { MailboxClient } from '../../workers/protocol/mailbox-client.js';
import { MailboxLayout, Ticket } from '../../workers/protocol/mailbox-layout.js';
import { MailboxServer, type MailboxTargets, reclaimTickets } from '../../workers/protocol/mailbox-server.js';
import { type Bare, createBare } from './bare-machine.js';
import type { FloodOrder, FloodResult } from './mailbox-clients.js';

const EIO = 5;
const EBADF = 9;
const EAGAIN = 11;
const EFAULT = 14;
const EINVAL = 22;
const ETIMEDOUT = 110;
const EOWNERDEAD = 130;
const TICKETS = 1024;
const iommufd = (index: number) => (1 << 16) | index;
const vfio = (index: number) => (2 << 16) | index;

const CLOSED: MailboxTargets = {
  iommufd: () => -EBADF,
  vfio: () => -EBADF,
  vfioClose: () => -EBADF,
  fileRead: () => -EBADF,
  fileWrite: () => -EBADF,
  fileClose: () => -EBADF,
};

function build(
  targets: Partial<MailboxTargets> = {},
): Bare & { server: MailboxServer; client: MailboxClient } {
  const bare = createBare();
  Control.create(bare.memory, bare.env.threadId);
  const server = new MailboxServer(bare.memory, { ...CLOSED, ...targets });
  return { ...bare, server, client: new MailboxClient(bare.env, bare.memory) };
}

/** Linear offset of a ticket's fields. */
const ticketAt = ({ memory }: Bare, ticket: number) =>
  memory.region(MailboxLayout, 'mailbox').base + MailboxLayout.at.tickets + (ticket % TICKETS) * Ticket.size;

function flood(bare: Bare, order: Omit<FloodOrder, 'handle'>): Promise<FloodResult> {
  const workerData: FloodOrder = { handle: bare.memory.handle(), ...order };
  const worker = new Worker(new URL('./mailbox-clients.js', import.meta.url), { workerData });
  return once(worker, 'message').then(([result]) => result as FloodResult);
}

test('mailbox: a call carries the structure there and back', (t) => {
  const { server, client } = build({
    vfio: (index, cmd, bytes) => {
      t.is(index, 7);
      t.is(cmd, 0x3b65);
      t.deepEqual([...bytes], [1, 2, 3, 4]);
      bytes[3] = 9;
      return 42;
    },
  });
  const bytes = new Uint8Array([1, 2, 3, 4]);
  const ticket = client.post(vfio(7), 0x3b65, bytes);
  t.false(client.done(ticket));
  t.is(client.take(ticket, bytes), -EAGAIN);
  t.is(server.serve(10), 1);
  t.true(client.done(ticket));
  t.is(client.take(ticket, bytes), 42);
  t.deepEqual([...bytes], [1, 2, 3, 9]);
});

test('mailbox: a client with hundreds outstanding is served in the order it posted', (t) => {
  const seen: number[] = [];
  const { server, client } = build({
    iommufd: (_, cmd) => {
      seen.push(cmd);
      return cmd;
    },
  });
  const nothing = new Uint8Array(0);
  const tickets = Array.from({ length: 300 }, (_, i) => client.post(iommufd(0), i, nothing));
  t.true(tickets.every((ticket) => ticket >= 0));
  t.is(server.serve(1000), 300);
  t.deepEqual(
    seen,
    [...seen].sort((a, b) => a - b),
  );
  t.deepEqual(
    tickets.map((ticket) => client.take(ticket, nothing)),
    seen,
  );
});

test('mailbox: four client threads, every call is answered once and with its own answer', async (t) => {
  const CALLS = 5000;
  const next = [0, 0, 0, 0];
  let outOfOrder = 0;
  const bare = build({
    iommufd: (_, __, bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      const client = view.getUint32(0, true);
      const call = view.getUint32(4, true);
      if (next[client]!++ !== call) outOfOrder++;
      view.setUint32(4, ~call, true);
      return call;
    },
  });
  let over = false;
  const clients = Promise.all(
    [1, 4, 16, 64].map((outstanding, client) => flood(bare, { client, calls: CALLS, outstanding })),
  ).finally(() => {
    over = true;
  });
  let served = 0;
  while (!over) {
    served += bare.server.serve(256);
    await nextTurn();
  }
  const results = await clients;
  t.deepEqual(
    results.map(({ taken }) => taken),
    [CALLS, CALLS, CALLS, CALLS],
  );
  t.deepEqual(
    results.map(({ wrong }) => wrong),
    [0, 0, 0, 0],
  );
  t.is(served, 4 * CALLS);
  t.is(outOfOrder, 0);
  t.false(bare.server.hasWork());
});

test('mailbox: tickets of a dead thread are reclaimed, those of others are not', async (t) => {
  const bare = build({ iommufd: () => 0 });
  const mine = bare.client.post(iommufd(0), 1, new Uint8Array(0));
  const { threadId } = await flood(bare, { client: 1, calls: 100, outstanding: 100, abandon: true });
  bare.server.serve(30);
  bare.env.threads.markDead(threadId);
  t.is(reclaimTickets(bare.memory, threadId), 100);
  t.is(reclaimTickets(bare.memory, threadId), 0);
  bare.server.serve(1000);
  t.is(bare.client.take(mine, new Uint8Array(0)), 0);
  const all = Array.from({ length: TICKETS }, () => bare.client.post(iommufd(0), 1, new Uint8Array(0)));
  t.true(all.every((ticket) => ticket >= 0));
  t.is(bare.client.post(iommufd(0), 1, new Uint8Array(0)), -EAGAIN);
});

test('mailbox: a ticket is taken once, by its owner', (t) => {
  const bare = build({ iommufd: () => 5 });
  const nothing = new Uint8Array(0);
  const other = new MailboxClient({ ...bare.env, threadId: 77 }, bare.memory);
  const ticket = bare.client.post(iommufd(0), 1, nothing);
  bare.server.serve(1);
  t.is(other.take(ticket, nothing), -EINVAL);
  t.is(bare.client.take(ticket, nothing), 5);
  t.is(bare.client.take(ticket, nothing), -EINVAL);
  for (const bad of [-1, 0.5, Number.NaN, TICKETS * 2 ** 21, ticket + TICKETS])
    t.is(bare.client.take(bad, nothing), -EINVAL);
  t.is(bare.client.wait(ticket), -EINVAL);
});

test('mailbox: what is not open is EBADF, an unknown kind of target EINVAL', (t) => {
  const { server, client } = build();
  const nothing = new Uint8Array(0);
  const ask = (target: number) => {
    const ticket = client.post(target, 1, nothing);
    server.serve(1);
    return client.take(ticket, nothing);
  };
  t.is(ask(iommufd(3)), -EBADF);
  t.is(ask(vfio(3)), -EBADF);
  t.is(ask(0), -EINVAL);
  t.is(ask(0xffff_ffff), -EINVAL);
  t.is(ask((6 << 16) | 3), -EBADF);
  t.is(ask(7 << 16), -EINVAL);
});

test('mailbox: a structure too long is refused, a forged length answered EFAULT', (t) => {
  const bare = build({ iommufd: () => 0 });
  t.is(bare.client.post(iommufd(0), 1, new Uint8Array(257)), -EINVAL);
  for (const length of [257, 0x7fff_ffff, -1]) {
    const ticket = bare.client.post(iommufd(0), 1, new Uint8Array(256));
    bare.memory.words.store(ticketAt(bare, ticket) + Ticket.at.length, length);
    t.is(bare.server.serve(1), 1);
    t.is(bare.client.take(ticket, new Uint8Array(300)), -EFAULT);
  }
});

test('mailbox: a ticket in a state that does not exist is answered EINVAL', (t) => {
  const bare = build({ iommufd: () => 0 });
  const ticket = bare.client.post(iommufd(0), 1, new Uint8Array(8));
  bare.memory.words.store(ticketAt(bare, ticket) + Ticket.at.state, 0xee | (bare.env.threadId << 8));
  bare.server.serve(1);
  t.is(bare.client.take(ticket, new Uint8Array(8)), -EINVAL);
});

test('mailbox: a forged order delays nobody', (t) => {
  const bare = build({ iommufd: () => 0 });
  for (const order of [0x7fff_ffff, -0x8000_0000, 0, 5000]) {
    const ticket = bare.client.post(iommufd(0), 1, new Uint8Array(0));
    bare.memory.words.store(ticketAt(bare, ticket) + Ticket.at.order, order);
    t.is(bare.server.serve(10), 1);
    t.is(bare.client.take(ticket, new Uint8Array(0)), 0);
  }
});

test('mailbox: a pending bit without a posted ticket is ignored', (t) => {
  const bare = build();
  const { base } = bare.memory.region(MailboxLayout, 'mailbox');
  bare.memory.words.store(base + MailboxLayout.at.pending, -1);
  t.is(bare.server.serve(100), 0);
  t.false(bare.server.hasWork());
});

test('mailbox: a call times out when nobody serves, and its ticket is free again', (t) => {
  const bare = build({ iommufd: () => 0 });
  t.is(bare.client.call(iommufd(0), 1, new Uint8Array(0), 5), -ETIMEDOUT);
  t.is(bare.server.serve(10), 0);
  t.is(bare.memory.words.load(ticketAt(bare, bare.env.threadId * 37) + Ticket.at.state), 0);
});

test('mailbox: after close, and when the core died, clients get EOWNERDEAD at once', (t) => {
  const nothing = new Uint8Array(0);
  for (const end of ['close', 'die']) {
    const bare = build();
    const ticket = bare.client.post(iommufd(0), 1, nothing);
    if (end === 'close') bare.server.close();
    else bare.env.threads.markDead(bare.env.threadId);
    t.true(bare.client.done(ticket));
    t.is(bare.client.take(ticket, nothing), -EOWNERDEAD);
    t.is(bare.client.post(iommufd(0), 1, nothing), -EOWNERDEAD);
    t.is(bare.client.call(iommufd(0), 1, nothing), -EOWNERDEAD);
  }
});

test('mailbox: a bug in the core reaches its loop, and the caller gets EIO', (t) => {
  const { server, client } = build({
    iommufd: () => {
      throw new Error('bug');
    },
  });
  const ticket = client.post(iommufd(0), 1, new Uint8Array(0));
  t.throws(() => server.serve(1), { message: 'bug' });
  t.is(client.take(ticket, new Uint8Array(0)), -EIO);
});
