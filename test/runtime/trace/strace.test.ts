/** What strace 6.1 wrote of real calls, in all its manners. */
import test from 'ava';
import { formatCall, formatJson } from '../../../runtime/trace/format.js';
import { parseCall } from '../../../runtime/trace/parse.js';
import { type TraceItem, TraceReader } from '../../../runtime/trace/strace.js';
import { formatTransfer, formatTransferJson } from '../../../runtime/trace/transfer.js';

function read(...lines: string[]): TraceItem[] {
  const reader = new TraceReader();
  return [...lines.flatMap((line) => reader.push(line)), ...reader.end()];
}
const shown = (items: TraceItem[]): string[] =>
  items.map((item) => {
    if (item.kind === 'call') return formatCall(item.call);
    if (item.kind === 'transfer') return formatTransfer(item.transfer);
    return item.kind === 'text' ? item.text : `${item.line}: ${item.problem}`;
  });

const NOT_THERE = '/* the bytes are not in the trace */';
/** strace's line, and what it comes to. */
const LINES: [string, string][] = [
  [
    'ioctl(3, _IOC(_IOC_NONE, 0x3b, 0x81, 0), 0x7ffca0db0e1c) = -1 ENOTTY (Inappropriate ioctl for device)',
    `ioctl(3, IOMMU_IOAS_ALLOC, 0x7ffca0db0e1c ${NOT_THERE}) = -1 ENOTTY`,
  ],
  ['ioctl(3, _IOC(_IOC_NONE, 0x3b, 0x85, 0), 0) = 0', 'ioctl(3, IOMMU_IOAS_MAP, 0x0) = 0'],
  ['ioctl(3, VFIO_GET_API_VERSION, 0)       = 0', 'ioctl(3, VFIO_GET_API_VERSION, 0x0) = 0'],
  ['ioctl(3, VFIO_CHECK_EXTENSION, 0x3)     = 1', 'ioctl(3, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) = 1'],
  ['ioctl(3, VFIO_SET_IOMMU, 0x1)           = 0', 'ioctl(3, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU) = 0'],
  [
    'ioctl(3, VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA, 0x557388aa7060) = 0',
    `ioctl(3, VFIO_IOMMU_MAP_DMA, 0x557388aa7060 ${NOT_THERE}) = 0`,
  ],
  [
    'ioctl(3, VFIO_DEVICE_FEATURE or VFIO_IOMMU_DIRTY_PAGES or VFIO_IOMMU_SPAPR_REGISTER_MEMORY, 0x557388aa7060) = 0',
    `ioctl(3, VFIO_IOMMU_DIRTY_PAGES, 0x557388aa7060 ${NOT_THERE}) = 0`,
  ],
  [
    'ioctl(3, VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY, 0x557388aa7060) = 0',
    `ioctl(3, VFIO_DEVICE_BIND_IOMMUFD, 0x557388aa7060 ${NOT_THERE}) = 0`,
  ],
  [
    'ioctl(3, _IOC(_IOC_READ|_IOC_WRITE, 0x3b, 0x85, 0x28), 0x557388aa7060) = -1 ENOTTY (Inappropriate ioctl for device)',
    'ioctl(3, 0xc0283b85, 0x557388aa7060) = -1 ENOTTY',
  ],
  ['ioctl(3, _IOC(_IOC_NONE, 0x3b, 0x95, 0), 0x1) = ?', 'ioctl(3, 0x3b95, 0x1) = ?'],
  // -X raw, -t, -y, -f
  [
    '[pid 11768] 23:58:46 ioctl(3</dev/null>, 0x3b84, 0x561db8582060) = -1 EAGAIN (Resource temporarily unavailable)',
    `[pid 11768] 23:58:46 ioctl(3</dev/null>, IOMMU_IOAS_IOVA_RANGES, 0x561db8582060 ${NOT_THERE}) = -1 EAGAIN`,
  ],
  // -X verbose, -tt, -T, -yy
  [
    '23:58:46.382229 ioctl(3</dev/null<char 1:3>>, 0x3b80 /* _IOC(_IOC_NONE, 0x3b, 0x80, 0) */, 0x5626ecc2f060) = -1 EBADF (Bad file descriptor) <0.000026>',
    `23:58:46.382229 ioctl(3</dev/null<char 1:3>>, IOMMU_DESTROY, 0x5626ecc2f060 ${NOT_THERE}) = -1 EBADF`,
  ],
  // -ttt, -r, -f
  [
    '[pid 11780] 1795219126.390090 (+     0.000427) ioctl(3, _IOC(_IOC_NONE, 0x3b, 0x84, 0), 0x565380a8d060) = 0',
    `[pid 11780] 1795219126.390090 (+     0.000427) ioctl(3, IOMMU_IOAS_IOVA_RANGES, 0x565380a8d060 ${NOT_THERE}) = 0`,
  ],
  // -n, -i; then -f -o FILE
  [
    '[  16] [00007f58017eed6b] ioctl(3, _IOC(_IOC_NONE, 0x3b, 0x81, 0), 0x7ffe4622913c) = 0',
    `ioctl(3, IOMMU_IOAS_ALLOC, 0x7ffe4622913c ${NOT_THERE}) = 0`,
  ],
  [
    '26073 [  16] [00007f58017eed6b] ioctl(3, VFIO_SET_IOMMU, 0x8) = 0',
    '[pid 26073] ioctl(3, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU) = 0',
  ],
  [
    '25957 ioctl(3, VFIO_SET_IOMMU, 0x63) = -1 EINVAL (Invalid argument)',
    '[pid 25957] ioctl(3, VFIO_SET_IOMMU, 0x63) = -1 EINVAL',
  ],
  [
    '26015 00:14:26 ioctl(3, VFIO_SET_IOMMU, 0x1) = 0',
    '[pid 26015] 00:14:26 ioctl(3, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU) = 0',
  ],
];

