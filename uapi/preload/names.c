/*
 * Hooks of the functions that ask about a name: whether a device file is there, and what it is. It is there when it
 * can be opened; a program that looks before it opens sees a character device of its own user.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "preload.h"

#define NO_NAME_OF_OURS 1
/* What the kernel calls MISC_MAJOR, VFIO_MINOR, and the first minor and major that it gives to whoever asks. */
#define MISC_MAJOR 10
#define VFIO_MINOR 196
#define IOMMU_MINOR 127
#define VFIO_MAJOR 511

/* Looks a device file up. Returns 0, -1 with errno, or NO_NAME_OF_OURS: the real thing, by *path. */
static int look_up(int dir, const char **path, struct path_match *match)
{
	int before = errno;
	int fd;

	match_path(dir, *path, match);
	if (match->kind == PATH_DEBUGFS)
		*path = match->instead;
	if (match->kind != PATH_FILE || match->file == WIRE_FILE_FAIL_NTH)
		return NO_NAME_OF_OURS;
	fd = file_open(match->file, match->index, O_RDWR | O_CLOEXEC);
	/* No more of them are to be had, and it is there. */
	if (fd < 0 && errno != EMFILE && errno != ENFILE)
		return -1;
	if (fd >= 0)
		close(fd);
	errno = before;
	return 0;
}

static int may(int found, int mode)
{
	if (found == 0 && (mode & X_OK) != 0) {
		errno = EACCES;
		return -1;
	}
	return found;
}

#define ACCESS_HOOK(name) \
	HOOK int name(const char *path, int mode) \
	{ \
		struct path_match match; \
		int found = look_up(AT_FDCWD, &path, &match); \
		return found == NO_NAME_OF_OURS ? NEXT(name)(path, mode) : may(found, mode); \
	}

ACCESS_HOOK(access)
ACCESS_HOOK(eaccess)
ACCESS_HOOK(euidaccess)

HOOK int faccessat(int dir, const char *path, int mode, int flags)
{
	struct path_match match;
	int found = look_up(dir, &path, &match);

	return found == NO_NAME_OF_OURS ? NEXT(faccessat)(dir, path, mode, flags) : may(found, mode);
}

static dev_t device_of(const struct path_match *match)
{
	if (match->file == WIRE_FILE_VFIO_DEVICE)
		return makedev(VFIO_MAJOR, (unsigned int)match->index);
	return makedev(MISC_MAJOR, match->file == WIRE_FILE_VFIO_CONTAINER ? VFIO_MINOR : IOMMU_MINOR);
}

static ino_t inode_of(const struct path_match *match)
{
	return ((ino_t)match->file << 32) + match->index + 1;
}

/* On 64-bit systems stat64 is the same struct. */
static void fill(struct stat *st, const struct path_match *match)
{
	memset(st, 0, sizeof(*st));
	st->st_mode = S_IFCHR | S_IRUSR | S_IWUSR;
	st->st_ino = inode_of(match);
	st->st_nlink = 1;
	st->st_uid = geteuid();
	st->st_gid = getegid();
	st->st_rdev = device_of(match);
	st->st_blksize = 4096;
}

#define STAT_HOOK(name, type) \
	HOOK int name(const char *path, struct type *st) \
	{ \
		struct path_match match; \
		int found = look_up(AT_FDCWD, &path, &match); \
		if (found == NO_NAME_OF_OURS) \
			return NEXT(name)(path, st); \
		if (found == 0) \
			fill((struct stat *)st, &match); \
		return found; \
	}

#define FSTATAT_HOOK(name, type) \
	HOOK int name(int dir, const char *path, struct type *st, int flags) \
	{ \
		struct path_match match; \
		int found = look_up(dir, &path, &match); \
		if (found == NO_NAME_OF_OURS) \
			return NEXT(name)(dir, path, st, flags); \
		if (found == 0) \
			fill((struct stat *)st, &match); \
		return found; \
	}

STAT_HOOK(stat, stat)
STAT_HOOK(lstat, stat)
FSTATAT_HOOK(fstatat, stat)
#ifdef __GLIBC__
_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "stat64 is stat");
STAT_HOOK(stat64, stat64)
STAT_HOOK(lstat64, stat64)
FSTATAT_HOOK(fstatat64, stat64)
#endif

#ifdef STATX_BASIC_STATS
HOOK int statx(int dir, const char *path, int flags, unsigned int mask, struct statx *st)
{
	struct path_match match;
	int found = look_up(dir, &path, &match);
	dev_t device;

	if (found == NO_NAME_OF_OURS)
		return NEXT(statx)(dir, path, flags, mask, st);
	if (found < 0)
		return found;
	device = device_of(&match);
	memset(st, 0, sizeof(*st));
	st->stx_mask = STATX_BASIC_STATS;
	st->stx_mode = S_IFCHR | S_IRUSR | S_IWUSR;
	st->stx_ino = inode_of(&match);
	st->stx_nlink = 1;
	st->stx_uid = geteuid();
	st->stx_gid = getegid();
	st->stx_rdev_major = major(device);
	st->stx_rdev_minor = minor(device);
	st->stx_blksize = 4096;
	return 0;
}
#endif
