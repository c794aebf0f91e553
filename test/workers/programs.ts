/** Programs that the worker tests run on threads of their own. */
import { PortDeadError } from '../../hw/pci/dma-port.js';
import type { ProgramContext } from '../../workers/program.js';
import { Random } from '../kit/random.js';

export interface DmaLoopArgs {
  readonly iova: bigint;
  readonly bytes: number;
}

export interface DmaLoopResult {
  readonly writes: number;
  readonly faults: number;
  /** errno of a dead port, or 0. */
  readonly dead: number;
}

/** Writes the same range again and again until told to stop. */
export function dmaLoop({ port, stopRequested, log }: ProgramContext, args: unknown): DmaLoopResult {
  const { iova, bytes } = args as DmaLoopArgs;
  const data = new Uint8Array(bytes).fill(0x5a);
  let writes = 0;
  let faults = 0;
  log('first write');
  try {
    while (!stopRequested()) {
      if (port!.write(iova, data) === 0) writes++;
      else faults++;
    }
  } catch (error) {
    if (!(error instanceof PortDeadError)) throw error;
    return { writes, faults, dead: error.errno };
  }
  return { writes, faults, dead: 0 };
}

export interface MailboxArgs {
  readonly fdIndex: number;
  readonly calls: number;
}

const IOMMU_IOAS_ALLOC = 0x3b81;
const IOMMU_DESTROY = 0x3b80;

/** IOAS_ALLOC, then DESTROY of what it gave, through the mailbox. @returns how many worked */
export function allocAndDestroy({ mailbox }: ProgramContext, args: unknown): number {
  const { fdIndex, calls } = args as MailboxArgs;
  const target = (1 << 16) | fdIndex;
  let good = 0;
  for (let i = 0; i < calls; i++) {
    const alloc = new Uint32Array([12, 0, 0]);
    if (mailbox.call(target, IOMMU_IOAS_ALLOC, new Uint8Array(alloc.buffer)) !== 0) continue;
    const destroy = new Uint32Array([8, alloc[2]!]);
    if (mailbox.call(target, IOMMU_DESTROY, new Uint8Array(destroy.buffer)) === 0) good++;
  }
  return good;
}

/** Posts more calls than it takes, and leaves. @returns how many it posted */
export function litter({ mailbox }: ProgramContext, args: unknown): number {
  const { fdIndex, calls } = args as MailboxArgs;
  let posted = 0;
  for (let i = 0; i < calls; i++) if (mailbox.post((1 << 16) | fdIndex, 0, new Uint8Array(4)) >= 0) posted++;
  return posted;
}

/** Posts calls all at once, then waits for each. @returns how many were answered with 0 */
export function postAll({ mailbox }: ProgramContext, args: unknown): number {
  const { fdIndex, calls } = args as MailboxArgs;
  const tickets = Array.from({ length: calls }, () =>
    mailbox.post((1 << 16) | fdIndex, 0, new Uint8Array(4)),
  );
  return tickets.filter(
    (ticket) => mailbox.wait(ticket) === 0 && mailbox.take(ticket, new Uint8Array(4)) === 0,
  ).length;
}

/** An ioctl through a VMM's transport; and what an invalidation of nothing says. */
export function vmm({ transport, vmIndex }: ProgramContext): {
  vm: number;
  alloc: number;
  invalidate: number;
} {
  const alloc = new Uint8Array(new Uint32Array([12, 0, 0]).buffer);
  const invalidate = new Uint8Array(40);
  new DataView(invalidate.buffer).setUint32(0, 40, true);
  return {
    vm: vmIndex,
    alloc: transport!.ioctl(IOMMU_IOAS_ALLOC, alloc),
    invalidate: transport!.invalidate(invalidate),
  };
}

export function throwing(): never {
  throw Object.assign(new Error('out of luck'), { errno: 5 });
}

/** Ends its thread without a word. */
export function exiting(): never {
  process.exit(7);
}

/** Ends its thread with a translation in its hands. */
export function exitInEpoch({ port }: ProgramContext, args: unknown): never {
  const { iova } = args as DmaLoopArgs;
  port!.prepare(0, Number(iova), 0, 0, port!.streamId, 0xffff_ffff);
  port!.translate(1);
  process.exit(8);
}

/** Hears nothing. */
export function deaf(): never {
  for (;;);
}

export function unclonable(): () => void {
  return () => undefined;
}

export interface PagesArgs {
  readonly iova: bigint;
  readonly pages: number;
  readonly seed: number;
  /** Writes, when it is to end by itself. */
  readonly count?: number;
  readonly pasid?: number;
}

/** Writes a counter to random places of random pages, until told to stop or `count` times. */
export function stampPages({ port, stopRequested, log }: ProgramContext, args: unknown): DmaLoopResult {
  const { iova, pages, seed, count = Number.POSITIVE_INFINITY, pasid } = args as PagesArgs;
  const random = new Random(seed);
  const options = pasid === undefined ? {} : { pasid };
  const data = new Uint32Array(1);
  let faults = 0;
  log('first write');
  while (data[0]! < count && !stopRequested()) {
    const at = iova + BigInt(random.below(pages) * 4096 + random.below(1023) * 4);
    data[0]!++;
    if (port!.write(at, new Uint8Array(data.buffer), options) === 0) continue;
    faults++;
    data[0]!--;
  }
  return { writes: data[0]!, faults, dead: 0 };
}
