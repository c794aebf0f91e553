/**
 * A guest invalidates what its device has cached while the vDEVICE goes, or while another device gets its virtual ID.
 * No command may reach a device that is not the guest's at the time, and entry_num says what was put on the queue.
 *
 *   queue     | ... of device 0 | gone | nobody's | given | ... of device 1 |
 *   core             destroy(vDEVICE) returns --^    ^-- IOMMU_VDEVICE_ALLOC begins
 */
import { CMD_CFGI_CD } from '../../../hw/smmuv3/command.js';
import { HwptInvalidate } from '../../../uapi/iommufd/hwpt-invalidate.js';
import { machineScenario } from '../machine-scenario.js';
import { CommandStream } from '../monitors/command-stream.js';
import type { Scenario, ThreadContext } from '../scenario.js';
import { cfgiCd, type Guest, invalidation, makeGuest, markOf, SMALL, tlbiAsid } from './object-guest.js';

const VSID = 5;
/** Ghost words: places in the command stream, and what the guest's ioctl said. */
const GONE = 0;
const GIVEN = 1;
const HANDLED = 2;
/** In no stream that fits a queue. */
const NEVER = 2 ** 20;

interface Shared {
  readonly fdIndex: number;
  readonly ioctl: readonly number[];
}

export const invalidateDuringVdeviceDestroy = scenario(
  'invalidate-during-vdevice-destroy',
  'a guest invalidates by a vSID that is taken away',
  [tlbiAsid(1), cfgiCd(VSID, 2)],
  (ctx, { stream, guest, vdeviceId }) => {
    ctx.ghost[GIVEN] = NEVER;
    ctx.ghost[GONE] = NEVER;
    return () => {
      guest.fd.destroy(vdeviceId);
      ctx.ghost[GONE] = stream.length;
    };
  },
);

export const invalidateDuringVdeviceAlloc = scenario(
  'invalidate-during-vdevice-alloc',
  'a guest invalidates by a vSID that was one device and becomes another',
  [cfgiCd(VSID, 1)],
  (_ctx, { guest, vdeviceId }) => {
    const { fd, viommuId, devIds } = guest;
    fd.destroy(vdeviceId);
    return () => {
      fd.vdeviceAlloc({ viommuId, devId: devIds[1]!, virtId: VSID });
    };
  },
);

interface Parts {
  readonly guest: Guest;
  readonly vdeviceId: number;
  readonly stream: CommandStream;
}

function scenario(
  name: string,
  about: string,
  commands: readonly (readonly number[])[],
  begin: (ctx: ThreadContext, parts: Parts) => () => void,
): Scenario {
  return machineScenario<Shared>({
    name,
    about,
    checks: ['R8'],
    machine: SMALL,
    core(ctx, machine, share) {
      const guest = makeGuest(machine, { devices: 2 });
      const { fd, devIds, viommuId } = guest;
      const { vdeviceId } = fd.vdeviceAlloc({ viommuId, devId: devIds[0]!, virtId: VSID });
      const ioctl = invalidation(machine, viommuId, commands);
      share({ fdIndex: fd.index, ioctl: [...ioctl] });
      const run = begin(ctx, { guest, vdeviceId, stream: new CommandStream(machine.memory) });
      const stream = new CommandStream(machine.memory);
      const sids = machine.config.devices.map(({ sid }) => sid);
      return { run, check: () => checkStream(ctx, stream, sids) };
    },
    threads: {
      guest(ctx, thread, { fdIndex, ioctl }) {
        const shared = thread.shared(fdIndex);
        const bytes = Uint8Array.from(ioctl);
        return () => {
          shared.hwptInvalidate(bytes);
          ctx.ghost[HANDLED] = HwptInvalidate.getField(bytes, 'entryNum');
        };
      },
    },
  });
}

function checkStream(ctx: ThreadContext, stream: CommandStream, sids: readonly number[]): void {
  const [gone, given, handled] = [ctx.ghost[GONE]!, ctx.ghost[GIVEN]!, ctx.ghost[HANDLED]!];
  const sent = stream.commands().filter(({ words }) => markOf(words) > 0);
  for (const { place, words, opcode } of sent) {
    if (opcode !== CMD_CFGI_CD) continue;
    const device = sids.indexOf(words[1]!);
    const right = device === 0 ? place < gone : device === 1 && place >= given;
    ctx.check(
      'R8',
      right,
      () => `command ${place} reaches StreamID ${words[1]}, which is not the guest's any more`,
    );
  }
  const marks = sent.map(({ words }) => markOf(words));
  ctx.check(
    'R8',
    handled === marks.length && marks.every((mark, i) => mark === i + 1),
    () => `entry_num is ${handled}, on the queue are [${marks}]`,
  );
}
