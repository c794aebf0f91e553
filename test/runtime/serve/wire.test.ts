import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { compiler, wireVersion } from '../../../runtime/serve/preload-library.js';
import * as wire from '../../../runtime/serve/wire.js';
import { CClients, canCompile, finished, printed, until } from '../../kit/c-client.js';

const HELLO = 1;
const PROOF = 2;
const FILE = 3;
const IOCTL = 5;
const BARRIER = 9;
const REQUEST_BYTES = 56;

/** A message as a client that means no good would make it. */
function message(op: number, payload: Uint8Array = new Uint8Array(0), fields: Partial<Fields> = {}): Buffer {
  const bytes = Buffer.alloc(REQUEST_BYTES + payload.byteLength);
  bytes.writeUInt32LE(fields.bytes ?? payload.byteLength, 0);
  bytes.writeUInt16LE(op, 4);
  bytes.writeBigUInt64LE(fields.file ?? 0n, 8);
  bytes.writeUInt32LE(fields.cmd ?? 0, 32);
  bytes.set(payload, REQUEST_BYTES);
  return bytes;
}

interface Fields {
  bytes: number;
  file: bigint;
  cmd: number;
}

function hello(pid: number, proofVa: bigint, version = wireVersion()): Buffer {
  const payload = Buffer.alloc(24);
  payload.writeUInt32LE(0x6466_6d69, 0);
  payload.writeUInt32LE(version, 4);
  payload.writeUInt32LE(pid, 8);
  payload.writeBigUInt64LE(proofVa, 16);
  return message(HELLO, payload);
}

interface Stranger {
  readonly socket: Socket;
  /** Everything the server said. */
  said(): Buffer;
  closed(): boolean;
}

function stranger(t: ExecutionContext, path: string): Stranger {
  const socket = connect(path);
  let said = Buffer.alloc(0);
  let closed = false;
  socket.on('data', (bytes) => {
    said = Buffer.concat([said, bytes]);
  });
  socket.on('error', () => undefined);
  socket.on('close', () => {
    closed = true;
  });
  t.teardown(() => socket.destroy());
  return { socket, said: () => said, closed: () => closed };
}

/** A client that asks for an IOAS for each line on its stdin, and prints what it got. */
const PATIENT = `
  char line[8];
  uint32_t id;
  int fd = dev_iommu();
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts(err(ioas(fd, &id)));
  while (fgets(line, sizeof(line), stdin)) puts(err(ioas(fd, &id)));
`;

/** One that has its first IOAS. */
async function patient(clients: CClients) {
  const good = clients.start(clients.compile(PATIENT));
  const end = finished(good);
  await until(() => clients.served.counts.files === 1);
  return { good, end };
}

const BAD: readonly (readonly [string, Buffer])[] = [
  ['an ioctl before the greeting', message(IOCTL)],
  ['a proof before the greeting', message(PROOF)],
  ['a file of no client', message(FILE, new Uint8Array(16), { file: 7n, cmd: 1 })],
  ['a greeting that is too short', message(HELLO, new Uint8Array(8))],
  ['another version', hello(1, 0n, 99)],
  ['another protocol', message(HELLO, new Uint8Array(24))],
  ['a message that there is not', message(77)],
  ['a payload of 4 GiB', message(HELLO, new Uint8Array(0), { bytes: 0xffff_ffff })],
  ['a payload longer than any', message(HELLO, new Uint8Array(0), { bytes: 65537 })],
  ['many messages at once', Buffer.concat(Array.from({ length: 17 }, () => message(BARRIER)))],
  [
    'text',
    Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nUser-Agent: someone or other\r\n\r\n'),
  ],
];

test('wire: what is malformed or out of order ends that connection only', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { good, end } = await patient(clients);
  for (const [what, bytes] of BAD) {
    const logged = clients.log.length;
    const bad = stranger(t, clients.served.socket);
    bad.socket.write(bytes);
    await until(() => bad.closed());
    t.true(bad.closed(), what);
    t.is(bad.said().byteLength, 0, what);
    t.is(clients.log.length, logged + 1, `${what}: one line in the log`);
    good.stdin?.write('\n');
  }
  good.stdin?.end();
  const { stdout } = await end;
  t.is(stdout, 'OK\n'.repeat(BAD.length + 1));
});

