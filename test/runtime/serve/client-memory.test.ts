import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { ClientFiles } from '../../../runtime/serve/client-file.js';
import { ClientMemory } from '../../../runtime/serve/client-memory.js';
import { ForeignFrames } from '../../../runtime/serve/foreign-frames.js';
import { ClientProcess, clientProgram } from '../../kit/client-process.js';

const EFAULT = 14;
const PAGE = 4096;
const MIB2 = 2 ** 21;

interface Context {
  client: ClientProcess;
  frames: ForeignFrames;
  files: ClientFiles;
  mm: ClientMemory;
  log: string[];
}

const test = anyTest as TestFn<Context>;
const program = clientProgram();
const withClient = program === null ? test.skip : test;
if (program === null) console.log('client-memory: no C compiler here, so no client to look into');

/** 4 TiB of frame numbers in windows of 1 GiB. */
const RANGE = { firstPfn: 2 ** 32, endPfn: 2 ** 32 + 2 ** 30, windowPages: 2 ** 18 };

test.beforeEach((t) => {
  if (program === null) return;
  const log: string[] = [];
  const frames = new ForeignFrames(RANGE, (message) => log.push(message));
  const files = new ClientFiles(frames);
  const client = new ClientProcess(program);
  t.context = { client, frames, files, mm: new ClientMemory(client.pid, files), log };
});

test.afterEach.always(async (t) => {
  t.context.mm?.release();
  await t.context.client?.exit();
});

function runOf(
  mm: ClientMemory,
  address: number,
  write = true,
): { status: number; pfn: number; pages: number } {
  const out = { pfn: -1, pages: -1 };
  const status = mm.runAt(Math.floor(address / PAGE), out, write);
  return { status, ...out };
}

/** Starts another process like the test's own, looked into with the same files and frames. */
function another(t: ExecutionContext<Context>): { client: ClientProcess; mm: ClientMemory } {
  const client = new ClientProcess(program!);
  const mm = new ClientMemory(client.pid, t.context.files);
  t.teardown(async () => {
    mm.release();
    await client.exit();
  });
  return { client, mm };
}

withClient('copy: what one side writes the other reads', async (t) => {
  const { client, mm } = t.context;
  const at = await client.ask('anon', 3 * PAGE);
  await client.ask('fill', at, 3 * PAGE, 0x5a);
  const seen = new Uint8Array(5000);
  t.is(mm.copyIn(BigInt(at + 100), seen), 0);
  t.true(seen.every((byte) => byte === 0x5a));
  t.is(mm.copyOut(BigInt(at + PAGE - 1), Uint8Array.of(1, 2, 3)), 0);
  t.is(await client.ask('peek', at + PAGE - 1), 1);
  t.is(await client.ask('peek', at + PAGE + 1), 3);
});

withClient('copy: read-only memory is not written to, and PROT_NONE is not read', async (t) => {
  const { client, mm } = t.context;
  const at = await client.ask('anon', 2 * PAGE);
  await client.ask('fill', at, 2 * PAGE, 7);
  await client.ask('protect', at + PAGE, PAGE, 1);
  t.is(mm.copyOut(BigInt(at + PAGE), new Uint8Array(1)), -EFAULT);
  t.is(mm.copyIn(BigInt(at + PAGE), new Uint8Array(1)), 0);
  t.is(mm.copyOut(BigInt(at + PAGE - 2), new Uint8Array(4)), -EFAULT);
  t.is(await client.ask('peek', at + PAGE - 2), 7, 'all or nothing');
  await client.ask('protect', at + PAGE, PAGE, 0);
  t.is(mm.copyIn(BigInt(at + PAGE - 2), new Uint8Array(4)), -EFAULT);
  t.is(mm.copyIn(BigInt(at + PAGE - 2), new Uint8Array(2)), 0);
});

