/** A process of client-process.c, told what to do from a test. */
import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

let program: string | null | undefined;

/** Path of the compiled program; null where there is no C compiler, or no /proc. */
export function clientProgram(): string | null {
  if (program !== undefined) return program;
  const directory = mkdtempSync(join(tmpdir(), 'iommufd-client-'));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'client');
  const source = join(process.cwd(), 'test', 'kit', 'client-process.c');
  const built = spawnSync('cc', ['-O1', '-Wall', '-o', path, source], { encoding: 'utf8' });
  if (built.error === undefined && built.status !== 0) throw new Error(built.stderr);
  program = process.platform === 'linux' && built.error === undefined ? path : null;
  return program;
}

export class ClientProcess {
  readonly pid: number;
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: Interface;
  readonly #answers: string[] = [];
  readonly #waiting: ((line: string) => void)[] = [];

  constructor(path: string) {
    this.#child = spawn(path, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.pid = this.#child.pid!;
    this.#lines = createInterface({ input: this.#child.stdout });
    this.#lines.on('line', (line) => {
      const next = this.#waiting.shift();
      if (next === undefined) this.#answers.push(line);
      else next(line);
    });
    this.#child.stdin.on('error', () => undefined);
  }

  /** One command, and its answer as a number. */
  async ask(...words: (string | number)[]): Promise<number> {
    this.#child.stdin.write(`${words.join(' ')}\n`);
    return this.answer();
  }

  /** The next line that nobody has asked for. */
  async answer(): Promise<number> {
    const line =
      this.#answers.shift() ?? (await new Promise<string>((resolve) => this.#waiting.push(resolve)));
    return Number(line);
  }

  /** Ends a child that took over; its parent answers next. */
  async endChild(): Promise<void> {
    await this.ask('exit');
  }

  /** A command that ends this program, or has no answer. */
  say(...words: (string | number)[]): void {
    this.#child.stdin.write(`${words.join(' ')}\n`);
  }

  async exit(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.stdin.end('exit\n');
    await gone;
    this.#lines.close();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
