/** Programs that do to our descriptors and names what few programs do. */
import test from 'ava';
import { CClients, canCompile } from '../../kit/c-client.js';

test('names: a device file by any spelling, and no regular file in its place', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    struct stat st;
    int before = syscall(SYS_newfstatat, AT_FDCWD, "/dev/iommu", &st, 0);
    static const char *names[] = { "//dev/iommu", "/dev/./iommu", "/dev/vfio/../iommu", "/dev//vfio/devices///vfio0" };
    for (int i = 0; i < 4; i++) printf("%s ", err(open(names[i], O_RDWR)));
    printf("%s ", err(open("/dev/iommu", O_RDWR | O_DIRECTORY)));
    printf("%s\n", err(open("/dev/iommu", O_RDWR | O_CREAT | O_EXCL, 0600)));
    int dir = open("/dev", O_RDONLY | O_DIRECTORY);
    printf("%s %s ", err(openat(dir, "iommu", O_RDWR)), err(openat(dir, "vfio/vfio", O_RDWR)));
    if (chdir("/") < 0) return 1;
    printf("%s ", err(open("dev/iommu", O_RDWR)));
    if (chdir("/dev") < 0) return 1;
    printf("%s ", err(open("iommu", O_RDWR)));
    printf("%s\n", err(open("../iommu", O_RDWR)));
    uint32_t id;
    printf("%s ", err(ioas(creat("/dev/iommu", 0600), &id)));
    FILE *file = fopen("/dev/iommu", "r+");
    printf("%s ", err(ioas(fileno(file), &id)));
    printf("%d ", fclose(file));
    printf("%s ", err(fopen("/dev/vfio/devices/vfio9", "w") == NULL ? -1 : 0));
    printf("%d\n", before == syscall(SYS_newfstatat, AT_FDCWD, "/dev/iommu", &st, 0));
  `);
  t.is(stdout, 'OK OK OK OK ENOTDIR EEXIST\nOK OK OK OK ENOENT\nOK OK 0 ENOENT 1\n');
  t.deepEqual(clients.log, []);
});

test('names: an address where no name can be is EFAULT, as without the library', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    struct stat st;
    const char *volatile names[] = { NULL, (char *)16, (char *)-4096 };
    for (int i = 0; i < 3; i++) {
      printf("%s ", err(open(names[i], O_RDWR)));
      printf("%s ", err(access(names[i], F_OK)));
      printf("%s\n", err(stat(names[i], &st)));
    }
  `);
  t.is(stdout, 'EFAULT EFAULT EFAULT\n'.repeat(3));
});

test('names: who looks before opening sees character devices', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(
    String.raw`
    static const char *names[] = { "/dev/iommu", "/dev/vfio/vfio", "/dev/vfio/devices/vfio0", "/dev/vfio/devices/vfio9" };
    for (int i = 0; i < 4; i++) {
      struct stat st = { 0 }, at = { 0 };
      struct statx x = { 0 };
      errno = 0;
      printf("%s ", err(access(names[i], R_OK | W_OK)));
      printf("%s ", err(faccessat(AT_FDCWD, names[i], F_OK, 0)));
      printf("%s ", err(access(names[i], X_OK)));
      printf("%s ", err(stat(names[i], &st)));
      printf("%s ", err(fstatat(AT_FDCWD, names[i], &at, AT_SYMLINK_NOFOLLOW)));
      printf("%s ", err(statx(AT_FDCWD, names[i], 0, STATX_BASIC_STATS, &x)));
      printf("%o %d %d\n", st.st_mode, st.st_rdev == at.st_rdev && st.st_ino == at.st_ino, x.stx_mode == st.st_mode);
    }
    struct stat st;
    printf("%s ", err(stat("/dev/null", &st)));
    printf("%d\n", S_ISCHR(st.st_mode));
    `,
    '#include <sys/stat.h>\n',
  );
  const there = 'OK OK EACCES OK OK OK 20600 1 1\n';
  t.is(stdout, `${there.repeat(3)}${'ENOENT '.repeat(6)}0 1 1\nOK 1\n`);
  t.deepEqual(clients.log, []);
});

test('descriptors: what only a socket can do is ENOTSOCK, and vectors are as read and write', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(
    String.raw`
    uint32_t id;
    char bytes[64] = { 0 };
    struct iovec part = { bytes, sizeof(bytes) };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    int fd = dev_iommu();
    printf("%s ", err(send(fd, bytes, 64, 0)));
    printf("%s ", err(sendto(fd, bytes, 64, 0, NULL, 0)));
    printf("%s ", err(sendmsg(fd, &message, 0)));
    printf("%s ", err(recv(fd, bytes, 64, 0)));
    printf("%s ", err(recvfrom(fd, bytes, 64, 0, NULL, NULL)));
    printf("%s ", err(recvmsg(fd, &message, 0)));
    printf("%s\n", err(shutdown(fd, SHUT_RDWR)));
    printf("%s ", err(preadv(fd, &part, 1, 0)));
    printf("%s ", err(pwritev(fd, &part, 1, 0)));
    printf("%s ", err(preadv2(fd, &part, 1, -1, 0)));
    printf("%s ", err(pwritev2(fd, &part, 1, -1, 0)));
    printf("%s ", err(readv(fd, (void *)8, 1)));
    printf("%s\n", err(writev(fd, &part, 1025)));
    struct pollfd ready = { .fd = fd, .events = POLLIN };
    printf("%d %s\n", poll(&ready, 1, 0), err(ioas(fd, &id)));
    `,
    '#include <sys/uio.h>\n',
  );
  t.is(stdout, `${'ENOTSOCK '.repeat(7).trim()}\nEINVAL EINVAL EINVAL EINVAL EFAULT EINVAL\n1 OK\n`);
  t.deepEqual(clients.log, []);
});