withClient("copy: what is not mapped, wraps round or is the kernel's is EFAULT", async (t) => {
  const { client, mm } = t.context;
  const at = await client.ask('anon', PAGE);
  await client.ask('unmap', at, PAGE);
  for (const va of [BigInt(at), 0n, 1n, 2n ** 53n, 2n ** 63n, 0xffff_ffff_ff60_0000n, 2n ** 64n - 1n, -1n]) {
    t.is(mm.copyIn(va, new Uint8Array(16)), -EFAULT, String(va));
    t.is(mm.copyOut(va, new Uint8Array(16)), -EFAULT, String(va));
    t.is(mm.copyIn(va, new Uint8Array(0)), 0);
  }
});

withClient('copy: a process that has exited, or runs another program, has no memory', async (t) => {
  const { client, mm } = t.context;
  const at = await client.ask('anon', PAGE);
  t.true(mm.alive);
  await client.exit();
  t.false(mm.alive);
  t.is(mm.copyIn(BigInt(at), new Uint8Array(1)), -EFAULT);
  t.is(mm.copyOut(BigInt(at), new Uint8Array(1)), -EFAULT);
  t.is(runOf(mm, at).status, -EFAULT);

  const other = another(t);
  const there = await other.client.ask('anon', PAGE);
  const pid = await other.client.ask('fork');
  const child = new ClientMemory(pid, t.context.files);
  t.true(child.alive);
  other.client.say('exec', program!);
  // The new program answers when it runs.
  await other.client.ask('anon', PAGE);
  t.false(child.alive);
  t.is(child.copyIn(BigInt(there), new Uint8Array(1)), -EFAULT);
  child.release();
  await other.client.endChild();
});

withClient('maps: many mappings are told apart', async (t) => {
  const { client, mm } = t.context;
  const at = await client.ask('anon', 2000 * PAGE);
  for (let page = 0; page < 2000; page += 2) await client.ask('protect', at + page * PAGE, PAGE, 1);
  t.is(mm.copyOut(BigInt(at + 1000 * PAGE), new Uint8Array(1)), -EFAULT);
  t.is(mm.copyOut(BigInt(at + 1001 * PAGE), new Uint8Array(PAGE)), 0);
  t.is(mm.copyIn(BigInt(at), new Uint8Array(2000 * PAGE)), 0);
});

withClient('pin: permissions are those of the mapping', async (t) => {
  const { client, mm } = t.context;
  const at = await client.ask('anon', 4 * PAGE);
  await client.ask('protect', at + PAGE, PAGE, 1);
  await client.ask('protect', at + 2 * PAGE, PAGE, 0);
  t.is(runOf(mm, at).status, 0);
  t.is(runOf(mm, at).pages, 1);
  t.is(runOf(mm, at + PAGE).status, -EFAULT);
  t.is(runOf(mm, at + PAGE, false).status, 0);
  t.is(runOf(mm, at + 2 * PAGE, false).status, -EFAULT);
  t.is(runOf(mm, 0).status, -EFAULT);
  const vvar = await client.ask('vvar');
  if (vvar !== 0) t.is(runOf(mm, vvar, false).status, -EFAULT);
});

withClient('pin: neighbours are neighbours, at any place of a gibibyte', async (t) => {
  const { client, mm } = t.context;
  const at = await client.ask('anon', 8 * MIB2);
  const first = runOf(mm, at);
  const later = runOf(mm, at + 5 * PAGE);
  t.is(later.pfn, first.pfn + 5);
  t.is(later.pages, first.pages - 5);
  t.is(first.pfn % 2 ** 18, (at / PAGE) % 2 ** 18);
});

withClient('pin: frames carry the data of the process, until it unmaps them', async (t) => {
  const { client, mm, frames, log } = t.context;
  const at = await client.ask('anon', 4 * PAGE);
  const { pfn } = runOf(mm, at);
  mm.pin(pfn, 4);
  t.is(frames.pinned, 4);
  t.is(frames.pins(pfn + 3), 1);
  t.is(frames.pins(pfn + 4), 0);
  t.is(frames.write(pfn, PAGE - 1, Uint8Array.of(9, 8)), 0);
  t.is(await client.ask('peek', at + PAGE), 8);
  // A pin outlives what the process does to its mapping's permissions.
  await client.ask('fill', at, PAGE, 3);
  await client.ask('protect', at, PAGE, 0);
  const seen = new Uint8Array(2);
  t.is(frames.read(pfn, 10, seen), 0);
  t.deepEqual(seen, Uint8Array.of(3, 3));
  await client.ask('unmap', at, 4 * PAGE);
  t.is(frames.read(pfn, 10, seen), -EFAULT);
  t.is(frames.write(pfn, 10, seen), -EFAULT);
  t.is(log.length, 1);
  mm.unpin(pfn, 4);
  t.is(frames.pinned, 0);
});

