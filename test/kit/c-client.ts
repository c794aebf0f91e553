/**
 * C programs of a test's own, compiled when it runs, as clients of a machine that the test serves. Each is the body of
 * a main(), with the ABI restated in the prelude below; what it prints is what the test looks at.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { createMachine, type Machine } from '../../runtime/machine.js';
import type { MachineConfig } from '../../runtime/machine-schema.js';
import { type Served, type ServeOptions, serve } from '../../runtime/serve/index.js';
import { buildPreload, compiler, hasCompiler } from '../../runtime/serve/preload-library.js';

/** False, with a line about it, when there is no C compiler: the test has nothing to run. */
export function canCompile(t: ExecutionContext): boolean {
  const can = hasCompiler();
  if (!can) {
    t.log(`skipped: no C compiler ('${compiler()}'); CC names one`);
    t.pass();
  }
  return can;
}

const PRELUDE = `
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#define IOC(n) (0x3b00 | (n))
struct destroy { uint32_t size, id; };
struct ioas_alloc { uint32_t size, flags, out_id; };
struct bind { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct attach { uint32_t argsz, flags, pt_id; };
static inline const char *err(long result) { return result < 0 ? strerrorname_np(errno) : "OK"; }
static inline int dev_iommu(void) { return open("/dev/iommu", O_RDWR | O_CLOEXEC); }
static inline int ioas(int fd, uint32_t *id)
{
	struct ioas_alloc cmd = { .size = sizeof(cmd) };
	int r = ioctl(fd, IOC(0x81), &cmd);
	*id = cmd.out_id;
	return r;
}
static inline int destroy(int fd, uint32_t id)
{
	struct destroy cmd = { .size = sizeof(cmd), .id = id };
	return ioctl(fd, IOC(0x80), &cmd);
}
static inline int bind_to(int vfio, int fd, uint32_t *devid)
{
	struct bind cmd = { .argsz = sizeof(cmd), .iommufd = fd };
	int r = ioctl(vfio, IOC(118), &cmd);
	*devid = cmd.out_devid;
	return r;
}
`;

export interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class CClients {
  readonly machine: Machine;
  readonly served: Served;
  /** What the server had to say. */
  readonly log: string[];
  readonly #folder: string;
  readonly #children = new Set<ChildProcess>();
  #programs = 0;

  private constructor(machine: Machine, served: Served, log: string[]) {
    this.machine = machine;
    this.served = served;
    this.log = log;
    this.#folder = mkdtempSync(join(tmpdir(), 'iommufd-test-'));
  }

  /** A machine with two SMMUs and two devices each (vfio0 to vfio3), served until the test is over. */
  static async start(
    t: ExecutionContext,
    options: ServeOptions = {},
    hardware: Omit<MachineConfig['iommus'][number], 'name' | 'model'> = {},
  ): Promise<CClients> {
    const machine = createMachine({
      memory: '64MiB',
      iommus: [
        { name: 'smmu0', model: 'smmuv3', ...hardware },
        { name: 'smmu1', model: 'smmuv3', ...hardware },
      ],
      devices: ['0000:01:00.0', '0000:02:00.0', '0001:01:00.0', '0001:02:00.0'].map((bdf) => ({
        bdf,
        iommu: `smmu${Number(bdf.slice(0, 4))}`,
      })),
    });
    const log: string[] = [];
    const served = await serve(machine, { log: (line) => log.push(line), ...options });
    const clients = new CClients(machine, served, log);
    t.teardown(() => clients.#close());
    return clients;
  }

  /** @param body  of main(int argc, char **argv) @returns the program */
  compile(body: string, functions = ''): string {
    const program = join(this.#folder, `p${this.#programs++}`);
    const main = `int main(int argc, char **argv)\n{\n(void)argc; (void)argv;\n${body}\nreturn 0;\n}\n`;
    writeFileSync(`${program}.c`, `${PRELUDE}${functions}${main}`);
    const built = spawnSync(compiler(), ['-O1', '-Wall', '-pthread', '-o', program, `${program}.c`], {
      encoding: 'utf8',
    });
    if (built.status !== 0) throw new Error(built.stderr);
    return program;
  }

  start(program: string, args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): ChildProcess {
    const child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, LD_PRELOAD: buildPreload(), IOMMUFD_SOCKET: this.served.socket, ...env },
    });
    this.#children.add(child);
    child.on('exit', () => this.#children.delete(child));
    return child;
  }

  /** Compiles and runs. */
  async run(body: string, functions = '', args: readonly string[] = []): Promise<Finished> {
    return finished(this.start(this.compile(body, functions), args));
  }

  async #close(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL');
    await this.served.close();
    this.machine.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export function finished(child: ChildProcess): Promise<Finished> {
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (bytes: Buffer) => {
    stdout += bytes.toString();
  });
  child.stderr?.on('data', (bytes: Buffer) => {
    stderr += bytes.toString();
  });
  return new Promise((done) => {
    child.on('close', (code, signal) => done({ stdout, stderr, code, signal }));
  });
}

/** The next that a program prints: what it flushed, as it came. */
export function printed(child: ChildProcess): Promise<string> {
  return new Promise((done) => {
    child.stdout?.once('data', (bytes: Buffer) => done(bytes.toString()));
  });
}

/** Until something is so; a turn of the event loop at a time. */
export async function until(what: () => boolean): Promise<void> {
  for (let turns = 0; turns < 2000 && !what(); turns++) await new Promise((done) => setTimeout(done, 5));
}
