/*
 * The caller's memory, read and written by the kernel on our behalf: a pointer that leads nowhere is EFAULT, as it
 * is from a real ioctl, and never a signal. By the thread: a process whose first thread has
 * ended has no memory by its own number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "preload.h"

/* Enough for nearly every struct at once; not the whole page, which would all be copied. */
#define FIRST_BYTES 256u
#define PAGE_BYTES 4096u

int copy_in(void *to, uint64_t from, size_t bytes)
{
	struct iovec local = { to, bytes };
	struct iovec remote = { (void *)(uintptr_t)from, bytes };

	if (bytes == 0)
		return 0;
	if (process_vm_readv(gettid(), &local, 1, &remote, 1, 0) == (ssize_t)bytes)
		return 0;
	if (errno == ENOSYS || errno == EPERM)
		complain("iommufd: process_vm_readv is not allowed here, so no argument can be read");
	errno = EFAULT;
	return -1;
}

int copy_out(uint64_t to, const void *from, size_t bytes)
{
	struct iovec local = { (void *)(uintptr_t)from, bytes };
	struct iovec remote = { (void *)(uintptr_t)to, bytes };

	if (bytes == 0)
		return 0;
	if (process_vm_writev(gettid(), &local, 1, &remote, 1, 0) == (ssize_t)bytes)
		return 0;
	errno = EFAULT;
	return -1;
}

/*
 * What lies past the longest struct that travels: the kernel wants it to be zero, so all zeros are as good as
 * not there. Returns 0 all zero, 1 not, -1 not readable.
 */
static int check_tail(uint64_t from, uint64_t bytes)
{
	uint8_t chunk[PAGE_BYTES];

	while (bytes > 0) {
		uint64_t n = PAGE_BYTES - (from & (PAGE_BYTES - 1));

		if (n > bytes)
			n = bytes;
		if (copy_in(chunk, from, n) < 0)
			return -1;
		for (uint64_t i = 0; i < n; i++)
			if (chunk[i] != 0)
				return 1;
		from += n;
		bytes -= n;
	}
	return 0;
}

size_t copy_struct_in(uint8_t *to, uint64_t from, size_t least)
{
	size_t have = PAGE_BYTES - (from & (PAGE_BYTES - 1));
	uint32_t size;

	if (have > FIRST_BYTES)
		have = FIRST_BYTES;
	if (copy_in(to, from, have) < 0)
		return 0;
	if (have < sizeof(size)) {
		/* The size itself may lie in two pages. */
		if (copy_in(to, from, sizeof(size)) < 0)
			return have;
		have = sizeof(size);
	}
	memcpy(&size, to, sizeof(size));
	if (size < least)
		size = (uint32_t)least;
	if (size <= have)
		return size;
	if (size <= WIRE_MAX_STRUCT)
		return copy_in(to, from, size) < 0 ? have : size;
	if (copy_in(to, from, WIRE_MAX_STRUCT) < 0)
		return have;
	switch (check_tail(from + WIRE_MAX_STRUCT, size - WIRE_MAX_STRUCT)) {
	case 1:
		to[WIRE_MAX_STRUCT - 1] = 1;
		/* fall through */
	case 0:
		size = WIRE_MAX_STRUCT;
		memcpy(to, &size, sizeof(size));
		break;
	default:
		/* Shorter than it says it is: the server answers EFAULT, after what comes before that. */
		break;
	}
	return WIRE_MAX_STRUCT;
}
