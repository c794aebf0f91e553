/*
 * The yardstick: the same layout and the same work as the compiled kernel, in C. It loads an image of a
 * machine's linear memory and then runs one round for each line on stdin, so that whoever measures can take
 * turns with it. Every answer is one line of JSON; "ns" is per translation or page, "share" the part of the
 * round's time that this thread had a processor.
 *
 *   slots PORT SID PAGE...             describes a batch: one read of each page
 *   hits PORT BATCHES                  {"ns","share","done"}
 *   walks UNIT CONTEXT IOTLB XLATS N BATCHES FIRST PAGES SEED
 *                                      N requests a batch; random pages of [FIRST, FIRST + PAGES), prepared
 *                                      outside the time, all of them the first N in turn when SEED is 0
 *   frames PA COUNT                    frames for tables
 *   edit TABLE PAGE PFN RUN RUNS       maps RUNS runs of RUN pages, then unmaps them: {"map","unmap",...}
 *   map TABLE PAGE PFN PAGES           maps and leaves it: {"done"}
 *   answers XLATS N                    {"hash"} of the answers in N records
 *
 * usage: baseline IMAGE BYTES RAM_LINEAR RAM_BASE RAM_BYTES
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "memory.h"

u8 *memory;
u64 ram_linear, ram_base, ram_bytes;

#define SEGMENT 64 /* batches prepared at a time */

