/**
 * What went through an SMMU's queues, counted on both sides, when all programs are through and the hardware sleeps.
 *
 *   commands        R18  CONS = PROD = what the driver has handed over
 *                   R17  nobody owns, holds or waits for the queue; each slot's valid bit says how often it was
 *                        written; as many commands were consumed as were put there
 *   command errors  R19  no command was refused, no ATC invalidation given up, no error left unacknowledged
 *   events          R20  Event and PRI queue: PROD counts what was recorded; an overflow is flagged only when
 *                        something was lost
 */
import { QUEUE_OVERFLOW, queueIndex, queuePointer, queueUsed } from '../../../hw/smmuv3/queue.js';
import { GERROR } from '../../../hw/smmuv3/registers.js';
import { Smmuv3Layout } from '../../../hw/smmuv3/smmuv3-layout.js';
import { CMDQ_OWNED, DriverLayout, driverKey } from '../../../runtime/drivers/smmuv3/driver-layout.js';
import type { Machine } from '../../../runtime/machine.js';
import { type HardwareView, viewsOf } from './hardware-view.js';
import type { EndMonitor, Expect } from './monitor.js';

const at = Smmuv3Layout.at;
const driver = DriverLayout.at;
const CONS_SHIFT = 16;

export const commands: EndMonitor = {
  name: 'commands',
  about: 'the command queue is empty, at rest, and lost nothing',
  checks: ['R17', 'R18'],
  look(machine: Machine, expect: Expect): void {
    for (const view of viewsOf(machine)) checkCommands(machine, view, expect);
  },
};

function checkCommands(machine: Machine, view: HardwareView, expect: Expect): void {
  const { name, index } = view.iommu;
  const { u32, region } = driverWords(machine, index);
  const word = (offset: number): number => u32[(region + offset) >>> 2]!;
  if (word(driver.queueLinear) === 0) return;
  const lg2 = word(driver.queueLg2);
  const llq = word(driver.llq);
  const handed = llq & (CMDQ_OWNED - 1);
  const prod = queuePointer(view.load(at.cmdqProd), lg2);
  const cons = queuePointer(view.load(at.cmdqCons), lg2);
  const pointers = (): string =>
    `${name}: reserved up to ${handed}, PROD ${prod}, CONS ${cons}, the driver's CONS ${llq >>> CONS_SHIFT}`;
  expect('R18', prod === handed && cons === prod, pointers);
  expect('R18', queueUsed(handed, llq >>> CONS_SHIFT, lg2) <= 2 ** lg2, pointers);
  const atRest = (llq & CMDQ_OWNED) === 0 && word(driver.ownerProd) === handed;
  expect('R17', atRest, () => `${name}: somebody still owns the command queue (${llq.toString(16)})`);
  const held = [driver.lock, driver.waiters, driver.errorLock].map(word);
  expect('R17', !held.some((n) => n !== 0), () => `${name}: lock, waiters and errorLock are left at ${held}`);
  for (let slot = 0; slot < 2 ** lg2; slot += 32) {
    const want = validBits(handed, lg2, slot);
    const is = word(driver.valid + slot / 8);
    expect(
      'R17',
      is === want,
      () => `${name}: valid bits from slot ${slot} on are ${hex(is)}, should be ${hex(want)}`,
    );
  }
  // What stopped at an error, or was lost in a reset, is not in the count.
  if (view.load(at.irqGerror) !== 0 || view.load(at.resetDone) !== 0) return;
  const consumed = queuePointer(view.load(at.commandsConsumed), lg2);
  expect(
    'R17',
    consumed === prod,
    () => `${pointers()}; ${consumed} commands were consumed, counted as PROD is`,
  );
}

/** Of slots [slot, slot + 32): a slot behind the index was written once more than one before it. */
function validBits(prod: number, lg2: number, slot: number): number {
  const odd = (prod & (2 ** lg2)) === 0;
  const behind = Math.min(Math.max(queueIndex(prod, lg2) - slot, 0), 32);
  const bits = behind === 32 ? -1 : (1 << behind) - 1;
  return (odd ? bits : ~bits) >>> 0;
}

export const commandErrors: EndMonitor = {
  name: 'command errors',
  about: 'no command was refused or given up',
  checks: ['R19'],
  look(machine: Machine, expect: Expect): void {
    for (const view of viewsOf(machine)) {
      const { name, index } = view.iommu;
      const { u32, region } = driverWords(machine, index);
      const [skipped, timeouts] = [driver.skipped, driver.atcTimeouts].map((n) => u32[(region + n) >>> 2]!);
      expect('R19', skipped === 0 && timeouts === 0, () => {
        return `${name}: ${skipped} commands were refused, ${timeouts} ATC invalidations given up`;
      });
      const active = view.load(at.gerror) ^ view.load(at.gerrorn);
      expect(
        'R19',
        (active & GERROR.CMDQ_ERR.mask) === 0,
        () => `${name}: a command error is not acknowledged`,
      );
    }
  },
};

export const events: EndMonitor = {
  name: 'events',
  about: 'event and page request queues hold what was recorded',
  checks: ['R20'],
  look(machine: Machine, expect: Expect): void {
    for (const view of viewsOf(machine)) {
      if (view.load(at.resetDone) !== 0) continue;
      checkEvents(view, expect, 'Event', view.log2Of('eventqBase'), {
        prod: view.load(at.eventqProd),
        cons: view.load(at.eventqCons),
        recorded: view.load(at.eventsRecorded),
        lost: view.load(at.eventsLost),
      });
      checkEvents(view, expect, 'PRI', view.log2Of('priqBase'), {
        prod: view.load(at.priqProd),
        cons: view.load(at.priqCons),
        recorded: view.load(at.pageRequests),
        lost: view.load(at.pageRequestsLost),
      });
    }
  },
};

interface Ledger {
  readonly prod: number;
  readonly cons: number;
  readonly recorded: number;
  readonly lost: number;
}

function checkEvents(
  { iommu }: HardwareView,
  expect: Expect,
  queue: string,
  lg2: number,
  ledger: Ledger,
): void {
  const { prod, cons, recorded, lost } = ledger;
  const story = (): string =>
    `${iommu.name}: ${recorded} records and ${lost} lost, PROD ${hex(prod)}, CONS ${hex(cons)} of the ${queue} queue`;
  expect('R20', queuePointer(recorded, lg2) === queuePointer(prod, lg2), story);
  expect('R20', queueUsed(prod, cons, lg2) <= 2 ** lg2, story);
  expect('R20', ((prod ^ cons) & QUEUE_OVERFLOW) === 0 || lost > 0, story);
}

function driverWords({ memory }: Machine, index: number): { u32: Uint32Array; region: number } {
  return { u32: memory.u32, region: memory.region(DriverLayout, driverKey(index)).base };
}

const hex = (word: number): string => `0x${(word >>> 0).toString(16)}`;
