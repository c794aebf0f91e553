/*
 * Connections to the server, and who this process is to it.
 *
 * A thread in a call holds one control connection to itself: there are as many as threads were ever in a call at
 * once, so no lock is held while the server works, and a signal handler or a fork in the middle finds nothing
 * locked. All of it lies in a page that fork leaves empty (MADV_WIPEONFORK): a child is another process, and says so
 * on connections of its own. A child that shares our memory instead (vfork) must not touch the page: it gets a
 * connection for one call.
 *
 * A call is not left in the middle: signals wait for its end, as they do for that of most ioctls, and none of the
 * functions used is a cancellation point. A handler that jumps away would keep the connection busy for good.
 *
 * Who we are is proven: the server sends a nonce, we lay it where it can find it in our memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "preload.h"

#define SLOTS 16
/* The library's own descriptors lie from here on, where few programs look. */
#define HIDDEN_FROM 960

struct link {
	int fd; /* -1: none */
	uint64_t ino;
	uint8_t secret[16];
};

struct slot {
	int busy;
	struct link link;
};

/* One process's: empty after fork. */
struct process {
	pid_t pid; /* 0: not begun */
	int welcomed;
	uint32_t flags;
	char debugfs[104];
	struct slot slots[SLOTS];
};

/* What a child must close of its parent's: the same numbers, outside the page. */
static struct link inherited[SLOTS];

static struct process *process;
static struct sockaddr_un server;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void begin_in_child(void);

static void set_up(void)
{
	const char *path = getenv("IOMMUFD_SOCKET");
	void *page;

	for (int i = 0; i < SLOTS; i++)
		inherited[i].fd = -1;
	if (path == NULL || *path == '\0')
		return;
	if (strlen(path) >= sizeof(server.sun_path)) {
		complain("iommufd: IOMMUFD_SOCKET is longer than a socket's path can be");
		return;
	}
	page = mmap(NULL, sizeof(struct process), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return;
	if (madvise(page, sizeof(struct process), MADV_WIPEONFORK) < 0) {
		complain("iommufd: MADV_WIPEONFORK is missing: Linux 4.14 is the oldest that will do");
		return;
	}
	server.sun_family = AF_UNIX;
	strcpy(server.sun_path, path);
	__atomic_store_n(&process, page, __ATOMIC_RELEASE);
	pthread_atfork(NULL, NULL, begin_in_child);
}

bool control_configured(void)
{
	if (__atomic_load_n(&process, __ATOMIC_ACQUIRE) != NULL)
		return true;
	pthread_once(&once, set_up);
	return __atomic_load_n(&process, __ATOMIC_ACQUIRE) != NULL;
}

const char *server_path(void)
{
	return server.sun_path;
}

/* Makes the page this process's. False when it is another's, whose memory we share. */
static bool is_mine(void)
{
	pid_t me = getpid();
	pid_t owner = __atomic_load_n(&process->pid, __ATOMIC_ACQUIRE);

	if (owner == me)
		return true;
	if (owner != 0)
		return false;
	owner = 0;
	/* -1 while it is made ready; only threads of ours can be here. */
	if (!__atomic_compare_exchange_n(&process->pid, &owner, -1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		while (__atomic_load_n(&process->pid, __ATOMIC_ACQUIRE) == -1)
			;
		return __atomic_load_n(&process->pid, __ATOMIC_ACQUIRE) == me;
	}
	for (int i = 0; i < SLOTS; i++) {
		process->slots[i].link.fd = -1;
		if (inherited[i].fd >= 0 && socket_inode(inherited[i].fd) == inherited[i].ino)
			raw_close(inherited[i].fd);
		inherited[i].fd = -1;
	}
	__atomic_store_n(&process->pid, me, __ATOMIC_RELEASE);
	return true;
}

static void begin_in_child(void)
{
	int saved = errno;

	is_mine();
	errno = saved;
}

int control_hide(int fd)
{
	struct rlimit limit;
	int from = HIDDEN_FROM;
	int hidden;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < HIDDEN_FROM + 64)
		from = limit.rlim_cur > 64 ? (int)limit.rlim_cur - 64 : 0;
	hidden = fcntl(fd, F_DUPFD_CLOEXEC, from);
	if (hidden < 0)
		return fd;
	raw_close(fd);
	return hidden;
}

/* The thread's mask from before the call, which holds again when the server takes its time. */
static __thread const sigset_t *outside;

/* Has signals wait, but for those that come of what the thread itself does. */
static void begin_call(sigset_t *before)
{
	static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT };
	sigset_t all;

	sigfillset(&all);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		sigdelset(&all, own[i]);
	pthread_sigmask(SIG_BLOCK, &all, before);
	outside = before;
}

static void end_call(const sigset_t *before)
{
	int saved = errno;

	outside = NULL;
	pthread_sigmask(SIG_SETMASK, before, NULL);
	errno = saved;
}

/* A server that does not answer within this must not make a program immune to Ctrl-C, s. */
#define PATIENCE 1

