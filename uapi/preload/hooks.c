/*
 * The C library's functions that programs reach our files by. Each looks whether the descriptor or the name is ours,
 * and is the next function of its name when not.
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
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "preload.h"

#define NOT_OPENED (-2)

/* Opens what a path stands for; NOT_OPENED when it is the real thing. *path may be replaced. */
static int open_ours(const char **path, int flags, struct path_match *match)
{
	int fd;

	match_path(*path, match);
	switch (match->kind) {
	case PATH_FILE:
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
		fd = open_ours(&path, flags, &match); \
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
		fd = open_ours(&path, flags, &match); \
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

/* Only for /proc/PID/status, and read-only: a device file is not something to have as a stream. */
static FILE *fopen_ours(const char **path, const char *mode, struct path_match *match)
{
	int fd;
	FILE *file;

	match_path(*path, match);
	if (match->kind == PATH_DEBUGFS)
		*path = match->instead;
	if (match->kind != PATH_STATUS || mode == NULL || mode[0] != 'r')
		return NULL;
	fd = open_status(*path, match->index, strchr(mode, 'e') != NULL);
	if (fd < 0)
		return NULL;
	file = fdopen(fd, "r");
	if (file == NULL)
		raw_close(fd);
	return file;
}

HOOK FILE *fopen(const char *path, const char *mode)
{
	struct path_match match;
	FILE *file = fopen_ours(&path, mode, &match);

	return file != NULL ? file : NEXT(fopen)(path, mode);
}

HOOK FILE *fopen64(const char *path, const char *mode)
{
	struct path_match match;
	FILE *file = fopen_ours(&path, mode, &match);

	return file != NULL ? file : NEXT(fopen64)(path, mode);
}

HOOK DIR *opendir(const char *path)
{
	struct path_match match;

	match_path(path, &match);
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
	return file_read(fd, ino, (uintptr_t)to, bytes, false, 0);
}

HOOK ssize_t write(int fd, const void *from, size_t bytes)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(write)(fd, from, bytes);
	return file_write(fd, ino, (uintptr_t)from, bytes, false, 0);
}

HOOK ssize_t pread(int fd, void *to, size_t bytes, off_t offset)
{
	uint64_t ino;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(pread)(fd, to, bytes, offset);
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
	return file_write(fd, ino, (uintptr_t)from, bytes, true, offset);
}

HOOK ssize_t pwrite64(int fd, const void *from, size_t bytes, off_t offset)
{
	return pwrite(fd, from, bytes, offset);
}

/* As many parts as there are, one read or write each: what a file without read_iter gets. */
HOOK ssize_t readv(int fd, const struct iovec *parts, int count)
{
	uint64_t ino;
	ssize_t done = 0;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(readv)(fd, parts, count);
	for (int i = 0; i < count; i++) {
		ssize_t n = file_read(fd, ino, (uintptr_t)parts[i].iov_base, parts[i].iov_len, false, 0);

		if (n < 0)
			return done > 0 ? done : n;
		done += n;
		if ((size_t)n < parts[i].iov_len)
			break;
	}
	return done;
}

HOOK ssize_t writev(int fd, const struct iovec *parts, int count)
{
	uint64_t ino;
	ssize_t done = 0;

	if (identify(fd, &ino) == NOT_OURS)
		return NEXT(writev)(fd, parts, count);
	for (int i = 0; i < count; i++) {
		ssize_t n = file_write(fd, ino, (uintptr_t)parts[i].iov_base, parts[i].iov_len, false, 0);

		if (n < 0)
			return done > 0 ? done : n;
		done += n;
		if ((size_t)n < parts[i].iov_len)
			break;
	}
	return done;
}

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
