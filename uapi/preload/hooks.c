/*
 * The C library's functions that programs reach our files by. Each looks whether the descriptor or the name is ours,
 * and is the next function of its name when not.
 *
 * What POSIX has as a cancellation point is one before anything is done, and not in the middle.
 *
 * Not seen: system calls made without the C library, statically linked programs, io_uring, stdio over one of our
 * descriptors (fdopen).
 */
#define _GNU_SOURCE
/* The declarations that fortified programs call would be defined here otherwise. */
#undef _FORTIFY_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "preload.h"

#define NOT_OPENED (-2)
/* UIO_MAXIOV */
#define MAX_PARTS 1024

/* Opens what a path stands for; NOT_OPENED when it is the real thing. *path may be replaced. */
static int open_ours(int dir, const char **path, int flags, struct path_match *match)
{
	int fd;

	match_path(dir, *path, match);
	switch (match->kind) {
	case PATH_FILE:
		if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL) || (flags & O_DIRECTORY)) {
			errno = (flags & O_DIRECTORY) ? ENOTDIR : EEXIST;
			return -1;
		}
		pthread_testcancel();
		return file_open(match->file, match->index, flags);
	case PATH_STATUS:
		fd = open_status(*path, match->index, (flags & O_CLOEXEC) != 0);
		return fd < 0 ? NOT_OPENED : fd;
	case PATH_DEBUGFS:
		*path = match->instead;
		return NOT_OPENED;
	default:
		return NOT_OPENED;
	}
}

static mode_t mode_of(int flags, va_list arguments)
{
	return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define OPEN_HOOK(name) \
	HOOK int name(const char *path, int flags, ...) \
	{ \
		struct path_match match; \
		va_list arguments; \
		mode_t mode; \
		int fd; \
		va_start(arguments, flags); \
		mode = mode_of(flags, arguments); \
		va_end(arguments); \
		fd = open_ours(AT_FDCWD, &path, flags, &match); \
		return fd == NOT_OPENED ? NEXT(name)(path, flags, mode) : fd; \
	}

#define OPENAT_HOOK(name) \
	HOOK int name(int dir, const char *path, int flags, ...) \
	{ \
		struct path_match match; \
		va_list arguments; \
		mode_t mode; \
		int fd; \
		va_start(arguments, flags); \
		mode = mode_of(flags, arguments); \
		va_end(arguments); \
		fd = open_ours(dir, &path, flags, &match); \
		return fd == NOT_OPENED ? NEXT(name)(dir, path, flags, mode) : fd; \
	}

OPEN_HOOK(open)
OPEN_HOOK(open64)
OPENAT_HOOK(openat)
OPENAT_HOOK(openat64)

/* What fortified programs call. */
HOOK int __open_2(const char *path, int flags);
HOOK int __open64_2(const char *path, int flags);
HOOK int __openat_2(int dir, const char *path, int flags);
HOOK int __openat64_2(int dir, const char *path, int flags);

HOOK int __open_2(const char *path, int flags)
{
	return open(path, flags);
}

HOOK int __open64_2(const char *path, int flags)
{
	return open64(path, flags);
}

HOOK int __openat_2(int dir, const char *path, int flags)
{
	return openat(dir, path, flags);
}

HOOK int __openat64_2(int dir, const char *path, int flags)
{
	return openat64(dir, path, flags);
}

HOOK int creat(const char *path, mode_t mode)
{
	return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

HOOK int creat64(const char *path, mode_t mode)
{
	return creat(path, mode);
}

/*
 * A device file as a stream is good for fileno() only: what stdio reads and writes it does below us. The real name
 * is never tried instead, which would make a regular file of it. False: the real thing, by *path.
 */
static bool fopen_ours(const char **path, const char *mode, struct path_match *match, FILE **file)
{
	int fd, flags;

	match_path(AT_FDCWD, *path, match);
	if (match->kind == PATH_DEBUGFS)
		*path = match->instead;
	if (mode == NULL || (match->kind != PATH_FILE && (match->kind != PATH_STATUS || mode[0] != 'r')))
		return false;
	flags = strchr(mode, '+') != NULL ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
	fd = open_ours(AT_FDCWD, path, flags | (strchr(mode, 'e') != NULL ? O_CLOEXEC : 0), match);
	if (fd == NOT_OPENED)
		return false;
	*file = fd < 0 ? NULL : fdopen(fd, mode);
	if (fd >= 0 && *file == NULL)
		raw_close(fd);
	return true;
}

HOOK FILE *fopen(const char *path, const char *mode)
{
	struct path_match match;
	FILE *file;

	return fopen_ours(&path, mode, &match, &file) ? file : NEXT(fopen)(path, mode);
}

HOOK FILE *fopen64(const char *path, const char *mode)
{
	struct path_match match;
	FILE *file;

	return fopen_ours(&path, mode, &match, &file) ? file : NEXT(fopen64)(path, mode);
}

HOOK DIR *opendir(const char *path)
{
	struct path_match match;

	match_path(AT_FDCWD, path, &match);
	return NEXT(opendir)(match.kind == PATH_DEBUGFS ? match.instead : path);
}

HOOK int ioctl(int fd, unsigned long cmd, ...)
{
	va_list arguments;
	void *arg;
	uint64_t ino;

	va_start(arguments, cmd);
	arg = va_arg(arguments, void *);
	va_end(arguments);
	/* FIONREAD and its like, which work on any descriptor, are ours to refuse too. */
	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(ioctl)(fd, cmd, arg);
	return file_ioctl(fd, ino, cmd, (uintptr_t)arg);
}

HOOK ssize_t read(int fd, void *to, size_t bytes)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(read)(fd, to, bytes);
	pthread_testcancel();
	return file_read(fd, ino, (uintptr_t)to, bytes, false, 0);
}

HOOK ssize_t write(int fd, const void *from, size_t bytes)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(write)(fd, from, bytes);
	pthread_testcancel();
	return file_write(fd, ino, (uintptr_t)from, bytes, false, 0);
}

