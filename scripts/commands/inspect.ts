/** `iommufd inspect`: what a kept machine looks like, for people or (--json) for programs. */
import Table from 'cli-table3';
import type { Command } from 'commander';
import {
  decodeEvent,
  EVENT_BYTES,
  EVENT_NAMES,
  EVENT_WORDS,
  type EventRecord,
} from '../../hw/smmuv3/event.js';
import { queueAdvance, queueIndex, queuePointer, queueUsed } from '../../hw/smmuv3/queue.js';
import {
  CMDQ_BASE,
  CMDQ_CONS,
  CMDQ_PROD,
  CR0ACK,
  EVENTQ_BASE,
  EVENTQ_CONS,
  EVENTQ_PROD,
  GERROR,
  GERRORN,
  STRTAB_BASE,
} from '../../hw/smmuv3/registers.js';
import { bytes as bytesText, plural } from '../../perf/report/units.js';
import { ImageError } from '../../runtime/image/image-file.js';
import { type OpenedIommu, type OpenedMachine, openImage } from '../../runtime/image/opened-machine.js';
import { EXIT_CLEAN, EXIT_USAGE, type Surroundings } from '../surroundings.js';

/** Events told of one SMMU; the rest are counted. */
const MAX_EVENTS = 10;

export function addInspect(program: Command, around: Surroundings, done: (code: number) => void): void {
  program
    .command('inspect')
    .description('open a machine that stress --keep or saveToFile() wrote, and tell how it stands')
    .argument('<file>', 'an image of a machine')
    .option('--json', 'as one JSON object')
    .action((file: string, { json = false }: { json?: boolean }) => {
      try {
        const facts = inspect(openImage(file));
        around.stdout.write(`${json ? asJson(facts) : render(facts)}\n`);
        done(EXIT_CLEAN);
      } catch (error) {
        if (!(error instanceof ImageError) && (error as NodeJS.ErrnoException).code === undefined)
          throw error;
        around.stderr.write(`iommufd inspect: ${(error as Error).message}\n`);
        done(EXIT_USAGE);
      }
    });
}

interface IommuFacts {
  readonly name: string;
  readonly enabled: boolean;
  readonly streamTable: string;
  readonly commands: {
    readonly prod: number;
    readonly cons: number;
    readonly pending: number;
    readonly error: number;
  };
  readonly events: { readonly prod: number; readonly cons: number; readonly pending: number };
  /** Global errors not acknowledged. */
  readonly gerror: number;
  readonly unread: readonly { readonly name: string; readonly record: EventRecord }[];
}

interface MachineFacts {
  readonly memoryBytes: number;
  readonly usedBytes: number;
  readonly devices: readonly { readonly label: string; readonly iommu: string; readonly streamId: number }[];
  readonly iommus: readonly IommuFacts[];
}

function inspect(machine: OpenedMachine): MachineFacts {
  const { config, memory, frames } = machine;
  return {
    memoryBytes: config.memory,
    usedBytes: memory.ram.bytes - frames.freePages() * 4096,
    devices: config.devices.map(({ label, iommu, sid }) => ({ label, iommu, streamId: sid })),
    iommus: machine.iommus.map((iommu) => iommuFacts(machine, iommu)),
  };
}

function iommuFacts({ memory }: OpenedMachine, { name, mmio }: OpenedIommu): IommuFacts {
  const indexes = (base: bigint, prodReg: number, consReg: number) => {
    const lg2 = Number(CMDQ_BASE.LOG2SIZE.get(base));
    const [prod, cons] = [mmio.read32(prodReg), mmio.read32(consReg)];
    return {
      prod: queuePointer(prod, lg2),
      cons: queuePointer(cons, lg2),
      pending: queueUsed(prod, cons, lg2),
    };
  };
  const eventBase = mmio.read64(EVENTQ_BASE.offset);
  const eventLg2 = Number(EVENTQ_BASE.LOG2SIZE.get(eventBase));
  const events = indexes(eventBase, EVENTQ_PROD.offset, EVENTQ_CONS.offset);
  const unread: { name: string; record: EventRecord }[] = [];
  const words = new Uint32Array(EVENT_WORDS);
  for (let i = 0, at = events.cons; i < Math.min(events.pending, 2 ** eventLg2); i++) {
    const pa = Number(EVENTQ_BASE.ADDR.get(eventBase)) + queueIndex(at, eventLg2) * EVENT_BYTES;
    const linear = memory.linearOf(pa, EVENT_BYTES);
    if (linear < 0) break;
    for (let word = 0; word < EVENT_WORDS; word++) words[word] = memory.words.load(linear + word * 4);
    const record = decodeEvent(words);
    unread.push({ name: EVENT_NAMES[record.id] ?? `event ${hex(record.id)}`, record });
    at = queueAdvance(at, eventLg2);
  }
  return {
    name,
    enabled: CR0ACK.SMMUEN.get(mmio.read32(CR0ACK.offset)) === 1,
    streamTable: hex(Number(STRTAB_BASE.ADDR.get(mmio.read64(STRTAB_BASE.offset)))),
    commands: {
      ...indexes(mmio.read64(CMDQ_BASE.offset), CMDQ_PROD.offset, CMDQ_CONS.offset),
      error: CMDQ_CONS.ERR.get(mmio.read32(CMDQ_CONS.offset)),
    },
    events,
    gerror: (mmio.read32(GERROR.offset) ^ mmio.read32(GERRORN.offset)) >>> 0,
    unread,
  };
}

function render({ memoryBytes, usedBytes, devices, iommus }: MachineFacts): string {
  const table = new Table({
    head: ['SMMU', 'state', 'stream table', 'commands', 'events', 'errors'],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, enabled, streamTable, commands, events, gerror } of iommus)
    table.push([
      name,
      enabled ? 'translates' : 'off',
      streamTable,
      `${commands.pending} pending${commands.error === 0 ? '' : `, CERROR ${commands.error}`}`,
      `${events.pending} unread`,
      gerror === 0 ? '-' : `GERROR ${hex(gerror)}`,
    ]);
  const lines = [
    `${plural(iommus.length, 'SMMU')}, ${plural(devices.length, 'device')}, ` +
      `${bytesText(usedBytes)} of ${bytesText(memoryBytes)} in use`,
    table.toString(),
  ];
  for (const { label, iommu, streamId } of devices)
    lines.push(`${label}: stream ${hex(streamId)} of ${iommu}`);
  for (const { name, unread } of iommus) {
    for (const { name: event, record } of unread.slice(0, MAX_EVENTS))
      lines.push(`${name}: ${event} stream ${hex(record.sid)} at ${hex(record.inputAddr)}`);
    if (unread.length > MAX_EVENTS)
      lines.push(`${name}: and ${plural(unread.length - MAX_EVENTS, 'event')} more`);
  }
  return lines.join('\n');
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** Addresses have 64 bits: as hexadecimal text. */
const asJson = (facts: MachineFacts): string =>
  JSON.stringify(facts, (_, value: unknown) => (typeof value === 'bigint' ? hex(value) : value));
