/*
 * Names that stand for something of ours: the device files; where the server is one for tests, also what Linux's
 * fault injection has in /proc and debugfs; and /proc/PID/status, whose VmLck and VmPin the server knows.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

void match_path(const char *path, struct path_match *match)
{
	char debugfs[104];
	const char *rest;

	match->kind = PATH_OTHER;
	if (path == NULL || path[0] != '/' || !control_configured())
		return;
	match->index = 0;
	if (strncmp(path, "/dev/", 5) == 0) {
		match->kind = PATH_FILE;
		if (strcmp(path, "/dev/iommu") == 0) {
			match->file = WIRE_FILE_IOMMUFD;
		} else if (strcmp(path, "/dev/vfio/vfio") == 0) {
			match->file = WIRE_FILE_VFIO_CONTAINER;
		} else if (strncmp(path, "/dev/vfio/devices/vfio", 22) == 0) {
			rest = number(path + 22, &match->index);
			match->file = WIRE_FILE_VFIO_DEVICE;
			if (rest == NULL || *rest != '\0')
				match->kind = PATH_OTHER;
		} else {
			match->kind = PATH_OTHER;
		}
		return;
	}
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
