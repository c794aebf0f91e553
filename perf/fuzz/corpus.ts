/**
 * Inputs worth keeping: each made something happen that none before it had. On disk a target's corpus is one file
 * of JSON lines, an input a line, its words in hexadecimal; a file that another version wrote is read as far as
 * it makes sense, because an input is only a starting point.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { OP_WORDS } from './target.js';

/** Inputs kept in memory; later finds replace the oldest. */
const MAX_INPUTS = 4096;
/** Outcomes, and pairs of outcomes in a row, are told apart by this many bits of a hash. */
const FEATURE_BITS = 18;

export class Corpus {
  readonly inputs: Uint32Array[] = [];
  /** Found in this run. */
  readonly found: Uint32Array[] = [];
  readonly #seen = new Uint8Array(2 ** FEATURE_BITS);
  #features = 0;
  #oldest = 0;

  constructor(inputs: readonly Uint32Array[] = []) {
    this.inputs.push(...inputs.slice(-MAX_INPUTS));
  }

  /** Different things that were seen to happen. */
  get features(): number {
    return this.#features;
  }

  /** Notes that `outcome` came after `before`. @returns whether that was new */
  note(before: number, outcome: number): boolean {
    const first = this.#mark(Math.imul(outcome, 0x9e37_79b1));
    return this.#mark(Math.imul(outcome ^ Math.imul(before, 0x85eb_ca6b), 0xc2b2_ae35)) || first;
  }

  add(input: Uint32Array): void {
    this.found.push(input);
    if (this.inputs.length < MAX_INPUTS) this.inputs.push(input);
    else {
      this.inputs[this.#oldest] = input;
      this.#oldest = (this.#oldest + 1) % MAX_INPUTS;
    }
  }

  #mark(hash: number): boolean {
    const bit = hash >>> (32 - FEATURE_BITS);
    if (this.#seen[bit] === 1) return false;
    this.#seen[bit] = 1;
    this.#features++;
    return true;
  }
}

const fileOf = (folder: string, target: string): string => join(folder, `${target}.jsonl`);

/** @returns the inputs that a folder keeps for a target; none when there is no file */
export function loadCorpus(folder: string, target: string): Uint32Array[] {
  const file = fileOf(folder, target);
  if (!existsSync(file)) return [];
  const inputs: Uint32Array[] = [];
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    const input = parseInput(line);
    if (input !== null) inputs.push(input);
  }
  return inputs;
}

/** Appends inputs to a target's file; the folder is there (report/folder.ts). */
export function saveCorpus(folder: string, target: string, inputs: readonly Uint32Array[]): void {
  if (inputs.length === 0) return;
  appendFileSync(fileOf(folder, target), `${inputs.map(formatInput).join('\n')}\n`);
}

export const formatInput = (input: Uint32Array): string =>
  JSON.stringify(Array.from(input, (word) => word.toString(16)).join(' '));

/** @returns null when the line holds no whole operations */
export function parseInput(line: string): Uint32Array | null {
  const text = /^"([0-9a-f ]+)"$/.exec(line)?.[1];
  if (text === undefined) return null;
  const words = text.split(' ').map((word) => Number.parseInt(word, 16));
  if (words.length % OP_WORDS !== 0 || words.some((word) => !(word >= 0 && word <= 0xffff_ffff))) return null;
  return Uint32Array.from(words);
}
