/*
 * What the preload library and the server say to each other, over Unix stream sockets. The server's twin is
 * runtime/serve/wire.ts; test/runtime/serve/wire.test.ts compares the two.
 *
 * Two kinds of connection, told apart by their first message:
 *
 *   control  HELLO, PROOF, then requests, each answered before the next. One per thread that is in a call.
 *   file     FILE or MAP. Its client end *is* the descriptor that the program holds, so dup, fork, exec,
 *            SCM_RIGHTS and the last close are the kernel's. It then carries nothing but bytes from the server
 *            that make it readable, none of which say anything.
 *
 * A file is named by the inode number of its client end, which every copy of the descriptor shares.
 * All numbers are little-endian; payloads follow their header.
 */
#ifndef IOMMUFD_WIRE_H
#define IOMMUFD_WIRE_H

#include <stdint.h>

#define WIRE_MAGIC 0x64666d69u /* "imfd" */
#ifndef WIRE_VERSION
#error "the build defines WIRE_VERSION from what the library is made of: only the same speak with each other"
#endif

/* Longest payload of either direction, bytes. */
#define WIRE_MAX_PAYLOAD 65536u
/* As much of an ioctl's struct as travels, bytes. */
#define WIRE_MAX_STRUCT 4096u

enum wire_op {
	OP_HELLO = 1, /* payload wire_hello; reply wire_challenge */
	OP_PROOF, /* the nonce stands at proof_va; reply wire_welcome */
	OP_FILE, /* cmd: WIRE_FILE_*, arg: open flags, index: N of vfioN, file: inode, payload: secret */
	OP_MAP, /* file, arg: offset, index: bytes, cmd: WIRE_MAP_*, payload: secret; reply: the path to map */
	OP_IOCTL, /* file, cmd, arg, payload: the struct, or 8 bytes of a scalar argument */
	OP_READ, /* file, arg: most bytes, index: offset if WIRE_POSITIONED, else where to; reply: what is not there yet */
	OP_WRITE, /* file, index: offset if WIRE_POSITIONED, payload */
	OP_IDENTIFY, /* file; result: WIRE_FILE_* or -ENOENT */
	OP_BARRIER, /* answered when every close before it has taken effect */
	OP_ACCOUNT, /* index: pid; reply wire_account, or -ESRCH */
};

enum wire_file {
	WIRE_FILE_SPARE = 0, /* nothing yet: an ioctl may make it something */
	WIRE_FILE_IOMMUFD,
	WIRE_FILE_VFIO_CONTAINER,
	WIRE_FILE_VFIO_DEVICE,
	WIRE_FILE_FAIL_NTH,
	WIRE_FILE_OTHER, /* in answers: something that an ioctl made */
};

/* Of OP_MAP's cmd. */
#define WIRE_MAP_WRITE (1u << 0)
#define WIRE_MAP_EXEC (1u << 1)
#define WIRE_MAP_SHARED (1u << 2)

/* Of a request's flags: pread and pwrite rather than read and write. */
#define WIRE_POSITIONED (1u << 0)
/* Of an ioctl: its struct can be read and not written, so that Linux could not answer. */
#define WIRE_READ_ONLY (1u << 1)

struct wire_request {
	uint32_t bytes; /* of the payload */
	uint16_t op;
	uint16_t flags;
	uint64_t file;
	uint64_t arg;
	uint64_t index;
	uint32_t cmd;
	int32_t fd; /* the descriptor as the program named it */
	uint64_t spare; /* inode of a file connection that an ioctl may turn into an open file, or 0 */
	int32_t spare_fd;
	uint32_t reserved;
};
_Static_assert(sizeof(struct wire_request) == 56, "wire_request");

/* Of a reply's flags. */
#define WIRE_SPARE_USED (1u << 0) /* the spare is an open file now */
#define WIRE_DRAIN (1u << 1) /* take one byte out of the file connection: it is not readable any more */

struct wire_reply {
	uint32_t bytes; /* of the payload */
	int32_t result; /* >= 0 or -errno */
	uint32_t flags;
	uint32_t at; /* where in the caller's struct the payload goes */
};
_Static_assert(sizeof(struct wire_reply) == 16, "wire_reply");

struct wire_hello {
	uint32_t magic;
	uint32_t version;
	uint32_t pid;
	uint32_t reserved;
	uint64_t proof_va; /* 32 bytes of the client's memory */
};
_Static_assert(sizeof(struct wire_hello) == 24, "wire_hello");

struct wire_challenge {
	uint8_t nonce[32];
	uint32_t server_pid;
	uint32_t reserved;
};
_Static_assert(sizeof(struct wire_challenge) == 40, "wire_challenge");

/* Of a welcome's flags: what Linux's fault injection has is served too. */
#define WIRE_TESTING (1u << 0)

struct wire_welcome {
	uint8_t secret[16]; /* what a file connection shows to be this process's */
	uint32_t flags;
	uint32_t reserved;
	char debugfs[104]; /* what stands in for /sys/kernel/debug, or "" */
};
_Static_assert(sizeof(struct wire_welcome) == 128, "wire_welcome");

/* Pages. */
struct wire_account {
	uint64_t pinned;
	uint64_t locked;
};

#endif
