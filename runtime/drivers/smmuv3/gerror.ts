/**
 * Global errors, and the one that software must mend: a command the SMMU refused. [IHI0070] 6.3.17 and 7.1.
 *
 * After a command error the SMMU stops with CMDQ_CONS at the command. The driver overwrites the command by a
 * SYNC, which is harmless, and acknowledges; the SMMU goes on. Nothing of the queue's shadow state is
 * touched: producers may be at work. Whoever notices serves the error, under one word of its own; the core hears
 * of it at its next poll().
 *
 *   CERROR_ILL           overwritten, counted in `skipped`
 *   CERROR_ABT           the fetch is repeated
 *   CERROR_ATC_INV_SYNC  counted in `atcTimeouts`; the SYNC is repeated and completes what is left
 *   SFM_ERR              the SMMU is disabled: CR0 := 0. Waiters run into their deadline
 *   all others           something was lost that nobody can bring back: reported
 *
 * @source drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c __arm_smmu_cmdq_skip_err, arm_smmu_gerror_handler
 */
import { type BugSwitches, NO_BUGS } from '../../../hw/bugs/bug-switches.js';
import { COMMAND_BYTES, COMMAND_WORDS, encodeSync, SYNC_CS_SEV } from '../../../hw/smmuv3/command.js';
import { queueIndex } from '../../../hw/smmuv3/queue.js';
import {
  CERROR_ABT,
  CERROR_ATC_INV_SYNC,
  CERROR_NONE,
  CMDQ_CONS,
  CR0,
  GERROR,
  GERRORN,
} from '../../../hw/smmuv3/registers.js';
import type { Words } from '../../../hw/sync/words.js';
import { DriverLayout } from './driver-layout.js';

const AT = DriverLayout.at;

/** Values of `errorLock`. ASKED: held, and somebody else saw an error meanwhile. */
const ERROR_FREE = 0;
const ERROR_HELD = 1;
const ERROR_ASKED = 2;
/** Every error bit there is; the others of GERROR are reserved. */
const GERROR_ALL = 0x1fd;

export interface ErrorRegisters {
  read32(offset: number): number;
  write32(offset: number, value: number): void;
}

/**
 * Serves active global errors; any thread. @param base linear offset of the SMMU's DriverLayout
 * @returns the GERROR bits that were active and are acknowledged now; 0 when none, or another thread is at it
 */
export function serveGerror(
  words: Words,
  base: number,
  registers: ErrorRegisters,
  bugs: BugSwitches = NO_BUGS,
): number {
  let served = 0;
  while (active(registers) !== 0) {
    if (!lockOrLeaveWord(words, base) && !bugs['gerror-served-twice']) break;
    served |= serveLocked(words, base, registers, bugs);
    // Whoever came meanwhile has left it to this thread, and sleeps: there may be a new error.
    if (words.exchange(base + AT.errorLock, ERROR_FREE) !== ERROR_ASKED) break;
  }
  return served;
}

/** @returns whether the lock is this thread's; if not, its holder will look again */
function lockOrLeaveWord(words: Words, base: number): boolean {
  for (;;) {
    if (words.compareExchange(base + AT.errorLock, ERROR_FREE, ERROR_HELD) === ERROR_FREE) return true;
    if (words.compareExchange(base + AT.errorLock, ERROR_HELD, ERROR_ASKED) !== ERROR_FREE) return false;
  }
}

function serveLocked(words: Words, base: number, registers: ErrorRegisters, bugs: BugSwitches): number {
  // Again, now alone: the error seen above may have been served meanwhile.
  const gerror = registers.read32(GERROR.offset);
  const bits = (gerror ^ registers.read32(GERRORN.offset)) & GERROR_ALL;
  if (bits === 0) return 0;
  if (GERROR.SFM_ERR.get(bits) !== 0) registers.write32(CR0.offset, 0);
  if (bugs['gerror-acknowledged-early']) registers.write32(GERRORN.offset, gerror);
  if (GERROR.CMDQ_ERR.get(bits) !== 0) skipCommand(words, base, registers, bugs);
  words.or(base + AT.errorsSeen, bits);
  if (!bugs['gerror-acknowledged-early']) registers.write32(GERRORN.offset, gerror);
  return bits;
}

/** What serveGerror() acknowledged, on any thread, since the last call. The core. */
export const takeErrors = (words: Words, base: number): number => words.exchange(base + AT.errorsSeen, 0);

const active = (registers: ErrorRegisters): number =>
  (registers.read32(GERROR.offset) ^ registers.read32(GERRORN.offset)) & GERROR_ALL;

function skipCommand(words: Words, base: number, registers: ErrorRegisters, bugs: BugSwitches): void {
  const cons = registers.read32(CMDQ_CONS.offset);
  switch (CMDQ_CONS.ERR.get(cons)) {
    case CERROR_NONE:
    // The fetch is retried once the error is acknowledged.
    case CERROR_ABT:
      return;
    case CERROR_ATC_INV_SYNC:
      words.add(base + AT.atcTimeouts, 1);
      return;
  }
  const slot = queueIndex(
    bugs['cerror-skips-next-command'] ? cons + 1 : cons,
    words.load(base + AT.queueLg2),
  );
  const linear = (words.load(base + AT.queueLinear) >>> 0) + slot * COMMAND_BYTES;
  const sync = new Uint32Array(COMMAND_WORDS);
  encodeSync(sync, 0, SYNC_CS_SEV);
  for (let i = 0; i < COMMAND_WORDS; i++) words.store(linear + i * 4, sync[i]! | 0);
  words.add(base + AT.skipped, 1);
}
