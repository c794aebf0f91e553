/** A C program as a VMM and its guest: a command queue in its own memory, whose registers it has mapped. */
import test from 'ava';
import { CClients, canCompile } from '../../kit/c-client.js';

const FUNCTIONS = `
struct hwpt_alloc { uint32_t size, flags, dev_id, pt_id, out_id, res, type, len; uint64_t data; uint32_t fault, res2; };
struct map { uint32_t size, flags, ioas, res; uint64_t va, length, iova; };
struct viommu_alloc { uint32_t size, flags, type, dev_id, hwpt_id, out_id, len, res; uint64_t data; };
struct vevent_alloc { uint32_t size, flags, viommu, type, depth, out_id, out_fd, res; };
struct queue_alloc { uint32_t size, flags, viommu, type, index, out_id; uint64_t iova, length; };
static int until(volatile uint32_t *word, uint32_t mask, uint32_t value)
{
	for (int i = 0; i < 5000; i++) {
		if ((__atomic_load_n(word, __ATOMIC_SEQ_CST) & mask) == value)
			return 1;
		usleep(1000);
	}
	return 0;
}
static void put(volatile uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
`;

const BODY = String.raw`
	uint32_t ioas_id, devid;
	int fd = dev_iommu(), vfio = open("/dev/vfio/devices/vfio0", O_RDWR);
	ioas(fd, &ioas_id);
	printf("bind %s\n", err(bind_to(vfio, fd, &devid)));
	struct hwpt_alloc hwpt = { .size = sizeof(hwpt), .flags = 1, .dev_id = devid, .pt_id = ioas_id };
	printf("parent %s\n", err(ioctl(fd, IOC(0x89), &hwpt)));
	uint64_t *ram = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct map map = { .size = sizeof(map), .flags = 7, .ioas = ioas_id, .va = (uintptr_t)ram, .length = 65536,
			   .iova = 0x40000000 };
	printf("map %s\n", err(ioctl(fd, IOC(0x85), &map)));
	uint64_t out[2] = { 0, 0 };
	struct viommu_alloc viommu = { .size = sizeof(viommu), .type = 2, .dev_id = devid, .hwpt_id = hwpt.out_id,
				       .len = sizeof(out), .data = (uintptr_t)out };
	printf("viommu %s", err(ioctl(fd, IOC(0x90), &viommu)));
	printf(" %llx %llx\n", (long long)out[0], (long long)out[1]);
	struct vevent_alloc events = { .size = sizeof(events), .viommu = viommu.out_id, .type = 2, .depth = 4 };
	printf("veventq %s\n", err(ioctl(fd, IOC(0x93), &events)));
	struct queue_alloc queue = { .size = sizeof(queue), .viommu = viommu.out_id, .type = 1, .iova = 0x40000000,
				     .length = 256 };
	printf("queue %s\n", err(ioctl(fd, IOC(0x94), &queue)));
	printf("private %s\n", mmap(NULL, out[1], 3, MAP_PRIVATE, fd, out[0]) == MAP_FAILED ? err(-1) : "OK");
	printf("part %s\n", mmap(NULL, 4096, 3, MAP_SHARED, fd, out[0]) == MAP_FAILED ? err(-1) : "OK");
	volatile uint32_t *page = mmap(NULL, out[1], PROT_READ | PROT_WRITE, MAP_SHARED, fd, out[0]);
	printf("page %s\n", page == MAP_FAILED ? err(-1) : "OK");
	put(&page[2], 1);
	printf("enabled %d\n", until(&page[3], 1, 1));
	ram[0] = 0x11 | 7ull << 48; /* TLBI_NH_ASID */
	ram[2] = 0x46;
	put(&page[1], 2);
	printf("consumed %d\n", until(&page[0], 0x1f, 2));
	ram[4] = 0x30; /* TLBI_NSNH_ALL, which a guest may not */
	ram[6] = 0x46;
	put(&page[1], 4);
	printf("error %d", until(&page[4], 1, 1));
	printf(" at %x\n", page[0]);
	struct { uint32_t flags, sequence; uint64_t map[2]; } event = { .flags = 9 };
	struct pollfd p = { .fd = (int)events.out_fd, .events = POLLIN };
	printf("told %d", poll(&p, 1, 5000));
	printf(" %zd", read(p.fd, &event, sizeof(event)));
	printf(" %u %u %llx\n", event.flags, event.sequence, (long long)event.map[0]);
	ram[4] = 0x46;
	put(&page[5], page[4]);
	printf("goes on %d\n", until(&page[0], 0x7f00001f, 4));
	printf("unmap of the queue %s\n", err(destroy(fd, queue.out_id)) );
	munmap((void *)page, out[1]);
	printf("viommu in use %s\n", err(destroy(fd, viommu.out_id)));
	close(p.fd);
	printf("veventq %s\n", err(destroy(fd, events.out_id)));
	printf("viommu %s\n", err(destroy(fd, viommu.out_id)));
`;

test('vcmdq: a C program drives a queue in its own memory through the page that it has mapped', async (t) => {
  if (!canCompile(t)) return;
  // As `iommufd serve` does: what is stored to a mapped page is looked for, as nobody tells of it.
  let timer: NodeJS.Timeout | undefined;
  const onMapped = (mapped: boolean) => {
    clearInterval(timer);
    if (mapped) timer = setInterval(() => clients.served.poll(), 1);
  };
  t.teardown(() => clearInterval(timer));
  const clients = await CClients.start(t, { onMapped }, { cmdqv: true });
  const { stdout, stderr } = await clients.run(BODY, FUNCTIONS);
  t.is(stderr, '');
  t.deepEqual(stdout.trim().split('\n'), [
    'bind OK',
    'parent OK',
    'map OK',
    'viommu OK 1000 10000',
    'veventq OK',
    'queue OK',
    'private EINVAL',
    'part ENXIO',
    'page OK',
    'enabled 1',
    'consumed 1',
    'error 1 at 1000002',
    'told 1 24 0 0 1',
    'goes on 1',
    'unmap of the queue OK',
    'viommu in use EBUSY',
    'veventq OK',
    'viommu OK',
  ]);
});
