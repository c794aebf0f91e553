/** iommufd: the calls that need no device. */
import { E2BIG, EFAULT, EINVAL, ENODEV, ENOENT, ENOTTY } from '../../uapi/abi/errno.js';
import type { Fields, Struct } from '../../uapi/abi/struct.js';
import { Destroy, IOMMU_DESTROY } from '../../uapi/iommufd/destroy.js';
import { IOCTLS } from '../../uapi/iommufd/ioctl-table.js';
import { IOMMU_OPTION, Option } from '../../uapi/iommufd/option.js';
import { IOMMU_VFIO_IOAS, VfioIoas } from '../../uapi/iommufd/vfio-ioas.js';
import { fixture } from './fixture.js';
import { Program } from './program.js';
import * as vfio from './vfio.js';

/** The structs that Linux's test tries all lengths of. */
const LENGTHS = [
  'IOMMU_DESTROY',
  'IOMMU_GET_HW_INFO',
  'IOMMU_HWPT_ALLOC',
  'IOMMU_HWPT_INVALIDATE',
  'IOMMU_IOAS_ALLOC',
  'IOMMU_IOAS_IOVA_RANGES',
  'IOMMU_IOAS_ALLOW_IOVAS',
  'IOMMU_IOAS_MAP',
  'IOMMU_IOAS_COPY',
  'IOMMU_IOAS_UNMAP',
  'IOMMU_OPTION',
  'IOMMU_VFIO_IOAS',
  'IOMMU_IOAS_MAP_FILE',
  'IOMMU_VIOMMU_ALLOC',
  'IOMMU_VDEVICE_ALLOC',
  'IOMMU_IOAS_CHANGE_PROCESS',
];

/** The errno of a call whose struct says `size` and has one byte more behind its known fields. */
function withSize(p: Program, cmd: number, struct: Struct<Fields>, size: number, extra: number): number {
  const bytes = new Uint8Array(struct.size + 1);
  new DataView(bytes.buffer).setUint32(0, size, true);
  bytes[struct.size] = extra;
  return -p.fd.ioctl(cmd, bytes) || 0;
}

fixture('iommufd', {
  variants: {},
  setup: (t) => new Program(t),
  teardown: (_t, p) => p.finish(),
  tests: {
    simple_close: (t) => {
      t.pass('teardown finds nothing left');
    },

    cmd_fail: (t, p) => {
      t.is(p.destroy(0), ENOENT);
      t.is(p.fd.ioctl(IOMMU_DESTROY, new Uint8Array(0)), -EFAULT, 'no struct at all');
      t.is(p.call(0x3b7f, Destroy, {}).errno, ENOTTY);
    },

    cmd_length: (t, p) => {
      for (const name of LENGTHS) {
        const row = IOCTLS.find((entry) => entry.name === name);
        if (row === undefined) {
          t.fail(name);
          return;
        }
        const { cmd, struct } = row as { cmd: number; struct: Struct<Fields> };
        t.is(withSize(p, cmd, struct, struct.minSize - 1, 0xff), EINVAL, `${name}: shorter than it ever was`);
        t.is(withSize(p, cmd, struct, struct.size + 1, 0xff), E2BIG, `${name}: a tail that is not zero`);
        const exact = withSize(p, cmd, struct, struct.size, 0xff);
        t.is(
          withSize(p, cmd, struct, struct.size + 1, 0),
          exact,
          `${name}: a tail of zeroes changes nothing`,
        );
      }
    },

    cmd_ex_fail: (t, p) => {
      const struct = Destroy as unknown as Struct<Fields>;
      t.is(withSize(p, IOMMU_DESTROY, struct, 9, 0), ENOENT);
      t.is(withSize(p, IOMMU_DESTROY, struct, 9, 1), E2BIG);
      t.is(withSize(p, IOMMU_DESTROY, struct, 8, 1), ENOENT);
      t.is(withSize(p, IOMMU_DESTROY, struct, 7, 1), EINVAL);
    },

    global_options: (t, p) => {
      const option = (optionId: number, op: number, val64 = 0n) =>
        p.call(IOMMU_OPTION, Option, { optionId, op, val64 });
      const [RLIMIT_MODE, HUGE_PAGES] = [0, 1];
      const [SET, GET] = [0, 1];
      t.is(p.ok(option(RLIMIT_MODE, GET, 1n)).val64, 0n);
      p.ok(option(RLIMIT_MODE, SET, 1n));
      t.is(option(RLIMIT_MODE, SET, 2n).errno, EINVAL);
      t.is(p.ok(option(RLIMIT_MODE, GET)).val64, 1n);
      p.ok(option(RLIMIT_MODE, SET, 0n));
      t.is(option(HUGE_PAGES, GET).errno, ENOENT);
      t.is(option(HUGE_PAGES, SET).errno, ENOENT);
    },

    simple_ioctls: (t, p) => {
      t.is(vfio.getApiVersion(p), 0);
      t.is(vfio.checkExtension(p, vfio.TYPE1v2), 1);
    },

    unmap_cmd: (t, p) => {
      const range = { iova: vfio.APERTURE_START, size: 4096n };
      t.is(vfio.unmapDma(p, { ...range, argsz: 1 }).errno, EINVAL);
      t.is(vfio.unmapDma(p, { ...range, flags: 0x8000_0000 }).errno, EINVAL);
      t.is(vfio.unmapDma(p, range).errno, ENODEV);
    },

    map_cmd: (t, p) => {
      const range = { iova: vfio.APERTURE_START, size: 4096n, vaddr: p.buffer };
      t.is(vfio.mapDma(p, { ...range, argsz: 1 }).errno, EINVAL);
      t.is(vfio.mapDma(p, { ...range, flags: 0x8000_0000 }).errno, EINVAL);
      t.is(vfio.mapDma(p, { ...range, flags: 3 }).errno, ENODEV);
    },

    info_cmd: (t, p) => {
      t.is(vfio.getInfo(p, 1).errno, EINVAL);
      t.is(vfio.getInfo(p, 24).errno, ENODEV);
    },

    set_iommu_cmd: (t, p) => {
      t.is(vfio.setIommu(p, vfio.TYPE1v2), ENODEV);
      t.is(vfio.setIommu(p, vfio.TYPE1), ENODEV);
    },

    vfio_ioas: (t, p) => {
      const [GET, SET, CLEAR] = [0, 1, 2];
      const call = (op: number, ioasId = 0) => p.call(IOMMU_VFIO_IOAS, VfioIoas, { op, ioasId });
      t.is(call(GET).errno, ENODEV);
      t.is(call(SET).errno, ENOENT);
      const ioasId = p.ioasAlloc();
      p.ok(call(SET, ioasId));
      t.is(p.ok(call(GET)).ioasId, ioasId);
      p.ok(call(CLEAR));
      t.is(call(GET).errno, ENODEV);
    },
  },
});
