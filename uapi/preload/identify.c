/*
 * Which descriptors are ours: by the inode of the socket behind a descriptor, which dup, fork, exec and SCM_RIGHTS
 * all keep. A small cache remembers sockets by inode; one that is not in it is ours when its other end is the
 * server, and the server says what it is. Inode numbers of sockets are 32 bits and handed out in turn.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "preload.h"

#define ENTRIES 1024u
#define ENTRY_NOT_OURS 0xffu

/* inode << 8 | kind, one word, so that any thread and any child may read and replace one. */
static uint64_t entries[ENTRIES];

uint64_t socket_inode(int fd)
{
	int saved = errno;
	struct stat st;
	int status = fstat(fd, &st);

	errno = saved;
	return status == 0 && S_ISSOCK(st.st_mode) ? st.st_ino : 0;
}

/* Whether a socket's other end is the server: 1, 0, or -1 when it has none yet and may get one. */
static int peer_is_server(int fd)
{
	int saved = errno;
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	int status = getpeername(fd, (struct sockaddr *)&addr, &len);

	errno = saved;
	if (status < 0)
		return -1;
	if (len <= offsetof(struct sockaddr_un, sun_path) || addr.sun_family != AF_UNIX)
		return 0;
	return strncmp(addr.sun_path, server_path(), sizeof(addr.sun_path)) == 0;
}

void identify_learn(uint64_t ino, int kind)
{
	uint64_t entry = ino << 8 | (kind < 0 ? ENTRY_NOT_OURS : (uint64_t)kind);

	__atomic_store_n(&entries[ino % ENTRIES], entry, __ATOMIC_RELAXED);
}

static int ask(uint64_t ino)
{
	struct call call = { .request = { .op = OP_IDENTIFY, .file = ino } };

	if (control_call(&call) < 0)
		return NOT_OURS;
	/* A connection whose file is gone, as after the server ended this client. */
	return call.reply.result < 0 ? WIRE_FILE_OTHER : call.reply.result;
}

int identify(int fd, uint64_t *ino)
{
	int saved = errno;
	uint64_t entry;
	int kind;

	if (!control_configured())
		return NOT_OURS;
	*ino = socket_inode(fd);
	if (*ino == 0)
		return NOT_OURS;
	entry = __atomic_load_n(&entries[*ino % ENTRIES], __ATOMIC_RELAXED);
	if (entry >> 8 == *ino)
		return (entry & 0xff) == ENTRY_NOT_OURS ? NOT_OURS : (int)(entry & 0xff);
	switch (peer_is_server(fd)) {
	case -1:
		return NOT_OURS;
	case 0:
		identify_learn(*ino, NOT_OURS);
		return NOT_OURS;
	}
	kind = control_owns(fd) ? NOT_OURS : ask(*ino);
	if (kind != NOT_OURS)
		identify_learn(*ino, kind);
	errno = saved;
	return kind;
}
