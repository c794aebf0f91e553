/**
 * Public entry point `iommufd`: build a machine, use it inline, or move its IOMMUs to threads of their own.
 */
export {
  VERDICT_ABORT,
  VERDICT_NONE,
  VERDICT_RAZ_WI,
  VERDICT_RETRY,
  XLAT_ABORT,
  XLAT_ATS_CA,
  XLAT_ATS_UR,
  XLAT_NOT_GRANTED,
  XLAT_OK,
  XLAT_RAZ_WI,
  XLAT_STALLED,
} from '../hw/iotlb/port-layout.js';
export { DmaPort, PortDeadError } from '../hw/pci/dma-port.js';
export { dmaStatusName } from '../hw/pci/dma-status.js';
export { IommufdFd } from '../runtime/core/fd.js';
export { ImageError } from '../runtime/image/image-file.js';
export { type OpenedMachine, type OpenImageOptions, openImage } from '../runtime/image/opened-machine.js';
export { createMachine, type InterruptListener, Machine } from '../runtime/machine.js';
export { ConfigError } from '../runtime/machine-config.js';
export type { CheckedConfig, MachineConfig } from '../runtime/machine-schema.js';
export { type MachineHandle, MachineThread } from '../runtime/machine-thread.js';
export { VfioDevice } from '../runtime/objects/vfio-device.js';
export type { UserMemory } from '../runtime/user-memory.js';
export type { VmmTransport } from '../runtime/vmm/transport.js';
export { IommufdError } from '../uapi/abi/iommufd-error.js';
export { type HostOptions, type StartupTimes, type StopReport, TaskError, WorkerHost } from './host.js';
export type { Program, ProgramContext } from './program.js';
export type { MailboxClient } from './protocol/mailbox-client.js';
export { iommufdTarget, vfioTarget } from './protocol/mailbox-layout.js';
export type { ProgramTask, WorkerDeath } from './protocol/messages.js';

import type { Machine } from '../runtime/machine.js';
import { type HostOptions, WorkerHost } from './host.js';

/**
 * Moves every pIOMMU of a machine to a thread of its own. The machine's own calls stay plain, synchronous
 * calls on this thread; `stop()` of the result brings the IOMMUs back, and until then the process lives on.
 * @throws Error naming the worker that could not come up; the machine is then inline as before
 */
export function startWorkers(machine: Machine, options: HostOptions = {}): Promise<WorkerHost> {
  return WorkerHost.start(machine, options);
}
