/*
 * A C program as a client of a server: what its calls take. Waits for a line, does one round and answers with a line.
 *
 *   ioctl N   N times IOMMU_OPTION, which reads and writes one value
 *   map BYTES SHIFT N   maps and unmaps N times, at an IOVA that is off by SHIFT pages, so that large IO pages
 *                       form only with 0; then copies 64 bytes for each page, as often
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define IOC(n) (0x3b00 | (n))
#define PAGE 4096UL
#define MAX_BYTES (1UL << 30)
#define METADATA 64

struct option { uint32_t size, option_id; uint16_t op, reserved; uint32_t object_id; uint64_t val64; };
struct ioas_alloc { uint32_t size, flags, out_id; };
struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct attach { uint32_t argsz, flags, pt_id; };
struct map { uint32_t size, flags, ioas_id, reserved; uint64_t user_va, length, iova; };
struct unmap { uint32_t size, ioas_id; uint64_t iova, length; };

static int fd;
static uint32_t ioas;

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static void set_up(void)
{
	struct ioas_alloc alloc = { .size = sizeof(alloc) };
	struct bind bind = { .argsz = sizeof(bind) };
	struct attach attach = { .argsz = sizeof(attach) };
	int vfio;

	fd = open("/dev/iommu", O_RDWR);
	must(fd >= 0, "/dev/iommu");
	must(ioctl(fd, IOC(0x81), &alloc) == 0, "IOAS_ALLOC");
	ioas = alloc.out_id;
	vfio = open("/dev/vfio/devices/vfio0", O_RDWR);
	must(vfio >= 0, "vfio0");
	bind.iommufd = fd;
	must(ioctl(vfio, IOC(118), &bind) == 0, "BIND");
	attach.pt_id = ioas;
	must(ioctl(vfio, IOC(119), &attach) == 0, "ATTACH");
}

static double ioctls(long n)
{
	double began = now_ns();

	for (long i = 0; i < n; i++) {
		struct option get = { .size = sizeof(get), .op = 1, .val64 = ~0ULL };

		must(ioctl(fd, IOC(0x87), &get) == 0 && get.val64 == 0, "OPTION");
	}
	return (now_ns() - began) / n;
}

static double maps(unsigned long bytes, unsigned long shift, long n, char *memory)
{
	uint64_t iova = MAX_BYTES * 4 + shift * PAGE;
	double ns = 0;

	for (long i = 0; i < n; i++) {
		struct map map = { .size = sizeof(map), .flags = 7, .ioas_id = ioas, .user_va = (uintptr_t)memory,
				   .length = bytes, .iova = iova };
		struct unmap unmap = { .size = sizeof(unmap), .ioas_id = ioas, .iova = iova, .length = bytes };
		double began = now_ns();

		must(ioctl(fd, IOC(0x85), &map) == 0, "MAP");
		ns += now_ns() - began;
		must(ioctl(fd, IOC(0x86), &unmap) == 0, "UNMAP");
	}
	return ns / n / (bytes / PAGE);
}

static double copies(unsigned long pages, long n, char *to, const char *from)
{
	double began = now_ns();

	for (long i = 0; i < n; i++) {
		for (unsigned long page = 0; page < pages; page++)
			memcpy(to + page * METADATA, from + page * METADATA, METADATA);
		__asm__ volatile("" ::"r"(to), "r"(from) : "memory");
	}
	return (now_ns() - began) / n / pages;
}

int main(void)
{
	char line[64];
	unsigned long bytes, shift;
	long n;
	char *memory = mmap(NULL, 2 * MAX_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *from = malloc(MAX_BYTES / PAGE * METADATA), *to = malloc(MAX_BYTES / PAGE * METADATA);

	must(memory != MAP_FAILED && from != NULL && to != NULL, "memory");
	/* Aligned as a guest's RAM is. */
	memory += MAX_BYTES - (uintptr_t)memory % MAX_BYTES;
	memset(from, 1, MAX_BYTES / PAGE * METADATA);
	memset(to, 1, MAX_BYTES / PAGE * METADATA);
	set_up();
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (sscanf(line, "ioctl %ld", &n) == 1) {
			printf("{\"ns\":%.1f}\n", ioctls(n));
		} else if (sscanf(line, "map %lu %lu %ld", &bytes, &shift, &n) == 3 && bytes <= MAX_BYTES) {
			double map = maps(bytes, shift, n, memory);

			printf("{\"ns\":%.3f,\"copy\":%.3f}\n", map, copies(bytes / PAGE, n, to, from));
		}
		fflush(stdout);
	}
	return 0;
}
