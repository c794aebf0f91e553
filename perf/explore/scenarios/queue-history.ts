/**
 * What went through a command queue in a schedule, kept in ghost words: calls with the time they began and ended,
 * commands in the order in which the SMMU took them. And the sequential object that the queue has to look like.
 *
 *   clock | taken | calls: CALLS x (begin, end, commands, flags) | taken: (value, time) each
 */
import { linearize, type Operation, type SequentialObject } from '../linearizability.js';

const CLOCK = 0;
const TAKEN = 1;
const CALLS_AT = 16;
/** Calls of one producer. */
export const CALLS = 8;
const PRODUCERS = 8;
const CALL_WORDS = 4;
const TAKEN_AT = CALLS_AT + PRODUCERS * CALLS * CALL_WORDS;

/** What a taken SYNC is noted as: it does not say whose it is. */
const SYNC = -1;

/** One of the commands of a call, as its StreamID says it. */
export const commandValue = (producer: number, call: number, place: number): number =>
  ((producer * CALLS + call + 1) << 8) | place;

const callOf = (value: number): number => (value >>> 8) - 1;
const placeOf = (value: number): number => value & 255;
const nameOf = (call: number): string => `p${Math.floor(call / CALLS)}'s list ${call % CALLS}`;

export class QueueHistory {
  readonly #ghost: Int32Array;

  constructor(ghost: Int32Array) {
    this.#ghost = ghost;
  }

  begin(producer: number, call: number, commands: number, sync: boolean): void {
    const at = callAt(producer * CALLS + call);
    this.#ghost[at] = ++this.#ghost[CLOCK]!;
    this.#ghost[at + 2] = commands;
    this.#ghost[at + 3] = sync ? 1 : 0;
  }

  end(producer: number, call: number): void {
    this.#ghost[callAt(producer * CALLS + call) + 1] = ++this.#ghost[CLOCK]!;
  }

  /** The SMMU takes a command. @returns what is wrong with that by itself, or null */
  take(value: number): string | null {
    const call = callOf(value);
    const at = callAt(call);
    const known = call >= 0 && call < PRODUCERS * CALLS && placeOf(value) < this.#ghost[at + 2]!;
    if (!known) return `the SMMU takes a command that nobody gave: 0x${value.toString(16)}`;
    for (let i = 0; i < this.taken; i++)
      if (this.value(i) === value) return `the SMMU takes command ${placeOf(value)} of ${nameOf(call)} again`;
    this.#take(value);
    return null;
  }

  takeSync(): void {
    this.#take(SYNC);
  }