for (const [line, expected] of LINES)
  test(`strace: ${line}`, (t) => {
    t.deepEqual(shown(read(line)), [expected]);
    // And what it comes to is understood in turn.
    t.deepEqual(shown(read(expected)), [expected]);
  });

test('strace: what is no call of these passes through as it is', (t) => {
  const lines = [
    'openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 3',
    'ioctl(1, TCGETS, {B38400 opost isig icanon echo ...}) = 0',
    'ioctl(3, TCGETS, 0x557388aa7060)        = -1 ENOTTY (Inappropriate ioctl for device)',
    'ioctl(4, 0x5401 /* TCGETS */, {c_iflag=0x4500 /* ICRNL|IXON|IUTF8 */, c_cc="\\x03", ...}) = 0',
    'read(4, "abc", 3)                       = 3',
    ' | 00000  61 62 63                                          abc              |',
    'strace: Process 11780 attached',
    '[pid 11780] +++ exited with 0 +++',
    '--- SIGCHLD {si_signo=SIGCHLD} ---',
    ' > /usr/lib/x86_64-linux-gnu/libc.so.6(ioctl+0x3b) [0xfdd6b]',
    '',
  ];
  t.deepEqual(shown(read(...lines)), lines);
});

test('strace: the halves of an interrupted call are joined, each thread its own', (t) => {
  t.deepEqual(
    shown(
      read(
        '[pid 7] ioctl(3, _IOC(_IOC_NONE, 0x3b, 0x81, 0), 0x7000000 <unfinished ...>',
        '[pid 8] ioctl(3, VFIO_SET_IOMMU, 0x1 <unfinished ...>',
        '[pid 7] <... ioctl resumed>)            = 0',
        '[pid 8] <... ioctl resumed>)            = -1 ENODEV (No such device)',
        '[pid 9] <... ioctl resumed>)            = 0',
      ),
    ),
    [
      `[pid 7] ioctl(3, IOMMU_IOAS_ALLOC, 0x7000000 ${NOT_THERE}) = 0`,
      '[pid 8] ioctl(3, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU) = -1 ENODEV',
      '[pid 9] <... ioctl resumed>)            = 0',
    ],
  );
});

const FAULTS =
  '[{flags=IOMMU_PGFAULT_FLAGS_LAST_PAGE, dev_id=1, pasid=0, grpid=5, perm=IOMMU_PGFAULT_PERM_READ|IOMMU_PGFAULT_PERM_WRITE, ' +
  'addr=0x1000, length=0, cookie=7}]';

test('strace: a page fault is decoded from the dump after its read, and the answer from its string', (t) => {
  const items = read(
    'read(5<anon_inode:[iommufd-pgfault]>, "\\2\\0\\0\\0\\1\\0\\0\\0"..., 4096) = 40',
    ' | 00000  02 00 00 00 01 00 00 00  00 00 00 00 05 00 00 00  ................ |',
    ' | 00010  03 00 00 00 00 00 00 00  00 10 00 00 00 00 00 00  ................ |',
    ' | 00020  00 00 00 00 07 00 00 00                           ........         |',
    'write(5<anon_inode:[iommufd-pgfault]>, "\\7\\0\\0\\0\\x01\\0\\0\\0", 8) = 8',
  );
  t.deepEqual(shown(items), [
    `read(5<anon_inode:[iommufd-pgfault]>, ${FAULTS}, 4096) = 40`,
    'write(5<anon_inode:[iommufd-pgfault]>, [{cookie=7, code=IOMMUFD_PAGE_RESP_INVALID}], 8) = 8',
  ]);
  t.deepEqual(JSON.parse(items[1]!.kind === 'transfer' ? formatTransferJson(items[1]!.transfer) : ''), {
    fd: 5,
    path: 'anon_inode:[iommufd-pgfault]',
    asked: 8,
    write: [{ cookie: 7, code: 'IOMMUFD_PAGE_RESP_INVALID' }],
    result: 8,
  });
});

