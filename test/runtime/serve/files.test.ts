import test from 'ava';
import { CClients, canCompile, finished, printed, until } from '../../kit/c-client.js';

test('serve: open, ioctl and close of /dev/iommu and a VFIO device', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout, stderr } = await clients.run(String.raw`
    uint32_t id, devid;
    int fd = dev_iommu();
    int vfio = open("/dev/vfio/devices/vfio1", O_RDWR);
    printf("%d %d\n", fd, vfio);
    printf("%s", err(ioas(fd, &id)));
    printf(" %s", err(bind_to(vfio, fd, &devid)));
    struct attach at = { .argsz = sizeof(at), .pt_id = id };
    printf(" %s", err(ioctl(vfio, IOC(119), &at)));
    printf(" %s", err(destroy(fd, id)));
    printf(" %d", close(vfio));
    printf(" %s", err(destroy(fd, id)));
    printf(" %s", err(destroy(fd, id)));
    printf(" %d\n", close(fd));
    printf("%s\n", err(open("/dev/vfio/devices/vfio4", O_RDWR)));
  `);
  t.is(stderr, '');
  t.is(stdout, '3 4\nOK OK OK EBUSY 0 OK ENOENT 0\nENOENT\n');
  t.deepEqual(clients.log, []);
});

test('serve: a bad pointer is EFAULT', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    int fd = dev_iommu();
    printf("%s", err(ioctl(fd, IOC(0x80), NULL)));
    printf(" %s", err(ioctl(fd, IOC(0x80), (void *)-8L)));
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(pages + 4096, 4096);
    /* The struct ends where the page does; then it runs over. */
    struct destroy *cmd = (void *)(pages + 4096 - sizeof(*cmd));
    *cmd = (struct destroy){ sizeof(*cmd), 77 };
    printf(" %s", err(ioctl(fd, IOC(0x80), cmd)));
    cmd = (void *)(pages + 4096 - 4);
    cmd->size = 8;
    printf(" %s", err(ioctl(fd, IOC(0x80), cmd)));
    printf(" %s", err(ioctl(fd, IOC(0x80), pages + 4096 - 2)));
    /* Outputs into memory that is read only. */
    struct ioas_alloc *alloc = (void *)pages;
    *alloc = (struct ioas_alloc){ .size = sizeof(*alloc) };
    mprotect(pages, 4096, PROT_READ);
    printf(" %s", err(ioctl(fd, IOC(0x81), alloc)));
    /* What it made is gone, so its ID is free; what needs no answer gets none. */
    uint32_t id;
    printf(" %s", err(ioas(fd, &id)));
    printf(" %u", id);
    mprotect(pages, 4096, PROT_READ | PROT_WRITE);
    cmd = (void *)pages;
    *cmd = (struct destroy){ sizeof(*cmd), id };
    uint32_t fault[4] = { sizeof(fault) };
    memcpy(pages + 64, fault, sizeof(fault));
    mprotect(pages, 4096, PROT_READ);
    printf(" %s", err(ioctl(fd, IOC(0x80), cmd)));
    printf(" %s", err(ioctl(fd, IOC(0x80), cmd)));
    printf(" %s", err(ioctl(fd, IOC(0x8e), pages + 64)));
    printf(" %s", err(ioas(fd, &id)));
    printf(" %u", id);
    printf(" %s\n", err(ioctl(fd, IOC(0x7f), NULL)));
  `);
  t.is(stdout, 'EFAULT EFAULT ENOENT EFAULT EFAULT EFAULT OK 1 OK ENOENT EFAULT OK 1 ENOTTY\n');
});

test('serve: a struct longer than what travels is judged by its tail', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    int fd = dev_iommu();
    char *big = mmap(NULL, 204800, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(big + 102400, 102400);
    struct destroy *cmd = (void *)big;
    *cmd = (struct destroy){ 100000, 5 };
    printf("%s %u", err(ioctl(fd, IOC(0x80), cmd)), cmd->size);
    big[99999] = 1;
    printf(" %s", err(ioctl(fd, IOC(0x80), cmd)));
    big[99999] = 0;
    big[4095] = 1;
    printf(" %s", err(ioctl(fd, IOC(0x80), cmd)));
    cmd->size = 0xffffffff;
    big[4095] = 0;
    printf(" %s\n", err(ioctl(fd, IOC(0x80), cmd)));
  `);
  t.is(stdout, 'ENOENT 100000 E2BIG E2BIG EFAULT\n');
});

test('serve: a file is released by the last close of all copies', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  // The device is bound through one open file: until it is released, a second one cannot bind it.
  const { stdout } = await clients.run(
    String.raw`
    int fd = dev_iommu();
    int first = open("/dev/vfio/devices/vfio0", O_RDWR);
    printf("%s", bind_second(fd, first));
    int copy = dup(first), other = dup2(first, 70);
    close(first);
    printf(" %s", bind_second(fd, -1));
    close(copy);
    printf(" %s", bind_second(fd, -1));
    close(other);
    printf(" %s\n", bind_second(fd, -1));
    `,
    `
    static const char *bind_second(int fd, int vfio)
    {
      uint32_t id;
      int mine = vfio >= 0 ? vfio : open("/dev/vfio/devices/vfio0", O_RDWR);
      const char *said = err(bind_to(mine, fd, &id));
      if (vfio < 0)
        close(mine);
      return said;
    }
    `,
  );
  t.is(stdout, 'OK EINVAL EINVAL OK\n');
});