test('wire: a message may come in pieces, or never end', async (t) => {
  const clients = await CClients.start(t);
  const whole = hello(process.pid, 0n);
  const slow = stranger(t, clients.served.socket);
  for (const byte of whole) {
    slow.socket.write(Uint8Array.of(byte));
    await new Promise((done) => setImmediate(done));
  }
  await until(() => slow.said().byteLength > 0);
  // The challenge: header, nonce, the server's pid.
  t.is(slow.said().byteLength, 16 + 40);
  t.is(slow.said().readUInt32LE(16 + 32), process.pid);
  const never = stranger(t, clients.served.socket);
  never.socket.write(whole.subarray(0, 40));
  never.socket.end();
  await until(() => never.closed());
  t.deepEqual(clients.log, []);
});

/** One who says to be a process, and cannot prove it. */
async function refusedLiar(t: ExecutionContext, clients: CClients, pid: number, proofVa: bigint) {
  const liar = stranger(t, clients.served.socket);
  liar.socket.write(hello(pid, proofVa));
  await until(() => liar.said().byteLength === 56);
  liar.socket.write(message(PROOF));
  await until(() => liar.said().byteLength === 72);
  t.is(liar.said().readInt32LE(56 + 4), -13);
  return liar;
}

test('wire: a process cannot say that it is another', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const victim = clients.start(clients.compile('puts("up"); fflush(stdout); pause();'));
  await printed(victim);
  // Stack and heap of the victim hold no nonce of ours, wherever we say it is.
  for (const proofVa of [0n, 0x1000n, 0x7fff_ffff_f000n, 0xffff_ffff_ffff_ffffn]) {
    const liar = await refusedLiar(t, clients, victim.pid!, proofVa);
    t.is(liar.said().readUInt32LE(56), 0, 'no secret is told');
    liar.socket.write(message(BARRIER));
    await until(() => liar.closed());
    t.true(liar.closed());
  }
  t.is(clients.served.counts.clients, 0);
  t.regex(clients.log[0]!, new RegExp(`process ${victim.pid} is refused`));
  victim.kill('SIGKILL');
  await finished(victim);
});

test('wire: a process that is not there, or another user of the kernel, is refused', async (t) => {
  const clients = await CClients.start(t);
  for (const pid of [0, 1, 0x7fff_ffff]) {
    await refusedLiar(t, clients, pid, 0n);
  }
});

test('wire: a thread is not a process, and nobody is the server', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const child = clients.start(
    clients.compile(
      'pthread_t other; pthread_create(&other, NULL, wait_for_ever, NULL); pause();',
      'static void *wait_for_ever(void *unused) { printf("%d\\n", gettid()); fflush(stdout); pause(); return unused; }\n',
    ),
  );
  const tid = Number(await printed(child));
  const ourThread = Number(readdirSync('/proc/self/task').find((task) => Number(task) !== process.pid));
  for (const pid of [tid, process.pid, ourThread]) {
    await refusedLiar(t, clients, pid, 0n);
  }
  t.deepEqual(
    clients.log.map((line) => line.replace(/\d+/, 'N')),
    ['it is a thread of another', 'it says it is the server', 'it is a thread of another'].map(
      (why) => `serve: process N is refused: ${why}`,
    ),
  );
  child.kill('SIGKILL');
  await finished(child);
});

test("wire: a process cannot use another's file by its number", async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(
    String.raw`
    struct stat st;
    uint32_t id;
    int fd = dev_iommu();
    fstat(fd, &st);
    uint64_t theirs = st.st_ino;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
      close(fd);
      fd = dev_iommu();
      fstat(fd, &st);
      printf("%d", ask(fd, st.st_ino));
      printf(" %d", ask(fd, theirs));
      printf(" %d\n", ask(fd + 1, theirs));
      return 0;
    }
    waitpid(child, NULL, 0);
    printf("%s\n", err(ioas(fd, &id)));
    fflush(stdout);
    child = fork();
    if (child == 0) {
      /* Without its first thread, it has what it inherited nevertheless. */
      pthread_t thread;
      close(dev_iommu());
      inherited = fd;
      pthread_create(&thread, NULL, use, NULL);
      pthread_exit(NULL);
    }
    waitpid(child, NULL, 0);
    `,
    String.raw`
    static int inherited;
    static void *use(void *unused)
    {
      uint32_t id;
      usleep(20000);
      printf("%s\n", err(ioas(inherited, &id)));
      exit(0);
      return unused;
    }
    /* IOMMU_IOAS_ALLOC on a file, in a message of our own on the library's connection. */
    static int ask(int fd, uint64_t file)
    {
      struct {
        uint32_t bytes; uint16_t op, flags; uint64_t file, arg, index; uint32_t cmd; int32_t fd; uint64_t spare;
        int32_t spare_fd; uint32_t reserved; struct ioas_alloc cmd_bytes; uint32_t pad;
      } request = { .bytes = 12, .op = 5, .file = file, .cmd = IOC(0x81), .fd = fd, .cmd_bytes = { .size = 12 } };
      int32_t reply[16];
      struct stat st;
      for (int own = 3; own < 4096; own++)
        if (own != fd && own != fd - 1 && fstat(own, &st) == 0 && S_ISSOCK(st.st_mode)) {
          if (syscall(SYS_write, own, &request, 56 + 12) != 68) return 1;
          if (syscall(SYS_read, own, reply, sizeof(reply)) < 16) return 2;
          return reply[1];
        }
      return 3;
    }
    `,
  );
  t.is(stdout, '0 -19 -19\nOK\nOK\n');
});

