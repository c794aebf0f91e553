/** Scenarios in which somebody uses what it gave back, or never had; and hardware that is not waited for. */

import { encodeTlbi } from '../../../../hw/smmuv3/command.js';
import { machineScenario } from '../../../../perf/explore/machine-scenario.js';
import type { Unmonitored } from '../../../../perf/explore/monitors/machine-monitors.js';
import { SharedObjects } from '../../../../runtime/core/object-table.js';
import { ViommuTable } from '../../../../runtime/drivers/smmuv3/viommu-record.js';
import type { MachineConfig } from '../../../../runtime/machine-schema.js';

const DEVICE = '0000:01:00.0';
const machine: MachineConfig = {
  iommus: [{ name: 'smmu0', model: 'smmuv3', cmdqLog2: 7, evtqLog2: 4, priqLog2: 4 }],
  devices: [{ bdf: DEVICE, iommu: 'smmu0' }],
};
const TLBI_NSNH_ALL = 0x30;

const readWhatIsFreed = (name: string, about: string, unmonitored: Unmonitored) =>
  machineScenario<{ frame: number }>({
    name,
    about,
    checks: [],
    unmonitored,
    machine,
    core(_ctx, { frames, memory }, share) {
      const pfn = frames.alloc();
      share({ frame: memory.linearOf(pfn * 4096, 4096) });
      return () => frames.free(pfn, 1);
    },
    threads: {
      reader:
        (_ctx, { memory }, { frame }) =>
        () => {
          for (let i = 0; i < 8; i++) memory.words.load(frame + 64);
        },
    },
  });

export const freedFrame = readWhatIsFreed(
  'freed-frame',
  'a thread reads a frame that the core gives back',
  {},
);
export const freedFrameUnwatched = readWhatIsFreed('freed-frame-unwatched', 'the same, and nobody minds', {
  frames: 'it is what the scenario is for',
});

export const freedObject = machineScenario<{ ioasId: number }>({
  name: 'freed-object',
  about: 'a thread reads an object without a reference while it is destroyed',
  checks: [],
  machine,
  core(_ctx, built, share) {
    const fd = built.openIommufd();
    const { ioasId } = fd.ioasAlloc();
    share({ ioasId });
    return () => fd.destroy(ioasId);
  },
  threads: {
    reader(_ctx, { memory, env }, { ioasId }) {
      const objects = new SharedObjects(memory, env, 0);
      return () => {
        for (let i = 0; i < 8; i++) objects.payload(ioasId, 0);
      };
    },
  },
});

export const freedRecord = machineScenario<{ record: number }>({
  name: 'freed-record',
  about: 'a thread looks a vSID up without a reference while the vIOMMU is destroyed',
  checks: [],
  machine,
  core(_ctx, built, share) {
    const fd = built.openIommufd();
    const { devId } = built.openVfio(DEVICE).bindIommufd(fd);
    const { hwptId } = fd.hwptAlloc({ devId, ptId: fd.ioasAlloc().ioasId, flags: 1 });
    const { viommuId } = fd.viommuAlloc({ devId, hwptId, type: 1 });
    share({ record: fd.ctx.objects.payload(viommuId, 0) });
    return () => fd.destroy(viommuId);
  },
  threads: {
    reader(_ctx, { env }, { record }) {
      const table = new ViommuTable(env, record);
      return () => {
        for (let i = 0; i < 8; i++) table.find(5);
      };
    },
  },
});

export const unwaited = machineScenario({
  name: 'unwaited',
  about: 'commands that nobody waits for are carried out before the end is looked at',
  checks: ['settled'],
  machine,
  core(ctx, built) {
    const { instance, mmio } = built.iommu('smmu0');
    return {
      run() {
        for (let i = 0; i < 3; i++)
          instance.smmu.issue((words, at) => encodeTlbi(words, at, TLBI_NSNH_ALL, 0, 0));
      },
      check() {
        const [prod, cons] = [mmio.read32(0x98), mmio.read32(0x9c)];
        ctx.check('settled', prod === cons, () => `PROD ${prod}, CONS ${cons}`);
      },
    };
  },
});
