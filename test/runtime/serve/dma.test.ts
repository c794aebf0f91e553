import test from 'ava';
import { CClients, canCompile, finished, printed } from '../../kit/c-client.js';

const BDF = '0000:01:00.0';
const IOVA = 0x1000_0000n;

const ATTACH = `
struct map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
/* A device attached to an IOAS in which memory is mapped at 0x10000000. */
static int attached(void *memory, size_t bytes, int *vfio)
{
  uint32_t id, devid;
  int fd = dev_iommu();
  *vfio = open("/dev/vfio/devices/vfio0", O_RDWR);
  if (bind_to(*vfio, fd, &devid) < 0 || ioas(fd, &id) < 0) return -1;
  struct attach at = { .argsz = sizeof(at), .pt_id = id };
  if (ioctl(*vfio, IOC(119), &at) < 0) return -1;
  struct map map = { .size = sizeof(map), .flags = 7, .ioas_id = id, .user_va = (uintptr_t)memory,
                     .length = bytes, .iova = 0x10000000 };
  return ioctl(fd, IOC(0x85), &map) < 0 ? -1 : fd;
}
`;

test('dma: a device of the host program reaches the buffers of a C program', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const child = clients.start(
    clients.compile(
      `
      char *buffer = aligned_alloc(4096, 65536);
      int vfio, fd;
      strcpy(buffer + 5000, "from the program");
      fd = attached(buffer, 65536, &vfio);
      puts(fd < 0 ? strerror(errno) : "ready");
      fflush(stdout);
      getchar();
      puts(buffer + 9000);
      fflush(stdout);
      getchar();
      `,
      ATTACH,
    ),
  );
  const end = finished(child);
  t.is(await printed(child), 'ready\n');
  const dma = clients.machine.dmaPort(BDF);
  const seen = Buffer.alloc(16);
  t.is(dma.read(IOVA + 5000n, seen), 0);
  t.is(seen.toString(), 'from the program');
  t.is(dma.write(IOVA + 9000n, Buffer.from('from the device\0')), 0);
  child.stdin?.write('x');
  await printed(child);
  child.kill('SIGKILL');
  t.is((await end).stdout, 'ready\nfrom the device\n');
});

const TESTING = `
static long status_of(const char *tag)
{
  char line[256];
  long value = -1;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof(line), file))
    if (!strncmp(line, tag, strlen(tag))) value = atol(line + strlen(tag));
  if (file) fclose(file);
  return value;
}
`;

test('dma: what is pinned stands in /proc/self/status', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(
    String.raw`
    char *buffer = aligned_alloc(4096, 65536);
    int vfio;
    printf("%ld", status_of("VmPin:"));
    int fd = attached(buffer, 65536, &vfio);
    printf(" %ld", status_of("VmPin:"));
    printf(" %d", status_of("VmSize:") > 0 && status_of("Threads:") == 1);
    close(vfio);
    close(fd);
    printf(" %ld\n", status_of("VmPin:"));
    `,
    ATTACH + TESTING,
  );
  t.is(stdout, '0 64 1 0\n');
});

test('fault injection: the nth allocation of the process fails, and tells so', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t, { faultInjection: true });
  const { stdout } = await clients.run(
    String.raw`
    char path[64], text[16] = "";
    uint32_t id;
    snprintf(path, sizeof(path), "/proc/self/task/%d/fail-nth", getpid());
    int nth = open(path, O_RDWR), fd = dev_iommu();
    printf("%zd", pread(nth, text, sizeof(text), 0));
    printf(" %s", text[0] == '0' && text[1] == '\n' ? "unarmed" : text);
    printf(" %zd", pwrite(nth, "1", 1, 0));
    printf(" %s", err(ioas(fd, &id)));
    pread(nth, text, sizeof(text), 0);
    printf(" %d", atoi(text));
    printf(" %s", err(ioas(fd, &id)));
    printf(" %zd", write(nth, "1000", 4));
    printf(" %s", err(ioas(fd, &id)));
    pread(nth, text, sizeof(text), 0);
    printf(" %d", atoi(text) > 0 && atoi(text) < 1000);
    printf(" %s", err(write(nth, "x", 1)));
    /* A child is another task. */
    pid_t child = fork();
    if (child == 0) _exit(ioas(fd, &id) == 0 ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    printf(" %d\n", status);
    `,
  );
  t.is(stdout, '2 unarmed 1 ENOMEM 0 OK 4 OK 1 EINVAL 0\n');
});

test('fault injection: debugfs is there as far as programs look', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t, { faultInjection: true });
  const functions = '#include <dirent.h>\n';
  const { stdout } = await clients.run(
    String.raw`
    DIR *dir = opendir("/sys/kernel/debug/");
    int found = 0;
    for (struct dirent *d; dir && (d = readdir(dir)); ) found += !strncmp(d->d_name, "fail", 4);
    printf("%d", found);
    int fd = dir ? openat(dirfd(dir), "failslab/ignore-gfp-wait", O_WRONLY) : -1;
    printf(" %zd", write(fd, "N", 1));
    fd = open("/sys/kernel/debug/fail_page_alloc/verbose", O_WRONLY);
    printf(" %zd\n", write(fd, "0", 1));
    `,
    functions,
  );
  t.is(stdout, '2 1 1\n');
});

test('fault injection: only a server for tests has it', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/task/%d/fail-nth", getpid());
    struct stat st;
    /* As the real kernel has it. */
    printf("%d\n", (open(path, O_RDWR) >= 0) == (stat(path, &st) == 0));
  `);
  t.is(stdout, '1\n');
});
