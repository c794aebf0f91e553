import { readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import anyTest, { type TestFn } from 'ava';
import type { OpenFile } from '../../../runtime/core/file-table.js';
import type { UserFile } from '../../../runtime/core/user-file.js';
import { ClientFiles } from '../../../runtime/serve/client-file.js';
import { ClientAccounts, ClientTask } from '../../../runtime/serve/client-task.js';
import { ForeignFrames } from '../../../runtime/serve/foreign-frames.js';
import { ClientProcess, clientProgram } from '../../kit/client-process.js';

const EBADF = 9;
const EINVAL = 22;
const PAGE = 4096;
const CAP_IPC_LOCK = 14;
const CAP_SYS_RESOURCE = 24;

interface Context {
  client: ClientProcess;
  frames: ForeignFrames;
  files: ClientFiles;
  accounts: ClientAccounts;
  task: ClientTask;
  sockets: Map<string, OpenFile>;
}

const test = anyTest as TestFn<Context>;
const program = clientProgram();
const withClient = program === null ? test.skip : test;
if (program === null) console.log('client-task: no C compiler here, so no client to ask about');

const RANGE = { firstPfn: 2 ** 32, endPfn: 2 ** 32 + 2 ** 30, windowPages: 2 ** 18 };

test.beforeEach((t) => {
  if (program === null) return;
  const frames = new ForeignFrames(RANGE, () => undefined);
  const files = new ClientFiles(frames);
  const client = new ClientProcess(program);
  const accounts = new ClientAccounts();
  const sockets = new Map<string, OpenFile>();
  const task = new ClientTask(client.pid, files, accounts, {
    bySocket: (inode) => sockets.get(inode),
    install: () => 77,
    close: () => 0,
  });
  t.context = { client, frames, files, accounts, task, sockets };
});

test.afterEach.always(async (t) => {
  t.context.task?.release();
  await t.context.client?.exit();
});

withClient("limits and capabilities are the process's own, at the moment", async (t) => {
  const { client, task } = t.context;
  await client.ask('memlock', 123 * PAGE);
  t.is(task.rlimitMemlock(), 123 * PAGE);
  const status = readFileSync('/proc/self/status', 'latin1');
  const mask = BigInt(`0x${/^CapEff:\s*(.*)$/m.exec(status)![1]}`);
  t.is(task.capable(CAP_IPC_LOCK), ((mask >> BigInt(CAP_IPC_LOCK)) & 1n) === 1n);
  const bounding = BigInt(`0x${/^CapBnd:\s*(.*)$/m.exec(status)![1]}`);
  const [has, nobodyHas] = [mask, ~bounding].map((set) => ((set >> BigInt(CAP_SYS_RESOURCE)) & 1n) === 1n);
  t.is(task.capable(CAP_SYS_RESOURCE), has! || (nobodyHas! && process.geteuid!() === 0));
  t.is(task.uid, process.getuid!());
  await client.exit();
  t.is(task.rlimitMemlock(), 0);
  t.false(task.capable(CAP_IPC_LOCK));
  t.false(task.capable(CAP_SYS_RESOURCE));
});

withClient('processes of one user share what the user is charged for, and nothing else', async (t) => {
  const { files, accounts, task } = t.context;
  const client = new ClientProcess(program!);
  const other = new ClientTask(client.pid, files, accounts, {
    bySocket: () => undefined,
    install: () => 3,
    close: () => 0,
  });
  t.is(other.user, task.user);
  t.not(other.mm.account, task.mm.account);
  t.not(other.failNth, task.failNth);
  t.not(accounts.of(task.uid + 1), task.user);
  other.release();
  await client.exit();
});

withClient('descriptors: a number means the socket it is in that process', async (t) => {
  const { client, task, sockets } = t.context;
  const fd = await client.ask('socket');
  t.is(task.files.get(fd), undefined);
  const link = /\[(\d+)\]/.exec(readlinkSync(`/proc/${client.pid}/fd/${fd}`))![1]!;
  const file: OpenFile = { kind: 'iommufd', release: () => undefined };
  sockets.set(link, file);
  t.is(task.files.get(fd), file);
  t.is(task.files.get(0), undefined);
  t.is(task.files.get(12345), undefined);
  t.is(task.files.install(file), 77);
  t.is(task.userFile(fd), -EINVAL);
});

withClient('userFile: memfds only, and what is not open is EBADF', async (t) => {
  const { client, task } = t.context;
  t.is(task.userFile(12345), -EBADF);
  t.is(task.userFile(-1), -EBADF);
  t.is(task.userFile(0), -EINVAL);
  const disk = await client.ask('open', join(process.cwd(), 'package.json'));
  t.is(task.userFile(disk), -EINVAL);
  const fd = await client.ask('memfd', 10 * PAGE + 5);
  const file = task.userFile(fd) as UserFile;
  t.is(file.sizeBytes, BigInt(10 * PAGE + 5));
  t.true(file.writable);
});

withClient("userFile: its frames are those of the file's mappings, and stay while it is held", async (t) => {
  const { client, task, frames } = t.context;
  const fd = await client.ask('memfd', 4 * PAGE);
  const at = await client.ask('map', fd, 4 * PAGE, 0);
  await client.ask('fill', at, 4 * PAGE, 6);
  const file = task.userFile(fd) as UserFile;
  file.get();
  const mapped = { pfn: 0, pages: 0 };
  task.mm.runAt(at / PAGE + 2, mapped, true);
  const ofFile = { pfn: 0, pages: 0 };
  t.is(file.runAt(2, ofFile), 0);
  t.deepEqual(ofFile, { pfn: mapped.pfn, pages: 2 });
  t.is(file.runAt(4, ofFile), -EINVAL);
  t.is(file.identity, (task.userFile(fd) as UserFile).identity);
  file.pin(mapped.pfn, 2);
  await client.exit();
  task.release();
  const seen = new Uint8Array(2);
  t.is(frames.read(mapped.pfn, 3, seen), 0);
  t.deepEqual(seen, Uint8Array.of(6, 6));
  file.unpin(mapped.pfn, 2);
  file.put();
  t.is(frames.pinned, 0);
});
