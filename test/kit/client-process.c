/*
 * A process whose memory the tests look into. It does what its standard input says, a line at a time, and answers
 * each line with one line:
 *
 *   anon BYTES            private anonymous memory                      -> address
 *   shared BYTES          shared anonymous memory                       -> address
 *   huge BYTES            private huge pages of 2 MiB                   -> address, or 0 where there are none
 *   memfd BYTES           a memfd                                       -> descriptor
 *   hugefd BYTES          one of huge pages of 2 MiB                    -> descriptor
 *   file PATH BYTES       a file of that size, opened for both          -> descriptor
 *   open PATH             an existing file, opened for both             -> descriptor
 *   map FD BYTES OFFSET   of a descriptor, shared                       -> address
 *   private FD BYTES      of a descriptor, private                      -> address
 *   protect ADDR BYTES P  P: 0 none, 1 read, 2 write, 3 both            -> 0
 *   unmap ADDR BYTES      -> 0
 *   close FD              -> 0
 *   fill ADDR BYTES V     memset                                        -> 0
 *   peek ADDR             one byte                                      -> its value
 *   truncate FD BYTES     -> 0
 *   vvar                  the mapping of the kernel's variables         -> address, or 0
 *   memlock BYTES         the soft RLIMIT_MEMLOCK                       -> 0
 *   socket                one end of a socket pair                      -> descriptor
 *   fork                  a child takes over until its `exit`           -> the child's pid; at its exit: 0
 *   exec PATH             becomes that program, without arguments
 *   exit
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long mapped(void *at)
{
	return at == MAP_FAILED ? 0 : (unsigned long)at;
}

static unsigned long vvar(void)
{
	char line[512];
	unsigned long at = 0;
	FILE *maps = fopen("/proc/self/maps", "r");

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "[vvar]"))
			at = strtoul(line, NULL, 16);
	if (maps)
		fclose(maps);
	return at;
}

int main(void)
{
	const int both = PROT_READ | PROT_WRITE;
	char line[4096], word[32], path[3072];
	unsigned long a, b, c;
	int depth = 0;

	setvbuf(stdin, NULL, _IONBF, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		long out = -1;

		a = b = c = 0;
		path[0] = 0;
		if (sscanf(line, "%31s /%3070s %lu", word, path + 1, &b) >= 2)
			path[0] = '/';
		else
			sscanf(line, "%31s %li %li %li", word, (long *)&a, (long *)&b, (long *)&c);
		if (!strcmp(word, "anon"))
			out = mapped(mmap(NULL, a, both, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		else if (!strcmp(word, "shared"))
			out = mapped(mmap(NULL, a, both, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
		else if (!strcmp(word, "huge"))
			out = mapped(mmap(NULL, a, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
		else if (!strcmp(word, "memfd")) {
			out = memfd_create("test", 0);
			if (ftruncate(out, a))
				out = -1;
		} else if (!strcmp(word, "hugefd")) {
			out = memfd_create("huge", MFD_HUGETLB);
			if (ftruncate(out, a))
				out = -1;
		} else if (!strcmp(word, "file")) {
			out = open(path, O_RDWR | O_CREAT, 0600);
			if (ftruncate(out, b))
				out = -1;
		} else if (!strcmp(word, "open"))
			out = open(path, O_RDWR);
		else if (!strcmp(word, "map"))
			out = mapped(mmap(NULL, b, both, MAP_SHARED, a, c));
		else if (!strcmp(word, "private"))
			out = mapped(mmap(NULL, b, both, MAP_PRIVATE, a, 0));
		else if (!strcmp(word, "protect"))
			out = mprotect((void *)a, b, c);
		else if (!strcmp(word, "unmap"))
			out = munmap((void *)a, b);
		else if (!strcmp(word, "close"))
			out = close(a);
		else if (!strcmp(word, "fill"))
			out = memset((void *)a, c, b) ? 0 : -1;
		else if (!strcmp(word, "peek"))
			out = *(volatile uint8_t *)a;
		else if (!strcmp(word, "truncate"))
			out = ftruncate(a, b);
		else if (!strcmp(word, "vvar"))
			out = vvar();
		else if (!strcmp(word, "memlock")) {
			struct rlimit limit = {};

			getrlimit(RLIMIT_MEMLOCK, &limit);
			limit.rlim_cur = a;
			if (limit.rlim_max < a)
				limit.rlim_max = a;
			out = setrlimit(RLIMIT_MEMLOCK, &limit);
		} else if (!strcmp(word, "socket")) {
			int pair[2];

			out = socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ? -1 : pair[0];
		} else if (!strcmp(word, "fork")) {
			pid_t child = fork();

			if (child) {
				waitpid(child, NULL, 0);
				out = 0;
			} else {
				depth++;
				out = getpid();
			}
		} else if (!strcmp(word, "exec")) {
			execl(path, path, (char *)NULL);
		} else if (!strcmp(word, "exit"))
			return 0;
		printf("%ld\n", out);
	}
	return depth;
}
