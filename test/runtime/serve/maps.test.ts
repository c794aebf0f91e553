import { readdirSync } from 'node:fs';
import { dirname } from 'node:path';
import test from 'ava';
import type { IommufdFile } from '../../../runtime/core/core.js';
import type { Mapping, OpenFile } from '../../../runtime/core/file-table.js';
import type { Machine } from '../../../runtime/machine.js';
import { CClients, canCompile, finished, printed, until } from '../../kit/c-client.js';

const EINVAL = 22;
const EPERM = 1;
const ENXIO = 6;
const OFFSET = 0x3000n;
const BYTES = 8192;

/** A file that shows two pages of the machine's RAM, by the kernel's rules. */
class Shown implements OpenFile {
  readonly kind = 'iommufd';
  readonly linear: number;
  mapped = 0;
  released = false;

  constructor(machine: Machine) {
    this.linear = machine.memory.linearOf(machine.frames.allocRun(2, 1) * 4096, BYTES);
  }

  mmap(offset: bigint, bytes: number, shared: boolean, exec: boolean): Mapping | number {
    if (!shared) return -EINVAL;
    if (exec) return -EPERM;
    if (offset !== OFFSET || bytes !== BYTES) return -ENXIO;
    this.mapped++;
    return { linear: this.linear, bytes, unmap: () => this.mapped-- };
  }

  ioctl(): number {
    return this.mapped;
  }

  release(): void {
    this.released = true;
  }
}

async function start(t: Parameters<typeof CClients.start>[0]) {
  const clients = await CClients.start(t);
  const { machine } = clients;
  const shown = new Shown(machine);
  machine.core.openFile = () => shown as unknown as IommufdFile;
  const words = machine.memory.i32.subarray(shown.linear >> 2, (shown.linear + BYTES) >> 2);
  return { clients, shown, words };
}

const MAP = `
#define RW (PROT_READ | PROT_WRITE)
static void *map(int fd, size_t bytes, int prot, int flags, off_t offset)
{
  return mmap(NULL, bytes, prot, flags, fd, offset);
}
static const char *map_err(void *at) { return err(at == MAP_FAILED ? -1 : 0); }
/* How many mappings there are. */
static int count(int fd) { return ioctl(fd, IOC(0x81), NULL); }
`;

test('maps: refusals are those of the file', async (t) => {
  if (!canCompile(t)) return;
  const { clients } = await start(t);
  const { stdout } = await clients.run(
    String.raw`
    int fd = dev_iommu();
    printf("%s", map_err(map(fd, 8192, RW, MAP_SHARED, 0x4000)));
    printf(" %s", map_err(map(fd, 4096, RW, MAP_SHARED, 0x3000)));
    printf(" %s", map_err(map(fd, 16384, RW, MAP_SHARED, 0x3000)));
    printf(" %s", map_err(map(fd, 8192, RW, MAP_PRIVATE, 0x3000)));
    printf(" %s", map_err(map(fd, 8192, RW | PROT_EXEC, MAP_SHARED, 0x3000)));
    printf(" %d", count(fd));
    printf(" %s", map_err(map(fd, 8000, RW, MAP_SHARED, 0x3000)));
    printf(" %d\n", count(fd));
    int vfio = open("/dev/vfio/devices/vfio0", O_RDWR);
    printf("%s\n", map_err(map(vfio, 4096, RW, MAP_SHARED, 0)));
    `,
    MAP,
  );
  t.is(stdout, 'ENXIO ENXIO ENXIO EINVAL EPERM 0 OK 1\nENODEV\n');
});

test('maps: what one side stores the other sees', async (t) => {
  if (!canCompile(t)) return;
  const { clients, words } = await start(t);
  words[0] = 0x1234;
  const child = clients.start(
    clients.compile(
      String.raw`
      int fd = dev_iommu();
      volatile uint32_t *at = map(fd, 8192, RW, MAP_SHARED, 0x3000);
      printf("%x\n", at[0]);
      fflush(stdout);
      at[1] = 0x5678;
      at[2047] = 0x9abc;
      count(fd);
      while (at[2] == 0) usleep(1000);
      printf("%x\n", at[2]);
      `,
      MAP,
    ),
  );
  const end = finished(child);
  await until(() => words[1] === 0x5678);
  t.is(words[2047], 0x9abc);
  words[2] = 0xdef0;
  clients.served.poll();
  t.is((await end).stdout, '1234\ndef0\n');
});