test('serve: a child has the files of its parent, and keeps them when it is gone', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    uint32_t id, devid;
    int fd = dev_iommu(), vfio = open("/dev/vfio/devices/vfio0", O_RDWR);
    printf("%s", err(bind_to(vfio, fd, &devid)));
    fflush(stdout);
    int go[2];
    if (pipe(go) < 0) return 1;
    pid_t child = fork();
    if (child == 0) {
      char byte;
      close(go[1]);
      if (read(go[0], &byte, 1) != 0) return 2;
      /* The parent has closed both. Its page tables and ours are one object space. */
      printf(" %s", err(ioas(fd, &id)));
      printf(" %s", err(destroy(fd, devid)));
      fflush(stdout);
      _exit(0);
    }
    close(vfio);
    close(fd);
    int again = open("/dev/vfio/devices/vfio0", O_RDWR), iommu = dev_iommu();
    printf(" %s", err(bind_to(again, iommu, &devid)));
    fflush(stdout);
    close(go[1]);
    waitpid(child, NULL, 0);
    /* Its exit closed the last copies. */
    printf(" %s\n", err(bind_to(again, iommu, &devid)));
  `);
  t.is(stdout, 'OK EINVAL OK EBUSY OK\n');
});

test('serve: descriptors go through exec, and are closed by it when they are to be', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    uint32_t id;
    if (argc == 1) {
      int kept = open("/dev/iommu", O_RDWR), gone = dev_iommu();
      char a[8], b[8];
      sprintf(a, "%d", kept);
      sprintf(b, "%d", gone);
      execl("/proc/self/exe", argv[0], a, b, NULL);
    }
    printf("%s", err(ioas(atoi(argv[1]), &id)));
    printf(" %s\n", err(ioas(atoi(argv[2]), &id)));
  `);
  t.is(stdout, 'OK EBADF\n');
  t.deepEqual(clients.log, []);
});

test('serve: a descriptor can be sent to another process', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    uint32_t id;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) < 0) return 1;
    char byte = 0, control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = { &byte, 1 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
    pid_t child = fork();
    if (child == 0) {
      int fd = dev_iommu();
      struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
      *c = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
      memcpy(CMSG_DATA(c), &fd, sizeof(fd));
      sendmsg(pair[1], &msg, 0);
      _exit(0);
    }
    if (recvmsg(pair[0], &msg, 0) != 1) return 1;
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
    waitpid(child, NULL, 0);
    printf("%s", err(ioas(fd, &id)));
    printf(" %s\n", err(ioctl(pair[0], IOC(0x81), &id)));
  `);
  t.is(stdout, 'OK ENOTTY\n');
});

test('serve: threads call at the same time, and a fork in the middle hinders nobody', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout, code } = await clients.run(
    String.raw`
    pthread_t threads[8];
    fd = dev_iommu();
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, work, NULL);
    for (int i = 0; i < 20; i++) {
      uint32_t id;
      pid_t child = fork();
      if (child == 0) _exit(ioas(fd, &id) == 0 && destroy(fd, id) == 0 ? 0 : 1);
      int status;
      waitpid(child, &status, 0);
      if (status != 0) bad = 1;
    }
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    printf("%d\n", bad);
    `,
    `
    static int fd, bad;
    static void *work(void *unused)
    {
      for (int i = 0; i < 200; i++) {
        uint32_t id;
        if (ioas(fd, &id) < 0 || destroy(fd, id) < 0) bad = 1;
      }
      return unused;
    }
    `,
  );
  t.is(stdout, '0\n');
  t.is(code, 0);
});

test('serve: a program that closes everything loses its own files only', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    uint32_t id;
    int fd = dev_iommu();
    ioas(fd, &id);
    for (int i = 3; i < 1024; i++) close(i);
    printf("%s", err(ioas(fd, &id)));
    fd = dev_iommu();
    printf(" %d %s", fd, err(ioas(fd, &id)));
    close_range(3, ~0u, 0);
    fd = dev_iommu();
    printf(" %d %s", fd, err(ioas(fd, &id)));
    /* Behind the library's back. */
    syscall(SYS_close_range, 3, ~0u, 0);
    fd = dev_iommu();
    printf(" %d %s\n", fd, err(ioas(fd, &id)));
  `);
  t.is(stdout, 'EBADF 3 OK 3 OK 3 OK\n');
});

test('serve: another user may not connect', async (t) => {
  if (!canCompile(t) || process.getuid?.() !== 0) return t.pass();
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(`
    if (setuid(65534) < 0) return 1;
    puts(err(dev_iommu()));
  `);
  t.is(stdout, 'EACCES\n');
});

test('serve: a client that is killed is cleaned up', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const child = clients.start(
    clients.compile(`
    uint32_t id;
    int fd = dev_iommu(), vfio = open("/dev/vfio/devices/vfio2", O_RDWR);
    bind_to(vfio, fd, &id);
    ioas(fd, &id);
    puts("ready");
    fflush(stdout);
    pause();
    `),
  );
  await printed(child);
  t.deepEqual(clients.served.counts, { clients: 1, files: 2, mappings: 0 });
  child.kill('SIGKILL');
  await finished(child);
  await until(() => clients.served.counts.clients === 0);
  t.deepEqual(clients.served.counts, { clients: 0, files: 0, mappings: 0 });
  // Nobody owns the device any more.
  const vfio = clients.machine.openVfio('0001:01:00.0');
  t.notThrows(() => vfio.bindIommufd(clients.machine.openIommufd()));
});

test('serve: a client that dies after it has lost its connections is cleaned up', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const child = clients.start(
    clients.compile(`
      int fd = dev_iommu();
      syscall(SYS_close_range, fd + 1, ~0u, 0);
      puts("alone");
      fflush(stdout);
      pause();
    `),
  );
  const end = finished(child);
  await printed(child);
  await until(() => clients.served.counts.clients === 1);
  child.kill('SIGKILL');
  await end;
  await until(() => clients.served.counts.clients === 0);
  t.deepEqual(clients.served.counts, { clients: 0, files: 0, mappings: 0 });
});