test('strace: records of which only the beginning is there are told short', (t) => {
  t.deepEqual(
    shown(read('read(5<anon_inode:[iommufd-pgfault]>, "\\2\\0\\0\\0\\1\\0\\0\\0"..., 4096) = 40')),
    [
      'read(5<anon_inode:[iommufd-pgfault]>, [{bytes=8, flags=IOMMU_PGFAULT_FLAGS_LAST_PAGE, dev_id=1}] ' +
        '/* 32 of 40 bytes are not in the trace */, 4096) = 40',
    ],
  );
});

test('strace: events of a vIOMMU, lost ones too', (t) => {
  const header = '00 00 00 00 03 00 00 00';
  const event = [
    '10 00 00 00 07 00 00 00',
    '00 00 00 00 08 00 00 00',
    '00 10 00 00 00 00 00 00',
    '00 00 00 00 00 00 00 00',
  ];
  const lost = '01 00 00 00 09 00 00 00';
  const words = [header, ...event, lost];
  const dump = Array.from(
    { length: 3 },
    (_, i) => ` | 000${i}0  ${words[2 * i]}  ${words[2 * i + 1]}  ................ |`,
  );
  const [line] = shown(read('read(6<anon_inode:[iommufd-viommu-event]>, ""..., 4096) = 48', ...dump));
  t.regex(
    line!,
    /\[\{flags=0, sequence=3\}, \{evt=\[0x700000010, 0x800000000, 0x1000, 0x0\]\} \/\* F_TRANSLATION StreamID=7 /,
  );
  t.regex(line!, /\{flags=IOMMU_VEVENTQ_FLAG_LOST_EVENTS, sequence=9\}\], 4096\) = 48$/);
});

test('trace: events of the mock have names, and bytes without names come back', (t) => {
  const file = '6<anon_inode:[iommufd-viommu-event]>';
  const named = `read(${file}, [{flags=0, sequence=4}, {virt_id=136}], 12) = 12`;
  t.deepEqual(shown(read(`read(${file}, hex:000000000400000088000000, 12) = 12`)), [named]);
  t.deepEqual(shown(read(named)), [named]);
  const unknown = `read(${file}, hex:00000000040000008800, 12) = 10`;
  t.deepEqual(shown(read(unknown)), [unknown]);
});

test('trace: what the mock takes has names', (t) => {
  const alloc =
    'ioctl(4, IOMMU_HWPT_ALLOC, {size=48, flags=0, dev_id=3, pt_id=8, out_hwpt_id=0, data_type=IOMMU_HWPT_DATA_SELFTEST,' +
    ' data_len=8, data_uptr=0x1000, fault_id=0}, data={iotlb=195935983, pagetable_type=0}) = -1 EINVAL';
  t.deepEqual(shown(read(alloc)), [alloc]);
  const invalidate = (entryLen: number, entry: string) =>
    'ioctl(4, IOMMU_HWPT_INVALIDATE, {size=32, hwpt_id=8, data_uptr=0x1000, data_type=IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,' +
    ` entry_len=${entryLen}, entry_num=1}, data=[{${entry}}]) = 0`;
  for (const line of [
    invalidate(8, 'flags=0, iotlb_id=2'),
    invalidate(12, 'flags=1, vdev_id=153, cache_id=3'),
  ])
    t.deepEqual(shown(read(line)), [line]);
});

test('trace: the payload of the test ioctl is told by its operation', (t) => {
  const payload = 'f30f01000000000029000000000000008071d39ffc7f000001000000'.padEnd(96, '0');
  const line =
    `ioctl(4, IOMMU_TEST_CMD, {size=72, op=IOMMU_TEST_OP_ACCESS_RW, id=28, payload=hex:${payload}, last=0, padding=0}` +
    ' /* iova=0x10ff3 length=0x29 uptr=0x7ffc9fd37180 flags=1 */) = 0';
  t.deepEqual(shown(read(line)), [line]);
});