test('maps: a mapping lasts until its last part is gone, in every process', async (t) => {
  if (!canCompile(t)) return;
  const { clients, shown } = await start(t);
  const { stdout } = await clients.run(
    String.raw`
    int fd = dev_iommu();
    char *at = map(fd, 8192, RW, MAP_SHARED, 0x3000);
    printf("%d", count(fd));
    munmap(at, 8192);
    printf(" %d", count(fd));
    at = map(fd, 8192, RW, MAP_SHARED, 0x3000);
    munmap(at, 4096);
    printf(" %d", count(fd));
    munmap(at + 4096, 4096);
    printf(" %d", count(fd));
    at = map(fd, 8192, RW, MAP_SHARED, 0x3000);
    mmap(at, 8192, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf(" %d", count(fd));
    at = map(fd, 8192, RW, MAP_SHARED, 0x3000);
    int go[2];
    char byte;
    if (pipe(go) < 0) return 1;
    pid_t child = fork();
    if (child == 0) {
      close(go[1]);
      if (read(go[0], &byte, 1) != 0) return 1;
      _exit(0);
    }
    munmap(at, 8192);
    printf(" %d", count(fd));
    close(go[1]);
    waitpid(child, NULL, 0);
    printf(" %d\n", count(fd));
    fflush(stdout);
    at = map(fd, 8192, RW, MAP_SHARED, 0x3000);
    close(fd);
    kill(getpid(), SIGKILL);
    `,
    MAP,
  );
  t.is(stdout, '1 0 1 0 0 1 0\n');
  await until(() => shown.released);
  t.is(shown.mapped, 0);
  t.true(shown.released);
  t.deepEqual(readdirSync(dirname(clients.served.socket)), ['socket']);
});

test('maps: a mapping holds the file after its descriptor is closed', async (t) => {
  if (!canCompile(t)) return;
  const { clients, shown } = await start(t);
  const child = clients.start(
    clients.compile(
      `
      int fd = dev_iommu();
      char *at = map(fd, 8192, RW, MAP_SHARED, 0x3000);
      close(fd);
      puts("closed");
      fflush(stdout);
      getchar();
      munmap(at, 8192);
      puts("unmapped");
      fflush(stdout);
      getchar();
      `,
      MAP,
    ),
  );
  const end = finished(child);
  await printed(child);
  t.false(shown.released);
  child.stdin?.write('x');
  await printed(child);
  t.true(shown.released, 'munmap returns when its effects are there');
  child.stdin?.end();
  await end;
});

test('maps: a client that puts a folder where its file was harms nobody', async (t) => {
  if (!canCompile(t)) return;
  const { clients, shown } = await start(t);
  const { stdout } = await clients.run(
    `
    char line[512], path[512];
    int fd = dev_iommu();
    map(fd, 8192, RW, MAP_SHARED, 0x3000);
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof(line), maps) != NULL)
      if (sscanf(line, "%*s %*s %*s %*s %*s %511s", path) == 1 && strstr(path, "/map-") != NULL) break;
    printf("%d", truncate(path, 0));
    printf(" %d", unlink(path));
    printf(" %d", mkdir(path, 0700));
    printf(" %d", count(fd));
    `,
    MAP,
  );
  t.is(stdout, '0 0 0 1');
  await until(() => shown.released);
  t.is(shown.mapped, 0);
  t.is(clients.log.length, 1);
  t.is((await clients.run('printf("%s", err(dev_iommu()));')).stdout, 'OK');
});

test('serve: a file whose release fails takes nobody down', async (t) => {
  if (!canCompile(t)) return;
  const { clients, shown } = await start(t);
  shown.release = () => {
    throw new Error('a defect');
  };
  t.is((await clients.run('printf("%s", err(dev_iommu()));')).stdout, 'OK');
  await until(() => clients.log.length > 0);
  t.regex(clients.log[0]!, /^serve: made the server fail: Error: a defect/);
  t.is((await clients.run('printf("%s", err(dev_iommu()));')).stdout, 'OK');
  t.is(clients.served.counts.files, 0);
});
