/*
 * Names that stand for something of ours: the device files; where the server is one for tests, also what Linux's
 * fault injection has in /proc and debugfs; and /proc/PID/status, whose VmLck and VmPin the server knows.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

#define DEBUGFS "/sys/kernel/debug"

/* A decimal number at the start of text, to its end. Returns NULL when there is none. */
static const char *number(const char *text, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return NULL;
	*value = strtoull(text, &end, 10);
	return end;
}

/* What follows /proc/PID, /proc/self or /proc/thread-self; NULL when path is no such name. */
static const char *after_process(const char *path, uint64_t *pid)
{
	*pid = (uint64_t)getpid();
	if (strncmp(path, "/proc/", 6) != 0)
		return NULL;
	path += 6;
	if (strncmp(path, "self/", 5) == 0)
		return path + 4;
	if (strncmp(path, "thread-self/", 12) == 0)
		return path + 11;
	return number(path, pid);
}

static bool is_fail_nth(const char *rest)
{
	uint64_t tid;

	if (strncmp(rest, "/task/", 6) == 0)
		rest = number(rest + 6, &tid);
	return rest != NULL && strcmp(rest, "/fail-nth") == 0;
}

/* Longest name of a device file as it is spelt here: the directory's, and the program's below it. */
#define SPELT 4096

/* The directory that a relative path begins at. Returns whether it is known. */
static bool directory(int dir, char *name)
{
	char link[32];
	ssize_t n;

	if (dir == AT_FDCWD) {
		/* "(unreachable)" where it has no name. */
		n = syscall(SYS_getcwd, name, SPELT);
		return n > 0 && name[0] == '/';
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = readlink(link, name, SPELT - 1);
	name[n > 0 ? n : 0] = '\0';
	return name[0] == '/';
}

/*
 * A device file's name in one spelling: absolute, without "//", "." and "..". Only what ends as one of ours does is
 * looked at any further. Returns false when it is not that.
 */
static bool device_name(int dir, const char *path, char *name)
{
	const char *last = strrchr(path, '/');
	const char *part = path;
	size_t length = 0;

	last = last == NULL ? path : last + 1;
	if (strcmp(last, "iommu") != 0 && strncmp(last, "vfio", 4) != 0)
		return false;
	name[0] = '\0';
	if (*path != '/' && !directory(dir, name))
		return false;
	length = strlen(name);
	while (*part != '\0') {
		size_t bytes = strcspn(part, "/");

		if (bytes == 2 && part[0] == '.' && part[1] == '.') {
			while (length > 0 && name[--length] != '/')
				;
		} else if (bytes > 0 && !(bytes == 1 && part[0] == '.')) {
			if (length + bytes + 2 > SPELT)
				return false;
			/* The root's own name ends with the slash. */
			if (length == 0 || name[length - 1] != '/')
				name[length++] = '/';
			memcpy(name + length, part, bytes);
			length += bytes;
		}
		part += bytes;
		part += strspn(part, "/");
	}
	name[length] = '\0';
	return true;
}

static bool is_device(const char *name, struct path_match *match)
{
	const char *rest;

	if (strcmp(name, "/dev/iommu") == 0) {
		match->file = WIRE_FILE_IOMMUFD;
		return true;
	}
	if (strcmp(name, "/dev/vfio/vfio") == 0) {
		match->file = WIRE_FILE_VFIO_CONTAINER;
		return true;
	}
	if (strncmp(name, "/dev/vfio/devices/vfio", 22) != 0)
		return false;
	match->file = WIRE_FILE_VFIO_DEVICE;
	rest = number(name + 22, &match->index);
	return rest != NULL && *rest == '\0';
}

/* Whether there is a name at all: the kernel says EFAULT where there is none. */
static bool is_there(const char *path)
{
	int before = errno;
	char first;
	bool there = path != NULL && copy_in(&first, (uintptr_t)path, 1) == 0;

	errno = before;
	return there;
}

void match_path(int dir, const char *path, struct path_match *match)
{
	char debugfs[104], name[SPELT];
	const char *rest;

	match->kind = PATH_OTHER;
	match->index = 0;
	if (!control_configured() || !is_there(path))
		return;
	if (device_name(dir, path, name)) {
		if (is_device(name, match))
			match->kind = PATH_FILE;
		return;
	}
	if (path[0] != '/')
		return;
	rest = after_process(path, &match->index);
	if (rest != NULL && strcmp(rest, "/status") == 0) {
		match->kind = PATH_STATUS;
	} else if (rest != NULL && is_fail_nth(rest)) {
		match->file = WIRE_FILE_FAIL_NTH;
		if (control_testing(debugfs, sizeof(debugfs)))
			match->kind = PATH_FILE;
	} else if (strncmp(path, DEBUGFS, strlen(DEBUGFS)) == 0) {
		rest = path + strlen(DEBUGFS);
		if ((*rest != '\0' && *rest != '/') || !control_testing(debugfs, sizeof(debugfs)))
			return;
		if ((size_t)snprintf(match->instead, sizeof(match->instead), "%s%s", debugfs, rest) <
		    sizeof(match->instead))
			match->kind = PATH_DEBUGFS;
	}
}

/* One line of the status file, with what the server charges added. */
static void put_line(FILE *to, const char *line, const struct wire_account *account)
{
	uint64_t pages;

	if (strncmp(line, "VmLck:", 6) == 0)
		pages = account->locked;
	else if (strncmp(line, "VmPin:", 6) == 0)
		pages = account->pinned;
	else {
		fputs(line, to);
		return;
	}
	/* On top of what the real kernel has; pages of 4 KiB, told in kilobytes. */
	fprintf(to, "%.6s\t%8llu kB\n", line, strtoull(line + 6, NULL, 10) + (unsigned long long)pages * 4);
}

int open_status(const char *path, uint64_t pid, bool cloexec)
{
	struct wire_account account;
	struct call call = {
		.request = { .op = OP_ACCOUNT, .index = pid },
		.answer = &account,
		.answer_room = sizeof(account),
	};
	char line[1024];
	FILE *from, *to;
	int real, fd;

	if (control_call(&call) < 0 || call.reply.result < 0 || call.reply.bytes != sizeof(account))
		return -1;
	real = raw_open(path, O_RDONLY | O_CLOEXEC, 0);
	if (real < 0)
		return -1;
	fd = memfd_create("status", cloexec ? MFD_CLOEXEC : 0);
	from = fdopen(real, "r");
	to = fd < 0 ? NULL : fdopen(fcntl(fd, F_DUPFD_CLOEXEC, 0), "w");
	if (from != NULL && to != NULL) {
		while (fgets(line, sizeof(line), from) != NULL)
			put_line(to, line, &account);
	} else if (fd >= 0) {
		raw_close(fd);
		fd = -1;
	}
	if (to != NULL)
		fclose(to);
	if (from != NULL)
		fclose(from);
	else
		raw_close(real);
	if (fd >= 0)
		lseek(fd, 0, SEEK_SET);
	return fd;
}
