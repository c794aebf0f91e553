/**
 * What the host and the supervisor post to each other. Everything that must work while a thread is busy lies
 * on the control page instead; these are for threads that return to their event loop.
 */
import type { MachineHandle } from '../../runtime/machine-thread.js';
import type { TransportWiring } from './mailbox-transport.js';

/** Threads that can be ended on purpose while they work. */
export const KILLABLE_KINDS = ['piommu', 'device', 'guest', 'supervisor'] as const;
export type KillableKind = (typeof KILLABLE_KINDS)[number];

/** For the tests of what happens when a worker fails. */
export interface WorkerFault {
  /** Which pIOMMU breaks. */
  readonly unit?: number;
  /** It throws instead of doing its n-th step; 0: before it is ready. */
  readonly crashAfterSteps?: number;
  /** The supervisor ends itself when it is told to run something. */
  readonly supervisor?: boolean;
}

export interface SupervisorData {
  readonly handle: MachineHandle;
  /** Key of the machine's thread table: the supervisor watches the machine without attaching to it. */
  readonly threadsKey: string;
  /** performance.timeOrigin + performance.now() of the host when it began. */
  readonly startedAtMs: number;
  readonly fault?: WorkerFault | undefined;
}

export interface UnitData {
  readonly handle: MachineHandle;
  readonly unit: number;
  readonly startedAtMs: number;
  readonly crashAfterSteps?: number | undefined;
}

/** A program to run on a thread of its own. */
export interface ProgramTask {
  readonly kind: 'device' | 'guest';
  /** For reports: 'device 3', 'guest 0'. */
  readonly name: string;
  /** URL of the module. */
  readonly program: string;
  /** Name of the exported function; default 'default'. */
  readonly export?: string;
  /** Structured-cloneable; the program's second argument. */
  readonly args?: unknown;
  /** device: the device it drives. */
  readonly deviceIndex?: number;
  /** guest: which virtual machine it is. */
  readonly vmIndex?: number;
  /** guest: index of the iommufd its VMM uses. */
  readonly fdIndex?: number;
  /** guest: bytes of user memory for what its ioctl structures point at; default 16 KiB. */
  readonly scratchBytes?: number;
  readonly seed?: number;
}

/** A task as it travels, with what the host adds. */
export interface WiredTask extends ProgramTask {
  /** Unique in its host. */
  readonly taskId: number;
  readonly wiring?: TransportWiring | undefined;
}

/** An error as it travels between threads. */
export interface RemoteError {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
  readonly errno?: number;
}

export type TaskOutcome =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly error: RemoteError };

/** From a pIOMMU worker; everything else about it stands on the control page. */
export type FromUnit = { readonly type: 'ready' } | { readonly type: 'log'; readonly text: string };

export type ToSupervisor =
  | { readonly type: 'run'; readonly tasks: readonly WiredTask[] }
  /** End every program that still runs. */
  | { readonly type: 'terminate-programs' }
  /** End one thread of a kind, wherever it is: the `pick`th of those that work, modulo their number. */
  | { readonly type: 'kill'; readonly kind: KillableKind; readonly pick: number }
  /** Units have been told to leave: wait for them, and end. */
  | { readonly type: 'stop'; readonly withinMs: number };

export type ToHost =
  | { readonly type: 'ready'; readonly supervisorMs: number }
  | { readonly type: 'outcome'; readonly taskId: number; readonly outcome: TaskOutcome }
  | { readonly type: 'log'; readonly name: string; readonly text: string }
  | { readonly type: 'death'; readonly death: WorkerDeath }
  | { readonly type: 'stopped'; readonly terminated: readonly string[] };

/** A worker ended that should not have. */
export interface WorkerDeath {
  /** 'pIOMMU smmu0', 'device 3', 'supervisor', 'core'. */
  readonly name: string;
  readonly kind: 'piommu' | 'device' | 'guest' | 'supervisor' | 'core';
  /** Index of the pIOMMU or of the device; -1 where there is none. */
  readonly index: number;
  readonly exitCode: number;
  readonly reason: string;
}

export function remoteError(error: unknown): RemoteError {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error), stack: '' };
  const { name, message, stack = '' } = error;
  const errno = (error as { errno?: unknown }).errno;
  return typeof errno === 'number' ? { name, message, stack, errno } : { name, message, stack };
}