test('trace: hex text is a call, by number or by name', (t) => {
  t.deepEqual(
    shown(
      read('0x3b80 08000000 2a000000', 'IOMMU_DESTROY: 08 00 00 00 2a 00 00 00', 'NOBODY: 08', '0x3b80 080'),
    ),
    [
      'ioctl(?, IOMMU_DESTROY, {size=8, id=42}) = ?',
      'ioctl(?, IOMMU_DESTROY, {size=8, id=42}) = ?',
      'NOBODY: 08',
      "4: struct: '080' is no row of bytes in hexadecimal",
    ],
  );
});

test('trace: what is wrong with a line is said, by its number', (t) => {
  const wrong: [string, RegExp][] = [
    ['ioctl(3, IOMMU_OPTION, {nope=1}) = 0', /^1: iommu_option has no field 'nope'$/],
    [
      'ioctl(3, IOMMU_DESTROY, {size=8, id=4294967296}) = 0',
      /^1: iommu_destroy.id: 4294967296 is not a u32$/,
    ],
    ['ioctl(3, IOMMU_DESTROY, {size=8, id=x}) = 0', /^1: id: 'x' is no value of it$/],
    ['ioctl(3, IOMMU_DESTROY, {size=4, id=1}) = 0', /^1: iommu_destroy is 4 bytes here, too short for id$/],
    ['ioctl(3, IOMMU_DESTROY, {size=4294967295, id=1}) = 0', /`bytes` says how many there are/],
    ['ioctl(3, IOMMU_DESTROY, {size=8, id=1, id=2}) = 0', /^1: 'id' twice$/],
    ['ioctl(3, IOMMU_DESTROY, {size=8', /^1: '}' expected at the end$/],
    ['ioctl(3, IOMMU_DESTROY /* no end', /a comment that does not end/],
    ['ioctl(3, IOMMU_DESTROY, {size=8, id=1}) = -1 EWHAT', /'EWHAT' is no error/],
    ['ioctl(3, 0x13b80000000, 0x0) = 0', /a request expected|more than 32 bits/],
    [`ioctl(3, IOMMU_DESTROY, ${'['.repeat(5000)}) = 0`, /nested too deeply/],
    ['{"ioctl":"IOMMU_DESTROY","in":{"__proto__":1}}', /iommu_destroy has no field '__proto__'/],
    ['{"ioctl":"IOMMU_DESTROY","in":{"id":1.5}}', /id: no value/],
    ['{"ioctl":"IOMMU_DESTROY",', /no JSON/],
    ['{"ioctl":7.5}', /ioctl: not a number/],
    ['{"read":[],"asked":40}', /^{"read":\[\],"asked":40}$/],
    ['{"ioctl":"0x5401","in":{"a":1}}', /its bytes are hex:0011ff/],
  ];
  for (const [line, said] of wrong) t.regex(shown(read(line))[0]!, said, line);
});

test('trace: a struct of any caller keeps its length, its unknown flags, its tail', (t) => {
  const line =
    'ioctl(3, IOMMU_IOAS_ALLOC, {bytes=17, size=4294967295, flags=7, out_ioas_id=0, tail=hex:0100ff}) = -1 E2BIG';
  t.deepEqual(shown(read(line)), [line]);
  const flags = 'ioctl(3, IOMMU_IOAS_MAP, {size=8, flags=IOMMU_IOAS_MAP_READABLE|0x100}) = -1 EINVAL';
  t.deepEqual(shown(read(flags)), [flags]);
});

test('trace: JSON carries names, 64 bits in hexadecimal, and what changed', (t) => {
  const call = parseCall(
    'ioctl(3, IOMMU_GET_HW_INFO, {size=40, flags=0, dev_id=1, data_len=40, data_uptr=0x1000} => ' +
      '{data_type=IOMMU_HW_INFO_TYPE_ARM_SMMUV3, out_capabilities=IOMMU_HW_CAP_DIRTY_TRACKING}, out_data={idr=[0x1,0,0,0,0,0]}) = 0',
  );
  t.false('problem' in call);
  if ('problem' in call) return;
  t.deepEqual(JSON.parse(formatJson(call)), {
    fd: 3,
    ioctl: 'IOMMU_GET_HW_INFO',
    in: {
      size: 40,
      flags: 0,
      dev_id: 1,
      data_len: 40,
      data_uptr: '0x1000',
      data_type: 'IOMMU_HW_INFO_TYPE_NONE',
      out_max_pasid_log2: 0,
      out_capabilities: 0,
    },
    out: { data_type: 'IOMMU_HW_INFO_TYPE_ARM_SMMUV3', out_capabilities: 'IOMMU_HW_CAP_DIRTY_TRACKING' },
    out_data: {
      flags: 0,
      idr: ['0x1', '0x0', '0x0', '0x0', '0x0', '0x0'],
      iidr: '0x0',
      aidr: '0x0',
      about: 'IDR0: S2P=1',
    },
    result: 0,
  });
});
