/* What the parts of the preload library share. */
#ifndef IOMMUFD_PRELOAD_H
#define IOMMUFD_PRELOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

#if !defined(__LP64__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "64-bit little-endian only"
#endif

/* The library's functions are its own; only the hooks are seen from outside. */
#define HOOK __attribute__((visibility("default")))

/* control.c: requests and connections. */

/* One request and where its answer goes. */
struct call {
	struct wire_request request;
	const void *payload;
	struct wire_reply reply;
	void *answer; /* room for the reply's payload */
	size_t answer_room;
};

/* Sends a request and waits for the answer. Returns 0, or -1 with errno when the server cannot be asked. */
int control_call(struct call *call);
/* Whether a server is configured at all (IOMMUFD_SOCKET). */
bool control_configured(void);
/* Whether a descriptor is one of the library's own connections. */
bool control_owns(int fd);
/* The lowest of the library's own descriptors that is not below `from`, or -1. */
int control_next(unsigned int from);
/* What this process knows of the server's testing mode; connects when it does not know yet. */
bool control_testing(char *debugfs, size_t room);
/*
 * Opens a file connection and says `request` on it. Returns the descriptor, or -1 with errno; reply and answer
 * are filled as by control_call.
 */
int control_open(struct call *call, bool cloexec);
/* Moves a descriptor out of the way of the program's own numbers, closed on exec. Returns the new one, or fd. */
int control_hide(int fd);
/*
 * Waits until what was closed before has taken effect. if_known: only if the server knows this process; a child
 * that cleans up before it becomes another program need not introduce itself.
 */
void control_barrier(bool if_known);

/* identify.c: which descriptors are ours. */

#define NOT_OURS (-1)

/* The WIRE_FILE_* of a descriptor, or NOT_OURS. ino is set when it is ours. Keeps errno. */
int identify(int fd, uint64_t *ino);
void identify_learn(uint64_t ino, int kind);
/* The inode number of a socket, or 0 for anything else. Keeps errno. */
uint64_t socket_inode(int fd);
const char *server_path(void);

/* user-memory.c: the caller's memory, through the kernel: a bad pointer is EFAULT, not a crash. */

int copy_in(void *to, uint64_t from, size_t bytes);
int copy_out(uint64_t to, const void *from, size_t bytes);
/*
 * As much of a struct as its first word says, WIRE_MAX_STRUCT at most, and `least` whatever it says. Returns the
 * bytes there are.
 */
size_t copy_struct_in(uint8_t *to, uint64_t from, size_t least);

/* files.c: what is done to a file of ours. Each returns as the system call does. */

int file_open(int kind, uint64_t index, int flags);
int file_ioctl(int fd, uint64_t ino, unsigned long cmd, uint64_t arg);
ssize_t file_read(int fd, uint64_t ino, uint64_t to, size_t bytes, bool positioned, off_t offset);
ssize_t file_write(int fd, uint64_t ino, uint64_t from, size_t bytes, bool positioned, off_t offset);

/* maps.c */

void *map_file(int fd, uint64_t ino, void *addr, size_t bytes, int prot, int flags, off_t offset);
/* Some addresses are mapped anew or no longer: what lay there of ours is let go. */
void maps_forget(const void *addr, size_t bytes);

/* paths.c: names that stand for something of ours. */

enum path_kind { PATH_OTHER, PATH_FILE, PATH_STATUS, PATH_DEBUGFS };

struct path_match {
	enum path_kind kind;
	int file; /* WIRE_FILE_* */
	uint64_t index; /* N of vfioN, or a pid */
	char instead[256]; /* the path to use in its place */
};

/* dir: of openat, or AT_FDCWD. */
void match_path(int dir, const char *path, struct path_match *match);
/* /proc/PID/status as a file of its own, with the server's figures. Returns a descriptor, or -1: take the real one. */
int open_status(const char *path, uint64_t pid, bool cloexec);

/* next.c: the functions we stand in front of, and the system calls below everything. */

void *next_symbol(const char *name);
#define NEXT(name) ({ \
	static __typeof__(&name) next; \
	if (next == NULL) \
		next = (__typeof__(&name))next_symbol(#name); \
	next; \
})
int raw_close(int fd);
int raw_open(const char *path, int flags, mode_t mode);
ssize_t raw_read(int fd, void *to, size_t bytes);
ssize_t raw_write(int fd, const void *from, size_t bytes);
/* One line on stderr, once. */
void complain(const char *what);

#endif