HOOK ssize_t pread(int fd, void *to, size_t bytes, off_t offset)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(pread)(fd, to, bytes, offset);
	pthread_testcancel();
	return file_read(fd, ino, (uintptr_t)to, bytes, true, offset);
}

HOOK ssize_t pread64(int fd, void *to, size_t bytes, off_t offset)
{
	return pread(fd, to, bytes, offset);
}

HOOK ssize_t pwrite(int fd, const void *from, size_t bytes, off_t offset)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(pwrite)(fd, from, bytes, offset);
	pthread_testcancel();
	return file_write(fd, ino, (uintptr_t)from, bytes, true, offset);
}

HOOK ssize_t pwrite64(int fd, const void *from, size_t bytes, off_t offset)
{
	return pwrite(fd, from, bytes, offset);
}

/* One file_read or file_write. */
typedef ssize_t (*one_part)(int fd, uint64_t ino, uint64_t at, size_t bytes, bool positioned, off_t offset);

/*
 * As many parts as there are, one read or write each: what a file without read_iter gets. The parts themselves are
 * copied as the kernel copies them.
 */
static ssize_t all_parts(one_part one, int fd, uint64_t ino, const struct iovec *parts, int count, bool positioned,
			 off_t offset)
{
	ssize_t done = 0;

	pthread_testcancel();
	if (count < 0 || count > MAX_PARTS) {
		errno = EINVAL;
		return -1;
	}
	for (int i = 0; i < count; i++) {
		struct iovec part;
		ssize_t n;

		if (copy_in(&part, (uintptr_t)(parts + i), sizeof(part)) < 0)
			return done > 0 ? done : -1;
		n = one(fd, ino, (uintptr_t)part.iov_base, part.iov_len, positioned, offset + done);
		if (n < 0)
			return done > 0 ? done : n;
		done += n;
		if ((size_t)n < part.iov_len)
			break;
	}
	return done;
}

HOOK ssize_t readv(int fd, const struct iovec *parts, int count)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(readv)(fd, parts, count);
	return all_parts(file_read, fd, ino, parts, count, false, 0);
}

HOOK ssize_t writev(int fd, const struct iovec *parts, int count)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(writev)(fd, parts, count);
	return all_parts(file_write, fd, ino, parts, count, false, 0);
}

HOOK ssize_t preadv(int fd, const struct iovec *parts, int count, off_t offset)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(preadv)(fd, parts, count, offset);
	return all_parts(file_read, fd, ino, parts, count, true, offset);
}

HOOK ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t offset)
{
	return preadv(fd, parts, count, offset);
}

HOOK ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(pwritev)(fd, parts, count, offset);
	return all_parts(file_write, fd, ino, parts, count, true, offset);
}

HOOK ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
	return pwritev(fd, parts, count, offset);
}

/* Offset -1: as readv and writev. None of our files knows of a flag. */
HOOK ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(preadv2)(fd, parts, count, offset, flags);
	if (flags != 0) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return all_parts(file_read, fd, ino, parts, count, offset != -1, offset);
}

HOOK ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	return preadv2(fd, parts, count, offset, flags);
}

HOOK ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(pwritev2)(fd, parts, count, offset, flags);
	if (flags != 0) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return all_parts(file_write, fd, ino, parts, count, offset != -1, offset);
}

HOOK ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	return pwritev2(fd, parts, count, offset, flags);
}