test('descriptors: what is written past the library is dropped, and harms nothing', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(String.raw`
    uint32_t id;
    char text[200];
    int fd = dev_iommu();
    memset(text, 'x', sizeof(text));
    for (int i = 0; i < 3; i++) {
      syscall(SYS_write, fd, text, sizeof(text));
      printf("%s ", err(ioas(fd, &id)));
    }
    fflush(stdout);
    /* A daemon that has closed its standard descriptors, and prints. */
    int keep = dup(1);
    close(1);
    int low = dev_iommu();
    puts("nobody hears this");
    fflush(stdout);
    dprintf(keep, "%d %s", low, err(ioas(low, &id)));
    dprintf(keep, " %s\n", err(ioas(fd, &id)));
    syscall(SYS_dup2, keep, 1);
  `);
  t.is(stdout, 'OK OK OK 1 OK OK\n');
  t.is(clients.log.length, 2);
  t.regex(clients.log[0]!, /past the library: dropped$/);
});

test('threads: cancelled and jumping out of handlers, they leave nothing behind', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(
    String.raw`
    fd = dev_iommu();
    destroy(fd, 99);
    int before = count();
    for (int i = 0; i < 40; i++) {
      pthread_t thread;
      pthread_create(&thread, NULL, call, NULL);
      usleep(1000 + 37 * i);
      pthread_cancel(thread);
      pthread_join(thread, NULL);
    }
    signal(SIGALRM, jump);
    for (volatile int i = 0; i < 60; i++) {
      if (sigsetjmp(out, 1) != 0) continue;
      struct itimerval timer = { .it_value = { .tv_usec = 500 + 13 * i } };
      setitimer(ITIMER_REAL, &timer, NULL);
      for (;;) destroy(fd, 99);
    }
    /* One connection more is one that the cancelled threads used beside ours. */
    printf("%d %s\n", count() - before <= 2, err(destroy(fd, 99)));
    `,
    `
    #include <setjmp.h>
    #include <sys/time.h>
    static int fd;
    static sigjmp_buf out;
    static void jump(int signal) { (void)signal; siglongjmp(out, 1); }
    static void *call(void *unused)
    {
      char byte;
      for (;;) { destroy(fd, 99); if (read(fd, &byte, 1) >= 0) return unused; }
    }
    static int count(void)
    {
      int n = 0;
      for (int i = 0; i < 2048; i++) n += fcntl(i, F_GETFD) >= 0;
      return n;
    }
    `,
  );
  t.is(stdout, '1 ENOENT\n');
  t.deepEqual(clients.log, []);
});

test('threads: a descriptor that another thread closes is EBADF at worst', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(
    String.raw`
    pthread_t threads[2];
    fd = dev_iommu();
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, call, NULL);
    for (int i = 0; i < 300; i++) {
      int old = fd;
      fd = dev_iommu();
      close(old);
    }
    stop = 1;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    printf("%d\n", odd);
    `,
    `
    static volatile int fd, stop, odd;
    static void *call(void *unused)
    {
      while (!stop)
        if (destroy(fd, 99) == 0 || (errno != ENOENT && errno != EBADF)) odd = errno;
      return unused;
    }
    `,
  );
  t.is(stdout, '0\n');
});

test('threads: the first may end before any has made a call', async (t) => {
  if (!canCompile(t)) return;
  const clients = await CClients.start(t);
  const { stdout } = await clients.run(
    `
    pthread_t thread;
    first = gettid();
    pthread_create(&thread, NULL, call, NULL);
    pthread_exit(NULL);
    `,
    String.raw`
    static pid_t first;
    static char state(void)
    {
      char path[64], text[64] = { 0 };
      snprintf(path, sizeof(path), "/proc/%d/stat", first);
      int fd = open(path, O_RDONLY);
      if (read(fd, text, sizeof(text) - 1) < 0) return '?';
      close(fd);
      return strrchr(text, ')')[2];
    }
    static void *call(void *unused)
    {
      uint32_t id;
      while (state() != 'Z') usleep(1000);
      int fd = dev_iommu();
      printf("%s", err(ioas(fd, &id)));
      printf(" %s\n", err(destroy(fd, id)));
      exit(0);
      return unused;
    }
    `,
  );
  t.is(stdout, 'OK OK\n');
  t.deepEqual(clients.log, []);
});
