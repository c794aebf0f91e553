/* The functions that the hooks stand in front of, and system calls that no hook sees. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

void *next_symbol(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

int raw_close(int fd)
{
	return (int)syscall(SYS_close, fd);
}

int raw_open(const char *path, int flags, mode_t mode)
{
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t raw_read(int fd, void *to, size_t bytes)
{
	return syscall(SYS_read, fd, to, bytes);
}

ssize_t raw_write(int fd, const void *from, size_t bytes)
{
	return syscall(SYS_write, fd, from, bytes);
}

void complain(const char *what)
{
	static int said;

	if (__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED))
		return;
	(void)!raw_write(2, what, strlen(what));
	(void)!raw_write(2, "\n", 1);
}