test('wire: a client that sends rubbish ends as if it had died, another goes on', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { good, end } = await patient(clients);
  const { stdout } = await clients.run(String.raw`
    uint32_t id, devid;
    int fd = dev_iommu(), vfio = open("/dev/vfio/devices/vfio0", O_RDWR);
    printf("%s", err(bind_to(vfio, fd, &devid)));
    /* On the library's own connection, which is the only other socket. */
    struct stat st;
    for (int own = 3; own < 4096; own++)
      if (own != fd && own != vfio && fstat(own, &st) == 0 && S_ISSOCK(st.st_mode)) {
        struct pollfd end = { .fd = own, .events = POLLRDHUP };
        syscall(SYS_write, own, "rubbish that is longer than a request is, so that it is looked at", 64);
        poll(&end, 1, 20000);
      }
    printf(" %s", err(ioas(fd, &id)));
    printf(" %s", err(ioctl(vfio, IOC(120), &id)));
    close(fd);
    close(vfio);
    /* It may begin anew. */
    fd = dev_iommu();
    vfio = open("/dev/vfio/devices/vfio0", O_RDWR);
    printf(" %s\n", err(bind_to(vfio, fd, &devid)));
  `);
  t.is(stdout, 'OK ENODEV ENODEV OK\n');
  t.is(clients.log.length, 1);
  good.stdin?.end('\n');
  t.is((await end).stdout, 'OK\nOK\n');
});

test('wire: the numbers are those of wire.h', (t) => {
  if (!canCompile(t)) return;
  const header = join(import.meta.dirname, '../../../../uapi/preload/wire.h');
  const names = [
    ...readFileSync(header, 'utf8').matchAll(/^(?:#define|\t)\s*((?:WIRE|OP)_[A-Z0-9_]+)\b/gm),
  ].map(([, name]) => name!);
  t.true(names.length > 20, names.join());
  const ours = new Map(Object.entries(wire).filter(([, value]) => typeof value === 'number'));
  const sizes = {
    REQUEST: 'request',
    REPLY: 'reply',
    HELLO: 'hello',
    CHALLENGE: 'challenge',
    WELCOME: 'welcome',
  };
  const lines = [
    ...names.map((name) => `printf("${name} %u\\n", (unsigned)${name});`),
    ...Object.entries(sizes).map(
      ([name, struct]) => `printf("${name}_BYTES %zu\\n", sizeof(struct wire_${struct}));`,
    ),
    'printf("DEBUGFS_BYTES %zu\\n", sizeof(((struct wire_welcome *)0)->debugfs));',
  ];
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-wire-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'p');
  writeFileSync(
    `${program}.c`,
    `#include <stdio.h>\n#include "${header}"\nint main(void) {\n${lines.join('\n')}\n}\n`,
  );
  t.is(
    spawnSync(compiler(), ['-DWIRE_VERSION=1u', '-o', program, `${program}.c`], { stdio: 'inherit' }).status,
    0,
  );
  const theirs = new Map(
    spawnSync(program, { encoding: 'utf8' })
      .stdout.trim()
      .split('\n')
      .map((line): [string, number] => [line.split(' ')[0]!, Number(line.split(' ')[1])]),
  );
  for (const [name, value] of theirs) t.is(ours.get(name), value, name);
});
