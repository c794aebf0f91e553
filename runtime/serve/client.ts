/**
 * A client process: the connections on which it asks, the Task that the core works for, and what it opened. Two
 * connections are the same client's when they have the same memory: a process that has called exec is another.
 */
import type { OpenFile } from '../core/file-table.js';
import type { ClientTask } from './client-task.js';
import type { Connection } from './connection.js';

/** A file that a client opened, or can have an ioctl open. */
export interface OpenedFile {
  readonly connection: Connection;
  /** A spare becomes what an ioctl made. */
  becomeMade(file: OpenFile): void;
  /** The ioctl failed after all. */
  unmake(): void;
}

export class Client {
  readonly pid: number;
  readonly task: ClientTask;
  /** Shown by file connections. */
  readonly secret: Buffer;
  readonly controls = new Set<Connection>();
  /** What was opened here: it goes when the client misbehaves. Copies elsewhere keep it otherwise. */
  readonly files = new Set<OpenedFile>();
  /** What others opened, and this one has been seen to have a descriptor of. */
  readonly seen = new WeakSet<OpenedFile>();
  /** What the call at work may turn into an open file. */
  spare: OpenedFile | null = null;
  spareFd = -1;
  spareUsed = false;

  constructor(pid: number, task: ClientTask, secret: Buffer) {
    this.pid = pid;
    this.task = task;
    this.secret = secret;
  }

  /** Task.files.install. @returns the descriptor that the client has ready, or -1 */
  installSpare(file: OpenFile): number {
    if (this.spare === null || this.spareUsed || this.spareFd < 0) return -1;
    this.spareUsed = true;
    this.spare.becomeMade(file);
    return this.spareFd;
  }

  /** Task.files.close of what installSpare() gave, before the client has seen it. @returns whether it was that */
  removeSpare(fd: number): boolean {
    if (!this.spareUsed || fd !== this.spareFd) return false;
    this.spareUsed = false;
    this.spare?.unmake();
    return true;
  }
}