/* Our files are no sockets to the program: what only a socket can do is not done to one. */
#define SOCKET_HOOK(type, name, parameters, ...) \
	HOOK type name parameters \
	{ \
		uint64_t ino; \
		if (identify(fd, &ino) == NOT_OURS) \
			return NEXT(name)(__VA_ARGS__); \
		errno = ENOTSOCK; \
		return -1; \
	}

SOCKET_HOOK(ssize_t, send, (int fd, const void *from, size_t bytes, int flags), fd, from, bytes, flags)
SOCKET_HOOK(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), fd, message, flags)
SOCKET_HOOK(ssize_t, recv, (int fd, void *to, size_t bytes, int flags), fd, to, bytes, flags)
SOCKET_HOOK(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), fd, message, flags)
SOCKET_HOOK(int, shutdown, (int fd, int how), fd, how)
SOCKET_HOOK(ssize_t, sendto,
	    (int fd, const void *from, size_t bytes, int flags, const struct sockaddr *to, socklen_t len),
	    fd, from, bytes, flags, to, len)
SOCKET_HOOK(ssize_t, recvfrom,
	    (int fd, void *to, size_t bytes, int flags, struct sockaddr *from, socklen_t *len),
	    fd, to, bytes, flags, from, len)

HOOK ssize_t __read_chk(int fd, void *to, size_t bytes, size_t room);
HOOK ssize_t __pread_chk(int fd, void *to, size_t bytes, off_t offset, size_t room);
HOOK ssize_t __pread64_chk(int fd, void *to, size_t bytes, off_t offset, size_t room);

HOOK ssize_t __read_chk(int fd, void *to, size_t bytes, size_t room)
{
	if (bytes > room)
		abort();
	return read(fd, to, bytes);
}

HOOK ssize_t __pread_chk(int fd, void *to, size_t bytes, off_t offset, size_t room)
{
	if (bytes > room)
		abort();
	return pread(fd, to, bytes, offset);
}

HOOK ssize_t __pread64_chk(int fd, void *to, size_t bytes, off_t offset, size_t room)
{
	return __pread_chk(fd, to, bytes, offset, room);
}

HOOK void *mmap(void *addr, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	uint64_t ino;
	void *where;

	if (!(flags & MAP_ANONYMOUS) && identify(fd, &ino) != NOT_OURS)
		return map_file(fd, ino, addr, bytes, prot, flags, offset);
	where = (void *)syscall(SYS_mmap, addr, bytes, prot, flags, fd, offset);
	if ((flags & MAP_FIXED) && where != MAP_FAILED)
		maps_forget(where, bytes);
	return where;
}

HOOK void *mmap64(void *addr, size_t bytes, int prot, int flags, int fd, off_t offset)
{
	return mmap(addr, bytes, prot, flags, fd, offset);
}

HOOK int munmap(void *addr, size_t bytes)
{
	int status = (int)syscall(SYS_munmap, addr, bytes);

	if (status == 0)
		maps_forget(addr, bytes);
	return status;
}

HOOK int close(int fd)
{
	uint64_t ino;
	int kind = identify(fd, &ino);
	int status;

	if (kind == NOT_OURS && control_owns(fd)) {
		/* The program does not know of it, and closes whatever there is. */
		errno = EBADF;
		return -1;
	}
	status = NEXT(close)(fd);
	if (kind != NOT_OURS)
		control_barrier(false);
	return status;
}

/* dup2 over one of our files closes it. */
HOOK int dup2(int from, int to)
{
	uint64_t ino;
	bool ours = from != to && identify(to, &ino) != NOT_OURS;
	int fd = NEXT(dup2)(from, to);

	if (ours && fd >= 0)
		control_barrier(false);
	return fd;
}

HOOK int dup3(int from, int to, int flags)
{
	uint64_t ino;
	bool ours = from != to && identify(to, &ino) != NOT_OURS;
	int fd = NEXT(dup3)(from, to, flags);

	if (ours && fd >= 0)
		control_barrier(false);
	return fd;
}

/* Leaves the library's own connections open, which lie among what is to be closed. */
HOOK int close_range(unsigned int first, unsigned int last, int flags)
{
	unsigned int from = first;
	int status;

	if (!control_configured() || flags != 0 || first > last)
		return (int)syscall(SYS_close_range, first, last, flags);
	for (int fd = control_next(first); fd >= 0 && (unsigned int)fd <= last; fd = control_next((unsigned int)fd + 1)) {
		if ((unsigned int)fd > from)
			syscall(SYS_close_range, from, (unsigned int)fd - 1, 0);
		from = (unsigned int)fd + 1;
	}
	status = from > last ? 0 : (int)syscall(SYS_close_range, from, last, 0);
	control_barrier(true);
	return status;
}

HOOK void closefrom(int first)
{
	(void)close_range(first < 0 ? 0 : (unsigned int)first, ~0u, 0);
}
