/** change_process: the pages of an iommufd pass from one process's account to another's. */
import { EINVAL } from '../../uapi/abi/errno.js';
import { IOMMU_IOAS_CHANGE_PROCESS, IoasChangeProcess } from '../../uapi/iommufd/ioas.js';
import { IOMMU_OPTION, Option } from '../../uapi/iommufd/option.js';
import { otherProcess } from './access.js';
import { fixture } from './fixture.js';
import { BUFFER_SIZE, PAGE, Program } from './program.js';

const CAP_IPC_LOCK = 14;
const RLIMIT_MODE = 0;
const [NONE, USER, MM] = [0, 1, 2];

fixture('change_process', {
  variants: { account_none: NONE, account_user: USER, account_mm: MM },
  setup: (t, accounting) => {
    const p = new Program(t);
    p.machine.core.own.capabilities.delete(CAP_IPC_LOCK);
    if (accounting !== NONE) {
      // Linux's RLIMIT_MODE needs CAP_SYS_RESOURCE, which the program keeps.
      const val64 = accounting === MM ? 1n : 0n;
      p.ok(p.call(IOMMU_OPTION, Option, { optionId: RLIMIT_MODE, op: 0, val64 }));
    }
    const ioasId = p.ioasAlloc();
    t.is(p.mockDomain(ioasId).errno, 0);
    return { p, ioasId };
  },
  teardown: (_t, { p }) => {
    p.machine.core.own.capabilities.add(CAP_IPC_LOCK);
    p.finish();
  },
  tests: {
    basic: (t, { p, ioasId }, accounting) => {
      const { core } = p.machine;
      const change = () => p.call(IOMMU_IOAS_CHANGE_PROCESS, IoasChangeProcess, {}).errno;
      const { iova } = p.ok(p.map(ioasId, p.buffer, PAGE));
      t.is(change(), EINVAL, 'memory that is no file belongs to its process');
      p.ok(p.unmap(ioasId, iova, PAGE));

      const memfd = p.memfd(BUFFER_SIZE);
      p.ok(p.mapFile(ioasId, memfd.fd, 0n, PAGE));
      t.is(change(), 0, 'to the process that has it');

      const child = otherProcess(p.machine);
      child.capabilities.delete(CAP_IPC_LOCK);
      const accounts = () =>
        [core.own, child].map(({ mm }) => [mm.account.pinnedVm, mm.account.lockedVm] as const);
      const locked = accounting === MM ? 1 : 0;
      t.deepEqual(accounts(), [
        [1, locked],
        [0, 0],
      ]);
      t.is(core.as(child, change), 0);
      t.deepEqual(accounts(), [
        [0, 0],
        [1, locked],
      ]);
      memfd.close();
    },
  },
});
