/**
 * The yardstick in C (baseline/): compiled anew for each run with `cc -O2`, over an image of a machine's linear
 * memory, so that it finds the same bytes at the same offsets. It waits for a line, does one round and answers
 * with a line, so that rounds of C and of ours really alternate.
 */
import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Kernel } from '../../hw/kernel/kernel.js';
import type { MachineMemory } from '../../hw/memory/machine-memory.js';
import { pin } from './affinity.js';

const SOURCES = ['main.c', 'hits.c', 'iotlb.c', 'walk.c', 'pagetable.c'];
const FOLDER = fileURLToPath(new URL('../../../perf/bench/baseline/', import.meta.url));
/** What the image is written in: pieces without a byte set are left out. */
const CHUNK_BYTES = 65536;

/** Of layout.h: what the C sources need, and nothing that a system header may have another idea of. */
const LAYOUT_NAME = /^(XLAT|CONTEXT|UNIT|PORT|IOTLB|MICRO|PAGE_TABLE|LEAF_SIZES|F|NO)_[A-Z0-9_]+$/;

export const NO_CC = 'no C compiler';
export const CC_FAILED = 'the C compiler failed';

export interface Compiled {
  readonly program: string;
  /** Where it lies, with the images; removed by `remove`. */
  readonly folder: string;
  remove(): void;
}

/** @returns the program, or why there is none */
export function compileBaseline(kernel: Kernel): Compiled | string {
  const cc = process.env.CC ?? 'cc';
  if (spawnSync(cc, ['--version'], { stdio: 'ignore' }).status !== 0) return NO_CC;
  const folder = mkdtempSync(join(tmpdir(), 'iommufd-baseline-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  writeFileSync(join(folder, 'layout.h'), layoutHeader(kernel));
  const program = join(folder, 'baseline');
  const sources = SOURCES.map((name) => join(FOLDER, name));
  const flags = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-I', folder, '-I', FOLDER];
  const { status, stderr } = spawnSync(cc, [...flags, '-o', program, ...sources], { encoding: 'utf8' });
  if (status === 0) return { program, folder, remove };
  remove();
  process.stderr.write(`bench: ${cc} ${flags.join(' ')}:\n${stderr}`);
  return CC_FAILED;
}

/** The layouts' numbers, as the compiled kernel has them. */
function layoutHeader(kernel: Kernel): string {
  const lines = Object.entries(kernel.exports).flatMap(([name, value]) => {
    const number = (value as { value?: unknown }).value;
    return LAYOUT_NAME.test(name) && typeof number === 'number' ? [`#define ${name} ${number >>> 0}u`] : [];
  });
  return `${lines.join('\n')}\n`;
}

export type Answer = Readonly<Record<string, number>>;

/** Taken so far: several may be under way at once. */
let images = 0;

/** One program on one image. */
export class Baseline {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: Interface;
  #waiting: ((line: string | null) => void) | null = null;

  private constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout });
    this.#lines.on('line', (line) => this.#waiting?.(line));
    child.on('exit', () => this.#waiting?.(null));
    child.stdin.on('error', () => undefined);
  }

  /** Takes an image of the memory as it is now, and starts the program on it, on the first processor. */
  static async start(compiled: Compiled, memory: MachineMemory): Promise<Baseline> {
    const image = join(compiled.folder, `image-${images++}`);
    writeImage(image, memory);
    const { linear, basePa, bytes } = memory.ram;
    const numbers = [memory.buffer.byteLength, linear, basePa, bytes].map(String);
    const child = spawn(compiled.program, [image, ...numbers], { stdio: ['pipe', 'pipe', 'inherit'] });
    const baseline = new Baseline(child);
    await baseline.#next();
    rmSync(image);
    if (child.pid !== undefined) pin(child.pid, 0);
    return baseline;
  }

  /** One line, one answer. @throws Error the program has no such command, or ended */
  async ask(command: string, ...numbers: readonly number[]): Promise<Answer> {
    const answer = this.#next();
    this.#child.stdin.write(`${[command, ...numbers].join(' ')}\n`);
    const fields = JSON.parse(await answer) as Answer & { error?: string };
    if (fields.error !== undefined) throw new Error(`baseline: ${command}: ${fields.error}`);
    return fields;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.stdin.end();
    await ended;
  }

  #next(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#waiting = (line) => {
        this.#waiting = null;
        if (line === null) reject(new Error('baseline: the C program ended'));
        else resolve(line);
      };
    });
  }
}

function writeImage(path: string, memory: MachineMemory): void {
  const file = openSync(path, 'w');
  try {
    ftruncateSync(file, memory.buffer.byteLength);
    const copy = new Uint8Array(CHUNK_BYTES);
    for (let at = 0; at < memory.buffer.byteLength; at += CHUNK_BYTES) {
      if (isZero(memory.i32, at >>> 2, (at + CHUNK_BYTES) >>> 2)) continue;
      copy.set(memory.u8.subarray(at, at + CHUNK_BYTES));
      writeSync(file, copy, 0, CHUNK_BYTES, at);
    }
  } finally {
    closeSync(file);
  }
}

function isZero(words: Int32Array, from: number, end: number): boolean {
  let any = 0;
  for (let i = from; i < end; i++) any |= words[i]!;
  return any === 0;
}