withClient('files: two mappings of a memfd page are one frame, in any process', async (t) => {
  const { client, mm, frames } = t.context;
  const fd = await client.ask('memfd', 4 * PAGE);
  const one = await client.ask('map', fd, 4 * PAGE, 0);
  const two = await client.ask('map', fd, 2 * PAGE, PAGE);
  const { pfn } = runOf(mm, one);
  t.is(runOf(mm, two).pfn, pfn + 1);
  const other = another(t);
  const theirs = await other.client.ask('open', `/proc/${client.pid}/fd/${fd}`);
  const three = await other.client.ask('map', theirs, 4 * PAGE, 0);
  t.is(runOf(other.mm, three).pfn, pfn);
  const anon = await client.ask('anon', PAGE);
  t.not(runOf(mm, anon).pfn, pfn);
  mm.pin(pfn, 4);
  frames.write(pfn, 0, Uint8Array.of(77));
  t.is(await other.client.ask('peek', three), 77);
  mm.unpin(pfn, 4);
});

withClient('files: pinned pages outlive mappings, descriptors and the process', async (t) => {
  const { client, mm, frames, log } = t.context;
  const fd = await client.ask('memfd', 2 * PAGE);
  const at = await client.ask('map', fd, 2 * PAGE, 0);
  await client.ask('fill', at, 2 * PAGE, 5);
  const { pfn } = runOf(mm, at);
  mm.pin(pfn, 2);
  await client.ask('unmap', at, 2 * PAGE);
  await client.ask('close', fd);
  await client.exit();
  mm.release();
  const seen = new Uint8Array(3);
  t.is(frames.read(pfn, PAGE - 1, seen), 0);
  t.deepEqual(seen, Uint8Array.of(5, 5, 5));
  t.deepEqual(log, []);
  mm.unpin(pfn, 2);
  t.is(frames.read(pfn, 0, seen), -EFAULT);
});

withClient('files: a device makes no file longer', async (t) => {
  const { client, mm, frames } = t.context;
  const fd = await client.ask('memfd', 2 * PAGE);
  const at = await client.ask('map', fd, 2 * PAGE, 0);
  const { pfn } = runOf(mm, at);
  mm.pin(pfn, 2);
  await client.ask('truncate', fd, 100);
  // The last page is there as a whole; the one behind it is not.
  t.is(frames.write(pfn, 200, Uint8Array.of(1)), 0);
  t.is(await client.ask('peek', at + 200), 1);
  t.is(frames.write(pfn, PAGE + 5, Uint8Array.of(1)), -EFAULT);
  t.is(frames.read(pfn, PAGE + 5, new Uint8Array(1)), -EFAULT);
  mm.unpin(pfn, 2);
});

withClient('files: nothing past the end of a file can be pinned', async (t) => {
  const { client, mm } = t.context;
  const fd = await client.ask('memfd', 3 * PAGE);
  const at = await client.ask('map', fd, 9 * PAGE, 0);
  t.is(runOf(mm, at).pages, 3);
  t.is(runOf(mm, at + 3 * PAGE).status, -EFAULT);
  const own = await client.ask('private', fd, 9 * PAGE);
  t.is(runOf(mm, own + PAGE).pages, 2);
});

withClient("files: a private mapping is the process's own", async (t) => {
  const { client, mm, frames } = t.context;
  const fd = await client.ask('memfd', PAGE);
  const shared = await client.ask('map', fd, PAGE, 0);
  const own = await client.ask('private', fd, PAGE);
  const { pfn } = runOf(mm, own);
  t.not(pfn, runOf(mm, shared).pfn);
  mm.pin(pfn, 1);
  frames.write(pfn, 0, Uint8Array.of(4));
  t.is(await client.ask('peek', own), 4);
  t.is(await client.ask('peek', shared), 0);
  mm.unpin(pfn, 1);
});

