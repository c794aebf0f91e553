/** `iommufd run --trace`: what a C program does, in words, which `iommufd decode` reads back. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';

const COMMAND = join(import.meta.dirname, '../../scripts/iommufd.js');
/** An IOAS, a device on it, what its IOMMU is, a nested table that is refused, the container's calls, a fault queue. */
const PROGRAM = `
#include <stdint.h>
#include <sys/ioctl.h>
#include <fcntl.h>
#include <unistd.h>
int main(void) {
  int fd = open("/dev/iommu", O_RDWR), vfio = open("/dev/vfio/devices/vfio0", O_RDWR);
  int container = open("/dev/vfio/vfio", O_RDWR);
  uint32_t ioas[3] = {12};
  uint32_t bind[4] = {16, 0, fd};
  uint32_t attach[4] = {16};
  uint64_t idr[5], ste[2] = {11, 0};
  uint64_t info[5] = {40, 40, 0, 0, 0};
  uint64_t hwpt[6] = {48, 0, 0, (16ull << 32) | 2, 0, 0};
  uint32_t queue[4] = {16}, answer[2] = {9, 0};
  uint32_t option[6] = {0};
  if (ioctl(fd, 0x3b81, ioas) || ioctl(vfio, 0x3b76, bind)) return 1;
  attach[2] = ioas[2];
  if (ioctl(vfio, 0x3b77, attach)) return 2;
  info[1] = ((uint64_t)40 << 32) | bind[3];
  info[2] = (uintptr_t)idr;
  if (ioctl(fd, 0x3b8a, info)) return 3;
  hwpt[1] = ((uint64_t)ioas[2] << 32) | bind[3];
  hwpt[4] = (uintptr_t)ste;
  if (ioctl(fd, 0x3b89, hwpt) == 0) return 4;
  if (ioctl(container, 0x3b64) != 0 || ioctl(container, 0x3b65, 3) != 1 || ioctl(container, 0x3b66, 1) == 0) return 5;
  if (ioctl(fd, 0x3b8e, queue)) return 6;
  if (write(queue[3], answer, 8) == 8) return 7;
  return 0;
}
`;

const hasCompiler = spawnSync('cc', ['--version']).status === 0;

function run(t: ExecutionContext, ...flags: string[]) {
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-trace-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const at = (name: string) => join(folder, name);
  writeFileSync(at('program.c'), PROGRAM);
  t.is(spawnSync('cc', ['-o', at('program'), at('program.c')], { encoding: 'utf8' }).stderr, '');
  const { status, stderr } = spawnSync(
    process.execPath,
    [COMMAND, 'run', '--trace', at('trace'), ...flags, '--', at('program')],
    { encoding: 'utf8', timeout: 60_000 },
  );
  t.is(status, 0, stderr);
  const text = readFileSync(at('trace'), 'utf8');
  const decode = (...how: string[]) =>
    spawnSync(process.execPath, [COMMAND, 'decode', at('trace'), ...how], {
      encoding: 'utf8',
      timeout: 60_000,
    });
  return { text, decode };
}

(hasCompiler ? test : test.skip)('run --trace: every call of a C program, which decode reads back', (t) => {
  const { text, decode } = run(t);
  const lines = text
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/^\[pid \d+\] /, ''));
  const expected = [
    /^ioctl\(3<\/dev\/iommu>, IOMMU_IOAS_ALLOC, \{size=12, flags=0, out_ioas_id=0\} => \{out_ioas_id=1\}\) = 0$/,
    /VFIO_DEVICE_BIND_IOMMUFD, \{argsz=16, flags=0, iommufd=3, out_devid=0\} => \{out_devid=2\}\) = 0$/,
    /VFIO_DEVICE_ATTACH_IOMMUFD_PT, \{argsz=16, flags=0, pt_id=1, pasid=0\} => \{pt_id=3\}\) = 0$/,
    /IOMMU_GET_HW_INFO, .* => \{data_type=IOMMU_HW_INFO_TYPE_ARM_SMMUV3, .*\}, out_data=\{flags=0, idr=\[0x.*S2P=1 S1P=1/,
    /IOMMU_HWPT_ALLOC, .*data_type=IOMMU_HWPT_DATA_ARM_SMMUV3, data_len=16, .*, data=\{ste=\[0xb, 0x0\]\} \/\* V=1 Config=5 \*\/\) = -1 E[A-Z]+$/,
    /VFIO_GET_API_VERSION, 0x[0-9a-f]+.*\) = 0$/,
    /VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU\) = 1$/,
    /VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU\) = -1 ENODEV$/,
    /IOMMU_FAULT_QUEUE_ALLOC, \{.*\} => \{out_fault_id=4, out_fault_fd=\d+\}\) = 0$/,
    /^write\(\d+<anon_inode:\[iommufd-pgfault\]>, \[\{cookie=9, code=IOMMUFD_PAGE_RESP_SUCCESS\}\], 8\) = -1 EINVAL$/,
  ];
  t.is(lines.length, expected.length, text);
  for (const [i, pattern] of expected.entries()) t.regex(lines[i]!, pattern);
  t.is(decode().stdout, text, 'what it wrote is what it reads');
});

(hasCompiler ? test : test.skip)(
  'run --trace --json: one object a call, which decode takes for lines',
  (t) => {
    const { text, decode } = run(t, '--json');
    const objects = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { ioctl?: string; write?: unknown });
    t.is(objects[0]?.ioctl, 'IOMMU_IOAS_ALLOC');
    t.deepEqual(objects.at(-1)?.write, [{ cookie: 9, code: 'IOMMUFD_PAGE_RESP_SUCCESS' }]);
    t.is(decode('--json').stdout, text);
    const { stdout, status } = decode('--encode');
    t.is(status, 0);
    t.true(stdout.startsWith('0x3b81 0c0000000000000000000000\n'), stdout);
  },
);
