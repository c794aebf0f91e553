/** `iommufd decode`: ioctls in words, and back. */
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { Writable } from 'node:stream';
import { type Command, InvalidArgumentError } from 'commander';
import { type IoctlCall, isProblem } from '../../runtime/trace/call.js';
import { formatCall, formatJson } from '../../runtime/trace/format.js';
import { encodeRecord, looksBinary, RecordReader } from '../../runtime/trace/records.js';
import { type TraceItem, TraceReader } from '../../runtime/trace/strace.js';
import { formatTransfer, formatTransferJson } from '../../runtime/trace/transfer.js';
import { hexAtom } from '../../runtime/trace/tree.js';
import { EXIT_CLEAN, EXIT_FOUND, EXIT_USAGE, type Output, type Surroundings } from '../surroundings.js';

/** A line longer than this is no call. */
const MAX_LINE = 2 ** 20;
/** Written at once. */
const WRITE_BYTES = 2 ** 16;
/** As formatTransfer() has them. */
const TRANSFER = /^(?:\[pid \d+\] )?(?:[\d.:]+ )?(?:read|write)\(\d+<anon_inode:\[iommufd-/;
/** Problems told one by one. */
const MAX_TOLD = 20;

interface Flags {
  readonly json?: boolean;
  readonly encode?: boolean;
  readonly binary?: boolean;
}

export function addDecode(program: Command, around: Surroundings, done: (code: number) => void): void {
  program
    .command('decode')
    .description(
      'ioctls of an iommufd or VFIO file in words: from strace, from run or serve --trace, or from bytes',
    )
    .argument('<file|->', 'a trace, hex text, JSON lines or binary records', (file: string) => {
      if (file === '') throw new InvalidArgumentError('a file, or - for standard input');
      return file;
    })
    .option('--json', 'one JSON object a line')
    .option('--encode', 'the other way: from names to bytes, "0x3b85 28000000..." a line')
    .option('--binary', 'with --encode: binary records (cmd u32, length u32, bytes)')
    .addHelpText(
      'after',
      '\nstrace shows where a struct lies and not what is in it, and of a program under `iommufd run` only what the preload' +
        '\nlibrary sends; --trace of `iommufd run` and `iommufd serve` shows both.' +
        '\nRecords of fault and event files are decoded from strace -y -e read=all -e write=all.' +
        '\n--encode keeps ioctls that have a struct; reads, writes and ioctls that take a number are left out.' +
        '\nExit codes: 0 everything understood, 1 lines that are wrong (on stderr), 2 wrong usage.',
    )
    .action(async (file: string, flags: Flags) => {
      if (flags.binary === true && flags.encode !== true) {
        around.stderr.write('iommufd decode: --binary: only with --encode\n');
        done(EXIT_USAGE);
        return;
      }
      try {
        done(await decode(file, flags, around));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === undefined) throw error;
        around.stderr.write(`iommufd decode: ${(error as Error).message}\n`);
        done(EXIT_USAGE);
      }
    });
}

async function decode(file: string, flags: Flags, around: Surroundings): Promise<number> {
  const sink = new Sink(file === '-' ? 'stdin' : file, flags, around);
  const stream = file === '-' ? process.stdin : createReadStream(file);
  const pieces = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  const start = await enough(pieces);
  if (looksBinary(start)) await fromRecords(start, pieces, sink, around.signal);
  else await fromText(start, pieces, sink, around.signal);
  stream.destroy();
  return await sink.end();
}

/** The first bytes: four at least, unless there are fewer. */
async function enough(pieces: AsyncIterator<Uint8Array>): Promise<Uint8Array> {
  let start = new Uint8Array(0);
  while (start.byteLength < 4) {
    const { done, value } = await pieces.next();
    if (done === true) break;
    start = Buffer.concat([start, value]);
  }
  return start;
}

async function fromRecords(
  start: Uint8Array,
  pieces: AsyncIterator<Uint8Array>,
  sink: Sink,
  signal: AbortSignal,
): Promise<void> {
  const reader = new RecordReader();
  const take = async (found: ReturnType<RecordReader['push']>): Promise<void> => {
    for (const call of found) {
      if (isProblem(call)) sink.problem(null, call.problem);
      else await sink.call(call);
    }
  };
  let next: IteratorResult<Uint8Array> = { done: false, value: start };
  while (next.done !== true && !signal.aborted) {
    await take(reader.push(next.value));
    next = await pieces.next();
  }
  await take(reader.end());
}

async function fromText(
  start: Uint8Array,
  pieces: AsyncIterator<Uint8Array>,
  sink: Sink,
  signal: AbortSignal,
): Promise<void> {
  const reader = new TraceReader();
  const text = new TextDecoder();
  let rest = '';
  let skipping = false;
  const line = async (whole: string): Promise<void> => {
    if (skipping) for (const item of reader.push('')) await sink.item(item);
    else for (const item of reader.push(whole.replace(/\r$/, ''))) await sink.item(item);
    skipping = false;
  };
  let next: IteratorResult<Uint8Array> = { done: false, value: start };
  let count = 0;
  while (next.done !== true && !signal.aborted) {
    rest += text.decode(next.value, { stream: true });
    let from = 0;
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n', from)) {
      count++;
      await line(rest.slice(from, end));
      from = end + 1;
    }
    rest = rest.slice(from);
    if (rest.length > MAX_LINE) {
      if (!skipping) sink.problem(count + 1, `longer than ${MAX_LINE} characters`);
      skipping = true;
      rest = '';
    }
    next = await pieces.next();
  }
  rest += text.decode();
  if (rest !== '') await line(rest);
  for (const item of reader.end()) await sink.item(item);
}