/* Seconds, or 0 for ever. */
static void set_patience(int fd, time_t seconds)
{
	const struct timeval patience = { .tv_sec = seconds };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

/* After a system call on a connection has failed: whether it is to be tried again. */
static bool again(void)
{
	if (errno == EAGAIN && outside != NULL)
		pthread_sigmask(SIG_SETMASK, outside, NULL);
	return errno == EAGAIN || errno == EINTR;
}

static int connect_server(bool cloexec)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | (cloexec ? SOCK_CLOEXEC : 0), 0);
	int saved;

	if (fd < 0)
		return -1;
	set_patience(fd, PATIENCE);
	while (syscall(SYS_connect, fd, &server, sizeof(server)) < 0) {
		if (again())
			continue;
		saved = errno;
		raw_close(fd);
		complain("iommufd: the server at IOMMUFD_SOCKET does not answer");
		errno = saved == EACCES || saved == EPERM ? EACCES : ENODEV;
		return -1;
	}
	return fd;
}

static int send_all(int fd, struct iovec *parts, int count)
{
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = (size_t)count };

	while (message.msg_iovlen > 0) {
		ssize_t n = syscall(SYS_sendmsg, fd, &message, MSG_NOSIGNAL);

		if (n < 0 && again())
			continue;
		if (n < 0)
			return -1;
		while (message.msg_iovlen > 0 && (size_t)n >= message.msg_iov->iov_len) {
			n -= (ssize_t)message.msg_iov->iov_len;
			message.msg_iov++;
			message.msg_iovlen--;
		}
		if (message.msg_iovlen > 0) {
			message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + n;
			message.msg_iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

static int receive_all(int fd, void *to, size_t bytes)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = syscall(SYS_recvfrom, fd, (char *)to + done, bytes - done, MSG_WAITALL, NULL, NULL);

		if (n < 0 && again())
			continue;
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

#define NOT_SENT (-2)

/* Request and answer on one connection. -1: it is of no more use; NOT_SENT: nor was it, the server had closed it. */
static int exchange(int fd, struct call *call)
{
	struct iovec parts[2] = {
		{ &call->request, sizeof(call->request) },
		{ (void *)(uintptr_t)call->payload, call->request.bytes },
	};

	if (send_all(fd, parts, call->request.bytes > 0 ? 2 : 1) < 0)
		return errno == EPIPE ? NOT_SENT : -1;
	if (receive_all(fd, &call->reply, sizeof(call->reply)) < 0)
		return -1;
	if (call->reply.bytes > call->answer_room)
		return -1;
	return receive_all(fd, call->answer, call->reply.bytes);
}

/* Connects and proves who we are. Returns 0, or -1 with errno. */
static int introduce(struct link *link, struct wire_welcome *welcome)
{
	struct wire_challenge challenge;
	uint8_t proof[sizeof(challenge.nonce)] = { 0 };
	struct wire_hello hello = {
		.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.pid = (uint32_t)getpid(),
		.proof_va = (uintptr_t)proof,
	};
	struct call say_hello = {
		.request = { .op = OP_HELLO, .bytes = sizeof(hello) },
		.payload = &hello,
		.answer = &challenge,
		.answer_room = sizeof(challenge),
	};
	struct call say_proof = {
		.request = { .op = OP_PROOF },
		.answer = welcome,
		.answer_room = sizeof(*welcome),
	};
	int fd = connect_server(true);

	if (fd < 0)
		return -1;
	if (exchange(fd, &say_hello) < 0 || say_hello.reply.bytes != sizeof(challenge))
		goto refused;
	/* Where Yama lets only a parent look into a process's memory. Harmless where it does not. */
	prctl(PR_SET_PTRACER, challenge.server_pid, 0, 0, 0);
	memcpy(proof, challenge.nonce, sizeof(proof));
	/* The kernel reads it for the server: it must be in memory by then. */
	__asm__ volatile("" ::"r"(proof) : "memory");
	if (exchange(fd, &say_proof) < 0 || say_proof.reply.bytes != sizeof(*welcome))
		goto refused;
	link->fd = control_hide(fd);
	link->ino = socket_inode(link->fd);
	memcpy(link->secret, welcome->secret, sizeof(link->secret));
	return 0;
refused:
	raw_close(fd);
	complain("iommufd: the server refused this process (its log says why)");
	errno = EACCES;
	return -1;
}

static bool usable(const struct link *link)
{
	return link->fd >= 0 && socket_inode(link->fd) == link->ino;
}

/* Unless the program has put something else at its number. */
static void drop_link(struct link *link)
{
	if (usable(link))
		raw_close(link->fd);
	link->fd = -1;
}

/* A slot of this thread's own, connected; NULL when there is none, or with errno set when nobody answers. */
static struct slot *take_slot(void)
{
	struct wire_welcome welcome;

	for (int i = 0; i < SLOTS; i++) {
		struct slot *slot = &process->slots[i];

		if (__atomic_exchange_n(&slot->busy, 1, __ATOMIC_ACQUIRE))
			continue;
		if (usable(&slot->link))
			return slot;
		slot->link.fd = -1;
		if (introduce(&slot->link, &welcome) < 0) {
			__atomic_store_n(&slot->busy, 0, __ATOMIC_RELEASE);
			return NULL;
		}
		process->flags = welcome.flags;
		memcpy(process->debugfs, welcome.debugfs, sizeof(process->debugfs));
		process->debugfs[sizeof(process->debugfs) - 1] = '\0';
		__atomic_store_n(&process->welcomed, 1, __ATOMIC_RELEASE);
		return slot;
	}
	errno = EAGAIN;
	return NULL;
}

static void give_slot(struct slot *slot)
{
	inherited[slot - process->slots] = slot->link;
	__atomic_store_n(&slot->busy, 0, __ATOMIC_RELEASE);
}

/* Calls `use` with a connection. What it returns, or -1 when there is none. */
static int with_link(int (*use)(struct link *link, void *argument), void *argument)
{
	struct wire_welcome welcome;
	struct link own = { .fd = -1 };
	struct slot *slot = NULL;
	sigset_t before;
	int result = -1;

	if (!control_configured()) {
		errno = ENODEV;
		return -1;
	}
	begin_call(&before);
	errno = EAGAIN;
	if (is_mine())
		slot = take_slot();
	if (slot != NULL) {
		result = use(&slot->link, argument);
		give_slot(slot);
	} else if (errno == EAGAIN && introduce(&own, &welcome) == 0) {
		result = use(&own, argument);
		if (own.fd >= 0)
			raw_close(own.fd);
	}
	end_call(&before);
	return result;
}

static int call_on(struct link *link, void *argument)
{
	struct wire_welcome welcome;
	int status = exchange(link->fd, argument);

	if (status == NOT_SENT) {
		/* The server ended this client, or is another by now: it may begin anew. */
		drop_link(link);
		if (introduce(link, &welcome) < 0)
			return -1;
		status = exchange(link->fd, argument);
	}
	if (status == 0)
		return 0;
	drop_link(link);
	errno = EIO;
	return -1;
}

int control_call(struct call *call)
{
	return with_link(call_on, call);
}

static int copy_secret(struct link *link, void *secret)
{
	memcpy(secret, link->secret, sizeof(link->secret));
	return 0;
}

/* Connects and sends a request with our secret. Returns the descriptor, or -1 with errno. */
static int open_once(struct call *call, bool cloexec)
{
	uint8_t secret[16];
	sigset_t before;
	int fd;

	if (with_link(copy_secret, secret) < 0)
		return -1;
	begin_call(&before);
	fd = connect_server(cloexec);
	if (fd >= 0) {
		if (call->request.op == OP_FILE) {
			call->request.file = socket_inode(fd);
			call->request.fd = fd;
		}
		call->payload = secret;
		call->request.bytes = sizeof(secret);
		if (exchange(fd, call) < 0) {
			raw_close(fd);
			fd = -1;
			errno = EIO;
		} else {
			set_patience(fd, 0);
		}
	}
	end_call(&before);
	return fd;
}

int control_open(struct call *call, bool cloexec)
{
	int fd = open_once(call, cloexec);

	if (fd < 0 && errno == EIO) {
		/* The server has ended this client, or is another: a request makes us known to it, with a new secret. */
		control_barrier(false);
		fd = open_once(call, cloexec);
	}
	if (fd < 0)
		return -1;
	if (call->reply.result < 0) {
		raw_close(fd);
		errno = -call->reply.result;
		return -1;
	}
	return fd;
}

bool control_owns(int fd)
{
	uint64_t ino;

	if (!control_configured() || __atomic_load_n(&process->pid, __ATOMIC_ACQUIRE) != getpid())
		return false;
	for (int i = 0; i < SLOTS; i++) {
		if (process->slots[i].link.fd != fd || fd < 0)
			continue;
		ino = socket_inode(fd);
		return ino != 0 && ino == process->slots[i].link.ino;
	}
	return false;
}

int control_next(unsigned int from)
{
	int lowest = -1;

	for (int i = 0; i < SLOTS; i++) {
		int fd = process->slots[i].link.fd;

		if (fd >= 0 && (unsigned int)fd >= from && (lowest < 0 || fd < lowest) && control_owns(fd))
			lowest = fd;
	}
	return lowest;
}

void control_barrier(bool if_known)
{
	int saved = errno;
	struct call call = { .request = { .op = OP_BARRIER } };

	if (control_configured() && is_mine() &&
	    (!if_known || __atomic_load_n(&process->welcomed, __ATOMIC_ACQUIRE)))
		(void)control_call(&call);
	errno = saved;
}

bool control_testing(char *debugfs, size_t room)
{
	struct call call = { .request = { .op = OP_BARRIER } };

	if (!control_configured() || !is_mine())
		return false;
	if (!__atomic_load_n(&process->welcomed, __ATOMIC_ACQUIRE) && control_call(&call) < 0)
		return false;
	if (!(process->flags & WIRE_TESTING))
		return false;
	snprintf(debugfs, room, "%s", process->debugfs);
	return true;
}
