/**
 * Prefixes of schedules, each a node that knows its last choice and the node before: what two prefixes begin with
 * they share. Two words a node, so that a search may put off millions of them.
 */
const FIRST_NODES = 4096;

/** The empty prefix. */
export const ROOT = 0;

export class ScheduleTree {
  #parents = new Int32Array(FIRST_NODES);
  #choices = new Int32Array(FIRST_NODES);
  #nodes = 1;

  get nodes(): number {
    return this.#nodes;
  }

  /** @returns the prefix that goes on with `choice` */
  add(parent: number, choice: number): number {
    const node = this.#nodes++;
    if (node === this.#parents.length) {
      this.#parents = grown(this.#parents);
      this.#choices = grown(this.#choices);
    }
    this.#parents[node] = parent;
    this.#choices[node] = choice;
    return node;
  }

  /** The last choice of a prefix. */
  choice(node: number): number {
    return this.#choices[node]!;
  }

  /** All prefixes of a prefix, the shortest first, without the empty one. */
  path(node: number): number[] {
    const nodes: number[] = [];
    for (let at = node; at !== ROOT; at = this.#parents[at]!) nodes.push(at);
    return nodes.reverse();
  }
}

/** First in, first out; integers only. */
export class IntQueue {
  #items = new Int32Array(FIRST_NODES);
  #first = 0;
  #end = 0;

  get length(): number {
    return this.#end - this.#first;
  }

  push(item: number): void {
    if (this.#end === this.#items.length) this.#items = grown(this.#items);
    this.#items[this.#end++] = item;
  }

  /** @returns undefined when it is empty */
  shift(): number | undefined {
    return this.#first === this.#end ? undefined : this.#items[this.#first++];
  }
}

function grown(items: Int32Array): Int32Array<ArrayBuffer> {
  const next = new Int32Array(items.length * 2);
  next.set(items);
  return next;
}
