import test from 'ava';
import type { IommufdCore, IommufdFile } from '../../../runtime/core/core.js';
import type { OpenFile, PutBytes } from '../../../runtime/core/file-table.js';
import { CClients, canCompile, finished, printed } from '../../kit/c-client.js';

const POLLIN = 1;
const EFAULT = 14;

/** An event file that the test fills: each record has 4 bytes. */
class Events implements OpenFile {
  readonly kind = 'event';
  readonly queue: number[] = [];
  onReadable: (() => void) | null = null;
  released = false;

  raise(record: number): void {
    this.queue.push(record);
    if (this.queue.length === 1) this.onReadable?.();
  }

  read(maxBytes: number): Uint8Array {
    return new Uint8Array(Uint32Array.from(this.queue.splice(0, Math.floor(maxBytes / 4))).buffer);
  }

  write(bytes: Uint8Array): number {
    for (const record of new Uint32Array(Uint8Array.from(bytes).buffer)) this.raise(record);
    return bytes.byteLength;
  }

  poll(): number {
    return this.queue.length > 0 ? POLLIN : 0;
  }

  release(): void {
    this.released = true;
  }
}

/** As a FAULT queue: what its reader has no room for in memory stays. */
class Kept extends Events {
  readonly asked: number[] = [];

  readTo(maxBytes: number, put: PutBytes): number {
    this.asked.push(maxBytes);
    let done = 0;
    for (; this.queue.length > 0 && done + 4 <= maxBytes; done += 4) {
      if (put(done, new Uint8Array(Uint32Array.of(this.queue[0]!).buffer)) < 0)
        return done === 0 ? -EFAULT : done;
      this.queue.shift();
    }
    return done;
  }
}

/** What the next open("/dev/iommu") gives. */
function becomes(core: IommufdCore, file: OpenFile): void {
  core.openFile = () => file as IommufdFile;
}

const POLL = `
static int ready(int fd, int ms)
{
  struct pollfd p = { .fd = fd, .events = POLLIN };
  return poll(&p, 1, ms) == 1 && (p.revents & POLLIN);
}
`;

test('events: a descriptor polls as readable exactly while there is something to read', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  becomes(clients.machine.core, new Events());
  const { stdout } = await clients.run(
    String.raw`
    uint32_t in[8], out[3] = { 10, 20, 30 };
    int fd = dev_iommu();
    for (int round = 0; round < 3; round++) {
      printf("%d", ready(fd, 0));
      printf(" %zd", read(fd, in, sizeof(in)));
      printf(" %zd", write(fd, out, sizeof(out)));
      printf(" %d", ready(fd, 1000));
      printf(" %zd", read(fd, in, 8));
      printf(" %u %u", in[0], in[1]);
      printf(" %d", ready(fd, 1000));
      printf(" %zd", read(fd, in, sizeof(in)));
      printf(" %u %d\n", in[0], ready(fd, 0));
    }
    printf("%s", err(read(fd, NULL, 4)));
    write(fd, out, 4);
    printf(" %s", err(read(fd, NULL, 4)));
    printf(" %s", err(write(fd, NULL, 4)));
    printf(" %s\n", err(pread(fd, in, 4, 0)));
    `,
    POLL,
  );
  t.is(stdout, `${'0 0 12 1 8 10 20 1 4 30 0\n'.repeat(3)}OK EFAULT EFAULT ESPIPE\n`);
});

test('events: a read into memory that ends loses nothing, and is asked for as much as the program did', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const file = new Kept();
  becomes(clients.machine.core, file);
  const { stdout } = await clients.run(
    String.raw`
    uint32_t out[5] = { 10, 20, 30, 40, 50 };
    int fd = dev_iommu();
    char *two = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *end = (uint32_t *)(two + 4096);
    munmap(end, 4096);
    write(fd, out, sizeof(out));
    printf("%s", err(read(fd, NULL, 80000)));
    printf(" %s", err(read(fd, "constant", 8)));
    printf(" %zd", read(fd, end - 2, 80000));
    printf(" %u %u %d", end[-2], end[-1], ready(fd, 0));
    printf(" %zd", read(fd, two, 80000));
    printf(" %u %u %d", ((uint32_t *)two)[0], ((uint32_t *)two)[2], ready(fd, 0));
    printf(" %zd\n", read(fd, two, 0xffffffffffff));
    `,
    POLL,
  );
  t.is(stdout, 'EFAULT EFAULT 8 10 20 1 12 30 50 0 0\n');
  t.deepEqual(file.asked, [80000, 8, 80000, 80000, 0x7fff_f000]);
});

test('events: what is raised while nobody asks wakes a poller', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const events = new Events();
  becomes(clients.machine.core, events);
  const child = clients.start(
    clients.compile(
      `
      uint32_t in;
      int fd = dev_iommu();
      puts("waiting");
      fflush(stdout);
      for (int i = 0; i < 100; i++) {
        if (!ready(fd, 5000)) return 1;
        if (read(fd, &in, 4) != 4 || in != (uint32_t)i) return 2;
      }
      puts(ready(fd, 0) ? "more" : "done");
      `,
      POLL,
    ),
  );
  const end = finished(child);
  await printed(child);
  for (let i = 0; i < 100; i++) {
    events.raise(i);
    if (i % 3 === 0) await new Promise((done) => setTimeout(done, 1));
  }
  const { stdout, code } = await end;
  t.is(code, 0);
  t.is(stdout, 'waiting\ndone\n');
  t.true(events.released);
});

test('events: readers in two processes lose no event and no readiness', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const events = new Events();
  becomes(clients.machine.core, events);
  const child = clients.start(
    clients.compile(
      String.raw`
      int fd = dev_iommu();
      puts("waiting");
      fflush(stdout);
      fork();
      for (;;) {
        uint32_t in;
        if (!ready(fd, 10000)) return 1;
        ssize_t n = read(fd, &in, 4);
        if (n == 4 && in == 0xffffffff) {
          /* The last: the other is to see it too. */
          static int said;
          if (!said++) write(fd, &in, 4);
          break;
        }
        if (n == 4) {
          char line[16];
          int length = sprintf(line, "%u\n", in);
          if (write(1, line, length) != length) return 3;
        }
      }
      while (wait(NULL) > 0);
      `,
      POLL,
    ),
  );
  const end = finished(child);
  await printed(child);
  for (let i = 0; i < 300; i++) {
    events.raise(i);
    if (i % 5 === 0) await new Promise((done) => setTimeout(done, 1));
  }
  events.raise(0xffff_ffff);
  const { stdout, code } = await end;
  t.is(code, 0);
  const seen = stdout.trim().split('\n').slice(1).map(Number);
  t.deepEqual(
    seen.sort((a, b) => a - b),
    Array.from({ length: 300 }, (_, i) => i),
  );
});

test('events: /dev/iommu itself is always ready, and neither read nor written', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(
    String.raw`
    char byte = 0;
    int fd = dev_iommu();
    printf("%d", ready(fd, 1000));
    printf(" %s", err(read(fd, &byte, 1)));
    printf(" %s", err(write(fd, &byte, 1)));
    printf(" %s", err(lseek(fd, 0, SEEK_SET)));
    printf(" %d\n", ready(fd, 0));
    `,
    POLL,
  );
  t.is(stdout, '1 EINVAL EINVAL ESPIPE 1\n');
});
