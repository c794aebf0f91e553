/*
 * mmap of a descriptor of ours: the program gets a file of the server's mapped. A connection is kept for as long as
 * any of the mapping is left, in any process: fork copies it, exec and exit close it, and munmap of the last part
 * closes it here. So the server sees what a vm_operations_struct would: when nobody has it mapped any more.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

#define MAX_PARTS 64
#define PAGE_BYTES 4096u

/* What is left of a mapping in one piece. Several of one mapping share its connection. */
struct part {
	uintptr_t start;
	uintptr_t end; /* 0: not in use */
	int fd;
	uint64_t ino; /* of fd, which a program may close that closes whatever there is */
};

static struct part parts[MAX_PARTS];
/* How many are in use: munmap looks no further when there are none. */
static int count;
/* A child of a fork in the middle starts with it free; the table is at worst one part behind. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void unlock_in_child(void)
{
	pthread_mutex_init(&lock, NULL);
}

static __attribute__((constructor)) void set_up(void)
{
	pthread_atfork(NULL, NULL, unlock_in_child);
}

static bool add_part(uintptr_t start, uintptr_t end, int fd, uint64_t ino)
{
	for (int i = 0; i < MAX_PARTS; i++) {
		if (parts[i].end != 0)
			continue;
		parts[i] = (struct part){ start, end, fd, ino };
		__atomic_add_fetch(&count, 1, __ATOMIC_RELEASE);
		return true;
	}
	return false;
}

/* Cuts [start, end) out of what is known. Returns how many connections were closed. */
static int cut(uintptr_t start, uintptr_t end)
{
	int closed = 0;

	for (int i = 0; i < MAX_PARTS; i++) {
		struct part old = parts[i];
		bool kept = false;

		if (old.end <= start || old.start >= end)
			continue;
		parts[i].end = 0;
		__atomic_sub_fetch(&count, 1, __ATOMIC_RELEASE);
		if (old.start < start)
			kept |= add_part(old.start, start, old.fd, old.ino);
		if (old.end > end)
			kept |= add_part(end, old.end, old.fd, old.ino);
		for (int j = 0; j < MAX_PARTS; j++)
			kept |= parts[j].end != 0 && parts[j].ino == old.ino;
		if (kept || socket_inode(old.fd) != old.ino)
			continue;
		raw_close(old.fd);
		closed++;
	}
	return closed;
}

void maps_forget(const void *addr, size_t bytes)
{
	uintptr_t start = (uintptr_t)addr;
	uintptr_t end = (start + bytes + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
	int closed;

	if (__atomic_load_n(&count, __ATOMIC_ACQUIRE) == 0)
		return;
	pthread_mutex_lock(&lock);
	closed = cut(start, end);
	pthread_mutex_unlock(&lock);
	if (closed > 0)
		control_barrier(false);
}

void *map_file(int fd, uint64_t ino, void *addr, size_t bytes, int prot, int flags, off_t offset)
{
	char path[256];
	struct call call = {
		.request = {
			.op = OP_MAP,
			.file = ino,
			.fd = fd,
			.arg = (uint64_t)offset,
			.index = (bytes + PAGE_BYTES - 1) & ~(uint64_t)(PAGE_BYTES - 1),
			.cmd = ((prot & PROT_WRITE) ? WIRE_MAP_WRITE : 0) | ((prot & PROT_EXEC) ? WIRE_MAP_EXEC : 0) |
			       ((flags & (MAP_SHARED | MAP_SHARED_VALIDATE)) ? WIRE_MAP_SHARED : 0),
		},
		.answer = path,
		.answer_room = sizeof(path) - 1,
	};
	int hold, file, saved;
	void *where;

	if ((flags & MAP_TYPE) == MAP_PRIVATE)
		call.request.cmd &= ~WIRE_MAP_SHARED;
	hold = control_open(&call, true);
	if (hold < 0)
		return MAP_FAILED;
	hold = control_hide(hold);
	path[call.reply.bytes] = '\0';
	file = raw_open(path, (prot & PROT_WRITE) ? O_RDWR | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0);
	if (file < 0) {
		raw_close(hold);
		errno = ENODEV;
		return MAP_FAILED;
	}
	where = (void *)syscall(SYS_mmap, addr, bytes, prot, flags, file, 0);
	saved = errno;
	raw_close(file);
	if (where == MAP_FAILED) {
		raw_close(hold);
		errno = saved;
		return MAP_FAILED;
	}
	maps_forget(where, bytes);
	pthread_mutex_lock(&lock);
	/* With a full table the connection stays open, and the mapping counts until the process ends. */
	(void)add_part((uintptr_t)where, (uintptr_t)where + call.request.index, hold, socket_inode(hold));
	pthread_mutex_unlock(&lock);
	return where;
}
