/**
 * A VMM that looks for requests of its operator after each ioctl, as one with an event loop does, is asked for a
 * second device while it attaches the first: behind one SMMU there is one vIOMMU all the same.
 *
 *   operator   request
 *   core           attach(0): bind . try vIOMMUs . allocate one . vDEVICE        then attach(1), if it was put off
 *                                  ^ request seen: attach(1)
 */

import type { IommufdFd } from '../../../runtime/core/fd.js';
import { OBJ_VIOMMU } from '../../../runtime/core/objects-layout.js';
import type { Machine } from '../../../runtime/machine.js';
import { GuestRam } from '../../../runtime/vmm/guest-ram.js';
import { LocalTransport } from '../../../runtime/vmm/local-transport.js';
import type { VmmTransport } from '../../../runtime/vmm/transport.js';
import { Vm } from '../../../runtime/vmm/vm.js';
import { EBADF, EBUSY } from '../../../uapi/abi/errno.js';
import { machineScenario } from '../machine-scenario.js';
import { LABELS, SMALL } from './object-guest.js';

const RAM_BYTES = 65_536;

export const attachWithinAttach = machineScenario<number>({
  name: 'attach-within-attach',
  about: 'a VMM is asked for a second device while it attaches the first: one vIOMMU for one SMMU',
  checks: ['R27'],
  machine: SMALL,
  stepLimit: 60_000,
  core(ctx, machine, share) {
    const { user, memory, env } = machine;
    const { words, bugs } = env;
    const fd = machine.openIommufd();
    const request = user.linearOf(user.alloc('4KiB'), 4);
    share(request);
    const transport = transportOf(machine, fd);
    const userVa = user.alloc(RAM_BYTES, { contiguous: true });
    const vm = Vm.create(transport, new GuestRam(memory, user, { userVa, bytes: RAM_BYTES }), { bugs });
    if (typeof vm === 'number') throw new Error(`Vm.create: ${vm}`);
    const ioctl = transport.ioctl.bind(transport);
    const attachSecond = (): void => {
      // Put off while another attach is under way.
      if (words.load(request) !== 0 && vm.attachDevice(1, 1) !== -EBUSY) words.store(request, 0);
    };
    return {
      run() {
        transport.ioctl = (cmd, bytes) => {
          const status = ioctl(cmd, bytes);
          attachSecond();
          return status;
        };
        vm.attachDevice(0, 0);
        attachSecond();
      },
      check() {
        const viommus = fd.ctx.published(OBJ_VIOMMU).length;
        ctx.check('R27', viommus === 1, () => `${viommus} vIOMMUs for one SMMU`);
      },
    };
  },
  threads: {
    operator(_ctx, { env }, request) {
      return () => env.words.store(request, 1);
    },
  },
});

/** Plain calls; with scratch memory for more vIOMMUs than there should be. */
function transportOf(machine: Machine, iommufd: IommufdFd): VmmTransport {
  const { core, memory, user } = machine;
  return new LocalTransport({
    memory,
    user,
    iommufd,
    viommus: LABELS.length,
    files: {
      read: (file, maxBytes) => core.own.files.get(file)?.read?.(maxBytes) ?? -EBADF,
      write: (file, bytes) => core.own.files.get(file)?.write?.(bytes) ?? -EBADF,
      close: (file) => void core.own.files.close(file),
    },
    openVfio: (index) => core.openVfio(machine.device(LABELS[index]!)),
  });
}
