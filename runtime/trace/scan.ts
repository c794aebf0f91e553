/** Reads the pieces of a line: names, atoms, and the `{...}` and `[...]` of `tree.ts`. */
import { TraceError } from './call.js';
import { clip, type Tree } from './tree.js';

/** Nested more than any struct is. */
const MAX_DEPTH = 8;
const ATOM = /[-+\w|:.]+/y;
const NAME = /[A-Za-z_]\w*/y;
const BLANK = /\s+/y;

export class Scanner {
  readonly text: string;
  at: number;

  constructor(text: string, at = 0) {
    this.text = text;
    this.at = at;
  }

  get done(): boolean {
    this.skip();
    return this.at >= this.text.length;
  }

  /** Blanks and comments. @throws TraceError a comment that does not end */
  skip(): void {
    for (;;) {
      this.match(BLANK);
      if (!this.text.startsWith('/*', this.at)) return;
      const end = this.text.indexOf('*/', this.at + 2);
      if (end < 0) throw this.error('a comment that does not end');
      this.at = end + 2;
    }
  }

  /** Takes `token` if it is next. */
  take(token: string): boolean {
    this.skip();
    if (!this.text.startsWith(token, this.at)) return false;
    this.at += token.length;
    return true;
  }

  /** @throws TraceError something else is next */
  expect(token: string): void {
    if (!this.take(token)) throw this.error(`'${token}' expected`);
  }

  /** What a sticky expression matches here, or undefined. */
  match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0];
    if (found !== undefined) this.at += found.length;
    return found;
  }

  name(): string | undefined {
    this.skip();
    return this.match(NAME);
  }

  /** @throws TraceError no value is next */
  tree(depth = 0): Tree {
    if (depth > MAX_DEPTH) throw this.error('nested too deeply');
    if (this.take('{')) return this.#node(depth);
    if (this.take('[')) return this.#list(depth);
    this.skip();
    const atom = this.match(ATOM);
    if (atom === undefined) throw this.error('a value expected');
    return /^-?\d{1,15}$/.test(atom) ? Number(atom) : atom;
  }

  error(what: string): TraceError {
    const next = this.at >= this.text.length ? 'the end' : `'${clip(this.text.slice(this.at))}'`;
    return new TraceError(`${what} at ${next}`);
  }

  #node(depth: number): Tree {
    const node: Record<string, Tree> = Object.create(null);
    while (!this.take('}')) {
      const name = this.name();
      if (name === undefined) throw this.error('a field expected');
      if (name in node) throw new TraceError(`'${clip(name)}' twice`);
      this.expect('=');
      node[name] = this.tree(depth + 1);
      if (!this.take(',')) {
        this.expect('}');
        break;
      }
    }
    return node;
  }

  #list(depth: number): Tree {
    const list: Tree[] = [];
    while (!this.take(']')) {
      list.push(this.tree(depth + 1));
      if (!this.take(',')) {
        this.expect(']');
        break;
      }
    }
    return list;
  }
}
