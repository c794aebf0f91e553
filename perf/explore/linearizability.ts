/**
 * Whether a history of concurrent operations could have come from a sequential object: an order of all operations that
 * the object allows, in which whatever ended before another began comes first. The search of Wing and Gong, "Testing
 * and verifying concurrent objects" (1993), with Lowe's memory of what has been tried.
 */

export interface Operation<Op> {
  readonly op: Op;
  /** When it began and when it was over, on one clock; Infinity: never. */
  readonly begin: number;
  readonly end: number;
}

/** The object, one operation at a time. States are values: apply() leaves the one it is given alone. */
export interface SequentialObject<State, Op> {
  readonly initial: State;
  /** @returns the state after it; null when the object would not do this now */
  apply(state: State, op: Op): State | null;
  /** Equal for equal states. */
  key(state: State): string;
}

/**
 * Operations that never ended count as ones that may have taken effect or not.
 * @returns the operations in an order that explains the history; null when there is none
 */
export function linearize<State, Op>(
  history: readonly Operation<Op>[],
  object: SequentialObject<State, Op>,
): readonly Op[] | null {
  const operations = [...history].sort((a, b) => a.begin - b.begin);
  const done = new Uint8Array(operations.length);
  const tried = new Set<string>();
  const order: Op[] = [];
  return search(object.initial, 0) ? order : null;

  function search(state: State, from: number): boolean {
    let first = from;
    while (done[first] === 1) first++;
    if (complete(first)) return true;
    const latest = earliestEnd(first);
    const choices: number[] = [];
    for (let i = first; i < operations.length && operations[i]!.begin <= latest; i++)
      if (done[i] === 0) choices.push(i);
    // Whatever is over first is the likeliest to have come first.
    choices.sort((a, b) => operations[a]!.end - operations[b]!.end);
    // Without a choice there is nothing to come back to.
    if (choices.length > 1) {
      const seen = `${done.join('')} ${object.key(state)}`;
      if (tried.has(seen)) return false;
      tried.add(seen);
    }
    for (const i of choices) {
      const { op } = operations[i]!;
      const next = object.apply(state, op);
      if (next === null) continue;
      done[i] = 1;
      order.push(op);
      if (search(next, first)) return true;
      done[i] = 0;
      order.pop();
    }
    return false;
  }

  function complete(from: number): boolean {
    for (let i = from; i < operations.length; i++)
      if (done[i] === 0 && operations[i]!.end !== Number.POSITIVE_INFINITY) return false;
    return true;
  }

  /** Whatever begins after this has to wait for an operation that is not in the order yet. */
  function earliestEnd(from: number): number {
    let end = Number.POSITIVE_INFINITY;
    for (let i = from; i < operations.length && operations[i]!.begin <= end; i++)
      if (done[i] === 0 && operations[i]!.end < end) end = operations[i]!.end;
    return end;
  }
}
