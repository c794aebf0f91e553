/**
 * An in-kernel user of an IOAS holds pages of what is unmapped, and lets go when it is told. Its callback is where
 * others get in: a thread's map, through the mailbox, or its own device, which goes on for a moment.
 *
 *   IOVA      | A |     | B, pinned |            core     unmap A . tell of B ........ unmap B . end
 *                                                access            serve . unpin
 *                                                mapper        map at A
 */
import type { Machine } from '../../../runtime/machine.js';
import {
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  IoasMap,
  IoasUnmap,
} from '../../../uapi/iommufd/ioas.js';
import { Control } from '../../../workers/protocol/control.js';
import { MailboxClient } from '../../../workers/protocol/mailbox-client.js';
import { iommufdTarget } from '../../../workers/protocol/mailbox-layout.js';
import { machineScenario } from '../machine-scenario.js';
import { CoreServer } from './object-core.js';
import { SMALL } from './object-guest.js';

const A = 0x10000n;
const B = 0x20000n;
const PAGE = '4KiB';
const PAGE_BYTES = 4096n;
const LENGTH = 0x20000n;
const FRAME_BYTES = 4096;

export const mapDuringUnmap = machineScenario<readonly number[]>({
  name: 'map-during-unmap',
  about: 'a thread maps where an unmap has been already, and which goes on: what it has mapped stays',
  checks: ['R13'],
  machine: SMALL,
  core(ctx, machine, share) {
    const { fd, ioasId, access } = makeAccess(machine, () => {
      server.serve();
      access.unpinPages(B, PAGE);
    });
    const userVa = machine.user.alloc(PAGE);
    fd.ioasMap({ ioasId, userVa, length: PAGE, iova: A });
    const flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
    const map = { size: IoasMap.size, flags, ioasId, userVa, length: PAGE_BYTES, iova: A };
    share([...IoasMap.toBytes(map)]);
    let mapped = -1;
    const server = new CoreServer(ctx, machine, (cmd, bytes) => {
      mapped = fd.ioctl(cmd, bytes);
      return mapped;
    });
    return {
      run() {
        fd.ioasUnmap({ ioasId, iova: A, length: LENGTH });
        server.serveAll();
      },
      check() {
        const there = { size: IoasUnmap.size, ioasId, iova: A, length: PAGE_BYTES };
        const gone = fd.ioctl(IOMMU_IOAS_UNMAP, IoasUnmap.toBytes(there)) < 0;
        ctx.check('R13', mapped !== 0 || !gone, () => 'what was mapped after the unmap began is not there');
      },
    };
  },
  threads: {
    mapper(ctx, thread, map) {
      const client = new MailboxClient(thread.env, thread.memory);
      const control = new Control(thread.memory);
      return () => {
        client.call(iommufdTarget(0), IOMMU_IOAS_MAP, Uint8Array.from(map));
        CoreServer.through(ctx, control);
      };
    },
  },
});

/** Words that the emulated device and its driver share, in a page of user memory: stop, and stopped. */
const STOP = 0;
const STOPPED = 64;
/** Ghost word: the unmap has returned. */
const UNMAPPED = 8;
const WRITES = 6;

export const unmapDuringAccess = machineScenario<{ readonly pinned: number; readonly words: number }>({
  name: 'unmap-during-access',
  about: 'an emulated device uses pages that are unmapped: it has let go when the unmap returns',
  checks: ['R14'],
  machine: SMALL,
  core(ctx, machine, share) {
    const { words } = machine.env;
    const at = linearOf(machine, machine.user.alloc(PAGE));
    let told = false;
    const { fd, ioasId, access, pfn } = makeAccess(machine, () => {
      // Told once, the device is asked to stop; told again, it is waited for.
      words.store(at + STOP, 1);
      if (told) {
        while (words.load(at + STOPPED) === 0) words.wait(at + STOPPED, 0, Number.POSITIVE_INFINITY);
        access.unpinPages(B, PAGE);
      }
      told = true;
    });
    share({ pinned: machine.memory.linearOf(pfn * FRAME_BYTES, FRAME_BYTES), words: at });
    return () => {
      fd.ioasUnmap({ ioasId, iova: A, length: LENGTH });
      ctx.ghost[UNMAPPED] = 1;
    };
  },
  threads: {
    emulated(ctx, { env }, { pinned, words: at }) {
      const { words } = env;
      return () => {
        for (let i = 0; i < WRITES && words.load(at + STOP) === 0; i++) {
          words.store(pinned, i);
          ctx.check('R14', ctx.ghost[UNMAPPED] === 0, () => `write ${i} to a page that is unmapped`);
        }
        words.store(at + STOPPED, 1);
        words.notify(at + STOPPED, Number.POSITIVE_INFINITY);
      };
    },
  },
});

/** An IOAS with B mapped, and an access that has it pinned. */
function makeAccess(machine: Machine, unmap: () => void) {
  const fd = machine.openIommufd();
  const { ioasId } = fd.ioasAlloc();
  fd.ioasMap({ ioasId, userVa: machine.user.alloc(PAGE), length: PAGE, iova: B });
  const access = fd.createAccess({ needsPinPages: true, unmap });
  access.attach(ioasId);
  const pfn = access.pinPages(B, PAGE, { writable: true })[0]!;
  return { fd, ioasId, access, pfn };
}

const linearOf = ({ user }: Machine, va: bigint): number => user.linearOf(va, FRAME_BYTES);
