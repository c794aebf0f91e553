/** An exporter takes its memory back while a device writes to it: nothing reaches it once the revoke has returned. */
import { machineScenario } from '../machine-scenario.js';
import { LABELS, SMALL } from './object-guest.js';

const IOVA = 0x10000n;
const DMAS = 3;
/** XLAT_FLAG_WRITE, and no SubstreamID. */
const WRITE = 1;
const NO_SSID = 0xffff_ffff;
/** Ghost word: the revoke has returned. */
const REVOKED = 0;

export const revokeDuringDma = machineScenario({
  name: 'revoke-during-dma',
  about: 'a dma-buf is revoked while a device writes to it: no write lands after the revoke returned',
  checks: ['R26'],
  means: { R1: 'R26' },
  machine: SMALL,
  core(ctx, machine) {
    const fd = machine.openIommufd();
    const vfio = machine.openVfio(LABELS[0]);
    vfio.bindIommufd(fd);
    const { ioasId } = fd.ioasAlloc();
    const buffer = machine.core.dmabuf('4KiB');
    fd.ioasMapFile({ ioasId, fd: buffer.fd, start: 0n, length: '4KiB', iova: IOVA });
    vfio.attach(ioasId);
    return () => {
      buffer.revoke(true);
      ctx.ghost[REVOKED] = 1;
    };
  },
  threads: {
    device(ctx, thread) {
      const port = thread.dmaPort(0);
      return () => {
        for (let i = 0; i < DMAS; i++) {
          port.prepare(0, Number(IOVA), 0, WRITE, port.streamId, NO_SSID);
          port.translate(1);
          // The data phase: until it leaves the epoch, the memory must be the device's.
          const lands = port.status(0) === 0;
          ctx.check('R26', !lands || ctx.ghost[REVOKED] === 0, () => `write ${i} lands in revoked memory`);
          port.end();
        }
      };
    },
  },
});
