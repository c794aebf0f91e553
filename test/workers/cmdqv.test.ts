/** A guest's command queue, served by a pIOMMU on a thread of its own that nobody rings. */
import test from 'ava';
import { VirtualCmdqv } from '../../runtime/vmm/virtual-cmdqv.js';
import { startWorkers } from '../../workers/index.js';
import { ok } from '../kit/vmm-fixture.js';
import { MachineFixture } from '../kit/vmm-machine.js';

const READ_WRITE = 3;
const F_TRANSLATION = 0x10;
const IOVA = 0x7_0000_3000n;
const IOVA_PAGE = 0x70_0003;

test('cmdqv: plain stores into the mapped page are enough, whoever hosts the SMMU', async (t) => {
  const fixture = new MachineFixture([0], { iommus: [{ name: 'smmu0', model: 'smmuv3', cmdqv: true }] });
  const { machine } = fixture;
  const host = fixture.vm({ cmdqv: true });
  t.is(host.vm.attachDevice(0, 5), 0);
  const { id: viommuId, vintf } = host.vm.viommus[0]!;
  const mapping = host.fd.mmap(vintf!);
  const vcmdq = ok(
    VirtualCmdqv.create({
      env: machine.env,
      ram: host.ram,
      page: mapping.linear,
      log2: 4,
      allocate: (index, ipa, length) =>
        host.fd.hwQueueAlloc({ viommuId, type: 1, index, iova: BigInt(ipa), length }).hwQueueId,
    }),
  );
  const driver = fixture.driver(host, 0, { secondary: vcmdq });
  const space = ok(driver.createSpace());
  t.is(driver.setupStream(5, space), 0);
  const pfn = host.ram.allocZeroed(2, 2);
  const round = () => {
    t.is(driver.map(space, IOVA_PAGE, pfn, 2, READ_WRITE), 0);
    t.is(fixture.write(0, IOVA, 4096, 1), 0);
    t.is(driver.unmap(space, IOVA_PAGE, 2), 2);
    t.is(fixture.write(0, IOVA, 64, 1), F_TRANSLATION);
  };
  round();
  const workers = await startWorkers(machine);
  for (let i = 0; i < 20; i++) round();
  t.true((await workers.stop()).clean);
  round();
  host.fd.destroy(vcmdq.hwQueueId);
  mapping.unmap();
  t.is(host.end(), 0);
  machine.close();
});