static u64 now_of(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

struct stopwatch {
  u64 wall, cpu;
};

static void start(struct stopwatch *w) {
  w->wall -= now_of(CLOCK_MONOTONIC);
  w->cpu -= now_of(CLOCK_THREAD_CPUTIME_ID);
}
static void halt(struct stopwatch *w) {
  w->cpu += now_of(CLOCK_THREAD_CPUTIME_ID);
  w->wall += now_of(CLOCK_MONOTONIC);
}
static double share(const struct stopwatch *w) { return w->wall == 0 ? 1 : (double)w->cpu / (double)w->wall; }
static double per(const struct stopwatch *w, u64 n) { return (double)w->wall / (double)n; }

static void ask(u8 *xlat, u64 page, u32 sid) {
  put64(xlat, XLAT_IOVA, page << 12);
  put32(xlat, XLAT_FLAGS, 0);
  put32(xlat, XLAT_SID, sid);
  put32(xlat, XLAT_SSID, NO_SSID);
}

/* xorshift32, as perf/bench/walks.ts has it. */
static u32 next(u32 *state) {
  u32 x = *state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return *state = x;
}

static void hits(u8 *port, u64 batches) {
  struct stopwatch watch = {0, 0};
  u64 done = 0;
  start(&watch);
  for (u64 i = 0; i < batches; i++) {
    done += dma_begin(port, PORT_BATCH_SLOTS);
    dma_end(port);
  }
  halt(&watch);
  printf("{\"ns\":%.4f,\"share\":%.4f,\"done\":%" PRIu64 "}\n", per(&watch, batches * PORT_BATCH_SLOTS),
         share(&watch), done);
}

static void walks(char *rest) {
  u64 unit, context, iotlb, xlats, n, batches, first, pages, seed;
  if (sscanf(rest, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
                   " %" SCNu64,
             &unit, &context, &iotlb, &xlats, &n, &batches, &first, &pages, &seed) != 9) {
    printf("{\"error\":\"walks\"}\n");
    return;
  }
  u32 state = (u32)seed, faults = 0;
  struct stopwatch watch = {0, 0};
  u8 *at = memory + context;
  /* The same pages again and again stay where they are; random ones are written a segment at a time. */
  u64 segment = seed == 0 ? batches : SEGMENT, stride = seed == 0 ? 0 : n * XLAT_BYTES;
  for (u64 done = 0; done < batches; done += segment) {
    u64 some = batches - done < segment ? batches - done : segment;
    for (u64 i = 0; i < (seed == 0 ? n : some * n); i++)
      ask(memory + xlats + i * XLAT_BYTES, first + (seed == 0 ? i % n : next(&state) % pages), 0);
    start(&watch);
    for (u64 batch = 0; batch < some; batch++) {
      /* A new ASID: what the IOTLB has is never the answer. */
      put32(at, CONTEXT_TAG, get32(at, CONTEXT_TAG) + 0x10000);
      u8 *xlat = memory + xlats + batch * stride;
      for (u64 i = 0; i < n; i++, xlat += XLAT_BYTES)
        faults += translate(memory + unit, at, memory + iotlb, xlat) != 0;
    }
    halt(&watch);
  }
  printf("{\"ns\":%.4f,\"share\":%.4f,\"faults\":%u}\n", per(&watch, batches * n), share(&watch), faults);
}

static void edit(u8 *table, u64 page, u64 pfn, u64 run, u64 runs) {
  struct stopwatch map = {0, 0}, unmap = {0, 0};
  u64 mapped = 0, unmapped = 0;
  start(&map);
  for (u64 i = 0; i < runs; i++) mapped += pt_map(table, page + i * run, pfn + i * run, run, 3);
  halt(&map);
  start(&unmap);
  for (u64 i = 0; i < runs; i++) unmapped += pt_unmap(table, page + i * run, run);
  halt(&unmap);
  printf("{\"map\":%.4f,\"unmap\":%.4f,\"share\":%.4f,\"mapped\":%" PRIu64 ",\"unmapped\":%" PRIu64 "}\n",
         per(&map, run * runs), per(&unmap, run * runs), share(&map) < share(&unmap) ? share(&map) : share(&unmap),
         mapped, unmapped);
}

/* FNV-1a over the words of each record's answer. */
static void answers(const u8 *xlat, u64 n) {
  static const u32 fields[] = {XLAT_IOVA, XLAT_IOVA + 4, XLAT_PA,     XLAT_PA + 4,
                               XLAT_IPA,  XLAT_IPA + 4,  XLAT_STATUS, XLAT_SIZE_LG2};
  u32 hash = 0x811c9dc5;
  for (u64 i = 0; i < n; i++, xlat += XLAT_BYTES)
    for (u32 f = 0; f < sizeof fields / sizeof *fields; f++) hash = (hash ^ get32(xlat, fields[f])) * 0x01000193u;
  printf("{\"hash\":%u}\n", hash);
}

/* Only what the image holds is read: the rest of the memory stays untouched, as it is in the machine. */
static int load(const char *path, u64 bytes) {
  int fd = open(path, O_RDONLY);
  if (fd < 0) return -1;
  off_t at = 0;
  for (;;) {
    off_t from = lseek(fd, at, SEEK_DATA);
    if (from < 0) {
      if (errno == ENXIO) break;
      from = at;
    }
    off_t hole = lseek(fd, from, SEEK_HOLE);
    u64 end = hole < 0 ? bytes : (u64)hole;
    while ((u64)from < end && (u64)from < bytes) {
      ssize_t got = pread(fd, memory + from, end - (u64)from, from);
      if (got <= 0) {
        close(fd);
        return got < 0 ? -1 : 0;
      }
      from += got;
    }
    at = from;
    if ((u64)at >= bytes) break;
  }
  close(fd);
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: baseline IMAGE BYTES RAM_LINEAR RAM_BASE RAM_BYTES\n");
    return 2;
  }
  u64 bytes = strtoull(argv[2], NULL, 10);
  ram_linear = strtoull(argv[3], NULL, 10);
  ram_base = strtoull(argv[4], NULL, 10);
  ram_bytes = strtoull(argv[5], NULL, 10);
  memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || load(argv[1], bytes) != 0) {
    perror(argv[1]);
    return 1;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("{\"ready\":true,\"pid\":%d}\n", (int)getpid());
  char line[4096], word[16];
  while (fgets(line, sizeof line, stdin) != NULL) {
    int used = 0;
    u64 a = 0, b = 0, c = 0, d = 0, e = 0;
    if (sscanf(line, "%15s%n", word, &used) != 1) continue;
    char *rest = line + used;
    sscanf(rest, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &a, &b, &c, &d, &e);
    if (strcmp(word, "slots") == 0) {
      u8 *xlat = memory + a + PORT_BATCH;
      char *at = rest;
      strtoull(at, &at, 10);
      strtoull(at, &at, 10);
      for (u32 i = 0; i < PORT_BATCH_SLOTS; i++, xlat += XLAT_BYTES) ask(xlat, strtoull(at, &at, 10), (u32)b);
      printf("{}\n");
    } else if (strcmp(word, "hits") == 0) {
      hits(memory + a, b);
    } else if (strcmp(word, "walks") == 0) {
      walks(rest);
    } else if (strcmp(word, "frames") == 0) {
      frames_init(a, (u32)b);
      printf("{}\n");
    } else if (strcmp(word, "edit") == 0) {
      edit(memory + a, b, c, d, e);
    } else if (strcmp(word, "map") == 0) {
      printf("{\"done\":%" PRIu64 "}\n", pt_map(memory + a, b, c, d, 3));
    } else if (strcmp(word, "answers") == 0) {
      answers(memory + a, b);
    } else {
      printf("{\"error\":\"no such command\"}\n");
    }
  }
  return 0;
}