/** Where what was understood goes, in the form that was asked for, and what was not. */
class Sink {
  readonly #source: string;
  readonly #flags: Flags;
  readonly #stdout: Output;
  readonly #stderr: Output;
  readonly #held: Uint8Array[] = [];
  #heldBytes = 0;
  #problems = 0;
  #calls = 0;
  #addressesOnly = 0;
  /** Lines or records of whatever kind, and those of them that are no ioctl, read or write. */
  #items = 0;
  #passedOn = 0;
  /** Of --encode: understood, and without a struct. */
  #leftOut = 0;

  constructor(source: string, flags: Flags, { stdout, stderr }: Surroundings) {
    this.#source = source;
    this.#flags = flags;
    this.#stdout = stdout;
    this.#stderr = stderr;
  }

  async item(item: TraceItem): Promise<void> {
    const { json, encode } = this.#flags;
    this.#items++;
    if (item.kind === 'call') return await this.call(item.call);
    if (item.kind === 'problem') return this.problem(item.line, item.problem);
    if (item.kind !== 'transfer') this.#passedOn++;
    // Nothing else is an ioctl's bytes.
    if (encode === true) {
      if (item.kind === 'transfer' || TRANSFER.test(item.text)) this.#leftOut++;
      return;
    }
    if (item.kind === 'transfer')
      return await this.#write((json === true ? formatTransferJson : formatTransfer)(item.transfer));
    if (json !== true || item.text.startsWith('{')) await this.#write(item.text);
    else if (item.text !== '') await this.#write(JSON.stringify({ text: item.text }));
  }

  async call(call: IoctlCall): Promise<void> {
    const { json, encode, binary } = this.#flags;
    this.#calls++;
    if (call.in === undefined && call.arg !== undefined && call.arg > 0xffffn) this.#addressesOnly++;
    if (encode !== true) return await this.#write((json === true ? formatJson : formatCall)(call));
    if (call.in === undefined) {
      this.#leftOut++;
      return;
    }
    if (binary === true) return await this.#write(encodeRecord(call));
    if (json === true) return await this.#write(formatJson(call, { raw: true }));
    const cmd = `0x${call.cmd.toString(16)}`;
    await this.#write(`${cmd} ${hexAtom(call.in).slice('hex:'.length)}`);
  }

  /** @param line  null: the problem says where */
  problem(line: number | null, problem: string): void {
    this.#problems++;
    if (this.#problems > MAX_TOLD) return;
    this.#stderr.write(`${this.#source}:${line === null ? '' : `${line}:`} ${problem}\n`);
  }

  async end(): Promise<number> {
    await this.#flush();
    if (this.#problems > MAX_TOLD)
      this.#stderr.write(`${this.#source}: ${this.#problems - MAX_TOLD} more lines are wrong\n`);
    if (this.#items > 0 && this.#passedOn === this.#items)
      this.#stderr.write(
        `${this.#source}: no ioctl in ${this.#items} lines, which are passed on as they are\n`,
      );
    if (this.#addressesOnly > 0)
      this.#stderr.write(
        `${this.#source}: of ${this.#addressesOnly} of ${this.#calls} ioctls only the address of the struct is ` +
          'in the trace, which is all that strace has: --trace of `iommufd run` and `serve` has the bytes\n',
      );
    const others = this.#leftOut - this.#addressesOnly;
    if (others > 0)
      this.#stderr.write(
        `${this.#source}: ${others} calls that have no struct (reads, writes, ioctls that take a number) are left out\n`,
      );
    return this.#problems > 0 ? EXIT_FOUND : EXIT_CLEAN;
  }

  async #write(what: string | Uint8Array): Promise<void> {
    this.#held.push(typeof what === 'string' ? Buffer.from(`${what}\n`) : what);
    this.#heldBytes += this.#held.at(-1)!.byteLength;
    if (this.#heldBytes >= WRITE_BYTES) await this.#flush();
  }

  /** Waits while a pipe is full. */
  async #flush(): Promise<void> {
    const whole = Buffer.concat(this.#held);
    this.#held.length = 0;
    this.#heldBytes = 0;
    if (whole.byteLength === 0) return;
    const { binary } = this.#flags;
    const taken = this.#stdout.write((binary === true ? whole : whole.toString()) as string);
    if (taken === false && this.#stdout instanceof Writable && !this.#stdout.destroyed)
      // A reader that has gone away is told by the stream's own listener.
      await once(this.#stdout, 'drain').catch(() => undefined);
  }
}