  /** Whether all of a call's commands were taken, and a SYNC behind the last one. */
  synced(producer: number, call: number): boolean {
    const last = commandValue(producer, call, this.#ghost[callAt(producer * CALLS + call) + 2]! - 1);
    for (let i = 0; i + 1 < this.taken; i++) if (this.value(i) === last) return this.value(i + 1) === SYNC;
    return false;
  }

  get taken(): number {
    return this.#ghost[TAKEN]!;
  }

  /** @returns null when the history is one that a sequential queue of `size` slots can have; else what it was */
  explain(size: number): string | null {
    const history: Operation<Op>[] = [];
    for (let call = 0; call < PRODUCERS * CALLS; call++) {
      const at = callAt(call);
      const [begin, end, commands, sync] = this.#ghost.subarray(at, at + CALL_WORDS) as unknown as number[];
      if (begin === 0) continue;
      const times = { begin: begin!, end: end === 0 ? Number.POSITIVE_INFINITY : end! };
      history.push({ op: { kind: 'put', call, slots: commands! + sync! }, ...times });
      // A call with a SYNC is over when the SMMU is past it.
      if (sync === 1) history.push({ op: { kind: 'passed', call }, ...times });
    }
    for (let i = 0; i < this.taken; i++) {
      const time = this.#ghost[TAKEN_AT + 2 * i + 1]!;
      history.push({ op: { kind: 'take', value: this.value(i) }, begin: time, end: time });
    }
    const commands = (call: number): number => this.#ghost[callAt(call) + 2]!;
    return linearize(history, queueObject(size, commands, this.#order())) === null ? this.#story() : null;
  }

  value(i: number): number {
    return this.#ghost[TAKEN_AT + 2 * i]!;
  }

  #take(value: number): void {
    const at = TAKEN_AT + 2 * this.#ghost[TAKEN]!++;
    if (at + 1 >= this.#ghost.length) throw new RangeError('the scenario gives more commands than are kept');
    this.#ghost[at] = value;
    this.#ghost[at + 1] = ++this.#ghost[CLOCK]!;
  }

  /** Calls by their first command that was taken. */
  #order(): number[] {
    const order: number[] = [];
    for (let i = 0; i < this.taken; i++)
      if (this.value(i) !== SYNC && placeOf(this.value(i)) === 0) order.push(callOf(this.value(i)));
    return order;
  }

  #story(): string {
    const calls: string[] = [];
    for (let call = 0; call < PRODUCERS * CALLS; call++) {
      const at = callAt(call);
      if (this.#ghost[at] !== 0)
        calls.push(`${nameOf(call)}: ${this.#ghost[at + 2]} in ${this.#ghost[at]}..${this.#ghost[at + 1]}`);
    }
    const taken = Array.from({ length: this.taken }, (_, i) => {
      const value = this.value(i);
      return value === SYNC ? 'SYNC' : `${nameOf(callOf(value))}/${placeOf(value)}`;
    });
    return `no order of a sequential queue explains: ${calls.join(', ')}; taken: ${taken.join(' ')}`;
  }
}

const callAt = (call: number): number => CALLS_AT + call * CALL_WORDS;

type Op =
  | { readonly kind: 'put'; readonly call: number; readonly slots: number }
  | { readonly kind: 'take'; readonly value: number }
  | { readonly kind: 'passed'; readonly call: number };

interface State {
  /** Calls on the queue, oldest first, and how much of the oldest has been taken. */
  readonly calls: readonly { readonly call: number; readonly slots: number }[];
  readonly takenOfFirst: number;
  readonly used: number;
  readonly puts: number;
  /** Calls that are through. */
  readonly passed: ReadonlySet<number>;
}

/**
 * A bounded first-in first-out queue: a list is put as a whole where it fits, and taken slot by slot.
 * @param order  in which lists were taken: as they have been put, so that no other order need be tried
 */
function queueObject(
  size: number,
  commands: (call: number) => number,
  order: readonly number[],
): SequentialObject<State, Op> {
  return {
    initial: { calls: [], takenOfFirst: 0, used: 0, puts: 0, passed: new Set() },
    key: ({ puts, used, takenOfFirst }) => `${puts} ${used} ${takenOfFirst}`,
    apply(state, op) {
      const { calls, takenOfFirst, used, passed } = state;
      switch (op.kind) {
        case 'put':
          if (used + op.slots > size) return null;
          if (state.puts < order.length && order[state.puts] !== op.call) return null;
          return { ...state, calls: [...calls, op], used: used + op.slots, puts: state.puts + 1 };
        case 'passed':
          return passed.has(op.call) ? state : null;
        case 'take': {
          const [first] = calls;
          if (first === undefined) return null;
          const n = commands(first.call);
          const due = takenOfFirst < n ? ((first.call + 1) << 8) | takenOfFirst : SYNC;
          if (op.value !== due) return null;
          if (takenOfFirst + 1 < first.slots)
            return { ...state, takenOfFirst: takenOfFirst + 1, used: used - 1 };
          return {
            ...state,
            calls: calls.slice(1),
            takenOfFirst: 0,
            used: used - 1,
            passed: new Set(passed).add(first.call),
          };
        }
      }
    },
  };
}
