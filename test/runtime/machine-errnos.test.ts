/** What Linux's SMMUv3 driver answers, asked through the ioctls of a whole machine. */
import test from 'ava';
import { createMachine, type Machine } from '../../runtime/machine.js';
import { errnoOf } from '../kit/core-bench.js';

const BDF = '0000:01:00.0';
const [ENOENT, ENOMEM, EFAULT, EINVAL, EOPNOTSUPP] = [2, 12, 14, 22, 95];
const [NEST_PARENT, ALLOC_PASID] = [1, 8];
const [DATA_ARM_SMMUV3, VIOMMU_ARM_SMMUV3, VEVENTQ_ARM_SMMUV3] = [2, 1, 1];
/** V = 1, Config = bypass. */
const BYPASS = Uint8Array.from([0x09, ...new Array(15).fill(0)]);
/** TLBI_NSNH_ALL. */
const TLBI = Uint8Array.from([0x30, ...new Array(15).fill(0)]);

const machineOf = (): Machine =>
  createMachine({
    memory: '32MiB',
    iommus: [{ name: 'smmu0', model: 'smmuv3' }],
    devices: [{ bdf: BDF, iommu: 'smmu0', pasidBits: 12 }],
  });

test('HWPT_ALLOC of a nested page table on a page table: SMMUv3 has none, whatever the parent is', (t) => {
  const machine = machineOf();
  const fd = machine.openIommufd();
  const vfio = machine.openVfio(BDF);
  const { devId } = vfio.bindIommufd(fd);
  const { ioasId } = fd.ioasAlloc();
  const plain = fd.hwptAlloc({ devId, ptId: ioasId }).hwptId;
  const parent = fd.hwptAlloc({ devId, ptId: ioasId, flags: NEST_PARENT }).hwptId;
  const auto = vfio.attach(ioasId).ptId;
  for (const ptId of [plain, parent, auto])
    t.is(
      errnoOf(() => fd.hwptAlloc({ devId, ptId, dataType: DATA_ARM_SMMUV3, data: BYPASS })),
      EOPNOTSUPP,
    );
  t.is(
    errnoOf(() => fd.hwptAlloc({ devId, ptId: devId, dataType: DATA_ARM_SMMUV3, data: BYPASS })),
    EINVAL,
  );
});

test('a PASID in another leaf of the CD table than the device itself, which is never attached', (t) => {
  const machine = machineOf();
  const fd = machine.openIommufd();
  const vfio = machine.openVfio(BDF);
  const { devId } = vfio.bindIommufd(fd);
  const { ioasId } = fd.ioasAlloc();
  const ptId = fd.hwptAlloc({ devId, ptId: ioasId, flags: ALLOC_PASID }).hwptId;
  vfio.attach(ptId, { pasid: 3000 });
  vfio.detach({ pasid: 3000 });
  t.notThrows(() => vfio.close());
  t.notThrows(() => fd.destroy(ptId));
});

test('nth failure: wherever the SMMUv3 driver or the core cannot allocate, ENOMEM, and nothing is left', (t) => {
  const sites = new Set<string>();
  let free = 0;
  for (let nth = 0; ; nth++) {
    const machine = machineOf();
    const fd = machine.openIommufd();
    const vfio = machine.openVfio(BDF);
    const { own } = machine.core;
    const userVa = machine.user.alloc(0x1000);
    const life = () => {
      const { devId } = vfio.bindIommufd(fd);
      fd.getHwInfo({ devId });
      const { ioasId } = fd.ioasAlloc();
      const parent = fd.hwptAlloc({ devId, ptId: ioasId, flags: NEST_PARENT }).hwptId;
      fd.ioasMap({ ioasId, userVa, length: 0x1000, iova: 0x10_0000n });
      const { viommuId } = fd.viommuAlloc({ devId, hwptId: parent, type: VIOMMU_ARM_SMMUV3 });
      fd.vdeviceAlloc({ viommuId, devId, virtId: 5n });
      fd.veventqAlloc({ viommuId, type: VEVENTQ_ARM_SMMUV3, depth: 2 });
      const data = { dataType: DATA_ARM_SMMUV3, data: BYPASS };
      vfio.attach(fd.hwptAlloc({ devId, ptId: viommuId, ...data }).hwptId);
      fd.hwptInvalidate({ hwptId: viommuId, dataType: 1, entryLen: 16, entries: TLBI });
      const other = fd.ioasAlloc().ioasId;
      const rid = fd.hwptAlloc({ devId, ptId: other, flags: ALLOC_PASID }).hwptId;
      vfio.attach(rid);
      vfio.attach(rid, { pasid: 3000 });
    };
    own.failNth.arm(nth);
    const errno = errnoOf(life);
    const { failedAt } = own.failNth;
    own.failNth.arm(0);
    if (failedAt !== null) sites.add(failedAt);
    const allowed = failedAt === null ? [0] : [ENOMEM, ENOENT, EFAULT, EINVAL, 0];
    t.true(allowed.includes(errno), `${nth} (${failedAt}): ${errno}`);
    vfio.close();
    for (let file = 3; file < 10; file++) own.files.close(file);
    t.is(fd.ctx.objectCount, 0, `${nth} (${failedAt}): objects left`);
    machine.user.free(userVa, 0x1000);
    // CD tables stay with their device, as in Linux.
    if (nth === 0) free = machine.frames.freePages();
    else t.true(machine.frames.freePages() >= free, `${nth} (${failedAt}): frames left`);
    if (nth > 0 && failedAt === null) break;
  }
  for (const site of [
    'hw_info',
    'smmu_domain',
    'io_pgtable',
    'io_pgtable pgd',
    'io_pgtable table',
    'asid',
    'vmid',
    'nested_domain',
    'invs',
    'vmaster',
    'master_domain',
    'cd_table',
    'cd_table leaf',
    'event fd',
    'invalidation array',
    'pasid_attach',
  ])
    t.true(sites.has(site), `${site} never failed`);
});
