/**
 * The two builds of the compiled kernel, from one source (assembly/).
 *
 *   kernel.wasm          schedule points and the zoo's bugs were taken out before it was compiled
 *   kernel-explore.wasm  says before each shared access what it is about to do; has the zoo's bugs, all off
 *
 * A thread with a schedule hook (hw/sync/words.ts) gets the second. The hook is looked up at each point, so that one
 * instance serves whatever hook the thread has then, or none.
 *
 * The compiled code's own stores are never kept in a thread's store buffer, nor does it look there when it loads. So
 * a point of a store makes the buffer visible first, as the hook itself does at that of a read-modify-write: what the
 * thread stored before is not overtaken. A wake-up is the hook's, because sleeping is.
 */
import { readFileSync } from 'node:fs';
import type { BugName, BugSwitches } from '../bugs/bug-switches.js';
import type { MachineMemory } from '../memory/machine-memory.js';
import { Wasm, type WasmMemory } from '../memory/webassembly.js';
import { OP_LOAD, OP_NOTIFY, OP_STORE, type ScheduleHook, scheduleHook, type WordOp } from '../sync/words.js';

/** Bugs of the zoo that lie in compiled code: their bits, as assembly/zoo.ts has them. */
export const KERNEL_BUGS = {
  'table-linked-before-filled': 1 << 0,
  'dirty-cleared-without-cas': 1 << 1,
  'micro-tlb-survives-epoch': 1 << 2,
  'iotlb-fill-unguarded': 1 << 3,
  'epoch-entered-unchecked': 1 << 4,
  'atc-fill-unguarded': 1 << 5,
} as const satisfies Partial<Record<BugName, number>>;

type KernelBug = keyof typeof KERNEL_BUGS;

/** More threads than can sleep on one word. */
const ALL = 0x7fff_ffff;

let normal: object | undefined;
let explore: object | undefined;
const instances = new WeakMap<WasmMemory, Record<string, unknown>>();

/** Compiled once per thread: threads may not share what they have not been sent. */
const compile = (file: string): object =>
  new Wasm.Module(readFileSync(new URL(`./${file}.wasm`, import.meta.url)));

const bugsOn = (bugs: BugSwitches | undefined): KernelBug[] =>
  (Object.keys(KERNEL_BUGS) as KernelBug[]).filter((name) => bugs?.[name] === true);

/** Why this thread's variant cannot have these bugs; null when it can. */
export function refusedBugs(bugs: BugSwitches | undefined): string | null {
  const on = bugsOn(bugs);
  if (on.length === 0 || scheduleHook() !== null) return null;
  return `${on.join(', ')}: needs the explore variant of the kernel, which a thread without a schedule hook does not load`;
}

/**
 * An instance of the variant that is this thread's.
 * @throws Error on refusedBugs()
 */
export function instantiateKernel(
  memory: MachineMemory,
  bugs: BugSwitches | undefined,
): Record<string, unknown> {
  const refused = refusedBugs(bugs);
  if (refused !== null) throw new Error(refused);
  if (scheduleHook() !== null) {
    const exports = exploreInstance(memory);
    (exports.beginAnew as () => void)();
    const setBugs = exports.setBugs as (bits: number) => void;
    setBugs(bugsOn(bugs).reduce<number>((bits, name) => bits | KERNEL_BUGS[name], 0));
    return exports;
  }
  normal ??= compile('kernel');
  return new Wasm.Instance(normal, { env: { memory: memory.memory } }).exports;
}

/** One for each memory: an explorer builds machine after machine in the same. What one leaves to the next is forgotten. */
function exploreInstance(memory: MachineMemory): Record<string, unknown> {
  let exports = instances.get(memory.memory);
  if (exports === undefined) {
    explore ??= compile('kernel-explore');
    const env = { memory: memory.memory, schedulePoint: pointsOf(memory) };
    ({ exports } = new Wasm.Instance(explore, { env }));
    instances.set(memory.memory, exports);
  }
  return exports;
}

/** Compiled code reads memory itself: what the hook keeps of this thread's, to a word that it loads, must be there. */
const keeps = (hook: ScheduleHook, offset: number): boolean =>
  hook.forward32(offset) !== undefined || hook.forward32(offset + 4) !== undefined;

/** What the explore variant calls before each shared access. */
function pointsOf({ words }: MachineMemory): (op: WordOp, at: number) => void {
  return (op, at) => {
    const offset = at >>> 0;
    if (op === OP_NOTIFY) {
      words.notify(offset, ALL);
      return;
    }
    const hook = scheduleHook();
    if (hook === null) return;
    hook.point(op, offset);
    if (op === OP_STORE || (op === OP_LOAD && keeps(hook, offset))) hook.dmaWmb();
  };
}