withClient('files: shared pages of a file system on disk are pinned for reading only', async (t) => {
  const { client, mm } = t.context;
  const directory = mkdtempSync(join(process.cwd(), 'dist', 'client-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const fd = await client.ask('file', join(directory, 'a'), PAGE);
  const at = await client.ask('map', fd, PAGE, 0);
  t.is(runOf(mm, at).status, -EFAULT);
  t.is(runOf(mm, at, false).status, 0);
});

withClient("fork: shared memory is the child's too, private memory is its own", async (t) => {
  const { client, mm, files, frames } = t.context;
  const own = await client.ask('anon', PAGE);
  const shared = await client.ask('shared', 2 * PAGE);
  await client.ask('fill', own, PAGE, 1);
  const mine = runOf(mm, shared + PAGE);
  mm.pin(mine.pfn, 1);
  const child = new ClientMemory(await client.ask('fork'), files);
  const theirs = runOf(child, shared + PAGE);
  t.is(theirs.pfn, mine.pfn);
  t.not(runOf(child, own).pfn, runOf(mm, own).pfn);
  t.is(frames.write(mine.pfn, 0, Uint8Array.of(33)), 0);
  t.is(await client.ask('peek', shared + PAGE), 33);
  t.is(child.copyOut(BigInt(own), Uint8Array.of(2)), 0);
  await client.endChild();
  t.false(child.alive);
  t.true(mm.alive);
  t.is(await client.ask('peek', own), 1);
  child.release();
  mm.unpin(mine.pfn, 1);
});

withClient('huge pages: aligned, contiguous and known as such', async (t) => {
  const { client, mm, frames } = t.context;
  const at = await client.ask('huge', MIB2);
  if (at === 0) {
    t.log('no huge pages reserved here');
    t.pass();
    return;
  }
  const run = runOf(mm, at);
  t.is(run.pages, 512);
  t.is(run.pfn % 512, 0);
  t.true(frames.isCompound(run.pfn + 7));
  t.false(frames.isCompound(runOf(mm, await client.ask('anon', PAGE)).pfn));
  mm.pin(run.pfn, 512);
  t.is(frames.write(run.pfn + 3, 5, Uint8Array.of(6)), 0);
  t.is(await client.ask('peek', at + 3 * PAGE + 5), 6);
  mm.unpin(run.pfn, 512);
});

withClient(
  'huge pages: of a memfd too, written through the process, as the file takes no write',
  async (t) => {
    const { client, mm, frames } = t.context;
    const fd = await client.ask('hugefd', 2 * MIB2);
    const at = await client.ask('map', fd, 2 * MIB2, 0);
    if (at === 0) {
      t.log('no huge pages reserved here');
      t.pass();
      return;
    }
    const { pfn, status } = runOf(mm, at);
    t.is(status, 0);
    t.true(frames.isCompound(pfn), 'not pinned, so not open here');
    t.is(mm.pinsOf(pfn), -1);
    mm.pin(pfn, 1024);
    t.true(frames.isCompound(pfn));
    t.is(frames.write(pfn + 600, 9, Uint8Array.of(3)), 0);
    t.is(await client.ask('peek', at + 600 * PAGE + 9), 3);
    const seen = new Uint8Array(1);
    t.is(frames.read(pfn + 600, 9, seen), 0);
    t.is(seen[0], 3);
    mm.unpin(pfn, 1024);
  },
);

withClient('a call reads the mappings once; the next call sees what changed', async (t) => {
  const { client, mm } = t.context;
  const at = await client.ask('anon', PAGE);
  mm.beginCall();
  t.is(mm.copyOut(BigInt(at), new Uint8Array(1)), 0);
  mm.endCall();
  await client.ask('protect', at, PAGE, 1);
  mm.beginCall();
  t.is(mm.copyOut(BigInt(at), new Uint8Array(1)), -EFAULT);
  mm.endCall();
});
