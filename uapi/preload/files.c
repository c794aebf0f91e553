/* What a program does to a file of ours: open, ioctl, read, write. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload.h"

/* All of them _IO(';', N). */
#define IOMMU_FAULT_QUEUE_ALLOC 0x3b8eu
#define IOMMU_VEVENTQ_ALLOC 0x3b93u
#define IOMMU_TEST_CMD 0x3ba0u
#define VFIO_GET_API_VERSION 0x3b64u
#define VFIO_CHECK_EXTENSION 0x3b65u
#define VFIO_SET_IOMMU 0x3b66u

/* iommu_test_cmd.op of the two that make an open file. */
#define IOMMU_TEST_OP_CREATE_ACCESS 5u
#define IOMMU_TEST_OP_DMABUF_GET 22u

int file_open(int kind, uint64_t index, int flags)
{
	struct call call = {
		.request = {
			.op = OP_FILE,
			.cmd = (uint32_t)kind,
			.arg = (uint32_t)flags,
			.index = index,
		},
	};
	int fd = control_open(&call, (flags & O_CLOEXEC) != 0);

	if (fd < 0)
		return -1;
	identify_learn(call.request.file, kind);
	if (flags & O_NONBLOCK)
		fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Whether an ioctl gives the program one more descriptor. */
static bool makes_file(unsigned long cmd, const uint8_t *bytes, size_t have)
{
	uint32_t op;

	if (cmd == IOMMU_FAULT_QUEUE_ALLOC || cmd == IOMMU_VEVENTQ_ALLOC)
		return true;
	if (cmd != IOMMU_TEST_CMD || have < 8)
		return false;
	memcpy(&op, bytes + 4, sizeof(op));
	return op == IOMMU_TEST_OP_CREATE_ACCESS || op == IOMMU_TEST_OP_DMABUF_GET;
}

static bool takes_scalar(unsigned long cmd)
{
	return cmd == VFIO_GET_API_VERSION || cmd == VFIO_CHECK_EXTENSION || cmd == VFIO_SET_IOMMU;
}

/*
 * What is read of a struct before its length is looked at: of iommufd's the length itself, of VFIO's as much as the
 * first version of it had, which is no more than this.
 */
static size_t least_bytes(unsigned long cmd)
{
	return (cmd & 0xff) < 0x80 ? 40 : 4;
}

/* Another thread may have closed the descriptor before the server came to the call. */
static int gone_or(int error, int fd, uint64_t ino)
{
	return error == ENODEV && socket_inode(fd) != ino ? EBADF : error;
}

/* Of iommufd's: the *_ALLOC. */
static bool makes_object(unsigned long cmd)
{
	switch (cmd & 0xffff) {
	case 0x3b81:
	case 0x3b89:
	case 0x3b8e:
	case 0x3b90:
	case 0x3b91:
	case 0x3b93:
	case 0x3b94:
		return true;
	default:
		return false;
	}
}

int file_ioctl(int fd, uint64_t ino, unsigned long cmd, uint64_t arg)
{
	uint8_t bytes[WIRE_MAX_STRUCT], answer[WIRE_MAX_STRUCT];
	struct call call = {
		.request = {
			.op = OP_IOCTL,
			.file = ino,
			.fd = fd,
			.cmd = (uint32_t)cmd,
			.arg = arg,
			.spare_fd = -1,
		},
		.payload = bytes,
		.answer = answer,
		.answer_room = sizeof(answer),
	};
	int spare = -1;
	int status;

	if (takes_scalar(cmd)) {
		memcpy(bytes, &arg, sizeof(arg));
		call.request.bytes = sizeof(arg);
	} else {
		call.request.bytes = (uint32_t)copy_struct_in(bytes, arg, least_bytes(cmd));
		/* Known before anything is made that could not be told. What is that long has another size by now. */
		if (makes_object(cmd) && call.request.bytes >= 4 && call.request.bytes < WIRE_MAX_STRUCT &&
		    copy_out(arg, bytes, 4) < 0)
			call.request.flags |= WIRE_READ_ONLY;
	}
	if (makes_file(cmd, bytes, call.request.bytes)) {
		/* Linux makes these close on exec. Without one the server answers EMFILE, in its place. */
		spare = file_open(WIRE_FILE_SPARE, 0, O_CLOEXEC);
		if (spare >= 0) {
			call.request.spare = socket_inode(spare);
			call.request.spare_fd = spare;
		}
	}
	status = control_call(&call);
	if (spare >= 0) {
		if (status == 0 && (call.reply.flags & WIRE_SPARE_USED))
			identify_learn(call.request.spare, WIRE_FILE_OTHER);
		else
			raw_close(spare);
	}
	if (status < 0)
		return -1;
	if (call.reply.bytes > 0 && copy_out(arg + call.reply.at, answer, call.reply.bytes) < 0)
		return -1;
	if (call.reply.result < 0) {
		errno = gone_or(-call.reply.result, fd, ino);
		return -1;
	}
	return call.reply.result;
}

/* Takes the byte away that makes a descriptor readable: the server counts them, one for each time it asks. */
static void drain(int fd)
{
	uint8_t byte;

	(void)!syscall(SYS_recvfrom, fd, &byte, 1, MSG_DONTWAIT, NULL, NULL);
}

ssize_t file_read(int fd, uint64_t ino, uint64_t to, size_t bytes, bool positioned, off_t offset)
{
	size_t room = bytes > WIRE_MAX_PAYLOAD ? WIRE_MAX_PAYLOAD : bytes;
	uint8_t small[WIRE_MAX_STRUCT];
	uint8_t *answer = room <= sizeof(small) ? small : malloc(room);
	struct call call = {
		.request = {
			.op = OP_READ,
			.flags = positioned ? WIRE_POSITIONED : 0,
			.file = ino,
			.fd = fd,
			.arg = bytes,
			/* The server writes an event file's records itself: one that has no room there stays. */
			.index = positioned ? (uint64_t)offset : to,
		},
		.answer = answer,
		.answer_room = room,
	};
	ssize_t result = -1;

	if (answer == NULL)
		return -1;
	if (control_call(&call) == 0) {
		if (call.reply.flags & WIRE_DRAIN)
			drain(fd);
		if (call.reply.result < 0)
			errno = gone_or(-call.reply.result, fd, ino);
		else if (copy_out(to, answer, call.reply.bytes) == 0)
			result = call.reply.result;
	}
	if (answer != small)
		free(answer);
	return result;
}

ssize_t file_write(int fd, uint64_t ino, uint64_t from, size_t bytes, bool positioned, off_t offset)
{
	size_t length = bytes > WIRE_MAX_PAYLOAD ? WIRE_MAX_PAYLOAD : bytes;
	uint8_t small[WIRE_MAX_STRUCT];
	uint8_t *payload = length <= sizeof(small) ? small : malloc(length);
	struct call call = {
		.request = {
			.op = OP_WRITE,
			.flags = positioned ? WIRE_POSITIONED : 0,
			.file = ino,
			.fd = fd,
			.index = (uint64_t)offset,
			.bytes = (uint32_t)length,
		},
		.payload = payload,
	};
	ssize_t result = -1;

	if (payload == NULL)
		return -1;
	if (copy_in(payload, from, length) == 0 && control_call(&call) == 0) {
		if (call.reply.flags & WIRE_DRAIN)
			drain(fd);
		if (call.reply.result < 0)
			errno = gone_or(-call.reply.result, fd, ino);
		else
			result = call.reply.result;
	}
	if (payload != small)
		free(payload);
	return result;
}
